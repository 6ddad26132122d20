"""The explorer: a picture with its saliency map on the left, the controls on the right, live."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import ipywidgets as w
import numpy as np
import torch
from ipycanvas import Canvas
from torch import nn

from saliency_widgets import render
from saliency_widgets.attribution import Attribution, Cancelled, get_method
from saliency_widgets.attribution.findings import Finding
from saliency_widgets.attribution.method import DEFAULT
from saliency_widgets.attribution.result import code_of
from saliency_widgets.attribution.targets import SCORE
from saliency_widgets.engine import CacheInfo, Event, Request, Session, Subject
from saliency_widgets.engine.case import Case
from saliency_widgets.engine.checkup import check_up
from saliency_widgets.inputs import Explain
from saliency_widgets.widgets import messages
from saliency_widgets.widgets.annotations import annotation_canvas
from saliency_widgets.widgets.display import DISPLAY_NAMES, DisplaySettings
from saliency_widgets.widgets.heatmap import HeatmapView
from saliency_widgets.widgets.panel import REDUCTION_NAMES, Panel
from saliency_widgets.widgets.parts import parts_of
from saliency_widgets.widgets.pictures import png_bytes
from saliency_widgets.widgets.trust import TrustPanel

_LAYOUT = {
    "display": "flex",
    "flex_flow": "row wrap",
    "align_items": "flex-start",
    "grid_gap": "8px 20px",
    "width": "100%",
    "overflow": "visible",
}

_OUTDATED = (
    "The model or the input has changed: the map is of what they are now, the predictions of what they were. "
    "explorer.update() asks for new ones."
)


class Explorer(w.Box):
    """Which inputs moved the model's output: see :func:`explore` for the arguments.

    Attributes:
        annotations: An ipycanvas ``Canvas`` over the map, in the picture's pixels: draw on it from Python.
        panel: The controls.
        view: The picture with its map.
        trust: The tests of the map that is shown.
    """

    _open = False

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
        about = {"transform": transform, "class_names": class_names, "device": device, "fold": fold}
        about |= {"precision": precision, "cuda_graphs": cuda_graphs}
        subject = Subject(model, inputs, explain=explain, **about)
        if subject.parts and explain is None:  # of several inputs, the picture is shown
            pictures = [name for name, shape in subject.parts.items() if len(shape) == 3]
            subject = Subject(model, inputs, explain=(pictures or list(subject.parts))[0], **about)
        if subject.prepared.pictures is None:
            raise ValueError(
                f"inputs: the explorer shows pictures, and what the model takes has shape "
                f"{tuple(subject.tensor.shape)}. Use sw.attribute for rows of numbers."
            )
        if subject.tensor.shape[0] != 1:
            raise ValueError(
                f"inputs: the explorer shows one picture, got a batch of {subject.tensor.shape[0]}. Pass one of them."
            )
        self._given = {"model": model, "inputs": inputs, "transform": transform, "class_names": class_names}
        self._subject = subject
        shown = {name: params.pop(name) for name in list(params) if name in (*DISPLAY_NAMES, *REDUCTION_NAMES)}
        reduced = {name: shown.pop(name) for name in REDUCTION_NAMES if name in shown}
        self._display = DisplaySettings(**shown)
        methods = (methods,) if isinstance(methods, str) else methods
        self.panel = Panel(
            subject, self._display, method=method, target=target, score=score, params=params, more=methods
        )
        if reduced:
            self.panel.update(reduced)
        self._examined: Any = None
        self._prepared = subject.prepared
        self._request = self.panel.request()  # before anything is shown: a wrong argument is an error of this call
        height, width = self._picture.shape[:2]
        self.annotations: Canvas = annotation_canvas(width, height)
        self._session = Session(subject, self._on_event, executor=executor, idle=self._check_up)
        self.view = HeatmapView(
            png_bytes(self._picture),
            self._display,
            on_stop=self._session.stop,
            controls=self.panel.controls,
            layers=(self.annotations,),
        )
        self.trust = TrustPanel(self.view, busy=lambda: self._session.busy, executor=executor)
        super().__init__(children=(self.view, self.panel.widget, self.trust.widget), layout=_LAYOUT)
        self.add_class("sw-explorer")
        self.trust.widget.layout.flex = "1 1 100%"
        self.view.layout.flex, self.view.layout.min_width = "3 1 260px", "240px"
        # As wide as the picture is at its greatest height (60vh, see heatmap.css): nothing empty beside it.
        self.view.layout.max_width = f"max(320px, min(640px, {60 * width / height:.1f}vh))"
        self.panel.observe(self._on_move, self._session.reduce, self._on_wrong)
        self._display.observe(lambda _change: self._on_clip(), names="clip")
        self._open = True
        self._submit(self._request)

    def __repr__(self) -> str:
        """What is explained, in one line."""
        return f"Explorer({type(self._given['model']).__name__}, {self.panel.title!r})"

    @property
    def _picture(self) -> np.ndarray:
        """What the map on the screen is of: of inputs that were changed in place, as they were until a map is there."""
        assert self._prepared.pictures is not None
        return self._prepared.pictures[0]

    @property
    def settings(self) -> dict[str, Any]:
        """Keyword arguments with which ``sw.attribute`` gives what the screen shows, bit for bit."""
        last, request = self._session.last, self._request
        if last is not None and last.request is not None and last.generation == self._session.generation:
            request = last.request  # as it was computed
        return {**self._given, **self._subject.given, **request.settings}

    @property
    def attribution(self) -> Attribution | None:
        """The finished attribution on the screen; None while it is being computed, and after a stop or an error."""
        last = self._session.last
        if last is None or last.state != "done" or last.generation != self._session.generation:
            return None
        return last.attribution

    def wait(self, timeout: float | None = None) -> Attribution:
        """Wait for the map of the newest settings.

        Args:
            timeout: Seconds to wait at most.

        Returns:
            The finished attribution.

        Raises:
            TimeoutError: It was not finished in time.
            RuntimeError: It was stopped, or the explorer is closed.
            TypeError, ValueError: What the computation ended with.
        """
        if not self._session.wait(timeout):
            raise TimeoutError(f"The map was not finished within {timeout} seconds.")
        self.view.flush()  # a notebook that is stored now holds the finished map
        last = self._session.last
        if last is not None and last.error is not None:
            raise last.error
        found = self.attribution
        if found is None:
            raise RuntimeError("There is no finished map: it was stopped, or the explorer is closed. Move a control.")
        return found

    def update(self, **settings: Any) -> None:
        """Move controls from Python: ``explorer.update(method="smoothgrad", n_samples=20, target="tabby")``.

        Args:
            **settings: "method", "target", "score", the method's parameters, "sign", "channels", and display settings.
                None at all asks again, and brings the predictions up to date with a model that was trained meanwhile.

        Raises:
            TypeError: A name that nothing here has, or a value of the wrong type. Nothing is moved then.
            ValueError: A value out of range. Nothing is moved then.
        """
        self.panel.update(settings)

    def to_code(self) -> str:
        """Python that repeats what the screen shows, the attribution and the map made of it."""
        return self._code_of(self.attribution)

    def _code_of(self, found: Attribution | None) -> str:
        """The code of a finished attribution; of what is asked, where there is none yet."""
        settings = {**self._subject.given, **self._request.settings} if found is None else found.settings
        reduction = self.panel.reduction
        shown = {"sign": reduction.sign, "channels": reduction.channels, "clip": self._display.settings["clip"]}
        return code_of(settings, transformed=self._subject.transformed, shown=shown)

    def save_png(self, path: Any, *, scale: int | None = None) -> None:
        """Write the overlay as it is shown, with its colour bar.

        Args:
            path: A path, or a file open for writing bytes.
            scale: Size of one pixel of the picture; chosen to make a handy picture unless given.
        """
        shown = self._session.shown
        if shown is None or shown.frame is None or shown.attribution is None:
            raise RuntimeError("There is no map to save yet: call explorer.wait() first.")
        f, found = shown.frame, shown.attribution
        part = "" if found.complete else f" ({found.done} of {found.total} {found.unit})"
        quantised = render.Quantised(codes=f.codes, low=f.low, high=f.high, signed=f.signed)
        self._display.render(self._picture, quantised, path, scale=scale, title=self._title_of(shown) + part)

    def cache_info(self) -> CacheInfo:
        """What is kept of finished maps and single passes, in bytes and by kind, and how often it helped.

        All explorers of a kernel share one bound; what was used least recently goes first.
        """
        return self._session.cache.info()

    def close(self) -> None:
        """End the computation and its thread, free the cache, and leave the page."""
        if not self._open:  # closed already, or an argument was wrong and it was never made
            return
        self._open = False
        self.trust.close()
        self._session.close()
        self.view.retire()
        parts = parts_of(self, [*self._display.links])
        super().close()
        for part in parts:
            part.close()

    def _on_move(self) -> None:
        """A control was moved. It runs on any thread, and only asks."""
        try:
            self._submit(self.panel.request())
        except (TypeError, ValueError) as error:
            self._on_wrong(error)

    def _on_clip(self) -> None:
        """The clip range was moved, in the browser: the code to be copied is of what is seen."""
        last = self._session.last
        if last is not None and last.state == "done":
            self.view.offer(None, self._status_of(last, last, ""))

    def _on_wrong(self, error: Exception) -> None:
        """What was typed can't be used: say so; the map that is there stays."""
        shown = self._session.shown
        now = messages.status() if shown is None else self._status_of(shown, shown, "")
        said = {"message": str(error), "remedy": "Nothing has moved. Choose another to go on."}
        self.view.offer(None, {**now, "generation": self._session.generation, "state": "error", **said})

    def _submit(self, request: Request) -> None:
        self._request = request
        self._session.submit(request)

    def _on_event(self, event: Event) -> None:
        """The worker has something to show. It touches the result widget and nothing else."""
        fresh = event.attribution is not None and event.state in ("running", "done")
        if fresh and self._subject.prepared is not self._prepared:  # the inputs were changed in place
            self._prepared = self._subject.prepared
            self.view.picture = png_bytes(self._picture)
        shown = self._session.shown or event  # the title is of the map on the screen, not of what is asked by now
        asked = "" if event.asked is None else self.panel.title_of(event.asked)
        self.view.offer(messages.frame_of(event), self._status_of(event, shown, asked))
        if event.state == "done" and event.attribution is not None and event.request is not None:
            session, reduction = self._session, self.panel.reduction
            case = Case(
                self._subject, event.request, event.attribution, reduction, event.version, session.cache, session
            )  # fmt: skip
            self.trust.show(case, self._title_of(event))

    def _status_of(self, event: Event, shown: Event, asked: str) -> dict[str, Any]:
        found = shown.attribution
        return messages.status_of(
            event,
            self._title_of(shown),
            asked,
            method="" if shown.request is None else get_method(shown.request.method).title,
            code=self._code_of(found) if found is not None and found.complete else "",
            aside=str(self._subject.memory),
            notes=(_OUTDATED,) if self.panel.outdated else (),
        )

    def _check_up(self, check: Callable[[], None]) -> None:
        """What is done while nothing is asked: the check-up, once for each version of the model."""
        version = self._subject.version()
        if version == self._examined:
            return
        try:
            found = check_up(self._subject, self._request, check)
        except Cancelled:
            raise
        except Exception as error:
            found = [
                Finding(
                    f"The check-up failed: {type(error).__name__}: {error}.",
                    remedy="Please report it.",
                    severity="caution",
                )
            ]
        self._examined = version
        self.view.tell(messages.findings_of(found, self.panel.titles))

    def _title_of(self, event: Event) -> str:
        return "" if event.request is None else self.panel.title_of(event.request)


