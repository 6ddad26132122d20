"""Hashes of the values of tensors and arrays: of a bounded sample on each update, of all bytes in slices."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import xxhash
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from saliency_widgets.runtime.model.walker import is_array

_SAMPLE = 2**20  # bytes, of all tensors together
_RUN = 256  # contiguous bytes that are read together: reaching them takes longer than reading them
_SLICE = 2**24
_BLOCK = 4096


def digest(array: Any) -> int:
    """Return a hash of a NumPy array's bytes."""
    raw: Any = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return xxhash.xxh3_64_intdigest(raw) if array.size else 0


def numbers_in(value: Any) -> Any:
    """Return a hashable description of an array's values, or of the state of a random number generator."""
    if is_array(value):
        objects = [*map(id, value.ravel().tolist())] if value.dtype.hasobject else digest(np.asarray(value))
        mask = getattr(value, "mask", None)
        return value.shape, value.dtype.str, objects, None if mask is None else digest(mask)
    if isinstance(value, torch.Generator):
        return digest(value.get_state().numpy())
    if hasattr(value, "get_state"):  # numpy.random.RandomState
        state = value.get_state()
        return digest(state[1]), state[2:]
    state = value.getstate() if hasattr(value, "getstate") else getattr(value, "bit_generator", value)
    return str(getattr(state, "state", state))


