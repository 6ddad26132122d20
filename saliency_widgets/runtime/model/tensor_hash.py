"""What tensors and arrays hold, as a few numbers that are others when a single bit is."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import xxhash
from torch import Tensor


def digest(array: Any) -> int:
    """Of a NumPy array's bytes, whatever they mean."""
    raw: Any = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return xxhash.xxh3_64_intdigest(raw) if array.size else 0


class TensorHash:
    """Looks at tensors again and again; where they lie as they did, nothing but their numbers is read."""

    def __init__(self) -> None:
        self._places: list[tuple] | None = None
        self._look: Callable[[], list[int]] = list

    def __call__(self, tensors: list[Tensor]) -> tuple[list, list, list]:
        """Where they are and in what form; torch's version counters; and digests of what they hold."""
        with torch.inference_mode(False), torch.no_grad():
            try:
                places: list[Any] = [look for place in _PLACES for look in map(place, tensors)]
                versions: list[int | None] = [t._version for t in tensors]
            except RuntimeError:  # of tensors that lie in another way, or were made in inference mode
                places = [(id(t), str(t.layout), t.dtype) if _is_odd(t) else _place(t) for t in tensors]
                versions = [None if t.is_inference() else t._version for t in tensors]
            if places != self._places:
                self._places, self._look = places, _looking([tensor.detach() for tensor in tensors])
            return places, versions, self._look()


def is_empty(tensor: Tensor) -> bool:
    """Whether it has a form and no numbers: on the meta device, as skeletons of modules are, or torch's FakeTensor."""
    return tensor.is_meta or isinstance(tensor, torch._subclasses.FakeTensor)


def _is_odd(tensor: Tensor) -> bool:
    return tensor.layout != torch.strided or tensor.is_nested


# Each for all tensors at once: a few hundred of them are asked at every move.
_PLACES: tuple[Callable[[Tensor], Any], ...] = (
    *(id, Tensor.data_ptr, operator.attrgetter("shape"), Tensor.stride),
    *(operator.attrgetter("dtype"), Tensor.is_conj),
)


def _place(tensor: Tensor) -> tuple:
    return tuple([place(tensor) for place in _PLACES])


def _looking(tensors: list[Tensor]) -> Callable[[], list[int]]:
    """Gives digests of all their numbers: one of what is on the host, and one of each tensor on a device."""
    views: list[Any] = []
    away: list[Tensor] = []
    odd: list[Tensor] = []
    for tensor in tensors:
        if is_empty(tensor):
            continue
        flat = None if _is_odd(tensor) or tensor.is_quantized else _flat(tensor)
        if flat is None:
            odd.append(tensor)
        elif flat.device.type == "cpu":
            views.append(_bytes(flat))
        elif flat.numel():
            away.append(flat.view(_WORDS[flat.element_size()]))

    def look() -> list[int]:
        host = xxhash.xxh3_64()
        for view in views:
            host.update(view)
        for tensor in odd:
            for part in _parts(tensor):
                host.update(_bytes(part.cpu().contiguous().reshape(-1)))
        return [host.intdigest(), *_fetched([_weighted(words) for words in away])]

    return look


_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int32, 16: torch.int32}
_BLOCK = 4096


def _bytes(flat: Tensor) -> Any:
    return flat.view(torch.uint8).numpy()


def _flat(tensor: Tensor) -> Tensor | None:
    """All its numbers in a row, in the order in which they lie; None where they don't lie close."""
    tensor = tensor.conj() if tensor.is_conj() else tensor
    if tensor.is_neg():
        return None
    if tensor.is_contiguous():
        return tensor.view(-1)
    return tensor.as_strided((tensor.numel(),), (1,)) if torch.ops.aten.is_non_overlapping_and_dense(tensor) else None


def _parts(tensor: Tensor) -> list[Tensor]:
    """What is in a tensor that isn't just numbers in a row."""
    if tensor.is_quantized:
        return [tensor.int_repr()]
    if tensor.is_nested:
        return [part for piece in tensor.unbind() for part in ([piece] if not _is_odd(piece) else _parts(piece))]
    if tensor.layout == torch.sparse_coo:
        return [tensor._indices(), *_parts(tensor._values())]
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return [tensor.crow_indices(), tensor.col_indices(), *_parts(tensor.values())]
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        return [tensor.ccol_indices(), tensor.row_indices(), *_parts(tensor.values())]
    if tensor.layout != torch.strided:
        return [tensor.to_dense()]
    return [torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor.resolve_neg()]


def _fetched(numbers: list[Tensor]) -> list[int]:
    """Numbers of several devices, with one transfer of each."""
    found: dict[torch.device, list[Tensor]] = {}
    for number in numbers:
        found.setdefault(number.device, []).append(number)
    return [value for some in found.values() for value in torch.stack(some).tolist()]


def _weighted(words: Tensor) -> Tensor:
    """One whole number that stands for many, wherever they are: of a device, only this is fetched.

    The weights are fixed, random and odd: what is changed, moved, exchanged or turned round changes the sum.
    """
    whole = words.numel() // _BLOCK * _BLOCK
    weights = _random(_BLOCK, words.device)
    rest = (words[whole:] * weights[: words.numel() - whole]).sum()
    if not whole:
        return rest
    sums = (words[:whole].view(-1, _BLOCK) * weights).sum(1)
    return (sums * _random(1 << (len(sums) - 1).bit_length(), words.device)[: len(sums)]).sum() + rest


@functools.lru_cache(64)
def _random(size: int, device: torch.device) -> Tensor:
    generator = torch.Generator("cpu").manual_seed(size)
    drawn = torch.randint(2**30, (size,), generator=generator, dtype=torch.int64, device="cpu")
    return (2 * drawn + 1).to(torch.int32).to(device)
