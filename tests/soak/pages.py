"""A simulated page: it stores what the kernel sends, acknowledges unreliably, and operates every control."""

from __future__ import annotations

import logging
import random
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any

import comm
import ipywidgets as w
from bqplot.marks import Bars
from comm.base_comm import BaseComm
from ipywidgets.widgets.widget import _instances
from ipywidgets.widgets.widget_selection import _Selection
from traitlets import TraitError
from traitlets.log import get_logger

from saliency_widgets.widgets.base.frame_stream import FrameStream
from saliency_widgets.widgets.base.heatmap import HeatmapView
from saliency_widgets.widgets.base.parts import widgets_in
from saliency_widgets.widgets.compare.grid import GridView
from saliency_widgets.widgets.lesson.view import LessonView
from soak.figures import Figures

UNCAUGHT, RAW, DISORDER = "uncaught exception", "raw traceback", "frame out of order"

WRONG: tuple[Any, ...] = (
    None, "x", "", "\0", -1, 10**30, 2**63, 0.5, float("nan"), float("inf"), True, [], {}, [1, "a"], {"a": [None]},
)  # fmt: skip
"""Values that no page sends."""

TEXTS = (
    "",
    "0",
    "2",
    "ant",
    "bee (1)",
    "zebra",
    "-1",
    "1, 0",
    "9" * 30,
    "ü漢\u202e",
    "<b>",
    "page.html",
    "no/where.html",
)


