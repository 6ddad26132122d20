"""What every explorer is: a question on the controls, a session that answers it, and tests of the answer."""

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


_STOPPED = "Interrupted. Change a setting, or call .update(), to compute it again."


class BaseExplorer(WithStaticOutput, Showable, w.Box):
    """Answers what the controls ask, live.

    Args:
        problem: The model and the input.
        panel: The controls.
        executor: "thread" or "inline".
        **given: The arguments that the caller gave, as ``sw.attribute`` takes them.

    Attributes:
        panel: The controls.
        view: What the answer's state is told on, and its image where it is one.
        trust: The tests of the answer that is shown.
    """

    view: HeatmapView
    trust: TrustPanel
    _open = False
    _outdated = ""  # what is said when the predictions are those of another model or input

    def __init__(self, problem: Problem, panel: Panel, executor: str, **given: Any) -> None:
        self._given, self._problem, self.panel = given, problem, panel
        self._examined: Any = None
        self._request = self.panel.request()  # before anything is shown: a wrong argument is an error of this call
        idle = check_up_when_idle(weakly(self._due_checkups), weakly(self._on_checkup))
        self._session = Session(problem, weakly(self._on_event), executor=executor, idle=idle)
        weakref.finalize(self, self._session.ending.end).atexit = False
        super().__init__(layout=LAYOUT)

    def _begin(self, *children: w.Widget) -> None:
        """Show it, and ask what the controls ask."""
        self.view.root = self.model_id
        self.children = children
        self.add_class("sw-explorer")
        self.panel.observe(self._on_move, self._on_wrong)
        self._writes = WorkerWrites(self)
        self._open_lifetime(self.view)
        self._open = True
        stop_on_interrupt(self)
        self._submit(self._request)

    def __repr__(self) -> str:
        """What is explained, in one line."""
        return f"{type(self).__name__}({type(self._given['model']).__name__}, {self.panel.title!r})"

    @property
    def settings(self) -> dict[str, Any]:
        """Keyword arguments with which ``sw.attribute`` gives what the screen shows, bit for bit."""
        last, request = self._session.last, self._request
        if last is not None and last.request is not None and last.generation == self._session.generation:
            request = last.request  # as it was computed
        return {**self._given, **self._problem.options, **request.settings}

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
        found = self.attribution
        if found is None:
            raise RuntimeError("There is no finished map: it was stopped, or the explorer is closed. Move a control.")
        return found

    def stop(self) -> None:
        """Stop the map and its tests; the last estimate stays. The next move, or :meth:`update`, computes again."""
        self._session.stop()
        self.trust.stop()

    def _send_again(self) -> None:
        """Send what the worker has shown: a notebook that is stored now holds the finished map."""
        self.view.flush()
        self._writes.send()
        self._update_static()

    def update(self, /, **settings: Any) -> None:
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
        """Python that repeats what the screen shows."""
        return self._code_of(self.attribution)

    def _code_of(self, found: Attribution | None) -> str:
        """The code of a finished attribution; of what is asked, where there is none yet."""
        settings = {**self._problem.options, **self._request.settings} if found is None else found.settings
        return code_of(settings, transformed=self._problem.transformed, shown=self._shown)

    @property
    def _shown(self) -> dict[str, Any] | None:
        """How the values become what is seen, for the code."""
        return None

    kind: ClassVar[str] = ""
    """What is explained: "image" or "row"."""

    @property
    def controls(self) -> dict[str, Any]:
        """Where the controls stand: :meth:`update` with these moves them there."""
        return {**self.panel.asked, **dict(self.panel.request().params)}

    def save_state(self, path: str | os.PathLike[str]) -> Path:
        """Write what is shown as ``path.json`` and ``path.npz``: the controls, the attribution, what it is of.

        Numbers, names and arrays are stored, never code: :func:`saliency_widgets.load` reads it anywhere. Both files
        are written, or none: on an error, even when the process is killed, the state that was there can be loaded.

        Args:
            path: Of both files, without their endings. Files that are there are replaced; links to them stay.

        Returns:
            The path of the JSON file.

        Raises:
            TypeError: A setting can't be stored, such as a function as target; or that is no path. Nothing is written.
            ValueError: The state is larger than :func:`saliency_widgets.load` reads. Nothing is written.
            OSError: The files can't be written there. What was there stays.
            TimeoutError, RuntimeError: See :meth:`wait`.
        """
        return save_state(self, path)

    def load_state(self, path: str | os.PathLike[str]) -> None:
        """Move the controls to where they stood when a state was saved.

        Args:
            path: As it was given to :meth:`save_state`.

        Raises:
            FileNotFoundError: One of the two files is missing.
            TypeError, ValueError: They are no such files, or this explorer lacks what they name. Nothing is moved then.

        Warns:
            UserWarning: The model or the input is another than then.
        """
        load_state(self, path)

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
        self._update_static()
        self.trust.close()
        self._session.close()
        self.view.retire()
        parts = parts_of(self, [])
        super().close()
        for part in parts:
            part.close()

    def _on_move(self) -> None:
        """A control was moved. It runs on any thread, and only asks."""
        try:
            self._submit(self.panel.request())
        except (TypeError, ValueError) as error:
            self._on_wrong(error)

    def _on_wrong(self, error: Exception) -> None:
        """What was typed can't be used: say so; the map that is there stays."""
        shown = self._session.shown
        now = messages.status() if shown is None else self._status_of(shown, shown, "")
        said = {"message": messages.words_of(error), "remedy": "Nothing has moved. Choose another to go on."}
        self.view.offer(None, {**now, "generation": self._session.generation, "state": "error", **said})

    def _submit(self, request: Request) -> None:
        self._request = request
        self._session.submit(request)

    def _on_event(self, event: Event) -> None:
        """The worker has something to show. It touches the result widgets and nothing else."""
        shown = self._session.shown or event  # the title is of the answer on the screen, not of what is asked by now
        asked = "" if event.newest is None else self.panel.title_of(event.newest)
        self.view.offer(messages.frame_of(event), self._status_of(event, shown, asked))
        case = self._case_of(event)
        if case is not None:
            self.trust.show(case, self._title_of(event))

    def _case_of(self, event: Event) -> Case | None:
        """A finished answer, to be looked into."""
        raise NotImplementedError

    def _status_of(self, event: Event, shown: Event, asked: str, sign: str | None = None) -> dict[str, Any]:
        found = shown.attribution
        return messages.status_of(
            event,
            self._title_of(shown),
            asked,
            method="" if shown.request is None else get_method(shown.request.method).title,
            code=self._code_of(found) if found is not None and found.complete else "",
            aside=str(self._problem.memory),
            notes=[
                *([_STOPPED] if event.state == "stopped" else []),
                *([self._outdated] if self._outdated and self.panel.outdated else []),
            ],
            sign=self._sign if sign is None else sign,
        )

    @property
    def _sign(self) -> str | None:
        """How a map is shown; None where there is no choice."""
        return None

    def _due_checkups(self) -> list[Due]:
        """The check-up, once for each version of the model."""
        version = self._looked_at(self._problem.version())
        return [] if version == self._examined else [Due(self._problem, self._request, version)]

    def _on_checkup(self, due: Due, findings: Sequence[Finding]) -> None:
        self._examined = due.version
        self.view.tell(messages.findings_of(self._concerning(findings), self.panel.titles))

    def _looked_at(self, version: tuple) -> Any:
        """What of a version the check-up is about."""
        return version

    def _concerning(self, findings: Sequence[Finding]) -> Sequence[Finding]:
        """Those of the findings that are about what can be asked here."""
        return findings

    def _snapshot_sources(self) -> Mapping[w.Widget, Sequence[str]]:
        return {self.view: ("status", "frame")}

    def _title_of(self, event: Event) -> str:
        return "" if event.request is None else self.panel.title_of(event.request)
