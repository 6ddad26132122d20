"""The explorer: its controls define a request, a session computes it, a view shows the result, and tests check it."""

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
from saliency_widgets.inputs import Options, as_explored, split_options
from saliency_widgets.params import TIMEOUT, check_list
from saliency_widgets.session import CacheInfo, Event, Problem, Request, Session
from saliency_widgets.session.explanation import FinishedMap
from saliency_widgets.session.worker import check_executor, raise_again
from saliency_widgets.widgets.base import messages
from saliency_widgets.widgets.base.heatmap import HeatmapView
from saliency_widgets.widgets.base.interrupts import stop_on_interrupt
from saliency_widgets.widgets.base.kind_view import Setup, view_of
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
from saliency_widgets.widgets.trust import TrustPanel

_CORRECTED = "The model's weights changed, so the map was recomputed."
_STOPPED = "Interrupted. Change a setting, or call .update(), to compute it again."


class Explorer(WithStaticOutput, Showable, w.Box):
    """A widget that explains a model's output live, as its controls request. See :func:`explore` for the arguments.

    Attributes:
        problem: The model and the input.
        session: The session that computes the requests.
        request: The newest request.
        arguments: The caller's arguments that are not in ``problem.options``.
        is_open: Whether the explorer is open.
        kind_view: The part that depends on the kind of input.
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
        inputs = as_explored(inputs, Options(**options))
        problem = Problem(model, inputs, **options)
        if problem.parts and options.get("explain") is None:  # of several inputs, show the first image
            problem = Problem(model, inputs, **{**options, "explain": problem.main_part})
        if labels is not None and problem.kind.columns is None:
            raise ValueError(
                "labels: background= is required, because these are the labels of its rows. Pass it, or omit labels=."
            )
        methods = [methods] if isinstance(methods, str) else check_list("methods", methods, "['gradient']")
        panel = {"method": method, "target": target, "score": score, "more": methods}
        setup = Setup(executor, panel, params, labels)
        self.kind_view = view_of(problem.kind.name)(problem, setup)  # else raises a ValueError
        shown = inputs if problem.table is None else problem.table.rows
        transform, names = options.get("transform"), options.get("class_names")
        self.arguments = {"model": model, "inputs": shown, "transform": transform, "class_names": names}
        self.problem = problem
        self._checked_version: Any = None
        self._titled: tuple[Request | None, str] = None, ""  # the request of the shown map, and its title
        self.request = self.panel.request()  # before any display, so that wrong arguments raise here
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
        """Return the model's class and the title in one line."""
        return f"{type(self).__name__}({type(self.arguments['model']).__name__}, {self.panel.title!r})"

    @property
    def kind(self) -> str:
        """The kind of input: "image", "table", "text" or another."""
        return self.problem.kind.name

    @property
    def panel(self) -> Panel:
        """The controls."""
        return self.kind_view.panel

    @property
    def view(self) -> HeatmapView:
        """The view of progress, readings and errors, and of the map if the input is an image."""
        return self.kind_view.view

    @property
    def trust(self) -> TrustPanel:
        """The tests of the displayed attribution."""
        return self.kind_view.trust

    @property
    def settings(self) -> dict[str, Any]:
        """Keyword arguments for ``sw.attribute`` that reproduce the displayed map, bit for bit."""
        last, request = self.session.last, self.request
        if last is not None and last.request is not None and last.generation == self.session.generation:
            request = last.request  # the request that was computed
        return {**self.arguments, **self.problem.options, **request.settings}

    @property
    def attribution(self) -> Attribution | None:
        """The displayed attribution if it is finished; None during the computation and after a stop or an error."""
        last = self.session.last
        if last is None or last.state != "done" or last.generation != self.session.generation:
            return None
        return last.attribution

    def wait(self, timeout: float | None = None) -> Attribution:
        """Wait for the map of the current settings, and for pinned maps.

        Args:
            timeout: The maximum time to wait, in seconds. Default: no limit.

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
            raise RuntimeError(
                "No finished map is available: the computation was stopped or the explorer is closed. Call "
                "explorer.update() to compute it again, or create a new explorer."
            )
        return attribution

    def stop(self) -> None:
        """Stop the map and its tests, and keep the last estimate. A moved control or :meth:`update` computes again."""
        self.session.stop()
        self.trust.stop()

    def _send_again(self) -> None:
        """Send the worker's results again, so that a notebook stored now contains the finished map."""
        self.view.flush()
        self._writes.send()
        self._update_static()

    def update(self, /, **settings: Any) -> None:
        """Move controls from Python: ``explorer.update(method="smoothgrad", n_samples=20, target="tabby")``.

        Args:
            **settings: "method", "target", "score", the method's parameters, "sign", "channels", and display settings.
                Without settings, the map and the predictions are updated, for example after training the model.

        Raises:
            TypeError: A name is unknown, or a value has the wrong type. No control moves then.
            ValueError: A value is out of range. No control moves then.
        """
        self.panel.update(settings)

    def recompute(self) -> None:
        """Discard all results for this model and input, and compute again.

        Use it after changes that are not detected: in attributes of the model nested more than two levels deep, or in
        data outside the model that its code reads.
        """
        self.session.forget()
        self.update()

    def to_code(self) -> str:
        """Return Python code that reproduces the displayed result."""
        return self._code_of(self.attribution)

    def _code_of(self, attribution: Attribution | None) -> str:
        """Return the code for a finished attribution, or for the current request if ``attribution`` is None."""
        settings = {**self.problem.options, **self.request.settings} if attribution is None else attribution.settings
        code = code_of(settings, transformed=self.problem.transformed, shown=self.kind_view.look)
        return "\n".join([*self.kind_view.comments(), code])

    @property
    def controls(self) -> dict[str, Any]:
        """The state of the controls. Pass it to :meth:`update` as keyword arguments to restore them."""
        return {**self.panel.selection, **dict(self.panel.request().params), **self.kind_view.settings}

    # ---- rows of a table

    @property
    def row(self) -> Any:
        """The explained row with all edits, a DataFrame of one row.

        Raises:
            NotImplementedError: The input is not a row of a table.
        """
        return self.kind_view.row

    def edit(self, /, **values: Any) -> None:
        """Change values of the row: ``explorer.edit(age=40)``; or the text: ``explorer.edit(text="a new sentence")``.

        Args:
            **values: Values by column name, such as ``**{"mean radius": 9}``; for a text, "text".

        Raises:
            TypeError: A text has a name other than "text".
            ValueError: A column is unknown, or a value is invalid; then nothing is changed.
            NotImplementedError: The input is neither a row of a table nor a text.
        """
        self.kind_view.edit(values)

    def by_feature(self) -> Any:
        """Wait for the attributions and return them by feature, as a pandas Series, largest magnitude first.

        Raises:
            ValueError: The input is not a row of a table.
        """
        values = self.wait().by_feature().iloc[0]
        return values.sort_values(key=np.abs, ascending=False, kind="stable").rename("attribution")

    # ---- images

    @property
    def annotations(self) -> Canvas:
        """An ipycanvas ``Canvas`` over the map, for drawing from Python in the image's pixel coordinates.

        Raises:
            NotImplementedError: The input is not an image.
        """
        return self.kind_view.annotations

    def pin(self) -> None:
        """Pin the current map below the explorer, to compare it with other maps.

        Raises:
            RuntimeError: The explorer is closed.
            NotImplementedError: The input is not an image.
        """
        self.kind_view.pin()

    def save_png(self, path: Any, *, scale: float | None = None, caption: str = "") -> None:
        """Write the displayed overlay with its color bar, and the annotations as last displayed on the page.

        Args:
            path: A path, or a file open for writing bytes. An existing file is replaced after everything is written.
            scale: The size of an image pixel in the file. Integers draw it as a square, other numbers average pixels.
                Default: a scale that gives a file of convenient size.
            caption: Text below the color bar, wrapped; at most 4000 characters and 100 lines. Characters missing from
                Pillow's font are drawn with a system font.

        Raises:
            RuntimeError: No map is available yet.
            TypeError, ValueError: ``scale`` is not a number, or gives an image of no pixels or too many; ``caption`` is
                not a text, or too long; or ``path`` is not a path.
            OSError: The file can't be written. An existing file stays unchanged.

        Warns:
            UserWarning: No font has some of the characters, which are drawn as boxes.
        """
        self.kind_view.save_png(path, scale, caption)

    def page_size(self, record: Mapping[str, Any] | None = None) -> PageSize:
        """Estimate the maps, bytes and seconds that :meth:`save_html` would need, without computing any map.

        Args:
            record: See :meth:`save_html`.

        Raises:
            TypeError, ValueError: The settings can't be recorded.
            RuntimeError: No finished map is available yet.
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

        The display settings stay interactive on the page, and so do recorded settings for their recorded values. Maps
        are computed through the cache, as for a moved slider. After an interrupt, no file is written and the computed
        maps stay in the cache. Annotations are those last displayed, so draw in one cell and save in the next.

        Args:
            path: The file. An existing file is replaced after everything is written.
            record: Settings that the page can change, each with a list of values, or True for a few automatic values:
                ``{"noise_level": [0.05, 0.1, 0.2], "n_samples": True}``. They are the method's parameters, "method",
                "target" (classes by name or index), "score", "sign" and "channels". Default: only the displayed map.
            title: The heading. Default: a heading that names the model.
            limit: The maximum number of maps.
            max_bytes: The maximum size of the file in bytes.
            progress: Whether to show a progress bar.

        Returns:
            The path, size and number of maps.

        Raises:
            TypeError: ``record`` is not a mapping, or a value has the wrong type.
            ValueError: A setting is unknown, a value is out of range, or the page exceeds a limit.
            OSError: The file can't be written. No map is computed then.
            RuntimeError: The map was stopped, or the model changed during the computation.
            NotImplementedError: The input is a row of a table; the message names the alternatives.
        """
        return self.kind_view.save_html(path, record, title=title, limit=limit, max_bytes=max_bytes, progress=progress)

    # ---- states

    def save_state(self, path: str | os.PathLike[str]) -> Path:
        """Write the controls, the attribution and the input to ``path.json`` and ``path.npz``.

        The files contain numbers, names and arrays but never code, so :func:`saliency_widgets.load` can read them
        anywhere. Both files are written or neither, so that the previous state survives an error or a killed process.

        Args:
            path: The path of both files, without suffix. Existing files are replaced, and links to them stay.

        Returns:
            The path of the JSON file.

        Raises:
            TypeError: A setting can't be stored, such as a function target, or ``path`` is no path. Nothing is written.
            ValueError: The state is larger than the limit of :func:`saliency_widgets.load`. Nothing is written.
            OSError: The files can't be written. Existing files stay unchanged.
            TimeoutError, RuntimeError: See :meth:`wait`.
        """
        return save_state(self, path)

    def load_state(self, path: str | os.PathLike[str]) -> None:
        """Restore the controls from a saved state.

        Args:
            path: The path passed to :meth:`save_state`.

        Raises:
            FileNotFoundError: One of the two files is missing.
            TypeError, ValueError: The files are not a saved state, or name a setting or value that this explorer lacks.
                No control moves then.

        Warns:
            UserWarning: The model or the input differs from the saved one.
        """
        load_state(self, path)

    def cache_info(self) -> CacheInfo:
        """Return the size of the cache in bytes and by kind, and its hits.

        All explorers of a kernel share one limit; the least recently used entries are removed first.
        """
        return self.session.cache.info()

    def close(self) -> None:
        """End the computation and its thread, free the cache, and remove the widget from the page."""
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
        """Submit a request after a control has moved; called on any thread."""
        try:
            self.submit()
        except (TypeError, ValueError) as error:
            self.refuse(error)

    def refuse(self, error: Exception) -> None:
        """Show why a value can't be used; the map stays."""
        shown = self.session.shown
        now = messages.status() if shown is None else self.status_of(shown, shown, "")
        texts = {"message": messages.error_text(error), "remedy": "Nothing was changed. Choose another value."}
        self.view.offer(None, {**now, "generation": self.session.generation, "state": "error", **texts})

    def submit(self, request: Request | None = None) -> None:
        """Submit a request. Default: the request of the controls."""
        self.request = self.panel.request() if request is None else request
        self.session.submit(self.request)

    def _on_event(self, event: Event) -> None:
        """Show an event from the worker; changes only result widgets."""
        self.kind_view.show(event)
        shown = self.session.shown or event  # the title is that of the displayed map, not of the newest request
        requested = "" if event.newest is None else self.panel.title_of(event.newest)
        self.view.offer(self.kind_view.frame_of(event), self.status_of(event, shown, requested))
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
        """Return the status for an event.

        Args:
            event: The event.
            shown: The event whose map is displayed.
            requested: The title of the newest request.
            sign: The displayed sign of the map. Default: the sign selected by the controls.
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
        """Return the pending check-up, or none if this version of the model has been checked."""
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
        request, title = self._titled
        if event.request is not request:  # else an edit may have changed the text that the title quotes
            title = "" if event.request is None else self.panel.title_of(event.request)
            self._titled = event.request, title
        return title
