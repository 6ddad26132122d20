"""Layers of models that take volumes, (N, C, D, H, W): which outputs lie on a grid that covers the whole volume.

Unlike pixels (see :mod:`~.coordinates`), voxels are followed only through operations on volumes. An output is on the
grid if it was computed from the input by convolutions, poolings, resizings and elementwise operations alone. Operations
that move voxels, such as a crop, or that make tokens of them, drop the grid, so that a layer is not offered rather than
shown out of position.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from saliency_widgets.runtime.layers.coordinates import ELEMENTWISE, identity_of, is_pointwise
from saliency_widgets.runtime.layers.hooks import tensors_in
from saliency_widgets.runtime.layers.layout import Layout

_CONVOLUTIONS = frozenset(("convolution", "_convolution", "mkldnn_convolution", "cudnn_convolution", "slow_conv3d"))
_POOLINGS = frozenset(("max_pool3d_with_indices", "max_pool3d", "mkldnn_max_pool3d", "avg_pool3d"))
_RESIZINGS = frozenset(
    (
        "_adaptive_avg_pool3d", "adaptive_avg_pool3d", "adaptive_max_pool3d", "upsample_nearest3d",
        "_upsample_nearest_exact3d", "upsample_trilinear3d",
    )
)  # fmt: skip
_PADDINGS = frozenset(("constant_pad_nd", "reflection_pad3d", "replication_pad3d"))
_SIDES = 3
_VOLUME = 5  # dimensions

Padding = tuple[int, int, int]
"""The padding of each side that the next convolution or pooling has to remove; zeros on the grid."""
_EXACT: Padding = (0, 0, 0)


class VolumeGrids(TorchDispatchMode):
    """A dispatch mode that marks the tensors whose voxels cover the volume that the model takes."""

    def __init__(self) -> None:
        super().__init__()
        self._padded: dict[tuple, tuple[StorageWeakRef, Padding]] = {}

    def begin(self, inputs: Tensor) -> VolumeGrids:
        """Start with the explained volume of one sample, and return the mode, to be entered."""
        self._set(inputs, _EXACT)
        return self

    def of(self, tensor: Tensor) -> Padding | None:
        """Return the padding around the grid; None if the tensor has no grid."""
        try:
            entry = self._padded.get(identity_of(tensor))
        except (NotImplementedError, RuntimeError):  # nested tensors, and tensors inside vmap, have no storage
            return None
        return None if entry is None else entry[1]

    def placed(self, tensor: Tensor) -> Layout | None:
        """Return how to read a tensor as channels on a grid; None if it isn't on one."""
        on_grid = self.of(tensor) == _EXACT and tensor.shape[0] == 1
        return Layout(tuple(tensor.shape), 0, 1, tuple(tensor.shape[2:])) if on_grid else None

    def layout(self, positions: Layout) -> Layout:
        """Return the layout that :meth:`placed` has determined."""
        return positions

    def _set(self, tensor: Tensor, padding: Padding | None) -> None:
        if padding is None or tensor.ndim != _VOLUME or tensor.shape[2:].numel() == 1:
            self._padded.pop(identity_of(tensor), None)
        else:  # the weak reference keeps the storage's address from being reused, but not its memory
            self._padded[identity_of(tensor)] = StorageWeakRef(tensor.untyped_storage()), padding

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # True makes torch import its compiler, which takes a second

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict | None = None) -> Any:
        """Run the operation, and mark its result."""
        result = func(*args, **(kwargs or {}))
        first = result[0] if isinstance(result, (tuple, list)) and result else result
        if isinstance(first, Tensor) and first.layout == torch.strided:
            self._set(first, self._padding_of(func, args, list(tensors_in((*args, *(kwargs or {}).values()))), first))
        return result

    def _padding_of(self, func: Any, args: tuple[Any, ...], operands: list[Tensor], result: Tensor) -> Padding | None:
        name = func._schema.name.rpartition("::")[2]
        paddings = [padding for operand in operands if (padding := self.of(operand)) is not None]
        if not paddings or result.ndim != _VOLUME:
            return None
        (padding, *others) = paddings
        if name in _CONVOLUTIONS or name in _POOLINGS:
            return _EXACT if all(p <= r for p, r in zip(padding, _reach(name, args), strict=True)) else None
        if name in _RESIZINGS:
            return padding if padding == _EXACT else None
        if name in _PADDINGS:
            return _with_padding(padding, args[1])
        same = all(other == padding for other in others)
        if name == "cat":
            return (
                padding if (*args[1:2], 0)[0] in (1, 1 - _VOLUME) and same and len(paddings) == len(args[0]) else None
            )
        shapes = {tuple(operand.shape[2:]) for operand in operands if self.of(operand) is not None}
        if name in ELEMENTWISE or is_pointwise(func, name):
            return padding if same and shapes == {tuple(result.shape[2:])} else None
        return None


def _with_padding(padding: Padding, added: list[int]) -> Padding | None:
    """Return the padding after ``torch.nn.functional.pad``; None if it crops, or pads channels."""
    sides = [*added, *[0] * (2 * _SIDES - len(added))]
    if min(sides) < 0 or any(sides[2 * _SIDES :]):
        return None
    pairs = [sides[2 * k] + sides[2 * k + 1] for k in reversed(range(_SIDES))]
    return padding[0] + pairs[0], padding[1] + pairs[1], padding[2] + pairs[2]


def _reach(name: str, args: tuple[Any, ...]) -> list[int]:
    """Return the padding of each side with which a convolution or pooling covers the volume without it."""
    if name in _CONVOLUTIONS:
        kernel, stride, dilation = args[1].shape[2:], args[3], args[5]
    else:
        kernel, stride, dilation = args[1], (*args[2:3], args[1])[0] or args[1], [1]
    sizes = [list(value) * _SIDES if len(value) == 1 else list(value) for value in (kernel, stride, dilation)]
    return [d * (k - 1) + s - 1 for k, s, d in zip(*sizes, strict=True)]
