"""What a model is at this moment: changes whenever anything that its forward may depend on does."""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device)
_TENSORS = ("_parameters", "_buffers", "_modules")
_DEEP, _MANY = 3, 200  # of what hangs on one module; what lies beyond is known by its identity


def fingerprint(model: nn.Module) -> tuple:
    """Weights, buffers, attributes of any kind, and hooks, as something hashable that is compared with ==.

    Fused optimisers and ``.data`` leave torch's version counters as they were, so the numbers are looked at:
    the sum and the norm of each tensor, a small part of what one pass reads.
    """
    tensors = [*model.parameters(), *model.buffers()]
    attributes = tuple(tuple(_attributes(module, tensors)) for module in model.modules())
    with torch.inference_mode(False), torch.no_grad():
        return tuple(map(_identity, tensors)), _sums(tensor.detach() for tensor in tensors), attributes


def _identity(tensor: Tensor) -> tuple:
    place = tensor.data_ptr() if tensor.layout == torch.strided else None
    return id(tensor), place, None if tensor.is_inference() else tensor._version


def _sums(tensors: Iterable[Tensor]) -> tuple[str, ...]:
    """The sum and the norm of each tensor of real numbers, fetched from each device at once, type by type."""
    found: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for tensor in tensors:
        numbers = tensor if tensor.layout == torch.strided else _entries(tensor)
        if not numbers.is_floating_point() or not numbers.numel():
            continue
        if numbers.element_size() == 1:  # 8-bit floats can't be added
            numbers = numbers.view(torch.uint8).double()
        found.setdefault((numbers.device, numbers.dtype), []).extend((numbers.sum(), numbers.norm()))
    # As texts: NaN is not equal to itself.
    return tuple(str(number) for numbers in found.values() for number in torch.stack(numbers).tolist())


def _entries(tensor: Tensor) -> Tensor:
    return tensor.coalesce().values() if tensor.layout == torch.sparse_coo else tensor.values()


def _attributes(module: nn.Module, tensors: list[Tensor]) -> Iterator[Any]:
    """Flags, numbers, texts and whatever holds such; tensors among them join the others."""
    left = [_MANY]
    for name, value in vars(module).items():
        if isinstance(value, _PLAIN):
            yield name, str(value) if isinstance(value, float) else value
        elif name not in _TENSORS and not (isinstance(value, dict) and not value):
            yield name, _told(value, _DEEP, left, tensors)


def _told(value: Any, deep: int, left: list[int], tensors: list[Tensor]) -> Any:
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
