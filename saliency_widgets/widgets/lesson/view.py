"""The lesson's view: all that it shows is in its traits, so that it works in a page without a kernel."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import traitlets
from ipywidgets import Widget

from saliency_widgets import render
from saliency_widgets.widgets.base.inbox import whole_number
from saliency_widgets.widgets.bundle import BundledView
from saliency_widgets.widgets.lesson.page import Step

_LUTS = {param.name: param.default for param in render.DISPLAY}


def content_of(name: str) -> str:
    """The trait that holds what a step shows."""
    return f"content_{name}"


class LessonView(BundledView):
    """The strip of steps, the current one's images with their control, and the way to the next.

    Each step's content is a trait of its own, ``content_<name>``: an empty one is still to come.

    Args:
        title: What the lesson is about.
        steps: The steps, in order.
        on_stop: Called when the person presses Stop.
        on_try: Called with a step's name and the shot's number when the person presses "Try it".
    """

    kind = traitlets.Unicode("lesson").tag(sync=True)
    title = traitlets.Unicode().tag(sync=True)
    steps = traitlets.List(traitlets.Dict()).tag(sync=True)
    step = traitlets.Int(0).tag(sync=True, echo_update=False)
    status = traitlets.Dict().tag(sync=True)
    lut = traitlets.Bytes().tag(sync=True)
    diverging = traitlets.Bytes().tag(sync=True)

    def __init__(
        self,
        title: str,
        steps: Sequence[Step],
        *,
        on_stop: Callable[[], None],
        on_try: Callable[[str, int], None],
    ) -> None:
        self._lock = threading.RLock()
        self._on_stop, self._on_try = on_stop, on_try
        self.add_traits(**{content_of(step.name): traitlets.Dict().tag(sync=True) for step in steps})
        super().__init__(
            title=title,
            steps=[
                {
                    "name": step.name,
                    "title": step.title,
                    "says": list(step.says),
                    "control": step.control,
                    "place": step.place,
                }
                for step in steps
            ],
            lut=render.lut(_LUTS["colormap"]).tobytes(),
            diverging=render.lut(_LUTS["diverging"]).tobytes(),
        )
        self.on_msg(self._on_message)

    def __repr__(self) -> str:
        """Never the bytes."""
        return f"LessonView({self.title!r}, {len(self.steps)} steps)"

    def set_state(self, sync_data: dict[str, Any]) -> None:
        """What the person did on the page; never while the worker writes."""
        with self._lock:
            super().set_state(sync_data)

    def show(self, name: str, content: dict[str, Any]) -> None:
        """Show what a step has to show."""
        with self._lock:
            setattr(self, content_of(name), content)

    def content(self, name: str) -> dict[str, Any]:
        """What a step shows; empty while it is still to come."""
        return getattr(self, content_of(name))

    def tell(self, **status: Any) -> None:
        """How far it is: "state" ("running", "done", "stopped"), "message" and "remedy"."""
        with self._lock:
            self.status = {"state": "running", "message": "", "remedy": "", **self.status, **status}

    def go_to(self, place: int) -> None:
        """Turn to a step."""
        with self._lock:
            self.step = place
            self.send_state("step")  # the page may have turned since, without a word that has arrived

    def _on_message(self, _widget: Widget, content: Any, _buffers: Any) -> None:
        kind = content.get("type") if isinstance(content, dict) else None
        if kind == "stop":
            self._on_stop()
        elif kind == "try":
            name, shot = content.get("step"), whole_number(content, "shot")
            if isinstance(name, str) and shot is not None:
                self._on_try(name, shot)

    def retire(self) -> None:
        """Let go of whoever listened."""
        self._on_stop, self._on_try = (lambda: None), (lambda _step, _shot: None)