class Page:
    """Replaces the browser within a ``with`` block.

    Args:
        figures: Where faults are counted.
        seed: The seed of its answers.

    Attributes:
        step: The current seed and step, for examples.
    """

    def __init__(self, figures: Figures, seed: int) -> None:
        figures.expect_none_of(UNCAUGHT, RAW, DISORDER)
        self.figures = figures
        self.step = f"seed {seed}"
        self.begin(seed)
        self._lock = threading.Lock()
        self._latest: dict[str, tuple[int, int]] = {}
        self._codes: dict[str, bytes] = {}
        self._states: dict[str, dict[str, Any]] = {}

    def begin(self, seed: int) -> None:
        """Answer with a new seed from now on."""
        self._random = random.Random(f"page {seed}")
        self._due: deque[tuple[str, tuple[int, int]]] = deque()
        self._trail: deque[str] = deque(maxlen=4)

    def __enter__(self) -> Page:
        self._hooks = comm.create_comm, threading.excepthook, sys.unraisablehook
        page = self

        class PageComm(BaseComm):
            def publish_msg(self, msg_type: str, data: Any = None, buffers: Any = None, **_: Any) -> None:
                page._take(self.comm_id, msg_type, data or {}, buffers or [])

        comm.create_comm = PageComm
        threading.excepthook = lambda args: self._uncaught(args.exc_value, args.thread and args.thread.name)
        sys.unraisablehook = lambda args: self._uncaught(args.exc_value, repr(args.object))
        self._handler = _Handler(lambda error: self._raw(error, "custom"))
        get_logger().addHandler(self._handler)
        return self

    def __exit__(self, *_error: object) -> None:
        comm.create_comm, threading.excepthook, sys.unraisablehook = self._hooks
        get_logger().removeHandler(self._handler)

    # ---- messages from the kernel

    def status(self, view: FrameStream) -> dict[str, Any]:
        """The last status of a view that has arrived."""
        return self._states[view.model_id].get("status", {})

    def frame(self, view: FrameStream) -> tuple[dict[str, Any], bytes]:
        """The last frame of a view that has arrived, and its codes."""
        return self._states[view.model_id].get("frame", {}), self._codes.get(view.model_id, b"")

    def _take(self, name: str, kind: str, data: dict[str, Any], buffers: list[Any]) -> None:
        state = data.get("state", {})
        with self._lock:
            if kind == "comm_close":
                for held in (self._states, self._codes, self._latest):
                    held.pop(name, None)
                return
            if "status" in state or "frame" in state:
                self._states.setdefault(name, {}).update(state)
            if not state.get("frame"):
                return
            self.figures.counts["frames"] += 1
            for path, buffer in zip(data.get("buffer_paths", []), buffers, strict=True):
                if path == ["frame", "codes"]:
                    self._codes[name] = bytes(buffer)
            stamp = state["frame"]["generation"], state["frame"]["index"]
            if stamp < self._latest.get(name, stamp):
                self.fault(DISORDER, f"{stamp} after {self._latest[name]}")
            self._latest[name] = stamp
            self._due.append((name, stamp))

    # ---- messages to the kernel

    def answer(self) -> None:
        """Acknowledge the frames that have arrived; some answers are lost, sent twice, late or malformed."""
        for _ in range(len(self._due)):
            name, stamp = self._due.popleft()
            view = _instances.get(name)
            if view is None:
                continue
            fate = self._random.choices(
                ["painted", "lost", "twice", "late", "malformed"], [60, 12, 8, 12, 8]
            )[0]  # fmt: skip
            self.figures.counts[f"acknowledgements {fate}"] += 1
            if fate == "late":
                self._due.append((name, stamp))
            elif fate != "lost":
                message = {"type": "painted", "generation": stamp[0], "index": stamp[1]}
                if fate == "malformed":
                    _spoil(self._random, message)
                for _ in range(1 + (fate == "twice")):
                    self.send(view, {"method": "custom", "content": message})

    def move(self, draw: random.Random, root: w.Widget) -> None:
        """Send the message of a random user action."""
        widget = draw.choice(movable(root))
        self._send_random(widget, *_legal(draw, widget), "move")

    def nonsense(self, draw: random.Random, root: w.Widget) -> None:
        """Send a message that no page sends."""
        widget = draw.choice(movable(root))
        self._send_random(widget, *_malformed(draw, widget), "nonsense")

    def _send_random(self, widget: w.Widget, data: Any, buffers: list[bytes], what: str) -> None:
        self._trail.append(f"{what} {type(widget).__name__} {str(data)[:200]}")
        self.figures.counts[what] += 1
        self.send(widget, data, buffers)

    def send(self, widget: w.Widget, data: Any, buffers: list[bytes] | None = None) -> None:
        """Send a message to a widget; closed widgets receive none."""
        if widget.comm is None:
            return
        try:
            widget._handle_msg({"content": {"data": data}, "buffers": buffers or []})
        except Exception as error:
            self._raw(error, str(data)[:200])

    # ---- faults

    def fault(self, name: str, what: str) -> None:
        """Count a fault, with the last messages before it."""
        self.figures.fault(name, f"{self.step}: {what}; after {' | '.join(self._trail)}")

    def _uncaught(self, error: BaseException | None, where: object) -> None:
        self.fault(UNCAUGHT, f"in {where}: {traced(error)}")

    def _raw(self, error: BaseException, what: str) -> None:
        """Count an error as a fault if our code raised it; ipywidgets itself may refuse messages."""
        ours = any("saliency_widgets" in frame.filename for frame in traceback.extract_tb(error.__traceback__))
        if ours and not isinstance(error, TraitError):
            self.fault(RAW, f"{what}: {traced(error)}")
        else:
            self.figures.counts["messages refused by ipywidgets"] += 1


class _Handler(logging.Handler):
    """Reports the errors of callbacks of custom messages, which ipywidgets only logs."""

    def __init__(self, report: Callable[[BaseException], None]) -> None:
        super().__init__()
        self._report = report

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            self._report(record.exc_info[1])


def traced(error: BaseException | None) -> str:
    return "".join(traceback.format_exception(error)[-6:])


def movable(root: w.Widget) -> list[w.Widget]:
    """The parts of a widget that a user can operate, in a fixed order."""
    return [widget for widget in whole(root) if isinstance(widget, tuple(_MOVES))]


def whole(root: w.Widget) -> list[w.Widget]:
    """A widget with all its parts."""
    parts = {root.model_id: root} if root.comm is not None else {}
    todo = [root]
    while todo:
        widget = todo.pop()
        for name in widget.keys if widget.comm is not None else ():
            for part in widgets_in(getattr(widget, name)):
                if name != "_canvas_manager" and part.comm is not None and part.model_id not in parts:
                    parts[part.model_id] = part
                    todo.append(part)
    return list(parts.values())


def press(name: str) -> dict[str, Any]:
    """The message of a click."""
    return {"method": "custom", "content": {"event": name}}


def _update(**state: Any) -> dict[str, Any]:
    return {"method": "update", "state": state, "buffer_paths": []}


