"""``sw.compare``: maps side by side, any two of methods, settings, classes, models and inputs across and down."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import ipywidgets as w
import numpy as np
import torch
from ipywidgets import Widget

from saliency_widgets import render
from saliency_widgets.api.compare import Cell
from saliency_widgets.api.compare.arguments import LIMIT, read_comparison
from saliency_widgets.attribution import Attribution
from saliency_widgets.attribution.reduction import CHANNEL, SIGN
from saliency_widgets.attribution.registry import DEFAULT
from saliency_widgets.attribution.score import SCORE
from saliency_widgets.files import resolve_target
from saliency_widgets.inputs import Explain
from saliency_widgets.params import TIMEOUT, brief, check_choice, check_mapping, check_switch
from saliency_widgets.session.jobs import check_executor, raise_again, worker_error
from saliency_widgets.widgets.base.display import DISPLAY_NAMES, DisplaySettings
from saliency_widgets.widgets.base.explorer import LAYOUT
from saliency_widgets.widgets.base.interrupts import stop_on_interrupt
from saliency_widgets.widgets.base.lifetime import Showable
from saliency_widgets.widgets.base.messages import error_text
from saliency_widgets.widgets.base.parts import close_whole, parts_of
from saliency_widgets.widgets.base.resending import WorkerWrites
from saliency_widgets.widgets.compare.detail_pane import Beneath
from saliency_widgets.widgets.compare.maps import Maps, Wanted
from saliency_widgets.widgets.compare.panel import ComparisonPanel
from saliency_widgets.widgets.compare.pivot import Pivot
from saliency_widgets.widgets.export import snapshots
from saliency_widgets.widgets.export.page import LARGEST, Saved, page, titled, write_page
from saliency_widgets.widgets.export.saving import provenance
from saliency_widgets.widgets.export.static_output import Snapshot, WithStaticOutput
from saliency_widgets.widgets.image.explorer import Explorer


class Comparison(WithStaticOutput, Showable, w.Box):
    """Maps side by side: see :func:`compare` for the arguments.

    Attributes:
        panel: The controls.
        view: The grid.
    """

    _open = False

    def __init__(
        self,
        model: Any,
        inputs: Any,
        *,
        methods: Any,
        settings: Any,
        classes: Any,
        rows: str | None,
        columns: str | None,
        score: str,
        contrast: Any,
        limit: int,
        scale: str = "shared",
        executor: str = "thread",
        sign: str | None = None,
        channels: str | None = None,
        params: Mapping[str, Any],
        **about: Any,
    ) -> None:
        check_executor(executor)
        params = check_mapping("params", params)
        display = {name: params.pop(name) for name in DISPLAY_NAMES if name in params}
        if sign is not None:
            SIGN.check(sign)
        if channels is not None:
            CHANNEL.check(channels)
        check_choice("scale", scale, ("shared", "own"))
        self._asked = read_comparison(
            model, inputs, methods=methods, settings=settings, classes=classes, score=score, contrast=contrast,
            limit=limit, params=params, problem_options=about,
        )  # fmt: skip
        self._display = DisplaySettings(**display)
        try:
            self._pivot = Pivot(self._asked.axes, rows, columns, self._show)
        except BaseException:
            close_whole(self._display)
            raise
        self._executor = executor
        self._maps = Maps(
            self._display,
            executor=executor,
            on_open=self._look_into,
            on_done=lambda _place: self.panel.predict(self._shown),
        )
        self.view = self._maps.view
        self.view.scale = scale
        self._beneath = Beneath(lambda: self.view.tell(opened={}))
        self._shown: list[Cell] = []
        self.panel = ComparisonPanel(
            self._asked, self._pivot, self._display, sign=sign, channels=channels, reduced=self._maps.reduce,
            moved=self._show,
        )  # fmt: skip
        self.view.controls = self.panel.controls
        super().__init__(layout=LAYOUT)
        self.view.root = self.model_id
        self.children = [*self.view.beside(self.panel.widget), self._beneath.widget]
        self.add_class("sw-comparison")
        self._writes = WorkerWrites(self)
        self._open_lifetime(self.view)
        self._open = True
        stop_on_interrupt(self)
        self._show()

    def __repr__(self) -> str:
        """What is compared, in one line."""
        return "Comparison({})".format(
            " x ".join(f"{len(self._asked.axes[name])} {name}" for name in self._asked.varied)
        )

    # ---- for Python

    @property
    def attributions(self) -> dict[tuple[str, str], Attribution]:
        """The finished attributions of the maps that are shown, by (row, column) as the grid calls them."""
        named = {self._pivot.name(place): self._maps.attribution(place) for place in self._shown}
        return {name: found for name, found in named.items() if found is not None}

    @property
    def errors(self) -> dict[tuple[str, str], Exception]:
        """What the maps that failed ended with, by (row, column)."""
        named = {self._pivot.name(place): self._maps.error(place) for place in self._shown}
        return {name: error for name, error in named.items() if error is not None}

    def wait(self, timeout: float | None = None, *, progress: bool = True) -> dict[tuple[str, str], Attribution]:
        """Wait for the maps that are shown.

        Args:
            timeout: Seconds to wait at most.
            progress: Whether a progress bar is shown.

        Returns:
            The finished attributions, by (row, column); :attr:`errors` holds the others.

        Raises:
            TimeoutError: They were not finished in time; the computation goes on.
            KeyboardInterrupt: The kernel was interrupted; the computation is stopped, and :meth:`go` resumes it.
            TypeError, ValueError: What the first of them ended with, where none could be computed.
            ValueError: It is closed.
        """
        timeout, progress = TIMEOUT.check(timeout), check_switch("progress", progress)
        self._check_open()
        try:
            self._maps.wait(timeout, progress=progress)
        except KeyboardInterrupt:
            self.stop()
            raise
        self._writes.send()  # a notebook that is stored now holds the finished maps
        self._update_static()
        if self._shown and len(self.errors) == len(self._shown):
            raise_again(next(iter(self.errors.values())))
        return self.attributions

    def update(self) -> None:
        """Ask again: the maps and predictions of what the model and the inputs are now."""
        self._show()

    def stop(self) -> None:
        """Stop; finished maps stay. :meth:`go` computes the rest."""
        self._maps.stop()

    def go(self) -> None:
        """Compute what was stopped."""
        self._maps.go()

    def show(self, **choices: Any) -> None:
        """Choose what the grid shows of the axes that are neither across nor down: ``comparison.show(models="new")``.

        Args:
            **choices: "methods", "settings", "models", "classes" or "inputs": a label of the menu, or its place.

        Raises:
            ValueError: There is no such menu or variant, or it is closed. Nothing is moved then.
        """
        self._check_open()
        self._pivot.choose(choices)

    def difference(self, a: tuple[str, str], b: tuple[str, str]) -> np.ndarray:
        """The map of one cell minus the map of another, as the grid shows it.

        Where the two are of different methods their units differ: each is divided by its upper clip value first.

        Args:
            a: (row, column) of a cell.
            b: Of the cell whose map is subtracted.

        Returns:
            Signed numbers, shape (H, W), exact to 16 bits of each map's range.

        Raises:
            ValueError: There is no such cell, or the two maps differ in size.
            RuntimeError: One of them is not there yet.
        """
        places = [self._place(argument, name) for argument, name in (("a", a), ("b", b))]
        maps = [self._quantized(place) for place in places]
        units = (1.0, 1.0)
        if len({self._asked.group(place) for place in places}) > 1:
            clip = self._display.settings["clip"]
            first, second = (render.shared_ends([one], clip)[1] or one.high or 1.0 for one in maps)
            units = first, second
        return render.dequantize(render.difference(maps[0], maps[1], units))

    def page_size(self) -> int:
        """How many bytes :meth:`save_html` would write, of the maps that are there."""
        self._check_open()
        return len(page(self.view, title=repr(self), provenance=self._provenance, overrides=self._saved).encode())

    def save_html(
        self, path: str | os.PathLike[str], *, title: str | None = None, max_bytes: int = LARGEST, progress: bool = True
    ) -> Saved:
        """Write the grid that is shown as one HTML file that opens from disk: no kernel, no server, no request.

        Display, scales, reading of pixels and differences work on it; no cell opens an explorer there. Waits for the
        maps that are shown.

        Args:
            path: Where to; a file that is there is replaced, once all of it is written.
            title: What stands above it.
            max_bytes: How large the file may be; :meth:`page_size` tells how large it will be.
            progress: Whether a progress bar is shown.

        Returns:
            Path, size and number of maps.

        Raises:
            ValueError: It would be larger than that, or no map could be computed. Nothing is written.
            TypeError, ValueError, OSError: It can't be written there: see :func:`~.files.resolve_target`.
        """
        resolve_target(path)
        title = titled(title, "Saliency maps side by side")
        found = self.wait(progress=progress)
        self._check_open()
        if not found:
            raise ValueError("compare: there is no finished map to save. Call .go() to compute what was stopped.")
        return write_page(
            path, self.view, title=title, provenance=self._provenance,
            maps=len(found), max_bytes=max_bytes, overrides=self._saved,
        )  # fmt: skip

    def _check_open(self) -> None:
        if not self._open:
            raise ValueError("compare: it is closed, and its maps are gone. Make it again.")

    @property
    def _saved(self) -> dict[Widget, dict[str, Any]]:
        """What of the grid is otherwise on a page."""
        return {self.view: {"controls": [], "opened": {}}}

    @property
    def _provenance(self) -> str:
        axes = {
            name: ", ".join(axis.labels)
            for name, axis in self._asked.axes.items()
            if name in ("methods", "classes", *self._asked.varied)
        }
        return provenance(
            self._asked.axes["models"].values[0], {**axes, "score": self._asked.score, **self._asked.params}
        )

    def close(self) -> None:
        """End the computation, free what is kept, and leave the page."""
        if not self._open:
            return
        self._open = False
        self._update_static()
        self._beneath.shut()
        self._maps.close()
        parts = parts_of(self, [])
        super().close()
        for part in parts:
            part.close()

    # ---- what is shown

    def _snapshot(self) -> Snapshot:
        return snapshots.of_comparison(self)

    def _snapshot_sources(self) -> Mapping[Widget, Sequence[str]]:
        return {self.view: ("progress", "scale", "unlocked"), self._display: DISPLAY_NAMES}

    def _show(self) -> None:
        self._shown = self._pivot.places()
        self._maps.show(*self._pivot.headings, {place: self._wanted(place) for place in self._shown})
        self.panel.show(self._shown)

    def _wanted(self, place: Cell) -> Wanted:
        asked, models = self._asked, self._asked.axes["models"]
        ignored = asked.ignored(place)
        notes = (f"{asked.method(place).title} has no {', '.join(ignored)}: the map is the same without.",)
        return Wanted(
            asked.problem(place),
            asked.request(place),
            name=asked.name(place),
            group=asked.group(place),
            model=models.labels[place.models] if len(models) > 1 else "",
            notes=notes if ignored else (),
        )

    def _place(self, argument: str, name: tuple[str, str]) -> Cell:
        if not isinstance(name, (tuple, list)) or not all(isinstance(label, str) for label in name):
            raise TypeError(f"{argument}: expected a cell as (row, column), both by name, got {brief(name)}.")
        for place in self._shown:
            if self._pivot.name(place) == tuple(name):
                return place
        raise ValueError(
            f"{argument}: there is no cell {brief(name)}. There are {[self._pivot.name(p) for p in self._shown]}."
        )

    def _quantized(self, place: Cell) -> render.Quantized:
        frame = self._maps.frame(place)
        return render.Quantized(codes=frame.codes, low=frame.low, high=frame.high, signed=frame.signed)

    def _look_into(self, place: Any) -> None:
        """A cell was clicked: open its map in an explorer below the grid."""
        asked = self._asked
        if asked.contrast is not None:
            words = "An explorer shows one class, and these maps are of the difference of two (contrast=): not opened."
            self.view.tell(opened={"words": words, "mark": ""})
            return
        name, request, method = asked.name(place), asked.request(place), asked.axes["methods"].values[place.methods]
        explain = asked.problem(place).options.get("explain")
        about = {**asked.options[place.models], **({} if explain is None else {"explain": explain})}
        try:
            found = Explorer(
                asked.axes["models"].values[place.models], asked.axes["inputs"].values[place.inputs],
                target=request.target, score=request.score, method=method, executor=self._executor,
                sign=self.panel.sign_of(place),
                channels=self.panel.channels.value, **about, **self._display.settings, **dict(request.params),
            )  # fmt: skip
        except BaseException as error:
            self.view.tell(opened={"words": f"{name} can't be opened: {error_text(worker_error(error))}", "mark": ""})
            return
        self.view.tell(opened={"words": f"Opened below: {name}", "mark": self._beneath.show(found, name)})


def compare(
    model: Any,
    inputs: Any,
    *,
    methods: Any = None,
    settings: Any = None,
    classes: Any = None,
    rows: str | None = None,
    columns: str | None = None,
    score: str = SCORE.default,
    contrast: Any = None,
    sign: str | None = None,
    channels: str = CHANNEL.default,
    scale: str = "shared",
    transform: Any = None,
    class_names: Any = None,
    explain: Explain = None,
    device: torch.device | str | None = None,
    fold: bool = True,
    precision: str | None = None,
    limit: int = LIMIT,
    **params: Any,
) -> Comparison:
    """Saliency maps side by side: any two of methods, settings, classes, models and inputs, down and across.

    What is neither gets a menu. Maps appear as they are computed, the ones in sight first. All have one display, and
    those that can be compared (one method's, of one score) one color scale, until they are unlocked.

    Args:
        model: A ``torch.nn.Module``, or several: a mapping from names to them, or a list.
        inputs: One image as for :func:`explore`, or several: a list, a tensor with a row for each, or a mapping from
            names to images.
        methods: As for :func:`attribute`, or several: a list of them, or a mapping from names to them.
        settings: Variants of the methods' parameters: a list of mappings, a mapping from names to mappings, or lists of
            values by name, of which all combinations are shown: ``{"noise_level": [0.1, 0.3], "n_samples": [8, 32]}``.
        classes: What is explained: a class index or name, a function, None for each input's top prediction, or a list
            of these, in which a tuple is an index into one sample's output.
        rows: What goes down: "methods", "settings", "models", "classes" or "inputs"; chosen unless given.
        columns: What goes across.
        score: As for :func:`attribute`.
        contrast: As for :func:`attribute`.
        sign: How all maps are shown; each as its method's paper does, unless given.
        channels: Likewise.
        scale: "shared": maps that can be compared share one color scale; "own": each is clipped at the same
            percentiles of its own.
        transform: As for :func:`attribute`; of several models, a mapping from their names, where they differ.
        class_names: Likewise.
        explain: As for :func:`attribute`.
        device: Likewise.
        fold: Likewise.
        precision: Likewise.
        limit: More maps than these are not begun: it is said how long they would take.
        **params: Parameters of the methods, the same in all maps whose method has them; and display settings such as
            "opacity", "clip" and "colormap".

    Returns:
        The comparison, a widget: it shows itself as the last line of a cell, and leaves an image and a text there for
        readers without a kernel (see :func:`~saliency_widgets.static_output`). ``.wait()`` gives the attributions.

    Raises:
        TypeError: An argument of the wrong type, or a parameter that no method here has.
        ValueError: An argument out of range, something that does not fit one of the models, or too many maps.
    """
    return Comparison(
        model, inputs, methods=DEFAULT if methods is None else methods, settings=settings, classes=classes, rows=rows,
        columns=columns, score=score, contrast=contrast, limit=limit, sign=sign, scale=scale,
        channels=CHANNEL.check(channels), params=params,
        transform=transform, class_names=class_names, explain=explain, device=device, fold=fold, precision=precision,
    )  # fmt: skip
