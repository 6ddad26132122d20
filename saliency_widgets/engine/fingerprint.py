"""What a model is at this moment: changes whenever anything that its forward may depend on does."""

from __future__ import annotations

import functools
import operator
import types
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device)
_TENSORS = ("_parameters", "_buffers", "_modules")
_DEEP, _MANY = 3, 200  # of what hangs on one module; what lies beyond is known by its identity


_REMEMBERED = 16


class Fingerprint:
    """Tells versions of one model apart: called, it gives the same number for the same state, and another for another.

    Weights, buffers, attributes of any kind, and hooks count. Fused optimisers and ``.data`` leave torch's version
    counters as they were, so the numbers are looked at: a weighted sum of each tensor, a small part of what one pass
    reads. What is as it was the last time is not gone through again.

    Args:
        model: The model.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._modules: dict[int, _Seen] = {}
        self._numbers = _Numbers()
        self._versions: OrderedDict[tuple, int] = OrderedDict()
        self._last: tuple[tuple, int] | None = None
        self._count = 0

    def __call__(self) -> int:
        """The number of the version that the model is now; of the last few versions, the one it had then."""
        tensors: list[Tensor | None] = []
        seen: dict[int, _Seen] = {}
        told = []
        ahead = [self._model]
        for module in ahead:
            key = id(module)
            if key not in seen:
                known = seen[key] = self._modules.get(key) or _Seen(module)
                told.append(known.told(tensors))
                ahead += known.children()
        self._modules = seen
        state = (told, *self._numbers([tensor for tensor in tensors if tensor is not None]))
        if self._last is None or self._last[0] != state:
            self._last = state, self._version(tuple(map(tuple, state)))
        return self._last[1]

    def _version(self, state: tuple) -> int:
        if state not in self._versions:
            self._count += 1
            self._versions[state] = self._count
            if len(self._versions) > _REMEMBERED:
                self._versions.popitem(last=False)
        return self._versions[state]


class _Seen:
    """A module's attributes, as they were."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._attributes = vars(module)
        self._values: list[Any] = []
        self._empty: list[Any] = []
        self._others: list[tuple[str, Any]] = []
        self._plain: tuple = ()

    def told(self, tensors: list[Tensor | None]) -> Any:
        """Something hashable that is another when an attribute is; its weights and buffers join the others."""
        attributes = self._attributes
        same = len(attributes) == len(self._values) and all(map(operator.is_, self._values, attributes.values()))
        if not same or any(self._empty):
            self._read()
        tensors += self._module._parameters.values()
        tensors += self._module._buffers.values()
        if not self._others:
            return self._plain
        left = [_MANY]
        return self._plain, tuple([(name, _told(value, _DEEP, left, tensors)) for name, value in self._others])

    def children(self) -> Iterable[nn.Module]:
        """The modules inside it."""
        return [child for child in self._module._modules.values() if child is not None]

    def _read(self) -> None:
        self._attributes = vars(self._module)
        self._values, self._empty, self._others = list(self._attributes.values()), [], []
        plain: list[Any] = [id(self._module), type(self._module)]
        for name, value in self._attributes.items():
            if _is_fixed(value):
                plain.append((name, _told(value, _DEEP, [_MANY], [])))
            elif name in _TENSORS:
                continue
            elif type(value) in (dict, OrderedDict, set, list) and not value:
                self._empty.append(value)  # most of a module's attributes: no hooks
            else:
                self._others.append((name, value))
        self._plain = _Tuple(plain)


def _is_fixed(value: Any) -> bool:
    """Whether it can't change and stay the same object."""
    return isinstance(value, _PLAIN) or (isinstance(value, tuple) and all(map(_is_fixed, value)))


class _Tuple(tuple):
    """A tuple that is hashed once."""

    def __hash__(self) -> int:
        found = self.__dict__.get("hash")
        if found is None:
            found = self.__dict__["hash"] = super().__hash__()
        return found


class _Numbers:
    """What tensors hold, as a few numbers."""

    def __init__(self) -> None:
        self._places: list[tuple] = []
        self._sums: Callable[[], list[str]] = list

    def __call__(self, tensors: list[Tensor]) -> tuple[list, list, list]:
        with torch.inference_mode(False), torch.no_grad():
            try:
                places: list[tuple] = [(id(t), t.data_ptr(), t.shape, t.stride()) for t in tensors]
                versions: list[int | None] = [t._version for t in tensors]
            except RuntimeError:  # of tensors that lie in another way, or were made in inference mode
                places = list(map(_place, tensors))
                versions = [None if t.is_inference() else t._version for t in tensors]
            if places != self._places:
                self._places, self._sums = places, _summing([tensor.detach() for tensor in tensors])
            return places, versions, self._sums()


def _place(tensor: Tensor) -> tuple:
    """Where a tensor is, and in what form."""
    if tensor.layout != torch.strided:
        return id(tensor), None, tensor.shape
    return id(tensor), tensor.data_ptr(), tensor.shape, tensor.stride()


_BLOCK = 4096


