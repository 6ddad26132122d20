"""The base class of the explorers: controls make a request, a session computes it, and tests check the result."""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import ipywidgets as w

from saliency_widgets.api.checkup import Due, check_up_when_idle
from saliency_widgets.attribution import Attribution, get_method
from saliency_widgets.attribution.result import code_of
from saliency_widgets.diagnostics.report import Finding
from saliency_widgets.params import TIMEOUT
from saliency_widgets.session import CacheInfo, Event, Problem, Request, Session
from saliency_widgets.session.explanation import Case
from saliency_widgets.session.jobs import raise_again
from saliency_widgets.widgets.base import messages
from saliency_widgets.widgets.base.heatmap import HeatmapView
from saliency_widgets.widgets.base.interrupts import stop_on_interrupt
from saliency_widgets.widgets.base.lifetime import Showable, weakly
from saliency_widgets.widgets.base.panel import Panel
from saliency_widgets.widgets.base.parts import parts_of
from saliency_widgets.widgets.base.resending import WorkerWrites
from saliency_widgets.widgets.export.state import load_state, save_state
from saliency_widgets.widgets.export.static_output import WithStaticOutput
from saliency_widgets.widgets.trust import TrustPanel

LAYOUT = {
    "display": "flex",
    "flex_flow": "row wrap",
    "align_items": "flex-start",
    "grid_gap": "8px 20px",
    "width": "100%",
    "overflow": "visible",
}


_CORRECTED = "The model's weights had changed: computed again."
_STOPPED = "Interrupted. Change a setting, or call .update(), to compute it again."