def explore(
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
    **params: Any,
) -> Explorer:
    """Explore which pixels moved a model's output, live.

    Args:
        model: Any ``torch.nn.Module`` that scores each row of a batch; call ``model.eval()`` first.
        inputs: One picture: PIL image, path, array (H, W, 3) of uint8, tensor (C, H, W) or (1, C, H, W). Of a model
            with several inputs: a tuple of them, or a mapping from their names.
        target: A class index or name, None for the top prediction, or a function from the model's output to one number
            per sample.
        transform: From ``inputs`` to what the model takes: a function, torchvision weights, a Hugging Face image
            processor, or a timm data config.
        class_names: Names of the classes in order, a mapping from index to name, or torchvision weights; the model's
            own (``config.id2label`` and the like) unless given.
        explain: Which of several inputs is shown, by name or position; the first picture unless given.
        device: Where to compute; the model's own device unless given.
        method: The method to begin with: one of ``sw.methods()``, "captum." and the name of a class of
            ``captum.attr``, or an object of captum's.
        methods: More methods of captum's for the menu, each with sliders for its numeric arguments.
        score: "logit", "probability", "log_probability" or "value".
        fold: Whether it may be computed sooner, with BatchNorms folded into convolutions: see :func:`attribute`.
        precision: None, "full", "tf32" or "bfloat16": see :func:`attribute`.
        cuda_graphs: Whether passes are recorded on a CUDA device and replayed: see :func:`attribute`.
        **params: Parameters of the method to begin with; "sign" and "channels"; display settings such as "opacity",
            "clip" and "colormap".

    Returns:
        The explorer, a widget: it shows itself as the last line of a cell.

    Raises:
        TypeError: An argument of the wrong type, or one that nothing here has.
        ValueError: An argument out of range, an input that doesn't fit, or a model that failed.
    """
    return Explorer(
        model,
        inputs,
        target=target,
        transform=transform,
        class_names=class_names,
        explain=explain,
        device=device,
        method=method,
        methods=methods,
        score=score,
        fold=fold,
        precision=precision,
        cuda_graphs=cuda_graphs,
        **params,
    )