def _custom(**content: Any) -> dict[str, Any]:
    return {"method": "custom", "content": content}


def _low(draw: random.Random, low: int, high: int) -> int:
    """Return a mostly small number, because large ones take long."""
    return low + int((high - low) * draw.random() ** 5)


def _heatmap(draw: random.Random, view: Any) -> tuple[dict[str, Any], list[bytes]]:
    if draw.random() < 0.3:
        return _custom(type="stop"), []
    side = draw.choice([8, 8, 8, 3])
    return _custom(type="region", height=side, width=side), [draw.randbytes(side * side // 8 + 1)]


def _grid(draw: random.Random, view: GridView) -> dict[str, Any]:
    cells = range(max(1, len(view.cells)))
    return draw.choice(
        [
            _custom(type="stop"), _custom(type="go"), _custom(type="open", cell=draw.choice(cells)),
            _custom(type="visible", cells=[k for k in cells if draw.random() < 0.5]),
            _update(scale=draw.choice(["separate", "shared"])), _update(unlocked=[draw.choice(cells)]),
            _update(pair=[draw.choice(cells), draw.choice(cells)]),
        ]
    )  # fmt: skip


def _lesson(draw: random.Random, view: LessonView) -> dict[str, Any]:
    name = draw.choice(view.steps)["name"]
    return draw.choice(
        [
            _update(step=draw.randrange(len(view.steps))), _custom(type="try", step=name, shot=draw.randrange(4)),
            *[_custom(type="stop")] * (draw.random() < 0.1),
        ]
    )  # fmt: skip


def _index(draw: random.Random, widget: Any) -> dict[str, Any]:
    return _update(index=draw.randrange(len(widget.options))) if widget.options else _update()


# The messages of user actions, by the class of the widget; the first class that fits counts.
_MOVES: dict[type, Callable[[random.Random, Any], dict[str, Any]]] = {
    w.FloatSlider: lambda draw, one: _update(value=draw.uniform(one.min, one.max)),
    w.FloatRangeSlider: lambda draw, one: _update(value=sorted(draw.uniform(one.min, one.max) for _ in range(2))),
    w.IntSlider: lambda draw, one: _update(value=_low(draw, one.min, one.max)),
    w.BoundedIntText: lambda draw, one: _update(value=_low(draw, one.min, min(one.max, 1000))),
    w.Checkbox: lambda draw, one: _update(value=draw.random() < 0.3),
    _Selection: _index,
    w.Accordion: lambda draw, one: _update(selected_index=draw.choice([0, 0, None])),
    w.Text: lambda draw, one: _update(value=draw.choice(TEXTS)),
    w.Button: lambda draw, one: press("click"),
    Bars: lambda draw, one: _custom(event="element_click", data={"index": draw.randrange(max(1, len(one.x)))}),
    GridView: _grid,
    LessonView: _lesson,
    HeatmapView: lambda draw, one: {},
}


def _legal(draw: random.Random, widget: w.Widget) -> tuple[dict[str, Any], list[bytes]]:
    if isinstance(widget, HeatmapView):
        return _heatmap(draw, widget)
    message = next(message for kind, message in _MOVES.items() if isinstance(widget, kind))
    return message(draw, widget), []


def _malformed(draw: random.Random, widget: w.Widget) -> tuple[Any, list[bytes]]:
    data, buffers = _legal(draw, widget)
    how = draw.randrange(6)
    if how == 0:
        return draw.choice([{}, {"method": "x"}, {"method": "custom"}, {"method": "update", "state": {"x": 1}}]), []
    if how == 1:
        return {"method": "custom", "content": draw.choice(WRONG)}, []
    if how == 2:
        return {**data, "buffer_paths": [["value"]]}, []
    _spoil(draw, data.get("state") or data.get("content") or {})
    return data, buffers if draw.random() < 0.5 else []


def _spoil(draw: random.Random, values: dict[str, Any]) -> None:
    """Delete a value, or replace it by a wrong one."""
    names = [name for name in values if name != "type"]
    if not names:
        values["type"] = draw.choice(["painted", "region", "open", "visible", "try", *WRONG])
    elif draw.random() < 0.3:
        del values[draw.choice(names)]
    else:
        values[draw.choice(names)] = draw.choice(WRONG)
