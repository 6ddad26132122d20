"""Maps side by side, computed by one worker, the ones in sight first."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tqdm.auto import tqdm

from saliency_widgets.api.checkup import Due, check_up_when_idle
from saliency_widgets.attribution import Attribution, Reduction, get_method
from saliency_widgets.attribution.query import CHUNK_SIZE
from saliency_widgets.diagnostics.report import Finding
from saliency_widgets.session import Event, Problem, Request, Session
from saliency_widgets.session.cache import SHARED
from saliency_widgets.session.frames import Frame
from saliency_widgets.session.jobs import check_elsewhere
from saliency_widgets.session.turns import Turns
from saliency_widgets.widgets.base import messages
from saliency_widgets.widgets.base.display import DisplaySettings
from saliency_widgets.widgets.base.lifetime import weakly
from saliency_widgets.widgets.base.parts import close_whole
from saliency_widgets.widgets.compare.grid import GridView, MapCell
from saliency_widgets.widgets.image.png import png_bytes


@dataclass(eq=False)
class Wanted:
    """A map that is wanted.

    Attributes:
        problem: The model and the input.
        request: The question.
        name: What tells it from the others.
        group: Maps of one group have comparable numbers.
        model: Name of the model, where there are several.
        notes: What is to be known besides the map's own notes.
        owner: Whose finished maps it may find; the problem's own unless given.
        reduction: How it is shown, whatever :meth:`Maps.reduce` says.
    """

    problem: Problem
    request: Request
    name: str
    group: str
    model: str = ""
    notes: tuple[str, ...] = ()
    owner: Any = None
    reduction: Reduction | None = None


@dataclass(eq=False)
class _Entry:
    wanted: Wanted
    cell: MapCell
    session: Session
    state: str = "asked"
    asked: Request | None = None


class Maps:
    """What is wanted, in a grid.

    Args:
        display: The display settings of all cells.
        executor: "thread" or "inline".
        on_open: Called with the key of the cell that a person wants to look into.
        on_done: Called with the key of each finished map, on the worker's thread.
        check_up: Whether the models are checked, once nothing else is asked.

    Attributes:
        view: The grid.
    """

    def __init__(
        self,
        display: DisplaySettings,
        *,
        executor: str = "thread",
        on_open: Callable[[Hashable], None] = lambda _key: None,
        on_done: Callable[[Hashable], None] = lambda _key: None,
        check_up: bool = True,
    ) -> None:
        self.view = GridView(display, self._on_message)
        self._entries: dict[Hashable, _Entry] = {}
        self._shown: list[Hashable] = []
        self._images: dict[Problem, tuple[Any, bytes]] = {}
        self._reduction: tuple[str | None, str | None] = (None, None)
        self._open, self._done = on_open, on_done
        self._changed = threading.Condition()
        self._stopped = self._closed = False
        self._began, self._before = time.perf_counter(), 0
        self._examined: dict[str, tuple] = {}
        idle = check_up_when_idle(
            weakly(self._due_checkups), weakly(self._on_checkup), passed_over=(TypeError, ValueError)
        )
        self._turns = Turns(executor, idle=idle if check_up else None)
        self._owners: dict[Problem, object] = {}  # whose finished maps all cells of a problem share

    # ---- what is wanted

    def show(
        self, rows: Sequence[str], columns: Sequence[str], wanted: Mapping[Any, Wanted], *, again: bool = True
    ) -> None:
        """Show these maps row by row; the ones that are not there yet are computed.

        Args:
            rows: What the rows are called.
            columns: What the columns are called.
            wanted: The maps by key.
            again: Whether finished maps are asked for again: they cost nothing, unless the model or the inputs were
                changed meanwhile.
        """
        for key, want in wanted.items():
            known = self._entries.get(key)
            if known is None:
                self._entries[key] = self._entry(key, want)
            else:
                known.wanted = want
                known.cell.name = want.name
        for key in self._shown:
            if key not in wanted and self._entries[key].state in ("asked", "running"):
                self._stop(self._entries[key])  # nobody looks at it; shown again, it is asked again
        self._shown = list(wanted)
        self._reduce()
        self.view.lay(rows, columns, [self._entries[key].cell for key in wanted])
        self._turns.prefer(self._shown)
        self._stopped = False
        self._ask(again)

    def forget(self, keys: Iterable[Hashable]) -> None:
        """Let go of maps that are not shown any more."""
        for key in list(keys):
            self._close(self._entries.pop(key))

    def reduce(self, sign: str | None, channels: str | None) -> None:
        """Show the values of all maps in another way; None is each method's own."""
        self._reduction = sign, channels
        self._reduce()

    def frame(self, key: Hashable) -> Frame:
        """A finished map in 16 bits, as it is shown.

        Raises:
            RuntimeError: It is not finished.
        """
        entry = self._entries[key]
        event = entry.session.last
        if entry.state != "done" or event is None or event.frame is None:
            raise RuntimeError(f"The map {entry.wanted.name!r} is not there: call .wait() first, and see .errors.")
        return event.frame

    def attribution(self, key: Hashable) -> Attribution | None:
        """The finished attribution of a map, or None."""
        entry = self._entries.get(key)
        last = None if entry is None or entry.state != "done" else entry.session.last
        return None if last is None else last.attribution

    def error(self, key: Hashable) -> Exception | None:
        """What a map ended with, where it failed."""
        last = self._entries[key].session.last
        return None if last is None else last.error

    def wait(self, timeout: float | None = None, *, progress: bool = False) -> None:
        """Wait until every map that is shown is finished, failed or stopped.

        Raises:
            RuntimeError: The worker itself waits, in an observer.
            TimeoutError: They were not in time.
        """
        check_elsewhere(self._turns.here)
        self._ask_what_was_lost()
        until = None if timeout is None else time.perf_counter() + timeout
        with tqdm(total=len(self._shown), disable=not progress, unit="map") as bar, self._changed:
            while (done := self._counted()) < len(self._shown) and not (self._stopped or self._closed):
                bar.update(done - bar.n)
                left = None if until is None else until - time.perf_counter()
                if left is not None and left <= 0:
                    raise TimeoutError(f"{done} of {len(self._shown)} maps were finished within {timeout} seconds.")
                self._changed.wait(0.5 if left is None else min(left, 0.5))
            bar.update(self._counted() - bar.n)
        for key in self._shown:
            entry = self._entries[key]
            if not entry.session.wait(None if until is None else max(0.0, until - time.perf_counter())):
                raise TimeoutError(f"{entry.wanted.name} was not drawn within {timeout} seconds.")
            entry.cell.flush()  # a notebook that is stored now holds the finished maps

    def stop(self) -> None:
        """Stop; finished maps stay, and :meth:`go` computes the rest."""
        self._stopped = True
        for entry in self._entries.values():
            if entry.state in ("asked", "running"):
                self._stop(entry)
        self._progress()

    def go(self) -> None:
        """Compute what was stopped."""
        self._stopped = False
        self._ask()

    def close(self) -> None:
        """End the computation and free what is kept."""
        self._closed = True
        for entry in self._entries.values():
            entry.session.stop()
        self._turns.close()
        self.view.retire()
        for entry in self._entries.values():
            self._close(entry)
        for owner in self._owners.values():
            SHARED.forget(owner)
        with self._changed:
            self._changed.notify_all()

    # ---- how it is answered

    @staticmethod
    def _stop(entry: _Entry) -> None:
        entry.session.stop()
        entry.state = "stopped"
        entry.cell.offer(None, {**entry.cell.status, "state": "stopped"})

    @staticmethod
    def _close(entry: _Entry) -> None:
        entry.session.close()
        entry.cell.retire()
        close_whole(entry.cell)

    def _reduce(self) -> None:
        """Draw what is shown as it is to be shown; the others when they are."""
        for key in self._shown:
            entry = self._entries[key]
            entry.session.reduce(self._reduction_of(entry.wanted))

    def _entry(self, key: Hashable, want: Wanted) -> _Entry:
        problem = want.problem
        cell = MapCell(self._image(problem), name=want.name, group=want.group)
        owner = want.owner or self._owners.setdefault(problem, SHARED.owner_of(problem))
        session = Session(
            problem, partial(weakly(self._on_event), key), executor=self._turns.seat(key), owner=owner
        )  # fmt: skip
        entry = _Entry(want, cell, session)
        weakref.finalize(entry, session.ending.end).atexit = False
        return entry

    def _image(self, problem: Problem) -> bytes:
        """What the model sees, now."""
        prepared, png = self._images.get(problem, (None, b""))
        if prepared is not problem.prepared:  # the first time, or the inputs were changed in place
            assert problem.prepared.images is not None
            png = png_bytes(problem.prepared.images[0])
            self._images[problem] = problem.prepared, png
        return png

    def _reduction_of(self, want: Wanted) -> Reduction:
        if want.reduction is not None:
            return want.reduction
        sign, channels = self._reduction
        given = {} if channels is None else {"channels": channels}
        return Reduction(sign or get_method(want.request.method).sign, **given)

    def _ask(self, again: bool = False) -> None:
        """Ask for what is shown and is not there, or answers another question."""
        todo = []
        for key in self._shown:
            entry = self._entries[key]
            answered = entry.asked is not None and entry.asked.key == entry.wanted.request.key
            if entry.state == "done" and answered and not again:
                continue
            entry.state, entry.asked = "asked", entry.wanted.request
            todo.append(entry)
        self._began, self._before = time.perf_counter(), len(self._shown) - len(todo)
        self._progress()
        for entry in todo:
            entry.session.submit(entry.wanted.request)

    def _ask_what_was_lost(self) -> None:
        """Ask for the maps for which an interrupt came between the note that they are asked for and the request."""
        for key in self._shown:
            entry = self._entries[key]
            if entry.state == "asked" and not (entry.session.busy or self._closed):
                entry.asked = entry.wanted.request
                entry.session.submit(entry.asked)

    def _on_event(self, key: Hashable, event: Event) -> None:
        entry = self._entries.get(key)
        if entry is None or self._closed:
            return
        if event.newest is None or entry.asked is None:
            return
        pace = dict(event.newest.params).get(CHUNK_SIZE.name)
        if entry.asked.with_chunk_size(pace).key != event.newest.key:
            return  # it was asked something else meanwhile
        drawn = event.state == "error"  # even if that can't be drawn; what fails in another is told as an error next
        try:
            self._draw(entry, event)
            if event.state == "done":
                self._done(key)
            drawn = True
        finally:
            if drawn:
                self._settle(entry, event.state)

    def _settle(self, entry: _Entry, state: str) -> None:
        with self._changed:  # last, and in one: whoever waits for it finds everything said
            if not (entry.state == "stopped" and state == "running"):
                entry.state = state
            if state != "running":
                self._progress()

    def _draw(self, entry: _Entry, event: Event) -> None:
        want, found = entry.wanted, event.attribution
        title = ""
        if found is not None and found.score is not None:
            name = want.problem.name_of(found.settings["target"], want.request.score, short=True)
            title = f"{name} {messages.number(found.score[0])}"
        if event.state == "done" and entry.cell.image is not (image := self._image(want.problem)):
            entry.cell.image = image
        told = messages.status_of(event, title, want.name, notes=want.notes, sign=self._reduction_of(want).sign)
        entry.cell.offer(messages.frame_of(event), told)

    def _counted(self) -> int:
        """How many of the maps shown have come to their end."""
        return sum(self._entries[key].state in ("done", "error") for key in self._shown)

    def _progress(self) -> None:
        done, total = self._counted(), len(self._shown)
        state = "done" if done == total else "stopped" if self._stopped else "running"
        new = done - self._before
        each = (time.perf_counter() - self._began) / new if new else 0.0
        remaining = each * (total - done) if new and state == "running" else None
        self.view.tell(progress={"state": state, "done": done, "total": total, "remaining": remaining})
        with self._changed:
            self._changed.notify_all()

    def _on_message(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "stop":
            self.stop()
        elif kind == "go":
            self.go()
        elif kind == "visible":
            shown = [self._shown[k] for k in message["cells"] if 0 <= k < len(self._shown)]
            self._turns.prefer(dict.fromkeys([*shown, *self._shown]))
        elif 0 <= message["cell"] < len(self._shown):
            self._open(self._shown[message["cell"]])

    # ---- what is done while nothing is asked

    def _due_checkups(self) -> list[Due]:
        """The check-up, once for each version of each model that is shown."""
        methods, due = tuple(self._methods()), []
        for name, want in self._models().items():
            version = want.problem.version(), methods
            if self._examined.get(name) != version:
                due.append(Due(want.problem, want.request, version, name))
        return due

    def _on_checkup(self, due: Due, findings: Sequence[Finding]) -> None:
        methods = self._methods()
        concerning = [one for one in findings if not one.methods or any(method in methods for method in one.methods)]
        self._examined[due.name] = due.version
        checkups = {line["name"]: line for line in self.view.checkups}
        said = messages.findings_of(concerning, methods)
        checkups[due.name] = {"name": due.name, "findings": said, "checked": True}
        self.view.tell(checkups=[checkups[name] for name in self._models() if name in checkups])

    def _models(self) -> dict[str, Wanted]:
        """The first map that is shown of each model."""
        models: dict[str, Wanted] = {}
        for key in self._shown:
            want = self._entries[key].wanted
            models.setdefault(want.model, want)
        return models

    def _methods(self) -> dict[str, str]:
        """The methods of all maps that are shown, with their titles."""
        names = dict.fromkeys(self._entries[key].wanted.request.method for key in self._shown)
        return {name: get_method(name).title for name in names}
