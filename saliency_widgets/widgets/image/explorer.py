"""The image explorer: an image with its saliency map on the left, live controls on the right."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import ipywidgets as w
import numpy as np
import torch
from ipycanvas import Canvas
from PIL import Image
from torch import nn

from saliency_widgets.attribution import Attribution, Reduction
from saliency_widgets.attribution.reduction import CHANNEL, SIGN
from saliency_widgets.attribution.registry import DEFAULT
from saliency_widgets.attribution.score import SCORE
from saliency_widgets.inputs import Explain
from saliency_widgets.params import TIMEOUT, check_list
from saliency_widgets.session import Event, Problem, Request
from saliency_widgets.session.explanation import Case
from saliency_widgets.session.worker import check_executor
from saliency_widgets.widgets.base.display import DISPLAY_NAMES, DisplaySettings
from saliency_widgets.widgets.base.explorer import BaseExplorer
from saliency_widgets.widgets.base.heatmap import HeatmapView
from saliency_widgets.widgets.base.parts import close_whole
from saliency_widgets.widgets.compare.pins import Pins
from saliency_widgets.widgets.export import snapshots
from saliency_widgets.widgets.export.page import Saved
from saliency_widgets.widgets.export.recording import PageSize
from saliency_widgets.widgets.export.save_panel import SavePanel
from saliency_widgets.widgets.export.saving import LARGEST, LIMIT, PageWriter, save_html
from saliency_widgets.widgets.export.static_output import Snapshot
from saliency_widgets.widgets.image.annotations import annotation_canvas
from saliency_widgets.widgets.image.panel import REDUCTION_NAMES, ImagePanel
from saliency_widgets.widgets.image.png import png_bytes
from saliency_widgets.widgets.table import TableExplorer, is_row
from saliency_widgets.widgets.trust import ImageTrust


class Explorer(BaseExplorer):
    """Shows which pixels moved the model's output. See :func:`explore` for the arguments.

    Attributes:
        panel: The controls.
        saving: The section that saves a page.
        view: The image with its map.
        trust: The tests of the displayed map.
        pins: The pinned maps, side by side.
    """

    kind = "image"
    panel: ImagePanel
    _outdated = (
        "The model or the input has changed: the map is up to date, the predictions are not. "
        "explorer.update() refreshes them."
    )

    def __init__(
        self,
        model: nn.Module,
        inputs: Any,
        *,
        target: Any = None,
        transform: Any = None,
        class_names: Any = None,
        explain: Explain = None,
        device: torch.device | str | None = None,
        method: Any = DEFAULT,
        methods: Iterable[Any] = (),
        score: str = SCORE.default,
        fold: bool = True,
        precision: str | None = None,
        cuda_graphs: bool = False,
        executor: str = "thread",
        **params: Any,
    ) -> None:
        check_executor(executor)
        options = {"transform": transform, "class_names": class_names, "device": device, "fold": fold}
        options |= {"precision": precision, "cuda_graphs": cuda_graphs}
        problem = Problem(model, inputs, explain=explain, **options)
        if problem.parts and explain is None:  # of several inputs, the image is shown
            images = [name for name, shape in problem.parts.items() if len(shape) == 3]
            problem = Problem(model, inputs, explain=(images or list(problem.parts))[0], **options)
        if problem.prepared.images is None:
            raise ValueError(
                f"inputs: the explorer shows images, but the model's input has shape "
                f"{tuple(problem.tensor.shape)}. Use sw.attribute for other inputs."
            )
        if problem.tensor.shape[0] != 1:
            raise ValueError(
                f"inputs: the explorer shows one image, got a batch of {problem.tensor.shape[0]}. Pass one of them."
            )
        shown = {name: params.pop(name) for name in list(params) if name in (*DISPLAY_NAMES, *REDUCTION_NAMES)}
        reduced = {name: shown.pop(name) for name in REDUCTION_NAMES if name in shown}
        for param in (SIGN, CHANNEL):
            param.check(reduced.get(param.name, param.default))
        methods = [methods] if isinstance(methods, str) else check_list("methods", methods, "['gradient']")
        self._display = DisplaySettings(**shown)
        try:
            panel = ImagePanel(
                problem, self._display, method=method, target=target, score=score, params=params, more=methods
            )
        except BaseException:
            close_whole(self._display)
            raise
        if reduced:
            panel.update(reduced)
        self._prepared = problem.prepared
        arguments = {"model": model, "inputs": inputs, "transform": transform, "class_names": class_names}
        super().__init__(problem, panel, executor, **arguments)
        height, width = self._image.shape[:2]
        self._annotations: Canvas = annotation_canvas(width, height)
        self.view = HeatmapView(
            png_bytes(self._image),
            self._display,
            on_stop=self._session.stop,
            controls=self.panel.controls,
            layers=(self._annotations,),
        )
        session = self._session  # the panel's worker must not refer to the explorer
        self.trust = ImageTrust(self.view, problem.baselines, busy=lambda: session.busy, executor=executor)
        self.trust.widget.layout.flex = "1 1 100%"
        self.view.layout.flex, self.view.layout.min_width = "3 1 260px", "240px"
        # The image's width at its maximum height (60vh, see heatmap.css), so that there is no empty margin.
        self.view.layout.max_width = f"max(320px, min(640px, {60 * width / height:.1f}vh))"
        self.panel.on_reduction(self._session.reduce)
        self._display.observe(lambda _change: self._on_clip(), names="clip")
        self.pins = Pins(
            self._session, self._display, executor=executor, pinned=self.pin, wanted=self._show_again
        )  # fmt: skip
        self.saving = SavePanel(self, executor)
        column = self.panel.widget
        column.children = (*column.children, self.saving.widget)
        self._begin(self.view, column, self.pins.widget, self.trust.widget)

    @property
    def annotations(self) -> Canvas:
        """An ipycanvas ``Canvas`` over the map, in the image's pixels: draw on it from Python."""
        self._annotations.sync_image_data = True  # from now on there may be drawings to save
        return self._annotations

    @property
    def _image(self) -> np.ndarray:
        """The image of the displayed map; inputs changed in place are shown once their map is computed."""
        assert self._prepared.images is not None
        return self._prepared.images[0]

    @property
    def controls(self) -> dict[str, Any]:
        """The state of the controls, including the display settings."""
        reduction = self.panel.reduction
        return {**super().controls, "sign": reduction.sign, "channels": reduction.channels, **self._display.settings}

    @property
    def _shown(self) -> dict[str, Any]:
        reduction = self.panel.reduction
        return {"sign": reduction.sign, "channels": reduction.channels, "clip": self._display.settings["clip"]}

    def wait(self, timeout: float | None = None) -> Attribution:
        """Wait for the map of the current settings and for the pinned maps, see :meth:`BaseExplorer.wait`."""
        timeout = TIMEOUT.check(timeout)
        until = None if timeout is None else time.monotonic() + timeout
        try:
            self.pins.wait(timeout)
        except KeyboardInterrupt:
            self.stop()
            raise
        return super().wait(None if until is None else max(0.0, until - time.monotonic()))

    def pin(self) -> None:
        """Pin the current map below the explorer, to compare it with others."""
        if not self._open:
            raise RuntimeError("pin: the explorer is closed. Create a new one.")
        self.pins.pin(self._request, self.panel.reduction)

    def _show_again(self, request: Request, reduction: Reduction) -> None:
        """Move the controls to the settings of a pinned map that was clicked."""
        settings = {name: value for name, value in request.settings.items() if name != "contrast"}
        self.update(**settings, sign=reduction.sign, channels=reduction.channels)

    def save_png(self, path: Any, *, scale: float | None = None, caption: str = "") -> None:
        """Write the overlay as shown, with its color bar, and the annotations as last shown on the page.

        Args:
            path: A path, or a file open for writing bytes. An existing file is replaced once all is written.
            scale: Size of one pixel of the image in the file: integers make squares, other numbers average. Default:
                chosen for an image of a convenient size.
            caption: Text below the color bar, wrapped, at most 4000 characters and 100 lines. Characters that Pillow's
                font lacks are drawn with a system font.

        Raises:
            RuntimeError: There is no map yet.
            TypeError, ValueError: ``scale`` is no number, or makes an image of no pixels or too many; ``caption`` is
                no text, or too long; or ``path`` is no path.
            OSError: The file can't be written there. An existing file stays.

        Warns:
            UserWarning: No font has some of the characters: boxes are drawn.
        """
        shown = self._session.shown
        if shown is None or shown.frame is None or shown.attribution is None:
            raise RuntimeError("There is no map to save yet: call explorer.wait() first.")
        attribution = shown.attribution
        progress = f" ({attribution.done} of {attribution.total} {attribution.unit})"
        title = self._title_of(shown).replace(" · ", ", ") + ("" if attribution.complete else progress)
        layers = [Image.open(io.BytesIO(drawn)) for drawn in self._drawn.values()]
        self._display.render(self._image, shown.frame, path, scale=scale, layers=layers, title=title, caption=caption)

    @property
    def _drawn(self) -> dict[w.Widget, bytes]:
        """The annotations as PNG bytes, as last sent by the page."""
        drawn = self._annotations.image_data
        return {self._annotations: bytes(drawn)} if drawn else {}

    def page_size(self, record: Mapping[str, Any] | None = None) -> PageSize:
        """Estimate the maps, bytes and seconds that :meth:`save_html` would take, without computing anything.

        Args:
            record: See :meth:`save_html`.

        Raises:
            TypeError, ValueError: These settings can't be recorded.
            RuntimeError: There is no finished map yet.
        """
        return PageWriter(self, record).size

    def save_html(
        self,
        path: str | os.PathLike[str],
        *,
        record: Mapping[str, Any] | None = None,
        title: str | None = None,
        limit: int = LIMIT,
        max_bytes: int = LARGEST,
        progress: bool = True,
    ) -> Saved:
        """Write one HTML file that opens from disk, without a kernel, a server or network access.

        The display settings stay live on it, and so do the recorded settings, over their recorded values. Maps are
        computed as by the sliders, using the cache; after an interrupt nothing is written, and the computed maps stay
        in the cache. Annotations are included as the page last showed them: draw in one cell and save in the next.

        Args:
            path: The file; an existing one is replaced once all is written.
            record: Settings that can be moved on the page, each with a list of values, or True for a few values:
                ``{"noise_level": [0.05, 0.1, 0.2], "n_samples": True}``. Parameters of the method, "method", "target"
                (classes by name or index), "score", "sign" and "channels". Default: only the displayed map.
            title: The heading. Default: names the model.
            limit: Maximum number of maps.
            max_bytes: Maximum size of the file.
            progress: Whether to show a progress bar.

        Returns:
            Path, size and number of maps.

        Raises:
            TypeError: ``record`` is no mapping, or a value is of the wrong type.
            ValueError: An unknown setting, a value out of range, or a page over the limits.
            OSError: The file can't be written there; nothing is computed then.
            RuntimeError: The map was stopped, or the model was changed meanwhile.
        """
        return save_html(self, path, record, title, limit, max_bytes, progress)

    def _on_clip(self) -> None:
        """Update the code to copy when the clip range was moved in the browser."""
        last = self._session.last
        if last is not None and last.state == "done":
            self.view.offer(None, self._status_of(last, last, ""))

    def _on_event(self, event: Event) -> None:
        fresh = event.attribution is not None and event.state in ("running", "done")
        if fresh and self._problem.prepared is not self._prepared:  # the inputs were changed in place
            self._prepared = self._problem.prepared
            self.view.image = png_bytes(self._image)
        super()._on_event(event)
        if event.state == "done":
            self.saving.show()

    def close(self) -> None:
        """End the computation and its thread, free the cache, and remove the explorer from the page."""
        if self._open:
            self.pins.close()
            self.saving.close()
            self._annotations.sync_image_data = False  # the page must not send to a closed canvas
        super().close()

    @property
    def _sign(self) -> str | None:
        return self.panel.reduction.sign

    def _snapshot(self) -> Snapshot:
        return snapshots.of_explorer(self)

    def _snapshot_sources(self) -> Mapping[w.Widget, Sequence[str]]:
        return {**super()._snapshot_sources(), self._display: DISPLAY_NAMES, self._annotations: ("image_data",)}

    def _case_of(self, event: Event) -> Case | None:
        if event.state != "done" or event.attribution is None or event.request is None:
            return None
        session, reduction = self._session, self.panel.reduction
        return Case(
            self._problem, event.request, event.attribution, reduction, event.version, session.cache, session.owner
        )


