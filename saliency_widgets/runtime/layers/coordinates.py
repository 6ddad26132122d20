"""Positions of activation elements on the image: coordinates that are carried through the operations of a pass.

Shapes don't determine which part of the image an element of an activation belongs to: 18 tokens may be 16 patches and
two others, (1, 2, 18, 8) may be the keys of two heads, and 100 queries of a decoder form a square like 100 patches.
So each tensor that is computed from the image gets a companion of the same shape, with the coordinates y + ix of each
element in image pixels, and NaN for elements without a position: a class token, padding, a mixture of the whole image.
Operations that only move elements (reshape, permute, cat, roll, index, writes to a part) move the companion too;
elementwise operations and normalizations pass it on; a contraction takes the mean of nearby coordinates; a convolution,
pooling or resizing lays a new grid over the extent of the old one; the output of attention has the coordinates of the
queries. All other operations drop the coordinates, so that a layer is not offered rather than shown out of position.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from saliency_widgets.runtime.layers.grids import grid_over, reach_of
from saliency_widgets.runtime.layers.hooks import tensors_in
from saliency_widgets.runtime.layers.layout import DIMENSIONS, Filled, Layout, filled_grid

_NONE = complex("nan+nanj")


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_MOVED = _names(
    """
    cat constant_pad_nd diagonal expand flip gather index index_select
    permute repeat roll rot90 select slice split split_with_sizes squeeze stack t transpose unbind unfold
    unsqueeze
    """
)
_RESHAPED = frozenset(("view", "reshape", "_unsafe_view", "_reshape_alias"))
ELEMENTWISE = _names(
    """
    alias clone detach lift_fresh _to_copy _softmax _log_softmax native_layer_norm native_batch_norm batch_norm
    _native_batch_norm_legit
    _native_batch_norm_legit_no_training cudnn_batch_norm miopen_batch_norm _batch_norm_with_update
    _batch_norm_no_update native_group_norm _fused_rms_norm native_dropout dropout hardswish prelu _prelu_kernel
    rrelu_with_noise rrelu_with_noise_functional log_sigmoid_forward masked_fill_ hardswish_ zero_ fill_ _conj
    """
)
_REDUCED = _names("mean sum amax amin max min logsumexp var std prod norm linalg_vector_norm")
_GRIDS = _names(
    """
    convolution _convolution mkldnn_convolution cudnn_convolution thnn_conv2d max_pool2d_with_indices max_pool2d
    max_pool1d avg_pool1d adaptive_avg_pool1d upsample_nearest1d _upsample_nearest_exact1d upsample_linear1d
    mkldnn_max_pool2d avg_pool2d _adaptive_avg_pool2d adaptive_avg_pool2d mkldnn_adaptive_avg_pool2d
    adaptive_max_pool2d fractional_max_pool2d upsample_nearest2d _upsample_nearest_exact2d upsample_bilinear2d
    _upsample_bilinear2d_aa upsample_bicubic2d _upsample_bicubic2d_aa pixel_shuffle pixel_unshuffle
    max_unpool2d channel_shuffle native_channel_shuffle deform_conv2d
    """
)
_CONTRACTED = frozenset(("mm", "bmm", "addmm", "baddbmm"))
_PADDED = frozenset(("reflection_pad1d", "replication_pad1d", "reflection_pad2d", "replication_pad2d"))


class Coordinates(TorchDispatchMode):
    """A dispatch mode that carries coordinates through everything that is computed from an image.

    Attributes:
        size: The image's height and width; (0, 0) until an image is known.
    """

    def __init__(self) -> None:
        super().__init__()
        self.size = (0.0, 0.0)
        self._over_time = False  # whether the image is a signal, the input of a 1-D convolution
        self._positions: dict[tuple, tuple[StorageWeakRef, Tensor]] = {}
        self._canvases: dict[int, tuple[StorageWeakRef, Tensor]] = {}  # of storages that are written in parts
        self._pairs: set[tuple] = set()  # attention matrices, whose elements have two positions
        # Many layers share a grid, so each is examined once. Holding the tensor keeps its address from being reused.
        self._grids: dict[tuple, tuple[Tensor, Tensor | None]] = {}
        self._layouts: dict[tuple, tuple[Tensor, Filled | None]] = {}

    def begin(self, inputs: Tensor) -> Coordinates:
        """Start with the explained inputs of one sample, and return the mode, to be entered.

        For an image, (1, C, H, W), the coordinates are the centers of its pixels. For other inputs (rows, a waveform),
        the image is the input of the first convolution: of a 1-D convolution, (1, C, T), it is one pixel high. If a 2-D
        convolution of more than one row follows, as of a learned spectrogram, that is the image.
        """
        if inputs.ndim == 4:
            self._begin(inputs)
        return self

    def _is_first(self, operand: Tensor) -> bool:
        """Return whether the operand of a convolution is the image."""
        if not any(self.size):
            return operand.ndim in (3, 4)
        return self._over_time and operand.ndim == 4 and operand.shape[2] > 1

    def _begin(self, image: Tensor) -> None:
        self._over_time = image.ndim == 3
        height, width = image.shape[-2:] if image.ndim == 4 else (1, image.shape[-1])
        self.size = (float(height), float(width))
        rows, columns = (torch.arange(length, dtype=torch.float32, device="cpu") + 0.5 for length in (height, width))
        centers = torch.complex(*torch.meshgrid(rows, columns, indexing="ij"))
        self._set(image, centers.expand(image.shape))

    def of(self, tensor: Tensor) -> Tensor | None:
        """Return the coordinates of each element, complex and of the tensor's shape; None if unknown."""
        try:
            identity = identity_of(tensor)
        except (NotImplementedError, RuntimeError):  # nested tensors, and tensors inside vmap, have no storage
            return None
        if identity[0] in self._canvases:
            canvas = self._canvases[identity[0]][1]  # cloned, so that later writes don't change the result
            return canvas.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset()).clone()
        entry = self._positions.get(identity)
        return None if entry is None else entry[1]

    def placed(self, tensor: Tensor) -> Tensor | None:
        """Return the same, but None for an attention matrix, whose elements have two positions each."""
        positions = self.of(tensor)
        return None if positions is None or identity_of(tensor) in self._pairs else positions

    def layout(self, positions: Tensor) -> Layout | None:
        """Return how to read an activation of one sample as channels on a grid that covers the image.

        Args:
            positions: The coordinates of its elements.

        Returns:
            The layout; None if the elements fill no grid, or one that covers only a part of the image.
        """
        for batch, channel in DIMENSIONS.get(positions.ndim, ()):
            if positions.shape[batch] != 1:
                continue
            cells = _mean_near(positions, [channel], self.size).movedim((batch, channel), (0, 1))[0, 0]
            inside = (cells.real >= 0) & (cells.real < self.size[0]) & (cells.imag >= 0) & (cells.imag < self.size[1])
            key = identity_of(cells)
            if key not in self._layouts:
                self._layouts[key] = cells, filled_grid(cells.masked_fill(~inside, _NONE), self.size)
            filled = self._layouts[key][1]
            if filled is not None:
                return Layout(tuple(positions.shape), batch, channel, *filled, flat=self.size[0] == 1)
        return None

    def _set(self, tensor: Tensor, positions: Tensor | None, *, pair: bool = False) -> None:
        identity = identity_of(tensor)
        self._pairs.discard(identity)
        if identity[0] in self._canvases:
            self._write(tensor, positions)
        elif positions is None:
            self._positions.pop(identity, None)
        else:  # the weak reference keeps the storage's address from being reused, but not its memory
            self._positions[identity] = StorageWeakRef(tensor.untyped_storage()), positions.expand(tensor.shape)
            if pair:
                self._pairs.add(identity)

    def _write(self, tensor: Tensor, positions: Tensor | None) -> None:
        """Record the coordinates written to a part of a storage, for all tensors that share it."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._canvases:
            canvas = torch.full(
                (storage.nbytes() // tensor.element_size(),), _NONE, dtype=torch.complex64, device="cpu"
            )
            for (other, offset, shape, stride), (_, cells) in self._positions.items():
                if other == key:
                    canvas.as_strided(shape, stride, offset).copy_(cells)
            self._canvases[key] = StorageWeakRef(storage), canvas
        part = self._canvases[key][1].as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
        part.fill_(_NONE) if positions is None else part.copy_(positions.expand(tensor.shape))

    def _forget(self, tensor: Tensor) -> None:
        """Drop the coordinates of a storage after a write that no rule covers."""
        key = tensor.untyped_storage()._cdata
        self._canvases.pop(key, None)
        for identity in [identity for identity in self._positions if identity[0] == key]:
            del self._positions[identity]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # True makes torch import its compiler, which takes a second

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict | None = None) -> Any:
        """Run the operation, then its rule on the coordinates of its operands."""
        result = func(*args, **(kwargs or {}))
        operands = list(tensors_in((*args, *(kwargs or {}).values())))
        if func._schema.name == "aten::convolution" and self._is_first(operands[0]):
            self._begin(operands[0])
        strided = [operand for operand in operands if operand.layout == torch.strided]
        if not any(self.of(operand) is not None for operand in strided):
            return result
        name = func._schema.name.rpartition("::")[2]
        if name in ("copy_", "index_put_"):
            self._overwrite(name, args)
            return result
        results = result if isinstance(result, (tuple, list)) else (result,)
        positions: Any = None
        self._pair = name not in _CONTRACTED and any(
            self.of(operand) is not None and identity_of(operand) in self._pairs for operand in strided
        )
        with contextlib.suppress(Exception):  # no rule for such operands: no coordinates
            positions = self._carried(func, args, kwargs or {}, operands, results[0])
        if positions is None and name.endswith("_") and strided:
            self._forget(strided[0])
            return result
        several = isinstance(positions, (tuple, list))
        for i, tensor in enumerate(results):
            if not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
                continue
            view = tensor.untyped_storage()._cdata in self._canvases and not name.endswith("_")
            if not view:  # the canvas has its coordinates already
                self._set(tensor, positions[i] if several else positions if i == 0 else None, pair=self._pair)
        return result

    def _overwrite(self, name: str, args: tuple[Any, ...]) -> None:
        """Write the coordinates of the new elements to a part of a tensor."""
        target, old = args[0], self._or_none(args[0])
        if name == "copy_":
            new = self._or_none(args[1]).expand(target.shape)
        else:
            moved = tree_map(self._movable, args[1:3])
            new = torch.ops.aten.index_put(old.clone(), moved[0], moved[1])
        if not torch.equal(torch.view_as_real(old).nan_to_num(-1), torch.view_as_real(new).nan_to_num(-1)):
            self._write(target, new)

    def _carried(self, func: Any, args: tuple[Any, ...], kwargs: dict, operands: list[Tensor], result: Tensor) -> Any:
        """Return the coordinates of the first result, or of each result in a tuple; None if there are none."""
        name = func._schema.name.rpartition("::")[2]
        if name in _MOVED:
            if name == "constant_pad_nd":
                return func(_compact(self._or_none(args[0]), range(result.ndim - len(args[1]) // 2)), args[1], _NONE)
            if name == "cat":
                parts = [_compact(self._or_none(tensor), args[1:2]) for tensor in args[0]]
                if len({identity_of(part) for part in parts}) == 1 and parts[0].shape != args[0][0].shape:
                    return parts[0]  # channels of the same grid
            moved, options = tree_map(self._movable, (args, kwargs))
            return func(*moved, **options)
        if name in _RESHAPED:
            return self._or_none(args[0]).reshape(result.shape)
        if name in _REDUCED:
            dims = (*args[1:2], kwargs.get("dim"))[0]
            reduced = self._reduce(self._or_none(args[0]), [dims] if isinstance(dims, int) else dims)
            return None if reduced is None else reduced.reshape(result.shape)
        if name in _CONTRACTED:
            return self._contract(args[-2], args[-1], result)
        if name.startswith("_scaled_dot_product"):
            return self._reduce(self._or_none(args[0]), [-1])
        if name in _GRIDS:
            return self._regrid(self._or_none(args[0]), result.shape, reach_of(name, args))
        if name in _PADDED:
            return torch.ops.aten.constant_pad_nd(self._or_none(args[0]), args[1], _NONE)
        if name in ("im2col", "col2im"):
            return self._patches(name, args, result)
        if name == "glu":
            dim = (*args[1:2], -1)[0]
            return self._or_none(args[0]).narrow(dim, 0, result.shape[dim])
        if name in ELEMENTWISE or is_pointwise(func, name):
            return _first([self.of(operand) for operand in operands], result)
        return None

    def _or_none(self, tensor: Tensor) -> Tensor:
        positions = self.of(tensor)
        return (
            torch.full((1,), _NONE, dtype=torch.complex64, device="cpu").expand(tensor.shape)
            if positions is None
            else positions
        )

    def _movable(self, item: Any) -> Any:
        """Return the coordinates of an operand; return integers and masks, which select elements, unchanged."""
        if not isinstance(item, Tensor):
            return item
        if item.is_floating_point() or item.is_complex() or self.of(item) is not None:
            return self._or_none(item)
        return item.cpu()

    def _reduce(self, positions: Tensor, dims: Sequence[int] | None) -> Tensor | None:
        return _mean_near(positions, dims, self.size) if dims else None

    def _contract(self, left: Tensor, right: Tensor, result: Tensor) -> Tensor | None:
        """Return the coordinates of a matrix product: those of the left factor's rows, else of the right's columns."""
        both = [
            self._reduce(self._or_none(factor), [dim])
            for factor, dim in ((left, -1), (right, -2))
            if self.of(factor) is not None
        ]
        certain = [reduced for reduced in both if reduced is not None and not bool(reduced.real.isnan().all())]
        self._pair = len(certain) == 2
        return certain[0].expand(result.shape) if certain else None

    def _regrid(self, positions: Tensor, shape: Sequence[int], reach: Sequence[int] = (0, 0)) -> Tensor | None:
        """Return a grid of the result's height and width over the extent of the operand's grid, (N, C, h, w).

        Args:
            positions: The operand's coordinates.
            shape: The result's shape.
            reach: The padded rows and columns that an operation needs to preserve the size. Padding up to this number
                is not part of the extent; more padding is.
        """
        if len(shape) == 3:
            if self.size[0] == 1 and positions.ndim == 3:  # along a signal, one pixel high
                grid = self._regrid(positions[:, :, None], (*shape[:2], 1, shape[2]), (0, reach[1]))
                return None if grid is None else grid[:, :, 0]
            return self._reduce(positions, [1]) if positions.shape[2] == shape[2] else None  # along tokens
        if positions.ndim != 4 or tuple(shape[-2:]) == (1, 1):
            return None
        channels = self._reduce(positions, [1])
        if channels is None:
            return None
        key = (*identity_of(channels), *shape[-2:], *reach)
        if key not in self._grids:
            grid = grid_over(channels, shape[-2:], reach, self.size)
            same = grid is not None and grid.shape == channels.shape and torch.allclose(grid, channels)
            self._grids[key] = channels, channels if same else grid
        return self._grids[key][1]

    def _patches(self, name: str, args: tuple[Any, ...], result: Tensor) -> Tensor | None:
        """Return the grid of patches cut from (N, C, H, W), as (N, C * kernel, L), laid out along L; or the inverse."""
        kernel, dilation, padding, stride = args[-4:]
        size = args[0].shape[2:] if name == "im2col" else args[1]
        counts = [(size[i] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in (0, 1)]
        if name == "im2col":
            grid = self._regrid(self._or_none(args[0]), (1, 1, *counts))
            return None if grid is None else grid.flatten(2)
        cells = self._reduce(self._or_none(args[0]), [1])
        return None if cells is None else self._regrid(cells.unflatten(2, counts), result.shape)


def is_pointwise(func: Any, name: str) -> bool:
    """Return whether an operation is tagged as elementwise, in this form or, if in-place, in its out-of-place form."""
    if torch.Tag.pointwise in func.tags:
        return True
    other = getattr(torch.ops.aten, name.rstrip("_"), None) if name.endswith("_") else None
    return other is not None and any(torch.Tag.pointwise in getattr(other, o).tags for o in other.overloads())


def identity_of(tensor: Tensor) -> tuple:
    """Return what distinguishes a tensor from others, also from views of its storage."""
    return (tensor.untyped_storage()._cdata, tensor.storage_offset(), tuple(tensor.shape), tensor.stride())


def _compact(positions: Tensor, dims: Sequence[int] | None = None) -> Tensor:
    """Reduce dimensions along which one element is only repeated to size 1."""
    for dim in range(positions.ndim) if dims is None else dims:
        if positions.stride(dim) == 0 and positions.shape[dim] > 1:
            positions = positions.narrow(dim, 0, 1)
    return positions


def _mean_near(positions: Tensor, dims: Sequence[int], size: tuple[float, float]) -> Tensor:
    """Return the mean coordinates along dimensions (keepdim); NaN where they span half of the image or more."""
    positions = _compact(positions, dims)
    many = [dim for dim in dims if positions.shape[dim] > 1]
    if not many:
        return positions
    missing = positions.real.isnan()
    near, centers = torch.ones((), dtype=torch.bool, device="cpu"), []
    for coordinate, length in zip((positions.real, positions.imag), size, strict=True):
        low = coordinate.masked_fill(missing, torch.inf).amin(many, keepdim=True)
        high = coordinate.masked_fill(missing, -torch.inf).amax(many, keepdim=True)
        near = near & (high - low < length / 2)
        centers.append(coordinate.nanmean(many, keepdim=True))
    return torch.complex(centers[0], centers[1]).masked_fill(~near, _NONE)


def _first(operands: list[Tensor | None], result: Tensor) -> Tensor | None:
    """Return the first operand's coordinates; for elements where it has none, the next operand's."""
    chosen: Tensor | None = None
    for positions in operands:
        if positions is None:
            continue
        other = _compact(positions)
        chosen = other if chosen is None else torch.where(chosen.real.isnan(), other, chosen)
    return None if chosen is None else chosen.expand(result.shape)