class BaseExplorer(WithStaticOutput, Showable, w.Box):
    """Computes what the controls request, live.

    Args:
        problem: The model and the input.
        panel: The controls.
        executor: "thread" or "inline".
        **arguments: The caller's arguments, as ``sw.attribute`` takes them.

    Attributes:
        panel: The controls.
        view: Shows progress, readings and errors, and the map if the input is an image.
        trust: The tests of the attribution that is shown.
    """

    view: HeatmapView
    trust: TrustPanel
    _open = False
    _outdated = ""  # the note for predictions of another model or input

    def __init__(self, problem: Problem, panel: Panel, executor: str, **arguments: Any) -> None:
        self._arguments, self._problem, self.panel = arguments, problem, panel
        self._checked_version: Any = None
        self._request = self.panel.request()  # before anything is shown: a wrong argument raises in this call
        idle = check_up_when_idle(weakly(self._due_checkups), weakly(self._on_checkup))
        self._session = Session(problem, weakly(self._on_event), executor=executor, idle=idle)
        weakref.finalize(self, self._session.ending.end).atexit = False
        super().__init__(layout=LAYOUT)

    def _begin(self, *children: w.Widget) -> None:
        """Lay out the children and submit the first request."""
        self.view.root = self.model_id
        self.children = children
        self.add_class("sw-explorer")
        self.panel.observe(self._on_move, self._on_wrong, self.recompute)
        self._writes = WorkerWrites(self)
        self._open_lifetime(self.view)
        self._open = True
        stop_on_interrupt(self)
        self._submit(self._request)

    def __repr__(self) -> str:
        """Show the model and the title in one line."""
        return f"{type(self).__name__}({type(self._arguments['model']).__name__}, {self.panel.title!r})"

    @property
    def settings(self) -> dict[str, Any]:
        """Keyword arguments with which ``sw.attribute`` reproduces the displayed map, bit for bit."""
        last, request = self._session.last, self._request
        if last is not None and last.request is not None and last.generation == self._session.generation:
            request = last.request  # as it was computed
        return {**self._arguments, **self._problem.options, **request.settings}

    @property
    def attribution(self) -> Attribution | None:
        """The displayed attribution if finished; None while it is computed and after a stop or an error."""
        last = self._session.last
        if last is None or last.state != "done" or last.generation != self._session.generation:
            return None
        return last.attribution

    def wait(self, timeout: float | None = None) -> Attribution:
        """Wait for the map of the current settings.

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
        try:
            in_time = self._session.wait(timeout)
        except KeyboardInterrupt:
            self.stop()
            raise
        if not in_time:
            raise TimeoutError(f"The map was not finished within {timeout} seconds.")
        self._send_again()
        last = self._session.last
        if last is not None and last.error is not None:
            raise_again(last.error)
        attribution = self.attribution
        if attribution is None:
            raise RuntimeError("There is no finished map: it was stopped, or the explorer is closed. Move a control.")
        return attribution

    def stop(self) -> None:
        """Stop the map and its tests; the last estimate stays. The next move or :meth:`update` computes again."""
        self._session.stop()
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
        self._session.forget()
        self.update()

    def to_code(self) -> str:
        """Return Python code that reproduces what the screen shows."""
        return self._code_of(self.attribution)

    def _code_of(self, attribution: Attribution | None) -> str:
        """Return the code of a finished attribution, or of the current request if there is none yet."""
        settings = {**self._problem.options, **self._request.settings} if attribution is None else attribution.settings
        return code_of(settings, transformed=self._problem.transformed, shown=self._shown)

    @property
    def _shown(self) -> dict[str, Any] | None:
        """How the values are rendered, for the code."""
        return None

    kind: ClassVar[str] = ""
    """What is explained: "image" or "row"."""

    @property
    def controls(self) -> dict[str, Any]:
        """The state of the controls: pass it to :meth:`update` to restore them."""
        return {**self.panel.selection, **dict(self.panel.request().params)}

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
        return self._session.cache.info()

    def close(self) -> None:
        """End the computation and its thread, free the cache, and leave the page."""
        if not self._open:  # already closed, or the constructor failed
            return
        self._open = False
        self._update_static()
        self.trust.close()
        self._session.close()
        self.view.retire()
        parts = parts_of(self, [])
        super().close()
        for part in parts:
            part.close()

    def _on_move(self) -> None:
        """Submit a request because a control was moved; called on any thread."""
        try:
            self._submit(self.panel.request())
        except (TypeError, ValueError) as error:
            self._on_wrong(error)

    def _on_wrong(self, error: Exception) -> None:
        """Show why the input can't be used; the map stays."""
        shown = self._session.shown
        now = messages.status() if shown is None else self._status_of(shown, shown, "")
        texts = {"message": messages.error_text(error), "remedy": "Nothing was changed. Choose another value."}
        self.view.offer(None, {**now, "generation": self._session.generation, "state": "error", **texts})

    def _submit(self, request: Request) -> None:
        self._request = request
        self._session.submit(request)

    def _on_event(self, event: Event) -> None:
        """Show an event from the worker; touches only result widgets."""
        shown = self._session.shown or event  # the title is of the displayed map, not of the newest request
        requested = "" if event.newest is None else self.panel.title_of(event.newest)
        self.view.offer(messages.frame_of(event), self._status_of(event, shown, requested))
        case = self._case_of(event)
        if case is not None:
            self.trust.show(case, self._title_of(event))

    def _case_of(self, event: Event) -> Case | None:
        """Return a finished result for the trust tests; None while it is not finished."""
        raise NotImplementedError

    def _status_of(self, event: Event, shown: Event, requested: str, sign: str | None = None) -> dict[str, Any]:
        attribution = shown.attribution
        return messages.status_of(
            event,
            self._title_of(shown),
            requested,
            method="" if shown.request is None else get_method(shown.request.method).title,
            code=self._code_of(attribution) if attribution is not None and attribution.complete else "",
            aside=str(self._problem.memory),
            notes=[
                *([_STOPPED] if event.state == "stopped" else []),
                *([_CORRECTED] if event.corrected else []),
                *([self._outdated] if self._outdated and self.panel.outdated else []),
            ],
            sign=self._sign if sign is None else sign,
        )

    @property
    def _sign(self) -> str | None:
        """How the map's sign is shown; None if there is no choice."""
        return None

    def _due_checkups(self) -> list[Due]:
        """Return the check-up if this version of the model had none."""
        version = self._checkup_version(self._problem.version())
        return [] if version == self._checked_version else [Due(self._problem, self._request, version)]

    def _on_checkup(self, due: Due, findings: Sequence[Finding]) -> None:
        self._checked_version = due.version
        self.view.show_findings(messages.findings_of(self._relevant_findings(findings), self.panel.titles))

    def _checkup_version(self, version: tuple) -> Any:
        """Return the part of a version that the check-up depends on."""
        return version

    def _relevant_findings(self, findings: Sequence[Finding]) -> Sequence[Finding]:
        """Select the findings that concern this explorer's methods."""
        return findings

    def _snapshot_sources(self) -> Mapping[w.Widget, Sequence[str]]:
        return {self.view: ("status", "frame")}

    def _title_of(self, event: Event) -> str:
        return "" if event.request is None else self.panel.title_of(event.request)
