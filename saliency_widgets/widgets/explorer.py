"""The explorer: controls make a request, a session computes it, a view shows it, and tests check the result."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import ipywidgets as w
import numpy as np
from ipycanvas import Canvas
from torch import nn

from saliency_widgets.api.checkup import Due, check_up_when_idle
from saliency_widgets.attribution import Attribution, get_method
from saliency_widgets.attribution.registry import DEFAULT
from saliency_widgets.attribution.result import code_of
from saliency_widgets.attribution.score import SCORE
from saliency_widgets.diagnostics.report import Finding
from saliency_widgets.inputs import as_explored, split_options
from saliency_widgets.params import TIMEOUT, check_list
from saliency_widgets.session import CacheInfo, Event, Problem, Request, Session
from saliency_widgets.session.explanation import FinishedMap
from saliency_widgets.session.worker import check_executor, raise_again
from saliency_widgets.widgets.base import messages
from saliency_widgets.widgets.base.heatmap import HeatmapView
from saliency_widgets.widgets.base.interrupts import stop_on_interrupt
from saliency_widgets.widgets.base.kind_view import KindView, Setup
from saliency_widgets.widgets.base.lifetime import Showable, weakly
from saliency_widgets.widgets.base.panel import Panel
from saliency_widgets.widgets.base.parts import LAYOUT, parts_of
from saliency_widgets.widgets.base.resending import WorkerWrites
from saliency_widgets.widgets.export import snapshots
from saliency_widgets.widgets.export.page import Saved
from saliency_widgets.widgets.export.recording import PageSize
from saliency_widgets.widgets.export.saving import LARGEST, LIMIT
from saliency_widgets.widgets.export.state import load_state, save_state
from saliency_widgets.widgets.export.static_output import Snapshot, WithStaticOutput
from saliency_widgets.widgets.image.view import ImageView
from saliency_widgets.widgets.table.view import TableView
from saliency_widgets.widgets.trust import TrustPanel

KIND_VIEWS: dict[str, type[KindView]] = {"image": ImageView, "table": TableView}
_CORRECTED = "The model's weights had changed: computed again."
_STOPPED = "Interrupted. Change a setting, or call .update(), to compute it again."


class Explorer(WithStaticOutput, Showable, w.Box):
    """Computes what the controls request, live. See :func:`explore` for the arguments.

    Attributes:
        problem: The model and the input.
        session: Computes the requests.
        request: The newest request.
        arguments: The caller's arguments that are not in ``problem.options``.
        is_open: Whether it was not closed.
        kind_view: What it shows of this kind of input.
    """

    is_open = False

    def __init__(
        self,
        model: nn.Module,
        inputs: Any,
        *,
        target: Any = None,
        labels: Any = None,
        method: Any = DEFAULT,
        methods: Iterable[Any] = (),
        score: str = SCORE.default,
        executor: str = "thread",
        **params: Any,
    ) -> None:
        check_executor(executor)
        options, params = split_options(params)
        transform = options.get("transform")
        inputs = as_explored(inputs, options.get("background"), options.get("feature_names"), transform)
        problem = Problem(model, inputs, **options)
        if problem.parts and options.get("explain") is None:  # of several inputs, the image is shown
            problem = Problem(model, inputs, **{**options, "explain": problem.main_part})
        if labels is not None and problem.kind.columns is None:
            raise ValueError("labels: these are the labels of the rows of background=, which is missing.")
        methods = [methods] if isinstance(methods, str) else check_list("methods", methods, "['gradient']")
        panel = {"method": method, "target": target, "score": score, "more": methods}
        setup = Setup(executor, panel, params, labels)
        self.kind_view = KIND_VIEWS.get(problem.kind.name, ImageView)(problem, setup)  # the image's says what is shown
        shown = inputs if problem.table is None else problem.table.rows
        names = options.get("class_names")
        self.arguments = {"model": model, "inputs": shown, "transform": transform, "class_names": names}
        self.problem = problem
        self._checked_version: Any = None
        self.request = self.panel.request()  # before anything is shown: a wrong argument raises in this call
        idle = check_up_when_idle(weakly(self._due_checkups), weakly(self._on_checkup))
        self.session = Session(problem, weakly(self._on_event), executor=executor, idle=idle)
        weakref.finalize(self, self.session.ending.end).atexit = False
        super().__init__(layout=LAYOUT)
        self.children = self.kind_view.build(self)
        self.view.root = self.model_id
        self.add_class("sw-explorer")
        self.panel.observe(self._on_move, self.refuse, self.recompute)
        self._writes = WorkerWrites(self)
        self._open_lifetime(self.view)
        self.is_open = True
        stop_on_interrupt(self)
        self.submit(self.request)

    def __repr__(self) -> str:
        """Show the model and the title in one line."""
        return f"{type(self).__name__}({type(self.arguments['model']).__name__}, {self.panel.title!r})"

    @property
    def kind(self) -> str:
        """What is explained: "image" or "table"."""
        return self.problem.kind.name

    @property
    def panel(self) -> Panel:
        """The controls."""
        return self.kind_view.panel

    @property
    def view(self) -> HeatmapView:
        """Shows progress, readings and errors, and the map if the input is an image."""
        return self.kind_view.view

    @property
    def trust(self) -> TrustPanel:
        """The tests of the attribution that is shown."""
        return self.kind_view.trust

    @property
    def settings(self) -> dict[str, Any]:
        """Keyword arguments with which ``sw.attribute`` reproduces the displayed map, bit for bit."""
        last, request = self.session.last, self.request
        if last is not None and last.request is not None and last.generation == self.session.generation:
            request = last.request  # as it was computed
        return {**self.arguments, **self.problem.options, **request.settings}

    @property
    def attribution(self) -> Attribution | None:
        """The displayed attribution if finished; None while it is computed and after a stop or an error."""
        last = self.session.last
        if last is None or last.state != "done" or last.generation != self.session.generation:
            return None
        return last.attribution

    def wait(self, timeout: float | None = None) -> Attribution:
        """Wait for the map of the current settings, and for pinned maps.

        Args:
            timeout: Maximum time to wait, in seconds.

        Returns:
            The finished attribution.

        Raises:
            TimeoutError: The map was not finished in time.
            RuntimeError: The computation was stopped, or the explorer is closed.
            TypeError, ValueError: The computation failed.
            KeyboardInterrupt: The kernel was interrupted; the computation is stopped.
        """
        timeout = TIMEOUT.check(timeout)
        until = None if timeout is None else time.monotonic() + timeout
        try:
            self.kind_view.wait(timeout)
            in_time = self.session.wait(None if until is None else max(0.0, until - time.monotonic()))
        except KeyboardInterrupt:
            self.stop()
            raise
        if not in_time:
            raise TimeoutError(f"The map was not finished within {timeout} seconds.")
        self._send_again()
        last = self.session.last
        if last is not None and last.error is not None:
            raise_again(last.error)
        attribution = self.attribution
        if attribution is None:
            raise RuntimeError("There is no finished map: it was stopped, or the explorer is closed. Move a control.")
        return attribution

    def stop(self) -> None:
        """Stop the map and its tests; the last estimate stays. The next move or :meth:`update` computes again."""
        self.session.stop()
        self.trust.stop()

    def _send_again(self) -> None:
        """Resend what the worker has written: a notebook that is stored now holds the finished map."""
        self.view.flush()
        self._writes.send()
        self._update_static()

    def update(self, /, **settings: Any) -> None:
        """Move controls from Python: ``explorer.update(method="smoothgrad", n_samples=20, target="tabby")``.

        Args:
            **settings: "method", "target", "score", the method's parameters, "sign", "channels", and display settings.
                Without any, compute again and refresh the predictions, for example after training the model.

        Raises:
            TypeError: An unknown name, or a value of the wrong type. Nothing is moved then.
            ValueError: A value out of range. Nothing is moved then.
        """
        self.panel.update(settings)

    def recompute(self) -> None:
        """Forget all that was computed for this model, and compute again.

        It is for changes of the model that go unnoticed: beyond two levels of attributes, or in what its code reads
        from elsewhere.
        """
        self.session.forget()
        self.update()

    def to_code(self) -> str:
        """Return Python code that reproduces what the screen shows."""
        return self._code_of(self.attribution)

    def _code_of(self, attribution: Attribution | None) -> str:
        """Return the code of a finished attribution, or of the current request if there is none yet."""
        settings = {**self.problem.options, **self.request.settings} if attribution is None else attribution.settings
        code = code_of(settings, transformed=self.problem.transformed, shown=self.kind_view.look)
        return "\n".join([*self.kind_view.comments(), code])

    @property
    def controls(self) -> dict[str, Any]:
        """The state of the controls: pass it to :meth:`update` to restore them."""
        return {**self.panel.selection, **dict(self.panel.request().params), **self.kind_view.settings}

    # ---- rows of a table

    @property
    def row(self) -> Any:
        """The explained row including edits: a DataFrame of one row.

        Raises:
            NotImplementedError: The input is no row of a table.
        """
        return self.kind_view.row

    def edit(self, /, **values: Any) -> None:
        """Change values of the row: ``explorer.edit(age=40)``, or ``explorer.edit(**{"mean radius": 9})``.

        Args:
            **values: Values by column name.

        Raises:
            ValueError: An unknown column, or a value that can't be used. Nothing is changed then.
            NotImplementedError: The input is no row of a table.
        """
        self.kind_view.edit(values)

    def by_feature(self) -> Any:
        """Return the finished attributions by feature, a pandas Series, largest first.

        Raises:
            ValueError: The input is no row of a table.
        """
        values = self.wait().by_feature().iloc[0]
        return values.sort_values(key=np.abs, ascending=False, kind="stable").rename("attribution")

    # ---- images

    @property
    def annotations(self) -> Canvas:
        """An ipycanvas ``Canvas`` over the map, in the image's pixels: draw on it from Python.

        Raises:
            NotImplementedError: The input is no image.
        """
        return self.kind_view.annotations

    def pin(self) -> None:
        """Pin the current map below the explorer, to compare it with others.

        Raises:
            RuntimeError: The explorer is closed.
            NotImplementedError: The input is no image.
        """
        self.kind_view.pin()

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
        self.kind_view.save_png(path, scale, caption)

    def page_size(self, record: Mapping[str, Any] | None = None) -> PageSize:
        """Estimate the maps, bytes and seconds that :meth:`save_html` would take, without computing anything.

        Args:
            record: See :meth:`save_html`.

        Raises:
            TypeError, ValueError: These settings can't be recorded.
            RuntimeError: There is no finished map yet.
        """
        return self.kind_view.page_size(record)

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
            NotImplementedError: The input is a row of a table; the message names the alternatives.
        """
        return self.kind_view.save_html(path, record, title=title, limit=limit, max_bytes=max_bytes, progress=progress)

    # ---- states

    def save_state(self, path: str | os.PathLike[str]) -> Path:
        """Write what is shown to ``path.json`` and ``path.npz``: the controls, the attribution, the input.

        Only numbers, names and arrays are stored, never code: :func:`saliency_widgets.load` reads it anywhere. Either
        both files are written or neither: after an error, even a killed process, the previous state can be loaded.

        Args:
            path: The path of both files, without suffix. Existing files are replaced; links to them stay.

        Returns:
            The path of the JSON file.

        Raises:
            TypeError: A setting can't be stored, such as a function as target; or this is no path. Nothing is written.
            ValueError: The state is larger than :func:`saliency_widgets.load` reads. Nothing is written.
            OSError: The files can't be written there. Existing files stay.
            TimeoutError, RuntimeError: See :meth:`wait`.
        """
        return save_state(self, path)

    def load_state(self, path: str | os.PathLike[str]) -> None:
        """Restore the controls from a saved state.

        Args:
            path: The path that was passed to :meth:`save_state`.

        Raises:
            FileNotFoundError: One of the two files is missing.
            TypeError, ValueError: The files are not a saved state, or name something that this explorer lacks. Nothing
                is moved then.

        Warns:
            UserWarning: The model or the input differs from the saved one.
        """
        load_state(self, path)

    def cache_info(self) -> CacheInfo:
        """Return the cache's size in bytes and by kind, and its hits.

        All explorers of a kernel share one limit; the least recently used entries are removed first.
        """
        return self.session.cache.info()

    def close(self) -> None:
        """End the computation and its thread, free the cache, and leave the page."""
        if not self.is_open:  # already closed, or the constructor failed
            return
        self.is_open = False
        self._update_static()
        self.kind_view.close()
        self.trust.close()
        self.session.close()
        self.view.retire()
        parts = parts_of(self, [])
        super().close()
        for part in parts:
            part.close()

    def _on_move(self) -> None:
        """Submit a request because a control was moved; called on any thread."""
        try:
            self.submit()
        except (TypeError, ValueError) as error:
            self.refuse(error)

    def refuse(self, error: Exception) -> None:
        """Show why the input can't be used; the map stays."""
        shown = self.session.shown
        now = messages.status() if shown is None else self.status_of(shown, shown, "")
        texts = {"message": messages.error_text(error), "remedy": "Nothing was changed. Choose another value."}
        self.view.offer(None, {**now, "generation": self.session.generation, "state": "error", **texts})

    def submit(self, request: Request | None = None) -> None:
        """Submit a request, by default that of the controls."""
        self.request = self.panel.request() if request is None else request
        self.session.submit(self.request)

    def _on_event(self, event: Event) -> None:
        """Show an event from the worker; touches only result widgets."""
        self.kind_view.show(event)
        shown = self.session.shown or event  # the title is of the displayed map, not of the newest request
        requested = "" if event.newest is None else self.panel.title_of(event.newest)
        self.view.offer(messages.frame_of(event), self.status_of(event, shown, requested))
        if event.state == "done" and event.attribution is not None and event.request is not None:
            session = self.session
            finished = FinishedMap(
                self.problem, event.request, event.attribution, self.kind_view.reduction, event.version,
                session.cache, session.owner,
            )  # fmt: skip
            self.trust.show(finished, self._title_of(event))
        if event.state == "done":
            self.kind_view.finish()

    def status_of(self, event: Event, shown: Event, requested: str, sign: str | None = None) -> dict[str, Any]:
        """The status line of an event.

        Args:
            event: The event.
            shown: The event whose map is on the screen.
            requested: The title of the newest request.
            sign: How the map's sign is shown. Default: as the controls say.
        """
        attribution, outdated = shown.attribution, self.kind_view.outdated
        return messages.status_of(
            event,
            self._title_of(shown),
            requested,
            method="" if shown.request is None else get_method(shown.request.method).title,
            code=self._code_of(attribution) if attribution is not None and attribution.complete else "",
            remark=str(self.problem.memory),
            notes=[
                *([_CORRECTED] if event.corrected else []),
                *([_STOPPED] if event.state == "stopped" else []),
                *([outdated] if outdated and self.panel.outdated else []),
            ],
            sign=self.kind_view.sign if sign is None else sign,
        )

    def _due_checkups(self) -> list[Due]:
        """Return the check-up if this version of the model had none."""
        version = self.kind_view.checkup_version(self.problem.version())
        return [] if version == self._checked_version else [Due(self.problem, self.request, version)]

    def _on_checkup(self, due: Due, findings: Sequence[Finding]) -> None:
        self._checked_version = due.version
        self.view.show_findings(messages.findings_of(self.kind_view.relevant(findings), self.panel.titles))

    def _snapshot(self) -> Snapshot:
        return self.kind_view.snapshot(partial(snapshots.lines_of, self))

    def _snapshot_sources(self) -> Mapping[w.Widget, Sequence[str]]:
        return {self.view: ("status", "frame"), **self.kind_view.snapshot_sources()}

    def _title_of(self, event: Event) -> str:
        return "" if event.request is None else self.panel.title_of(event.request)