def explore(
    model: nn.Module,
    inputs: Any,
    *,
    target: Any = None,
    transform: Any = None,
    class_names: Any = None,
    feature_names: Sequence[str] | None = None,
    background: Any = None,
    labels: Any = None,
    explain: Explain = None,
    device: torch.device | str | None = None,
    method: Any = DEFAULT,
    methods: Iterable[Any] = (),
    score: str = SCORE.default,
    fold: bool = True,
    precision: str | None = None,
    cuda_graphs: bool = False,
    **params: Any,
) -> Explorer | TableExplorer:
    """Explore live which pixels, or which features of a row, moved a model's output.

    Args:
        model: Any ``torch.nn.Module`` that scores each row of a batch; call ``model.eval()`` first.
        inputs: One image: PIL image, path, array (H, W, 3) of uint8, tensor (C, H, W) or (1, C, H, W). Or one row of
            a table: a Series, a DataFrame of one row, a mapping from names to values, an array or a tensor (F,). For a
            model with several inputs: a tuple of them, or a mapping from their names. A row is copied.
        target: A class index or name, None for the top prediction, a tuple as an index into one sample's output, or a
            function from the model's output to one number per sample.
        transform: Converts ``inputs`` to the model's input: a function, torchvision weights, a Hugging Face image
            processor, or a timm data config; for rows, a fitted scikit-learn scaler or ColumnTransformer, whose one-hot
            groups are summed back to their column.
        class_names: Names of the classes in order, a mapping from index to name, or torchvision weights; the model's
            names (such as ``config.id2label``) by default. For a binary model with one logit, both classes' names: a
            high logit means class 1.
        feature_names: The names of the features, for a row without names.
        background: Other rows of the table, such as the training data: used for baselines, Expected Gradients, the
            what-if sliders, noise and the shuffle test.
        labels: The labels of the background's rows, class indices or names, or values with ``score="value"``: the
            shuffle test then reports the change of the loss.
        explain: Which of several inputs is shown, by name or position. Default: the first image.
        device: Where to compute. Default: the model's device.
        method: The initial method: one of ``sw.methods()``, "captum." and the name of a class of ``captum.attr``, or
            an object of captum's.
        methods: More captum methods for the menu, each with sliders for its numeric arguments.
        score: "logit", "probability", "log_probability", or "value" for regression.
        fold: Whether BatchNorms may be folded into convolutions for speed: see :func:`attribute`.
        precision: None, "full", "tf32" or "bfloat16": see :func:`attribute`.
        cuda_graphs: Whether passes are recorded on a CUDA device and replayed: see :func:`attribute`.
        **params: Parameters of the initial method. For an image, "sign" and "channels", and display settings such as
            "opacity", "clip" and "colormap"; for a row, "top", the number of bars.

    Returns:
        The explorer, a widget: displayed by the last line of a cell, with an image and a text for readers without a
        kernel (see :func:`~saliency_widgets.static_output`).

    Raises:
        TypeError: An argument of the wrong type, or an unknown one.
        ValueError: An argument out of range, an input that doesn't fit, or a model that failed.
    """
    arguments = {
        "target": target, "transform": transform, "class_names": class_names, "device": device, "method": method,
        "methods": methods, "score": score, "fold": fold, "precision": precision, "cuda_graphs": cuda_graphs,
    }  # fmt: skip
    if is_row(inputs, background, feature_names, transform):
        if explain is not None:
            raise ValueError("explain: a row of a table is one input. Leave it out.")
        rows = {"feature_names": feature_names, "background": background, "labels": labels}
        return TableExplorer(model, inputs, **rows, **arguments, **params)
    if labels is not None:
        raise ValueError("labels: these are the labels of the rows of background=, which is missing.")
    return Explorer(model, inputs, explain=explain, **arguments, **params)
