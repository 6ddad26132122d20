"""Maps side by side, computed by one worker, visible ones first."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tqdm.auto import tqdm

from saliency_widgets.attribution import Attribution, Reduction, get_method
from saliency_widgets.attribution.query import CHUNK_SIZE
from saliency_widgets.inputs import Prepared
from saliency_widgets.render import Quantized
from saliency_widgets.session import Event, Problem, Request, Session
from saliency_widgets.session.cache import SHARED
from saliency_widgets.session.frames import coded
from saliency_widgets.session.jobs import Jobs
from saliency_widgets.widgets.base import messages
from saliency_widgets.widgets.base.display import DisplaySettings
from saliency_widgets.widgets.base.kind_view import view_of
from saliency_widgets.widgets.base.lifetime import weakly
from saliency_widgets.widgets.base.parts import close_whole
from saliency_widgets.widgets.compare.checkups import Checkups, Displayed
from saliency_widgets.widgets.compare.grid import GridView, MapCell
from saliency_widgets.widgets.image.png import png_bytes


@dataclass(eq=False)
class Wanted:
    """A requested map.

    Attributes:
        problem: The model and the input.
        request: The request for the map.
        name: The map's unique name.
        group: The name of the group; maps of one group have comparable values.
        model: The name of the model, if there are several.
        notes: Notes to show in addition to the map's own.
        owner: The owner of the cached maps that may be reused. Default: the owner of the problem.
        reduction: The map's reduction, which overrides :meth:`Maps.reduce`.
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
    shown: Prepared
    state: str = "waiting"
    requested: Request | None = None