class TensorHash:
    """Hashes the current state of a list of tensors each time it is called.

    Args:
        tensors: The tensors.
        sample: The number of bytes read of all tensors together, in runs spread over each; None for all bytes.
        weights: Whether the values of parameters are read, too.
    """

    def __init__(self, tensors: list[Tensor], sample: int | None = _SAMPLE, *, weights: bool = True) -> None:
        self._tensors, self._sample, self._weights = tensors, sample, weights
        self._placed: tuple[list, list] | None = None
        self._look: Callable[[], list[int]] = list
        self._large: list[Tensor] = []

    def __call__(self) -> tuple[list, list, list]:
        """Return the addresses and forms of the tensors, torch's version counters, and hashes of the sample."""
        placed, before = self._current(), self._placed
        with torch.inference_mode(False), torch.no_grad():
            if before is None or placed[0] != before[0]:
                self._read([t.detach() for t in self._tensors if self._weights or not isinstance(t, nn.Parameter)])
            elif placed[1] == before[1]:
                placed = before  # the same lists, so that comparing states takes no time
            self._placed = placed
            return *placed, self._look()

    def moved(self) -> bool:
        """Return whether an address, form or version counter has changed since the last call; no values are read."""
        return self._current() != self._placed

    def _current(self) -> tuple[list, list]:
        try:
            counters: list[Any] = list(map(_counter, self._tensors))
        except RuntimeError:  # tensors made in inference mode have no counter
            counters = [None if tensor.is_inference() else tensor._version for tensor in self._tensors]
        return forms_of(self._tensors), counters

    def _read(self, tensors: list[Tensor]) -> None:
        most = None if self._sample is None else max(self._sample // max(len(tensors), 1), 4 * _RUN)
        host, device, odd, self._large = [], [], [], []
        for tensor in tensors:
            size = 0 if is_empty(tensor) else tensor.numel() * tensor.element_size()
            flat = _bytes_of(tensor) if size else None
            if size and most is not None and size > most:
                self._large.append(tensor)
                flat = None if flat is None else _spread(flat, most)
            elif size and flat is None:
                odd.append(tensor)
            if flat is not None:
                (host if flat.device.type == "cpu" else device).append(flat)
        whole: list[Any] = [flat.numpy() for flat in host if flat.ndim == 1]
        runs: list[Any] = [flat.numpy() for flat in host if flat.ndim == 2]

        def look() -> list[int]:
            state = xxhash.xxh3_64()
            for part in [*whole, np.concatenate(runs)] if runs else whole:
                state.update(part)
            return [state.intdigest(), *map(_hash_of, odd), *_on_devices(device)]

        self._look = look

    def slices(self) -> list[Callable[[], int]]:
        """Return functions that each hash one slice of the tensors of which only a sample is read."""
        slices: list[Callable[[], int]] = []
        for tensor in self._large:
            flat = _bytes_of(tensor)
            pieces = [tensor] if flat is None else flat.split(_SLICE)
            slices += [functools.partial(_hash_of, piece) for piece in pieces]
        return slices


def is_empty(tensor: Tensor) -> bool:
    """Return whether a tensor has no values: on the meta device, as in a model's skeleton, or torch's FakeTensor."""
    return tensor.is_meta or isinstance(tensor, torch._subclasses.FakeTensor)


def is_odd(tensor: Tensor) -> bool:
    """Return whether a tensor isn't strided in a single storage: sparse, nested, or a wrapper of other tensors."""
    return tensor.layout != torch.strided or tensor.is_nested or is_traceable_wrapper_subclass(tensor)


_counter = operator.attrgetter("_version")
_FORMS: tuple[Callable[[Tensor], Any], ...] = (
    *(id, Tensor.data_ptr, Tensor.stride, Tensor.is_conj),
    operator.attrgetter("shape", "dtype"),
)


def forms_of(tensors: list[Tensor]) -> list[Any]:
    """Return the identities, addresses, strides, shapes and dtypes of tensors."""
    try:
        return [form for look in _FORMS for form in map(look, tensors)]
    except RuntimeError:  # a tensor has no address
        odd = (is_odd(tensor) or is_empty(tensor) for tensor in tensors)
        looks = (_FORMS[:1] if without else _FORMS for without in odd)
        return [(*(look(tensor) for look in some), tensor.layout) for tensor, some in zip(tensors, looks, strict=True)]


def _bytes_of(tensor: Tensor) -> Tensor | None:
    """Return all bytes in memory order without a copy; None if there are gaps or the layout isn't a plain one."""
    if is_odd(tensor) or tensor.is_quantized or tensor.is_neg():
        return None
    tensor = tensor.conj() if tensor.is_conj() else tensor
    if not tensor.is_contiguous():
        if not torch.ops.aten.is_non_overlapping_and_dense(tensor):
            return None
        tensor = tensor.as_strided((tensor.numel(),), (1,))
    return tensor.view(-1).view(torch.uint8)


def _spread(flat: Tensor, most: int) -> Tensor:
    """Return evenly spread runs of bytes, shape (N, 256)."""
    count = most // _RUN
    step = (len(flat) - _RUN) // (count - 1) // _RUN * _RUN
    return flat.as_strided((count, _RUN), (step, 1))


_ROWS, _COLUMNS = ("crow_indices", "col_indices", "values"), ("ccol_indices", "row_indices", "values")
_SPARSE = {
    torch.sparse_coo: ("_indices", "_values"),
    **dict.fromkeys((torch.sparse_csr, torch.sparse_bsr), _ROWS),
    **dict.fromkeys((torch.sparse_csc, torch.sparse_bsc), _COLUMNS),
}


def _dense(tensor: Tensor) -> list[Tensor]:
    """Return the strided tensors that a tensor of any layout consists of."""
    if is_traceable_wrapper_subclass(tensor):
        return [part for name in tensor.__tensor_flatten__()[0] for part in _dense(getattr(tensor, name))]
    if tensor.is_quantized:
        return [tensor.int_repr()]
    if tensor.is_nested:
        return [part for piece in tensor.unbind() for part in _dense(piece)]
    if tensor.layout in _SPARSE:
        return [part for name in _SPARSE[tensor.layout] for part in _dense(getattr(tensor, name)())]
    if tensor.layout != torch.strided:
        return [tensor.to_dense()]
    return [torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor.resolve_neg()]


def _hash_of(tensor: Tensor) -> int:
    with torch.inference_mode(False), torch.no_grad():
        if tensor.dtype == torch.uint8 and tensor.ndim == 1 and not is_odd(tensor):
            return digest(tensor.numpy()) if tensor.device.type == "cpu" else int(_weighted(tensor))
        parts = (part.cpu().contiguous().reshape(-1).view(torch.uint8).numpy() for part in _dense(tensor))
        return hash(tuple(map(digest, parts)))


def _on_devices(parts: list[Tensor]) -> list[int]:
    """Return one hash per device, with a single transfer from each."""
    devices = dict.fromkeys(part.device for part in parts)
    return [int(_weighted(torch.cat([p.reshape(-1) for p in parts if p.device == device]))) for device in devices]


def _weighted(flat: Tensor) -> Tensor:
    """Return a weighted sum of bytes, taken as 32-bit words, on their device.

    The weights are fixed, random and odd: changing, moving, swapping or reversing values changes the sum.
    """
    flat = torch.nn.functional.pad(flat, (0, -len(flat) % (4 * _BLOCK)))
    words = flat.view(torch.int32).view(-1, _BLOCK)
    sums = (words * _random(_BLOCK, flat.device)).sum(1)
    return (sums * _random(1 << (len(sums) - 1).bit_length(), flat.device)[: len(sums)]).sum()


@functools.lru_cache(64)
def _random(size: int, device: torch.device) -> Tensor:
    generator = torch.Generator("cpu").manual_seed(size)
    drawn = torch.randint(2**30, (size,), generator=generator, dtype=torch.int64, device="cpu")
    return (2 * drawn + 1).to(torch.int32).to(device)
