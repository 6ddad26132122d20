"""What an explorer of images writes: a page that needs no kernel."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from torch import nn
from tqdm.auto import tqdm

from saliency_widgets.attribution import Attribution
from saliency_widgets.attribution.errors import ModelChanged
from saliency_widgets.attribution.query import CHUNK_SIZE
from saliency_widgets.attribution.result import code_of, written
from saliency_widgets.files import as_path, put, resolve_target
from saliency_widgets.params import MAPS, check_switch
from saliency_widgets.session import Event, Request, frame_of
from saliency_widgets.widgets.base import messages
from saliency_widgets.widgets.export.page import (
    LARGEST,
    MAX_BYTES,
    Patch,
    Recording,
    Saved,
    count,
    packed_size,
    page,
    size_text,
    titled,
)
from saliency_widgets.widgets.export.recording import Entry, PageSize, Plan, estimate, plan

if TYPE_CHECKING:
    from saliency_widgets.widgets.image.explorer import Explorer

LIMIT = 200


class PageWriter:
    """Records maps of an explorer and writes them as a page.

    Args:
        explorer: Whose.
        record: See :meth:`Explorer.save_html`.
        title: What stands above it; which model it is about unless given.

    Raises:
        RuntimeError: There is no finished map on the screen.
        TypeError, ValueError: What is to be recorded can't be.
    """

    def __init__(self, explorer: Explorer, record: Mapping[str, Any] | None, title: str | None = None) -> None:
        self._explorer, self._session = explorer, explorer._session
        shown = self._session.last
        if explorer.attribution is None or shown is None or shown.frame is None or shown.request is None:
            raise RuntimeError("There is no finished map to save yet: call explorer.wait() first.")
        # In passes as long as those of the map on the screen: then their samples are each other's.
        self._shown, pace = shown, dict(shown.request.params).get(CHUNK_SIZE.name) or explorer._problem.rows
        self.plan: Plan = plan(explorer.panel, explorer._problem, record, pace)
        self._title = titled(title, f"Which pixels moved the output of {type(explorer._arguments['model']).__name__}")

    @property
    def size(self) -> PageSize:
        """What the page would be, before anything is computed or written."""
        assert self._shown.frame is not None
        each = packed_size(self._shown.frame.codes) + 700  # and its readings and code
        base = len(self._page(Recording(), {}, self._shown.attribution))
        return estimate(self.plan, self._explorer._problem, self._there, base, each)

    def check(self, limit: int, largest: int = LARGEST) -> PageSize:
        """The size, if it is within the limits.

        Raises:
            ValueError: It is not; the message says how large it would be, and what to do.
        """
        limit, largest = MAPS.check(limit), MAX_BYTES.check(largest)
        size = self.size
        fewer = "Record fewer settings, or fewer values of them"
        if size.maps > limit:
            raise ValueError(f"record: {size}: over the limit of {limit} maps. {fewer}, or pass limit={size.maps}.")
        if size.bytes > largest:
            raise ValueError(
                f"record: {size}: over the limit of {size_text(largest)} for one page. {fewer}, or pass "
                f"max_bytes={size.bytes * 11 // 10} if you mean it."
            )
        return size

    def write(
        self,
        path: str | os.PathLike[str],
        *,
        check: Callable[[], None] = lambda: None,
        told: Callable[[int, int, str], None] = lambda _done, _total, _what: None,
    ) -> Saved:
        """Compute what is missing, and write the page.

        Args:
            path: Where to.
            check: Called often; raises to end it. What is computed by then is kept for the next time.
            told: Called with the maps that are there, all of them, and what is computed next.
        """
        resolve_target(path)  # before anything is computed for it
        explorer = self._explorer
        found: dict[tuple, tuple[Attribution, tuple | None]] = {}
        questions = self.plan.questions
        for done, request in enumerate(questions):
            told(done, len(questions), explorer.panel.title_of(request))
            found[request.key] = self._answer(request, check)
        if len({version for _, version in found.values()}) > 1:
            raise RuntimeError("The model or the inputs were changed while the maps were computed: save it again.")
        told(len(questions), len(questions), "writing")
        states: dict[tuple[int | None, ...], Patch] = {}
        for key, entry in self.plan.entries.items():
            states[key] = {explorer.view: self._traits(entry, *found[entry.request.key])}
        recording = Recording(tuple(one.axis for one in self.plan.recorded), states, self.plan.targets)
        begin = self.plan.entries[self.plan.begin].request
        text = self._page(recording, states[self.plan.begin][explorer.view], found[begin.key][0])
        check()
        return Saved(as_path(path), put(path, text), len(states))

    def _there(self, request: Request) -> bool:
        return self._is_shown(request) or self._session.cached(request) is not None

    def _is_shown(self, request: Request) -> bool:
        return self._shown.request is not None and request.key == self._shown.request.key

    def _answer(self, request: Request, check: Callable[[], None]) -> tuple[Attribution, tuple | None]:
        if self._is_shown(request) and self._shown.attribution is not None:
            return self._shown.attribution, self._shown.version
        try:
            return self._session.run(request, check)
        except ModelChanged as error:
            raise RuntimeError(str(error)) from error
        except (TypeError, ValueError) as error:
            asked = ", ".join(f"{name}={written(name, value)}" for name, value in request.settings.items())
            raise ValueError(
                f"record: {error} This was asked for: {asked}. Leave that value out; what was computed is kept."
            ) from error

    def _traits(self, entry: Entry, found: Attribution, version: tuple | None) -> dict[str, Any]:
        """What the view shows of one map."""
        explorer, frame = self._explorer, frame_of(found, entry.reduction)
        event = Event(1, 1, "done", found, frame, request=entry.request, newest=entry.request, version=version)
        status = explorer._status_of(event, event, "", entry.reduction.sign)
        status["elapsed"], status["aside"] = None, ""
        shown = {**explorer._shown, "sign": entry.reduction.sign, "channels": entry.reduction.channels}
        status["code"] = code_of(found.settings, transformed=found.transformed, shown=shown)
        return {"frame": messages.frame_of(event), "status": status}

    def _page(
        self,
        recording: Recording,
        traits: Mapping[str, Any],
        found: Attribution | None,
    ) -> bytes:
        explorer = self._explorer
        assert found is not None
        text = page(
            explorer.view,
            title=self._title,
            provenance=provenance(explorer._arguments["model"], found.settings, *_recorded(self.plan)),
            recording=recording if len(recording.states) > 1 else replace(recording, axes=(), states={}),
            predictions=explorer.panel.predictions,
            overrides={explorer.view: {"marking": False, "region": {}, "controls": [], **traits}},
            images=explorer._drawn,
        )
        return text.encode()


def provenance(model: nn.Module, settings: Mapping[str, Any], *more: str) -> str:
    """Where a page comes from, in one line: version, model, date, method and settings.

    Args:
        model: As the caller gave it.
        settings: Of the attribution with which the page opens.
        *more: What else is to be told.
    """
    told = [f"{name}={written(name, value)}" for name, value in settings.items() if value is not None]
    date = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
    parts = [f"saliency_widgets {version('saliency-widgets')}", type(model).__name__, date, ", ".join(told), *more]
    return " · ".join(parts)


def _recorded(plan: Plan) -> list[str]:
    if not plan.recorded:
        return []
    axes = [f"{one.name} ({len(one.values)})" for one in plan.recorded]
    return [f"recorded: {', '.join(axes)}, {count(len(plan.entries), 'map')}"]


def save_html(
    explorer: Explorer,
    path: str | os.PathLike[str],
    record: Mapping[str, Any] | None,
    title: str | None,
    limit: int,
    max_bytes: int,
    progress: bool,
) -> Saved:
    """See :meth:`Explorer.save_html`."""
    resolve_target(path)
    check_switch("progress", progress)
    explorer.wait()
    writer = PageWriter(explorer, record, title)
    size = writer.check(limit, max_bytes)
    with tqdm(total=len(writer.plan.questions), disable=not progress, unit="map") as bar:
        bar.set_description(f"About {size_text(size.bytes)}")

        def told(done: int, _total: int, what: str) -> None:
            bar.set_postfix_str(what, refresh=False)
            bar.update(done - bar.n)

        return writer.write(path, told=told)
