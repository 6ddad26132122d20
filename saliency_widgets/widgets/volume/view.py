"""The volume explorer: three planes with the map over them, or the frames of a video, live controls on the right."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import ipywidgets as w
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from saliency_widgets import render
from saliency_widgets.attribution import Reduction
from saliency_widgets.inputs import Prepared
from saliency_widgets.inputs.volume import Planes, VolumeKind, center
from saliency_widgets.inputs.volume.features import AXIAL
from saliency_widgets.session import Event, Problem, Request
from saliency_widgets.widgets.base import messages
from saliency_widgets.widgets.base.display import DISPLAY_NAMES
from saliency_widgets.widgets.base.heatmap import HeatmapView
from saliency_widgets.widgets.base.kind_view import Explored, Setup
from saliency_widgets.widgets.export.save_panel import WithPages
from saliency_widgets.widgets.export.static_output import Snapshot
from saliency_widgets.widgets.map.panel import MapView
from saliency_widgets.widgets.trust import Context, TrustPanel

_GAP, _SIDE = 8, 240  # pixels between planes, and on their longest side, in a snapshot
_GRAYS = (0.5, 99.5)  # the percentiles that are black and white
_SAMPLED = 200_000  # voxels from which they are estimated


class VolumeView(WithPages, MapView):
    """The view of a volume, which shows the voxels that the model's output depends on.

    Args:
        problem: The model and the volume.
        setup: The initial settings.
    """

    noun = "a volume"
    part_noun = "voxels"

    def __init__(self, problem: Problem, setup: Setup) -> None:
        assert isinstance(problem.kind, VolumeKind)
        self._features, self._size = problem.kind.features, problem.kind.shape_of(problem.tensor)
        self._at = center(self._size)
        super().__init__(problem, setup)

    def build(self, explorer: Explored) -> Sequence[w.Widget]:
        """Create the planes, the trust tests and the controls that save a page."""
        self._explorer, self._session = explorer, explorer.session
        session = self._session
        self._prepared = self.problem.prepared
        self.view = HeatmapView(
            None, self.display, on_stop=session.stop, controls=self.panel.controls, scene=self._scene()
        )
        self.view.on_scene(self._on_scene)
        shape = self.problem.kind.shape_of(self.problem.tensor)
        context = Context(self.problem.kind, self.view, self.problem.baselines, shape=shape)
        self.trust = TrustPanel(context, busy=lambda: session.busy, executor=self.setup.executor)
        self.view.layout.flex, self.view.layout.min_width = "3 1 480px", "320px"
        self.panel.on_reduction(self._reduce)
        return self.view, self.add_saving(self.panel.widget), self.trust.widget

    @property
    def at(self) -> tuple[int, int, int]:
        """The voxel in which the planes meet, (d, h, w)."""
        return self._at

    def _scene(self) -> dict[str, Any]:
        """Return the shape of the volume, and the pixels of its planes until the first frame, for the page."""
        return {**self._pixels.scene, **self._pixels.ground(self._at)}

    @classmethod
    def still(
        cls,
        prepared: Prepared,
        request: Request,  # noqa: ARG003
        reduction: Reduction | None = None,
    ) -> dict[str, Any]:
        """Return the pixels of the planes of a reduction."""
        pixels = _pixels_of(prepared)
        return {**pixels.scene, **pixels.ground(_voxel_of(reduction, pixels))}

    @classmethod
    def still_frame(cls, prepared: Prepared, event: Event) -> dict[str, Any] | None:
        """Return the frame with the pixels of its planes."""
        frame, pixels = messages.frame_of(event), _pixels_of(prepared)
        return None if frame is None else {**frame, "ground": pixels.ground(_voxel_of(event.reduction, pixels))}

    @classmethod
    def axes(cls, prepared: Prepared) -> dict[str, int]:
        """Return the number of slices along each axis that is cut."""
        pixels = _pixels_of(prepared)
        names = pixels.scene["axes"][: len(pixels.scene["planes"])]
        return {name.capitalize(): size for name, size in zip(names, pixels.size, strict=False)}

    @classmethod
    def reduced_at(cls, prepared: Prepared, reduction: Reduction, at: Sequence[float] | None) -> Reduction:
        """Return the reduction with the planes at a position."""
        size = _pixels_of(prepared).size
        voxel = [*center(size)]
        for axis, share in enumerate(at or ()):
            voxel[axis] = round(share * (size[axis] - 1))
        return Planes(reduction.sign, reduction.channels, (voxel[0], voxel[1], voxel[2]))

    def page_scene(self, request: Request) -> dict[str, Any]:  # noqa: ARG002
        """Return the pixels of the whole volume, and the planes that are shown now."""
        pixels = _pixels_of(self.problem.prepared)
        return {**pixels.scene, "whole": True, "at": list(self._at), "pixels": pixels.whole}

    def _reduce(self, reduction: Reduction) -> None:
        self._session.reduce(Planes(reduction.sign, reduction.channels, self._at))

    def _on_scene(self, content: Mapping[str, Any]) -> None:
        """Show the planes that the user has moved to; during a computation without the map, which follows."""
        at = content.get("at")
        if not isinstance(at, list) or len(at) != 3 or not all(type(index) is int for index in at):
            return
        if not all(0 <= index < side for index, side in zip(at, self._size, strict=True)):
            return
        self._at = at[0], at[1], at[2]
        if self._session.busy:
            self.view.scene = self._scene()
        self._reduce(self.panel.reduction)

    def frame_of(self, event: Event) -> dict[str, Any] | None:
        """Return the frame for the page, with the pixels of its planes."""
        if event.attribution is not None and event.state in ("running", "done"):
            self._prepared = self.problem.prepared  # another one if the volume was changed in place
        return self.still_frame(self._prepared, event)

    @property
    def _pixels(self) -> PlanePixels:
        return _pixels_of(self._prepared)

    def snapshot(self, lines: Callable[..., list[str]]) -> Snapshot:
        """Return the planes side by side."""
        shown = self._session.shown
        if shown is None or shown.frame is None:
            return Snapshot(lines())
        quantized, display, features, size = shown.frame, self.display, self._features, self._size
        images = self._pixels.planes(_voxel_of(shown.reduction, self._pixels))

        def draw(share: float) -> Image.Image:
            scale = max(share * _SIDE / max(size), 1 / min(size))
            return _side_by_side(images, quantized, features.sides(size), scale, display.settings)

        return Snapshot(lines(**{**self.look, **display.settings}), draw)

    def snapshot_sources(self) -> Mapping[w.Widget, Sequence[str]]:
        """Return the display settings."""
        return {self.display: DISPLAY_NAMES}


class PlanePixels:
    """The planes of a volume as pixels: the colors of a video in [0, 1], and otherwise the gray mean of the channels.

    Args:
        prepared: The volume.
    """

    def __init__(self, prepared: Prepared) -> None:
        kind = prepared.kind
        assert isinstance(kind, VolumeKind)
        self._features = kind.features
        voxels = self._features.voxels(prepared.tensor)[0].detach()
        self._voxels = voxels.movedim(0, -1)  # (D, H, W, C)
        self.size = self._features.size(tuple(prepared.tensor.shape))
        sample = voxels.mean(0).flatten()
        sample = sample[:: max(1, len(sample) // _SAMPLED)].cpu().double().numpy()
        colored = self._features.is_video and len(voxels) == 3
        if colored and float(voxels.min()) >= 0 and float(voxels.max()) <= 1:
            self.channels, self._low, self._high = 3, 0.0, 1.0
        else:
            self.channels = 1
            self._low, self._high = map(float, np.percentile(sample, _GRAYS))

    @property
    def scene(self) -> dict[str, Any]:
        """The names and the shape of the planes for the page, without pixels."""
        if self._features.is_video:
            planes, axes = ["Frame"], ["time", "height", "width"]
        else:
            axes = ["depth", "height", "width"]
            scan = self._features.slices == AXIAL
            planes = ["Axial", "Coronal", "Sagittal"] if scan else [axis.capitalize() for axis in axes]
        shape = {"size": list(self.size), "channels": self.channels}
        return {"kind": "volume", **shape, "planes": planes, "axes": axes}

    @cached_property
    def whole(self) -> bytes:
        """The pixels of the whole volume, slice by slice."""
        return b"".join(self._coded(depth).tobytes() for depth in self._voxels)

    def ground(self, at: tuple[int, int, int]) -> dict[str, Any]:
        """Return a voxel and the pixels of the planes through it, for the page."""
        return {"at": list(at), "pixels": b"".join(plane.tobytes() for plane in self.planes(at))}

    def planes(self, at: tuple[int, int, int]) -> list[np.ndarray]:
        """Return the planes through a voxel, uint8 (rows, columns) or (rows, columns, 3)."""
        return [self._coded(plane) for plane in self._features.planes(self._voxels, at)]

    def _coded(self, plane: Tensor) -> np.ndarray:
        values = (plane if self.channels == 3 else plane.mean(-1)).cpu().double()
        span = self._high - self._low
        scaled = (values - self._low) / span if span > 0 else torch.full_like(values, 0.5)
        return (scaled.clamp(0, 1) * 255).round().to(torch.uint8).numpy()


_PIXELS: WeakKeyDictionary[Prepared, PlanePixels] = WeakKeyDictionary()


def _pixels_of(prepared: Prepared) -> PlanePixels:
    """Return the pixels of a volume, read once for all cells and planes."""
    pixels = _PIXELS.get(prepared)
    if pixels is None:
        pixels = _PIXELS[prepared] = PlanePixels(prepared)
    return pixels


def _voxel_of(reduction: Reduction | None, pixels: PlanePixels) -> tuple[int, int, int]:
    """Return the voxel in which the planes of a reduction meet."""
    at = reduction.at if isinstance(reduction, Planes) else None
    return center(pixels.size) if at is None else at


def _side_by_side(
    images: Sequence[np.ndarray],
    quantized: render.Quantized,
    sides: Sequence[tuple[int, int]],
    scale: float,
    settings: Mapping[str, Any],
) -> Image.Image:
    """Draw the planes of a frame, with the color scale of the whole volume."""
    row, start = quantized.codes[0], sum(rows * columns for rows, columns in sides)
    levels = row[start:]
    limits = levels_at(levels, quantized.signed, render.check_display(dict(settings))["clip"])
    drawn, start = [], 0
    for image, (rows, columns) in zip(images, sides, strict=True):
        codes = row[start : start + rows * columns].reshape(rows, columns)
        start += rows * columns
        colors = image if image.ndim == 3 else np.repeat(image[..., None], 3, 2)
        plane = render.Quantized(codes, quantized.low, quantized.high, quantized.signed)
        blended = Image.fromarray(render.blend(np.ascontiguousarray(colors), plane, limits=limits, **settings))
        size = max(1, round(columns * scale)), max(1, round(rows * scale))
        drawn.append(blended.resize(size, Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BOX))
    width = sum(image.width for image in drawn) + _GAP * (len(drawn) - 1)
    page = Image.new("RGB", (width, max(image.height for image in drawn)), (255, 255, 255))
    left = 0
    for image in drawn:
        page.paste(image, (left, 0))
        left += image.width + _GAP
    return page


def levels_at(table: np.ndarray, signed: bool, clip: Sequence[float]) -> tuple[int, int]:
    """Return the limits of the color scale at two percentiles, from the table of levels at the end of a frame."""
    levels = np.abs(table.astype(np.int64) - render.ZERO) if signed else table.astype(np.int64)
    steps = len(levels) - 1
    low, high = (int(levels[min(steps, int(np.ceil(p / 100 * steps - 1e-9)))]) for p in clip)
    return low, high


VIEW = VolumeView