def _summing(tensors: list[Tensor]) -> Callable[[], list[str]]:
    """Gives a weighted sum of all their numbers, fetched from each device at once, type by type.

    The weights are fixed and random: what is moved, exchanged or turned round changes the sum, as a plain one does not.
    """
    blocks: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    rests: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    odd: list[Tensor] = []
    for tensor in tensors:
        key = tensor.device, tensor.dtype
        flat = _flat(tensor) if tensor.layout == torch.strided else None
        if not tensor.numel():
            continue
        if flat is None or flat.element_size() == 1 or flat.is_complex():
            odd.append(tensor)
            continue
        whole = flat.numel() // _BLOCK * _BLOCK if flat.is_floating_point() else 0
        if whole:
            blocks.setdefault(key, []).append(flat[:whole].view(-1, _BLOCK))
        if whole < flat.numel():
            rests.setdefault(key, []).append(flat[whole:])
    weights = {key: _random(_BLOCK, *key) for key in blocks}

    def sums() -> list[str]:
        found = [_weighted(torch.cat([torch.mv(rows, weights[key]) for rows in some])) for key, some in blocks.items()]
        found += [_weighted(torch.cat(some)) for some in rests.values()]
        found += [_weighted(_as_numbers(tensor)) for tensor in odd]
        # As texts: NaN is not equal to itself.
        return [str(number) for number in _fetched(found)]

    return sums


def _fetched(numbers: list[Tensor]) -> list[float]:
    """Numbers of several devices, with one transfer of each."""
    found: dict[torch.device, list[Tensor]] = {}
    for number in numbers:
        found.setdefault(number.device, []).append(number)
    return [value for some in found.values() for value in torch.stack(some).tolist()]


def _as_numbers(tensor: Tensor) -> Tensor:
    """Complex numbers, entries of sparse tensors, what doesn't lie close, and 8-bit floats, which can't be added."""
    numbers = tensor if tensor.layout == torch.strided else _entries(tensor)
    numbers = torch.view_as_real(numbers.resolve_conj()) if numbers.is_complex() else numbers
    numbers = numbers.reshape(-1)
    return numbers.view(torch.uint8) if numbers.element_size() == 1 else numbers


@functools.lru_cache(64)
def _random(size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator("cpu").manual_seed(size)
    return torch.randn(size, generator=generator, dtype=torch.float64, device="cpu").to(device, dtype)


def _weighted(numbers: Tensor) -> Tensor:
    """One number that stands for many, float64 where there is such, at the cost of reading them once."""
    device, wide = numbers.device, torch.float32 if numbers.device.type == "mps" else torch.float64
    whole = numbers.numel() // _BLOCK * _BLOCK if numbers.is_floating_point() else 0
    if whole:
        blocks = numbers[:whole].view(-1, _BLOCK) @ _random(_BLOCK, device, numbers.dtype)
        numbers = torch.cat([blocks, numbers[whole:]])
    return numbers.to(wide) @ _random(1 << max(0, numbers.numel() - 1).bit_length(), device, wide)[: numbers.numel()]


def _flat(tensor: Tensor) -> Tensor | None:
    """All its numbers in a row, in the order in which they lie; None where they don't lie close."""
    if tensor.is_contiguous():
        return tensor.view(-1)
    return tensor.as_strided((tensor.numel(),), (1,)) if torch.ops.aten.is_non_overlapping_and_dense(tensor) else None


def _entries(tensor: Tensor) -> Tensor:
    return tensor.coalesce().values() if tensor.layout == torch.sparse_coo else tensor.values()


def _told(value: Any, deep: int, left: list[int], tensors: list[Tensor | None]) -> Any:
    left[0] -= 1
    if isinstance(value, _PLAIN):
        return str(value) if isinstance(value, float) else value
    if isinstance(value, Tensor):
        tensors.append(value)
        return "tensor"
    if isinstance(value, nn.Module) or not deep or left[0] < 0:
        return id(value)
    if isinstance(value, types.MethodType):
        return id(value.__self__), id(value.__func__)
    if isinstance(value, np.ndarray):
        return value.tobytes() if value.nbytes < 4096 and value.dtype != object else (id(value), value.shape)
    if isinstance(value, Mapping):
        return tuple((str(k), _told(v, deep - 1, left, tensors)) for k, v in _first(value.items(), left))
    if isinstance(value, (list, tuple)):
        return tuple(_told(v, deep - 1, left, tensors) for v in _first(value, left))
    own = getattr(value, "__dict__", None)
    # What says itself how it is copied may be shared with the stand-ins, and count their passes.
    shared = isinstance(value, (type, types.FunctionType, types.ModuleType)) or hasattr(type(value), "__copy__")
    if shared or not isinstance(own, dict):
        return id(value)
    return id(value), *(_told(v, deep - 1, left, tensors) for v in _first(own.values(), left))


def _first(items: Iterable[Any], left: list[int]) -> list[Any]:
    return [item for item, _ in zip(items, range(max(left[0], 0)), strict=False)]


class Held:
    """An object as a part of a key: equal to itself alone, and kept alive, so that no other gets its id."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Held) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


def identity(value: Any) -> Any:
    """A hashable stand-in for an argument: numbers and names by value, objects by identity, arrays by content too.

    So an edit in place is noticed, in whatever way it was made.
    """
    if isinstance(value, Tensor):
        with torch.inference_mode(False), torch.no_grad():
            return (
                "tensor",
                Held(value),
                _place(value),
                value._version if not value.is_inference() else None,
                tuple(_summing([value.detach()])()),
            )
    if isinstance(value, np.ndarray):
        content = None if value.dtype.hasobject else zlib.crc32(np.ascontiguousarray(value).data.cast("B"))
        return ("array", Held(value), value.shape, content)
    if isinstance(value, Mapping):
        return tuple((str(key), identity(item)) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(identity(item) for item in value)
    if isinstance(value, (str, int, float, bool, type(None))):
        return (type(value).__name__, value)
    if hasattr(value, "tobytes") and hasattr(value, "getpixel"):  # a picture of PIL's
        return ("picture", Held(value), zlib.crc32(value.tobytes()))
    return ("object", Held(value))
