"""``sw.compare``: maps side by side, with two of methods, settings, classes, models and inputs as rows and columns."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import ipywidgets as w
import numpy as np
from ipywidgets import Widget

from saliency_widgets import render
from saliency_widgets.api.compare import Cell
from saliency_widgets.api.compare.arguments import LIMIT, read_comparison
from saliency_widgets.attribution import Attribution
from saliency_widgets.attribution.reduction import CHANNEL, SIGN
from saliency_widgets.attribution.registry import DEFAULT
from saliency_widgets.attribution.score import SCORE
from saliency_widgets.files import resolve_target
from saliency_widgets.inputs.options import split_options, takes_options
from saliency_widgets.params import TIMEOUT, brief, check_choice, check_mapping, check_switch
from saliency_widgets.session.worker import check_executor, raise_again
from saliency_widgets.widgets.base.display import DISPLAY_NAMES, DisplaySettings
from saliency_widgets.widgets.base.interrupts import stop_on_interrupt
from saliency_widgets.widgets.base.lifetime import Showable
from saliency_widgets.widgets.base.parts import LAYOUT, close_whole, parts_of
from saliency_widgets.widgets.base.resending import WorkerWrites
from saliency_widgets.widgets.compare.detail_pane import DetailPane
from saliency_widgets.widgets.compare.maps import Maps, Wanted
from saliency_widgets.widgets.compare.panel import ComparisonPanel
from saliency_widgets.widgets.compare.pivot import Pivot
from saliency_widgets.widgets.export import snapshots
from saliency_widgets.widgets.export.page import LARGEST, Saved, page, titled, write_page
from saliency_widgets.widgets.export.saving import provenance
from saliency_widgets.widgets.export.static_output import Snapshot, WithStaticOutput


class Comparison(WithStaticOutput, Showable, w.Box):
    """A widget that shows maps side by side. See :func:`compare` for the arguments.

    Attributes:
        panel: The controls.
        view: The grid.
    """

    _open = False

    def __init__(  # noqa: PLR0913
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
        check_choice("scale", scale, ("shared", "separate"))
        self._comparison = read_comparison(
            model, inputs, methods=methods, settings=settings, classes=classes, score=score, contrast=contrast,
            limit=limit, params=params, problem_options=about,
        )  # fmt: skip
        self._display = DisplaySettings(**display)
        try:
            wide = self._comparison.problem(Cell()).prepared.images is None
            self._pivot = Pivot(self._comparison.axes, rows, columns, self._show, wide=wide)
        except BaseException:
            close_whole(self._display)
            raise
        self._maps = Maps(
            self._display,
            executor=executor,
            on_open=self._open_explorer,
            on_done=lambda _cell: self.panel.predict(self._shown),
        )
        self.view = self._maps.view
        self.view.scale = scale
        self._detail_pane = DetailPane(self._comparison, self.view, executor)
        self._shown: list[Cell] = []
        self.panel = ComparisonPanel(
            self._comparison, self._pivot, self._display, sign=sign, channels=channels, reduced=self._maps.reduce,
            moved=self._show,
        )  # fmt: skip
        self.view.controls = self.panel.controls
        super().__init__(layout=LAYOUT)
        self.view.root = self.model_id
        self.children = [*self.view.with_controls(self.panel.widget), self._detail_pane.widget]
        self.add_class("sw-comparison")
        self._writes = WorkerWrites(self)
        self._open_lifetime(self.view)
        self._open = True
        stop_on_interrupt(self)
        self._show()

    def __repr__(self) -> str:
        """Show the sizes of the axes in one line."""
        return "Comparison({})".format(
            " x ".join(f"{len(self._comparison.axes[name])} {name}" for name in self._comparison.varied)
        )

    # ---- public

    @property
    def attributions(self) -> dict[tuple[str, str], Attribution]:
        """The finished attributions of the displayed maps, by (row label, column label)."""
        named = {self._pivot.name(cell): self._maps.attribution(cell) for cell in self._shown}
        return {name: attribution for name, attribution in named.items() if attribution is not None}

    @property
    def errors(self) -> dict[tuple[str, str], Exception]:
        """The errors of the maps that failed, by (row label, column label)."""
        named = {self._pivot.name(cell): self._maps.error(cell) for cell in self._shown}
        return {name: error for name, error in named.items() if error is not None}

    def wait(self, timeout: float | None = None, *, progress: bool = True) -> dict[tuple[str, str], Attribution]:
        """Wait for the displayed maps.

        Args:
            timeout: The maximum time to wait, in seconds.
            progress: Whether to show a progress bar.

        Returns:
            The finished attributions, by (row label, column label). For failed maps see :attr:`errors`.

        Raises:
            TimeoutError: The maps were not finished in time; the computation continues.
            KeyboardInterrupt: The kernel was interrupted; the computation is stopped, and :meth:`go` resumes it.
            TypeError, ValueError: The error of the first map, if every map failed.
            ValueError: The comparison is closed.
        """
        timeout, progress = TIMEOUT.check(timeout), check_switch("progress", progress)
        self._check_open()
        try:
            self._maps.wait(timeout, progress=progress)
        except KeyboardInterrupt:
            self.stop()
            raise
        self._writes.send()  # a notebook saved now contains the finished maps
        self._update_static()
        if self._shown and len(self.errors) == len(self._shown):
            raise_again(next(iter(self.errors.values())))
        return self.attributions

    def update(self) -> None:
        """Recompute the maps and predictions if the models or the inputs have changed."""
        self._show()

    def stop(self) -> None:
        """Stop the computation; finished maps stay, and :meth:`go` computes the rest."""
        self._maps.stop()

    def go(self) -> None:
        """Resume the computation after a stop."""
        self._maps.go()

    def show(self, **choices: Any) -> None:
        """Select variants of the axes that are neither rows nor columns: ``comparison.show(models="new")``.

        Args:
            **choices: The label or index of a variant, for "methods", "settings", "models", "classes" or "inputs".

        Raises:
            ValueError: A menu or variant doesn't exist, or the comparison is closed. The selection stays as it was.
        """
        self._check_open()
        self._pivot.choose(choices)

    def difference(self, a: tuple[str, str], b: tuple[str, str]) -> np.ndarray:
        """Return the map of one cell minus the map of another, as the grid shows it.

        Maps that are not comparable, such as those of different methods, are first divided by their upper clip values.

        Args:
            a: The (row label, column label) of a cell.
            b: The (row label, column label) of the cell whose map is subtracted.

        Returns:
            The signed difference, exact to 16 bits of each map's range: shape (H, W), for a text (1, T), for a signal
            (C, T), or (1, T) for the maps of a layer; for a volume (D, H, W).

        Raises:
            ValueError: A cell doesn't exist, or the two maps differ in size.
            RuntimeError: One of the maps is not finished.
        """
        cells = [self._find_cell(argument, name) for argument, name in (("a", a), ("b", b))]
        maps = [self._maps.whole(cell) for cell in cells]
        problems = [self._comparison.problem(cell) for cell in cells]
        shapes = [problem.kind.shape_of(problem.tensor) for problem in problems]
        partial = problems[0].kind.features.partial
        if partial and shapes[0] != shapes[1]:  # perhaps with as many rows
            raise ValueError(
                f"difference: one map has shape {shapes[0]} and the other {shapes[1]}. Compare maps of model inputs of "
                f"the same size."
            )
        units = (1.0, 1.0)
        if len({self._comparison.group(cell) for cell in cells}) > 1:
            clip = self._display.settings["clip"]
            first, second = (render.shared_ends([map_], clip)[1] or map_.high or 1.0 for map_ in maps)
            units = first, second
        result = render.dequantize(render.difference(maps[0], maps[1], units))
        return result.reshape(shapes[0]) if partial else result

    def page_size(self) -> int:
        """Return the number of bytes that :meth:`save_html` would write, for the maps computed so far."""
        self._check_open()
        return len(page(self.view, title=repr(self), provenance=self._provenance, overrides=self._saved).encode())

    def save_html(
        self, path: str | os.PathLike[str], *, title: str | None = None, max_bytes: int = LARGEST, progress: bool = True
    ) -> Saved:
        """Write the grid as one HTML file that opens from disk, without a kernel, a server or network access.

        Display settings, scales, pixel values and differences work on the page; cells don't open an explorer. The call
        waits for the displayed maps.

        Args:
            path: The file; an existing file is replaced only after everything is written.
            title: The heading.
            max_bytes: The maximum size of the file; see :meth:`page_size`.
            progress: Whether to show a progress bar.

        Returns:
            The path, the size and the number of maps.

        Raises:
            ValueError: The file would be larger than ``max_bytes``, or no map could be computed. Nothing is written.
            TypeError, ValueError, OSError: The file can't be written to this path, see :func:`~.files.resolve_target`.
        """
        resolve_target(path)
        title = titled(title, "Saliency maps side by side")
        attributions = self.wait(progress=progress)
        self._check_open()
        if not attributions:
            raise ValueError("compare: there is no finished map to save. Call .go() to resume the stopped computation.")
        return write_page(
            path, self.view, title=title, provenance=self._provenance,
            maps=len(attributions), max_bytes=max_bytes, overrides=self._saved,
        )  # fmt: skip

    def _check_open(self) -> None:
        if not self._open:
            raise ValueError("compare: the comparison is closed and its maps are not available. Create a new one.")

    @property
    def _saved(self) -> dict[Widget, dict[str, Any]]:
        """The traits that have other values on a saved page."""
        return {self.view: {"controls": [], "opened": {}}}

    @property
    def _provenance(self) -> str:
        axes = {
            name: ", ".join(axis.labels)
            for name, axis in self._comparison.axes.items()
            if name in ("methods", "classes", *self._comparison.varied)
        }
        return provenance(
            self._comparison.axes["models"].values[0],
            {**axes, "score": self._comparison.score, **self._comparison.params},
        )

    def close(self) -> None:
        """End the computation, free the cache, and remove the comparison from the page."""
        if not self._open:
            return
        self._open = False
        self._update_static()
        self._detail_pane.shut()
        self._maps.close()
        parts = parts_of(self, [])
        super().close()
        for part in parts:
            part.close()

    # ---- display

    def _snapshot(self) -> Snapshot:
        return snapshots.of_comparison(self.view, repr(self), self._provenance)

    def _snapshot_sources(self) -> Mapping[Widget, Sequence[str]]:
        return {self.view: ("progress", "scale", "unlocked"), self._display: DISPLAY_NAMES}

    def _show(self) -> None:
        self._shown = self._pivot.cells()
        self._maps.show(*self._pivot.headings, {cell: self._wanted(cell) for cell in self._shown})
        self.panel.show(self._shown)

    def _wanted(self, cell: Cell) -> Wanted:
        comparison, models = self._comparison, self._comparison.axes["models"]
        ignored = comparison.ignored(cell)
        notes = (f"{comparison.method(cell).title} has no {', '.join(ignored)}: it doesn't affect this map.",)
        return Wanted(
            comparison.problem(cell),
            comparison.request(cell),
            name=comparison.name(cell),
            group=comparison.group(cell),
            model=models.labels[cell.models] if len(models) > 1 else "",
            notes=notes if ignored else (),
        )

    def _find_cell(self, argument: str, name: tuple[str, str]) -> Cell:
        if not isinstance(name, (tuple, list)) or not all(isinstance(label, str) for label in name):
            raise TypeError(f"{argument}: expected a cell as (row label, column label), got {brief(name)}.")
        for cell in self._shown:
            if self._pivot.name(cell) == tuple(name):
                return cell
        raise ValueError(
            f"{argument}: there is no cell {brief(name)}. Choose from {[self._pivot.name(p) for p in self._shown]}."
        )

    def _open_explorer(self, cell: Any) -> None:
        """Open the map of a clicked cell in an explorer below the grid."""
        reduction = self.panel.reduction_of(cell)
        self._detail_pane.open(cell, sign=reduction.sign, channels=reduction.channels, **self._display.settings)


_OPTIONS = (
    "transform", "class_names", "tokenizer", "max_new_tokens", "sampling_rate", "channel_names", "time_axis", "slices",
    "explain", "device", "fold", "precision",
)  # fmt: skip


@takes_options(*_OPTIONS)
def compare(  # noqa: PLR0913
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
    channels: str | None = None,
    scale: str = "shared",
    limit: int = LIMIT,
    **params: Any,
) -> Comparison:
    """Compare saliency maps side by side, with any two of methods, settings, classes, models and inputs as the axes.

    Each other axis has a menu. Maps appear as they are computed, visible ones first. All maps share the display
    settings, and comparable maps (same method, same score) share a color scale until they are unlocked.

    Args:
        model: A ``torch.nn.Module``, or several: a mapping from names to models, or a list.
        inputs: One image, text, signal or volume as for :func:`explore`, or several: a list, a tensor with one row per
            input, or a mapping from names to inputs. All are of one kind. Of volumes, the planes that the sliders
            select are shown.
        methods: As for :func:`attribute`, or several: a list, or a mapping from names to methods.
        settings: Variants of the methods' parameters: a list of mappings, a mapping from names to mappings, or lists of
            values by parameter, all combined: ``{"noise_level": [0.1, 0.3], "n_samples": [8, 32]}``.
        classes: The explained class: an index or name, a function, None for each input's top prediction, or a list of
            these, in which a tuple is an index into one sample's output.
        rows: The axis of the rows: "methods", "settings", "models", "classes" or "inputs". Chosen by default.
        columns: The axis of the columns.
        score: As for :func:`attribute`.
        contrast: As for :func:`attribute`.
        sign: The sign of all maps. Default: each method's default for the kind of input.
        channels: How the channels of all maps are reduced, or for texts the numbers of each embedding. Default: for
            images "max"; for texts "sum" of signed maps, and otherwise "L2". Signals have a line for each channel.
        scale: "shared": comparable maps share one color scale; "separate": each is clipped at its own percentiles.
        limit: The maximum number of maps; the error for exceeding it estimates the computation time.
        **params: Method parameters, applied to all methods that have them, and display settings such as "opacity",
            "clip" and "colormap". If the models need different options, pass a mapping from model names to values.

    Returns:
        The comparison, a widget. As the last line of a cell it is displayed, with an image and a text for readers
        without a kernel (see :func:`~saliency_widgets.static_output`). ``.wait()`` returns the attributions.

    Raises:
        TypeError: An argument of the wrong type, or a parameter that none of the methods has.
        ValueError: An argument out of range, an argument that does not fit one of the models, or too many maps.
    """
    options, params = split_options(params, _OPTIONS)
    return Comparison(
        model, inputs, methods=DEFAULT if methods is None else methods, settings=settings, classes=classes, rows=rows,
        columns=columns, score=score, contrast=contrast, limit=limit, sign=sign, scale=scale,
        channels=channels, params=params, **options,
    )  # fmt: skip
