"""The explorer: an image with its saliency map on the left, the controls on the right, live."""

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

from saliency_widgets import render
from saliency_widgets.attribution import Attribution, Reduction
from saliency_widgets.attribution.reduction import CHANNEL, SIGN
from saliency_widgets.attribution.registry import DEFAULT
from saliency_widgets.attribution.score import SCORE
from saliency_widgets.inputs import Explain
from saliency_widgets.params import TIMEOUT, check_list
from saliency_widgets.session import Event, Problem, Request
from saliency_widgets.session.explanation import Case
from saliency_widgets.session.jobs import check_executor
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
    """Which pixels moved the model's output: see :func:`explore` for the arguments.

    Attributes:
        panel: The controls.
        saving: The section that saves a page.
        view: The image with its map.
        trust: The tests of the map that is shown.
        pins: The maps that were pinned, side by side.
    """

    kind = "image"
    panel: ImagePanel
    _outdated = (
        "The model or the input has changed: the map is of what they are now, the predictions of what they were. "
        "explorer.update() asks for new ones."
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
        about = {"transform": transform, "class_names": class_names, "device": device, "fold": fold}
        about |= {"precision": precision, "cuda_graphs": cuda_graphs}
        problem = Problem(model, inputs, explain=explain, **about)
        if problem.parts and explain is None:  # of several inputs, the image is shown
            images = [name for name, shape in problem.parts.items() if len(shape) == 3]
            problem = Problem(model, inputs, explain=(images or list(problem.parts))[0], **about)
        if problem.prepared.images is None:
            raise ValueError(
                f"inputs: the explorer shows images, and what the model takes has shape "
                f"{tuple(problem.tensor.shape)}. Use sw.attribute for rows of numbers."
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
        given = {"model": model, "inputs": inputs, "transform": transform, "class_names": class_names}
        super().__init__(problem, panel, executor, **given)
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
        # As wide as the image is at its greatest height (60vh, see heatmap.css): nothing empty beside it.
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
        self._annotations.sync_image_data = True  # from now on there may be something to be saved
        return self._annotations

    @property
    def _image(self) -> np.ndarray:
        """What the map on the screen is of: of inputs that were changed in place, as they were until a map is there."""
        assert self._prepared.images is not None
        return self._prepared.images[0]

    @property
    def controls(self) -> dict[str, Any]:
        """Where the controls stand, the display settings too."""
        reduction = self.panel.reduction
        return {**super().controls, "sign": reduction.sign, "channels": reduction.channels, **self._display.settings}

    @property
    def _shown(self) -> dict[str, Any]:
        reduction = self.panel.reduction
        return {"sign": reduction.sign, "channels": reduction.channels, "clip": self._display.settings["clip"]}

    def wait(self, timeout: float | None = None) -> Attribution:
        """Wait for the map of the newest settings, and for the pinned ones: see :meth:`BaseExplorer.wait`."""
        timeout = TIMEOUT.check(timeout)
        until = None if timeout is None else time.monotonic() + timeout
        try:
            self.pins.wait(timeout)
        except KeyboardInterrupt:
            self.stop()
            raise
        return super().wait(None if until is None else max(0.0, until - time.monotonic()))

    def pin(self) -> None:
        """Keep the map that the controls ask for beside the ones to come: as many as are to be compared."""
        if not self._open:
            raise RuntimeError("pin: the explorer is closed. Make another one.")
        self.pins.pin(self._request, self.panel.reduction)

    def _show_again(self, request: Request, reduction: Reduction) -> None:
        """A pinned map was clicked: move the controls to where they were."""
        asked = {name: value for name, value in request.settings.items() if name != "contrast"}
        self.update(**asked, sign=reduction.sign, channels=reduction.channels)

    def save_png(self, path: Any, *, scale: float | None = None, caption: str = "") -> None:
        """Write the overlay as it is shown, with its color bar, and the annotations as the page last showed them.

        Args:
            path: A path, or a file open for writing bytes. A file that is there is replaced, once all of it is written.
            scale: Size of one pixel of the image in the file, any number: whole ones make squares, others average.
                Chosen to make a handy image unless given.
            caption: Text below the color bar, broken into lines, at most 4000 letters and 100 lines; with letters that
                Pillow's font lacks, in one of the system's fonts that has them.

        Raises:
            RuntimeError: There is no map yet.
            TypeError, ValueError: ``scale`` is no number, or makes an image of no pixels or of too many; ``caption``
                is no text, or too long; or the path is none.
            OSError: It can't be written there. What was there stays.

        Warns:
            UserWarning: No font has some of the letters: boxes are drawn.
        """
        shown = self._session.shown
        if shown is None or shown.frame is None or shown.attribution is None:
            raise RuntimeError("There is no map to save yet: call explorer.wait() first.")
        f, found = shown.frame, shown.attribution
        part = "" if found.complete else f" ({found.done} of {found.total} {found.unit})"
        quantized = render.Quantized(codes=f.codes, low=f.low, high=f.high, signed=f.signed)
        words = {"title": self._title_of(shown).replace(" · ", ", ") + part, "caption": caption}
        layers = [Image.open(io.BytesIO(drawn)) for drawn in self._drawn.values()]
        self._display.render(self._image, quantized, path, scale=scale, layers=layers, **words)

    @property
    def _drawn(self) -> dict[w.Widget, bytes]:
        """What is drawn on the annotations, as PNG bytes, as the page has told."""
        drawn = self._annotations.image_data
        return {self._annotations: bytes(drawn)} if drawn else {}

    def page_size(self, record: Mapping[str, Any] | None = None) -> PageSize:
        """How many maps, bytes and seconds :meth:`save_html` would take, before anything is computed.

        Args:
            record: As there.

        Raises:
            TypeError, ValueError: What is to be recorded can't be.
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
        """Write one HTML file that opens from disk: no kernel, no server, no request to anywhere.

        The display settings stay live on it, and so do the settings that are recorded, over their recorded values.
        Maps are computed as the sliders would, with everything that is kept; interrupted, nothing is written, and what
        was computed is there the next time. Annotations come along as the page last showed them: draw in one cell, and
        save in the next.

        Args:
            path: Where to; a file that is there is replaced, once all of it is written.
            record: Settings that can be moved on the page, each with a list of values, or True for a handful of them:
                ``{"noise_level": [0.05, 0.1, 0.2], "n_samples": True}``. Parameters of the method, "method", "target"
                (classes by name or index), "score", "sign" and "channels". The map on the screen alone unless given.
            title: What stands above it; which model it is about unless given.
            limit: How many maps at most.
            max_bytes: How large the file may be.
            progress: Whether to show a progress bar.

        Returns:
            Path, size and number of maps.

        Raises:
            TypeError: ``record`` is no mapping, or a value is of the wrong type.
            ValueError: A setting that isn't there, a value out of range, or a page over the limits.
            OSError: It can't be written there; nothing is computed then.
            RuntimeError: The map was stopped, or the model was changed meanwhile.
        """
        return save_html(self, path, record, title, limit, max_bytes, progress)

    def _on_clip(self) -> None:
        """The clip range was moved, in the browser: the code to be copied is of what is seen."""
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
        """End the computation and its thread, free the cache, and leave the page."""
        if self._open:
            self.pins.close()
            self.saving.close()
            self._annotations.sync_image_data = False  # a page that still does would find nobody
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
    """Explore which pixels, or which features of a row, moved a model's output, live.

    Args:
        model: Any ``torch.nn.Module`` that scores each row of a batch; call ``model.eval()`` first.
        inputs: One image: PIL image, path, array (H, W, 3) of uint8, tensor (C, H, W) or (1, C, H, W). Or one row of
            a table: a Series, a DataFrame of one row, a mapping from names to values, an array or a tensor (F,). Of a
            model with several inputs: a tuple of them, or a mapping from their names. A row is copied.
        target: A class index or name, None for the top prediction, a tuple as an index into one sample's output, or a
            function from the model's output to one number per sample.
        transform: From ``inputs`` to what the model takes: a function, torchvision weights, a Hugging Face image
            processor, or a timm data config; of rows, a fitted scikit-learn scaler or ColumnTransformer, of which
            one-hot groups are summed back to their column.
        class_names: Names of the classes in order, a mapping from index to name, or torchvision weights; the model's
            own (``config.id2label`` and the like) unless given. Of a binary model with one logit, both classes' names:
            class 1 is what a high logit speaks for.
        feature_names: Of a row without names of its own.
        background: Other rows of the table, such as the training data: baselines, Expected Gradients, the sliders of
            "what if", the noise and the shuffle test come from it.
        labels: Of the background's rows, class indices or names, or values with ``score="value"``: the shuffle test
            then tells the change of the loss.
        explain: Which of several inputs is shown, by name or position; the first image unless given.
        device: Where to compute; the model's own device unless given.
        method: The method to begin with: one of ``sw.methods()``, "captum." and the name of a class of
            ``captum.attr``, or an object of captum's.
        methods: More methods of captum's for the menu, each with sliders for its numeric arguments.
        score: "logit", "probability", "log_probability", or "value" for regression.
        fold: Whether it may be computed sooner, with BatchNorms folded into convolutions: see :func:`attribute`.
        precision: None, "full", "tf32" or "bfloat16": see :func:`attribute`.
        cuda_graphs: Whether passes are recorded on a CUDA device and replayed: see :func:`attribute`.
        **params: Parameters of the method to begin with. Of an image, "sign" and "channels", and display settings such
            as "opacity", "clip" and "colormap"; of a row, "top", how many bars there are.

    Returns:
        The explorer, a widget: it shows itself as the last line of a cell, and leaves an image and a text there for
        readers without a kernel (see :func:`~saliency_widgets.static_output`).

    Raises:
        TypeError: An argument of the wrong type, or one that nothing here has.
        ValueError: An argument out of range, an input that doesn't fit, or a model that failed.
    """
    given = {
        "target": target, "transform": transform, "class_names": class_names, "device": device, "method": method,
        "methods": methods, "score": score, "fold": fold, "precision": precision, "cuda_graphs": cuda_graphs,
    }  # fmt: skip
    if is_row(inputs, background, feature_names, transform):
        if explain is not None:
            raise ValueError("explain: a row of a table is one input. Leave it out.")
        about = {"feature_names": feature_names, "background": background, "labels": labels}
        return TableExplorer(model, inputs, **about, **given, **params)
    if labels is not None:
        raise ValueError("labels: they are those of the rows of background=, and there are none.")
    return Explorer(model, inputs, explain=explain, **given, **params)
