"""Save an explorer of an input with a map over it as a page that needs no kernel."""

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
    from saliency_widgets.widgets.base.kind_view import Explored

LIMIT = 200


class PageWriter:
    """A writer that records maps of an explorer and saves them as a page.

    Args:
        explorer: The explorer.
        record: See :meth:`Explorer.save_html`.
        title: The heading. Default: a heading that names the model.

    Raises:
        RuntimeError: The displayed map is not finished.
        TypeError, ValueError: These settings can't be recorded.
    """

    def __init__(self, explorer: Explored, record: Mapping[str, Any] | None, title: str | None = None) -> None:
        self._explorer, self._session = explorer, explorer.session
        shown = self._session.last
        if explorer.attribution is None or shown is None or shown.frame is None or shown.request is None:
            raise RuntimeError("There is no finished map to save yet: call explorer.wait() first.")
        # Use the chunk size of the displayed map, so that the maps share samples.
        self._shown, pace = shown, dict(shown.request.params).get(CHUNK_SIZE.name) or explorer.problem.rows
        self.plan: Plan = plan(explorer.panel, explorer.problem, record, pace)
        named = type(explorer.arguments["model"]).__name__
        self._title = titled(title, f"Which {explorer.kind_view.part_noun} affect the output of {named}")

    @property
    def size(self) -> PageSize:
        """The estimated size of the page, before anything is computed or written."""
        shown = self._shown
        assert shown.attribution is not None
        assert shown.request is not None
        assert shown.reduction is not None
        traits = self._traits(Entry(shown.request, shown.reduction), shown.attribution, shown.version)
        each = packed_size(traits["frame"]) + 700  # plus its readings and code
        base = len(self._page(Recording(), traits, shown.attribution))
        return estimate(self.plan, self._explorer.problem, self._there, base, each)

    def check(self, limit: int, largest: int = LARGEST) -> PageSize:
        """Return the estimated size, and check that it is within the limits.

        Raises:
            ValueError: The page would exceed a limit.
        """
        limit, largest = MAPS.check(limit), MAX_BYTES.check(largest)
        size = self.size
        fewer = "Record fewer settings, or fewer values of them"
        if size.maps > limit:
            raise ValueError(f"record: {size}: over the limit of {limit} maps. {fewer}, or pass limit={size.maps}.")
        if size.bytes > largest:
            raise ValueError(
                f"record: {size}: over the limit of {size_text(largest)} for one page. {fewer}, or pass "
                f"max_bytes={size.bytes * 11 // 10}."
            )
        return size

    def write(
        self,
        path: str | os.PathLike[str],
        *,
        check: Callable[[], None] = lambda: None,
        report: Callable[[int, int, str], None] = lambda _done, _total, _what: None,
    ) -> Saved:
        """Compute the missing maps and write the page.

        Args:
            path: The file.
            check: Called often; may raise to end the computation. Maps computed so far stay in the cache.
            report: Called with the number of finished maps, the total, and a description of the next step.
        """
        resolve_target(path)  # before anything is computed
        explorer = self._explorer
        results: dict[tuple, tuple[Attribution, tuple | None]] = {}
        requests = self.plan.requests
        for done, request in enumerate(requests):
            report(done, len(requests), explorer.panel.title_of(request))
            results[request.key] = self._compute(request, check)
        if len({version for _, version in results.values()}) > 1:
            raise RuntimeError("The model or the inputs were changed while the maps were computed: save again.")
        report(len(requests), len(requests), "writing")
        traits = {key: self._traits(entry, *results[entry.request.key]) for key, entry in self.plan.entries.items()}
        opening = traits[self.plan.begin]
        if all(one["scene"] == opening["scene"] for one in traits.values()):  # then the page needs it once
            traits = {key: {name: one[name] for name in one if name != "scene"} for key, one in traits.items()}
        states: dict[tuple[int | None, ...], Patch] = {key: {explorer.view: one} for key, one in traits.items()}
        recording = Recording(tuple(one.axis for one in self.plan.recorded), states, self.plan.targets)
        begin = self.plan.entries[self.plan.begin].request
        text = self._page(recording, opening, results[begin.key][0])
        check()
        return Saved(as_path(path), put(path, text), len(states))

    def _there(self, request: Request) -> bool:
        return self._is_shown(request) or self._session.cached(request) is not None

    def _is_shown(self, request: Request) -> bool:
        return self._shown.request is not None and request.key == self._shown.request.key

    def _compute(self, request: Request, check: Callable[[], None]) -> tuple[Attribution, tuple | None]:
        if self._is_shown(request) and self._shown.attribution is not None:
            return self._shown.attribution, self._shown.version
        try:
            return self._session.run(request, check)
        except ModelChanged as error:
            raise RuntimeError(str(error)) from error
        except (TypeError, ValueError) as error:
            settings = ", ".join(f"{name}={written(name, value)}" for name, value in request.settings.items())
            raise ValueError(
                f"record: {error} The request was: {settings}. Omit that value; computed maps stay in the cache."
            ) from error

    def _traits(self, entry: Entry, attribution: Attribution, version: tuple | None) -> dict[str, Any]:
        """Return the view's traits for one map."""
        explorer, frame = self._explorer, frame_of(attribution, entry.reduction, entire=True)
        event = Event(1, 1, "done", attribution, frame, request=entry.request, newest=entry.request, version=version)
        status = explorer.status_of(event, event, "", entry.reduction.sign)
        status["elapsed"], status["remark"] = None, ""
        shown = {**(explorer.kind_view.look or {}), "sign": entry.reduction.sign, "channels": entry.reduction.channels}
        status["code"] = code_of(attribution.settings, transformed=attribution.transformed, shown=shown)
        scene = explorer.kind_view.page_scene(entry.request)
        return {"frame": messages.raw_frame(frame, generation=1, index=1), "status": status, "scene": scene}

    def _page(
        self,
        recording: Recording,
        traits: Mapping[str, Any],
        attribution: Attribution | None,
    ) -> bytes:
        explorer = self._explorer
        assert attribution is not None
        text = page(
            explorer.view,
            title=self._title,
            provenance=provenance(explorer.arguments["model"], attribution.settings, *_recorded(self.plan)),
            recording=recording if len(recording.states) > 1 else replace(recording, axes=(), states={}),
            predictions=explorer.panel.predictions,
            overrides={explorer.view: {"marking": False, "region": {}, "controls": [], **traits}},
            images=explorer.kind_view.drawn,
        )
        return text.encode()


def provenance(model: nn.Module, settings: Mapping[str, Any], *more: str) -> str:
    """Describe the origin of a page in one line: version, model, date and settings.

    Args:
        model: The caller's model.
        settings: The settings of the attribution with which the page opens.
        *more: Further parts of the line.
    """
    texts = [f"{name}={written(name, value)}" for name, value in settings.items() if value is not None]
    date = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
    parts = [f"saliency_widgets {version('saliency-widgets')}", type(model).__name__, date, ", ".join(texts), *more]
    return " · ".join(parts)


def _recorded(plan: Plan) -> list[str]:
    if not plan.recorded:
        return []
    axes = [f"{one.name} ({len(one.values)})" for one in plan.recorded]
    return [f"recorded: {', '.join(axes)}, {count(len(plan.entries), 'map')}"]


def save_html(
    explorer: Explored,
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
    with tqdm(total=len(writer.plan.requests), disable=not progress, unit="map") as bar:
        bar.set_description(f"About {size_text(size.bytes)}")

        def report(done: int, _total: int, what: str) -> None:
            bar.set_postfix_str(what, refresh=False)
            bar.update(done - bar.n)

        return writer.write(path, report=report)