class Maps:
    """A grid of requested maps, and the queue that computes them.

    Args:
        display: The display settings of all cells.
        executor: "thread" or "inline".
        on_open: Called with the key of the clicked cell.
        on_done: Called with the key of each finished map, on the worker's thread.
        check_up: Whether to check the models while the worker is idle.

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
        self._at: Sequence[float] | None = None
        self._open, self._done = on_open, on_done
        self._changed = threading.Condition()
        self._stopped = self._closed = False
        self._began, self._before = time.perf_counter(), 0
        self._checkups = Checkups(self.view, weakly(self._displayed))
        # Redrawing has its own queue, so that it doesn't wait for maps being computed.
        self._jobs, self._drawing = Jobs(executor, idle=self._checkups.idle if check_up else None), Jobs(executor)
        for jobs in (self._jobs, self._drawing):
            weakref.finalize(self, jobs.ending.end).atexit = False
        self._owners: dict[Problem, object] = {}  # owners of cached maps, shared by all cells of a problem

    # ---- public

    def show(
        self, rows: Sequence[str], columns: Sequence[str], wanted: Mapping[Any, Wanted], *, again: bool = True
    ) -> None:
        """Show these maps row by row, and compute the missing ones.

        Args:
            rows: The labels of the rows.
            columns: The labels of the columns.
            wanted: The maps by key.
            again: Whether to request finished maps again, which is free unless the model or the inputs have changed.
        """
        for key, want in wanted.items():
            entry = self._entries.get(key)
            if entry is None:
                self._entries[key] = self._entry(key, want)
            else:
                entry.wanted = want
                entry.cell.name = want.name
        for key in self._shown:
            if key not in wanted and self._entries[key].state in ("waiting", "running"):
                self._stop(self._entries[key])  # hidden; requested again when shown again
        self._shown = list(wanted)
        self._reduce()
        self.view.lay(rows, columns, [self._entries[key].cell for key in wanted])
        self._jobs.prefer(self._shown)
        self._stopped = False
        self._submit(again)

    def forget(self, keys: Iterable[Hashable]) -> None:
        """Drop maps that are no longer shown."""
        for key in list(keys):
            self._close(self._entries.pop(key))

    def reduce(self, sign: str | None, channels: str | None, at: Sequence[float] | None = None) -> None:
        """Set the reduction of all maps.

        Args:
            sign: The sign; None for the default of each map.
            channels: The reduction of the channels; None for the default of each map.
            at: The part that is shown, see :meth:`.KindView.reduced_at`.
        """
        self._reduction, self._at = (sign, channels), at
        self._reduce()

    def frame(self, key: Hashable) -> Quantized:
        """Return a finished map in 16 bits, as shown.

        Raises:
            RuntimeError: The map is not finished.
        """
        entry = self._entries[key]
        event = entry.session.last
        if entry.state != "done" or event is None or event.frame is None:
            raise RuntimeError(f"The map {entry.wanted.name!r} is not finished: call .wait() first, and see .errors.")
        return event.frame

    def whole(self, key: Hashable) -> Quantized:
        """Return a finished map in 16 bits, with all rows of a volume of which only planes are shown.

        Raises:
            RuntimeError: The map is not finished.
        """
        frame, attribution = self.frame(key), self.attribution(key)
        if attribution is None or not attribution.features.partial:
            return frame
        reduction = self._reduction_of(self._entries[key].wanted)
        rows = attribution.features.frame(attribution.values[:1], reduction, attribution.input_shape)
        return coded(rows, signed=reduction.signed)

    def attribution(self, key: Hashable) -> Attribution | None:
        """Return the finished attribution of a map, or None."""
        entry = self._entries.get(key)
        last = None if entry is None or entry.state != "done" else entry.session.last
        return None if last is None else last.attribution

    def error(self, key: Hashable) -> Exception | None:
        """Return the error of a map that failed, or None."""
        last = self._entries[key].session.last
        return None if last is None else last.error

    def wait(self, timeout: float | None = None, *, progress: bool = False) -> None:
        """Wait until every displayed map is finished, failed or stopped.

        Raises:
            RuntimeError: Called on the worker's thread, for example in an observer.
            TimeoutError: The maps were not finished in time.
        """
        for jobs in (self._jobs, self._drawing):
            jobs.prepare_wait()
        self._submit_lost()
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
            entry.cell.flush()  # a notebook saved now contains the finished maps

    def stop(self) -> None:
        """Stop the computation; finished maps stay, and :meth:`go` computes the rest."""
        self._stopped = True
        for entry in self._entries.values():
            if entry.state in ("waiting", "running"):
                self._stop(entry)
        self._progress()

    def go(self) -> None:
        """Resume the computation after a stop."""
        self._stopped = False
        self._submit()

    def close(self) -> None:
        """End the computation and free the cache."""
        self._closed = True
        for entry in self._entries.values():
            entry.session.stop()
        self._jobs.close()
        self._drawing.close()
        self.view.retire()
        for entry in self._entries.values():
            self._close(entry)
        for owner in self._owners.values():
            SHARED.forget(owner)
        with self._changed:
            self._changed.notify_all()

    # ---- computation

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
        """Apply the reductions to the displayed maps; other maps are reduced when they are shown."""
        for key in self._shown:
            entry = self._entries[key]
            entry.session.reduce(self._reduction_of(entry.wanted))

    def _entry(self, key: Hashable, want: Wanted) -> _Entry:
        problem = want.problem
        image, scene = self._input(want)
        cell = MapCell(image, name=want.name, group=want.group, scene=scene)
        owner = want.owner or self._owners.setdefault(problem, SHARED.owner_of(problem))
        deliver, lanes = partial(weakly(self._on_event), key), (self._jobs, self._drawing)
        return _Entry(want, cell, Session(problem, deliver, owner=owner, lanes=lanes, key=key), shown=problem.prepared)

    def _input(self, want: Wanted) -> tuple[bytes, dict[str, Any]]:
        """Return the model's current input as PNG and as a scene, one of which is empty."""
        problem = want.problem
        prepared, png = self._images.get(problem, (None, b""))
        if prepared is not problem.prepared:  # the first call, or the inputs were changed in place
            images = problem.prepared.images
            png = b"" if images is None else png_bytes(images[0])
            self._images[problem] = problem.prepared, png
        return png, view_of(problem.kind.name).still(problem.prepared, want.request, self._reduction_of(want))

    def _reduction_of(self, want: Wanted) -> Reduction:
        if want.reduction is not None:
            return want.reduction
        problem = want.problem
        reduction = problem.kind.features.reduction_for(get_method(want.request.method), *self._reduction)
        return view_of(problem.kind.name).reduced_at(problem.prepared, reduction, self._at)

    def _submit(self, again: bool = False) -> None:
        """Request the displayed maps that are missing or belong to another request."""
        todo = []
        for key in self._shown:
            entry = self._entries[key]
            current = entry.requested is not None and entry.requested.key == entry.wanted.request.key
            if entry.state == "done" and current and not again:
                continue
            entry.state, entry.requested = "waiting", entry.wanted.request
            todo.append(entry)
        self._began, self._before = time.perf_counter(), len(self._shown) - len(todo)
        self._progress()
        for entry in todo:
            entry.session.submit(entry.wanted.request)

    def _submit_lost(self) -> None:
        """Submit the requests of waiting maps whose submission was interrupted."""
        for key in self._shown:
            entry = self._entries[key]
            if entry.state == "waiting" and not (entry.session.busy or self._closed):
                entry.requested = entry.wanted.request
                entry.session.submit(entry.requested)

    def _on_event(self, key: Hashable, event: Event) -> None:
        entry = self._entries.get(key)
        if entry is None or self._closed:
            return
        if event.newest is None or entry.requested is None:
            return
        pace = dict(event.newest.params).get(CHUNK_SIZE.name)
        if entry.requested.with_chunk_size(pace).key != event.newest.key:
            return  # another map was requested meanwhile
        drawn = event.state == "error"  # even if drawing fails; in other states a failure causes an error event
        try:
            self._draw(entry, event)
            if event.state == "done":
                self._done(key)
            drawn = True
        finally:
            if drawn:
                self._settle(entry, event.state)

    def _settle(self, entry: _Entry, state: str) -> None:
        with self._changed:  # last and in one step, so that a waiting thread wakes up after everything is shown
            if not (entry.state == "stopped" and state == "running"):
                entry.state = state
            if state != "running":
                self._progress()

    def _draw(self, entry: _Entry, event: Event) -> None:
        want, attribution = entry.wanted, event.attribution
        title = ""
        if attribution is not None and attribution.score is not None:
            name = want.problem.name_of(attribution.settings["target"], want.request.score, short=True)
            title = f"{name} {messages.number(attribution.score[0])}"
        fresh = attribution is not None and event.state in ("running", "done")
        if fresh and entry.shown is not want.problem.prepared:
            entry.shown = want.problem.prepared
            entry.cell.image, entry.cell.scene = self._input(want)
        status = messages.status_of(event, title, want.name, notes=want.notes, sign=self._reduction_of(want).sign)
        entry.cell.offer(view_of(want.problem.kind.name).still_frame(entry.shown, event), status)

    def _displayed(self) -> Displayed:
        return [(want.model, want.problem, want.request) for want in (self._entries[key].wanted for key in self._shown)]

    def _counted(self) -> int:
        """Count the displayed maps that are finished or failed."""
        return sum(self._entries[key].state in ("done", "error") for key in self._shown)

    def _progress(self) -> None:
        done, total = self._counted(), len(self._shown)
        state = "done" if done == total else "stopped" if self._stopped else "running"
        new = done - self._before
        each = (time.perf_counter() - self._began) / new if new else 0.0
        remaining = each * (total - done) if new and state == "running" else None
        self.view.set_traits(progress={"state": state, "done": done, "total": total, "remaining": remaining})
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
            self._jobs.prefer(dict.fromkeys([*shown, *self._shown]))
        elif 0 <= message["cell"] < len(self._shown):
            self._open(self._shown[message["cell"]])
