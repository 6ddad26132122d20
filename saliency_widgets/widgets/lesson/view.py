"""The lesson's view. Its traits hold everything that it shows, so that it works on a page without a kernel."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import traitlets
from ipywidgets import Widget

from saliency_widgets import render
from saliency_widgets.widgets.base.inbox import whole_number
from saliency_widgets.widgets.bundle import BundledView
from saliency_widgets.widgets.lesson.step import Step


def content_of(name: str) -> str:
    """Return the name of the trait with a step's content."""
    return f"content_{name}"


class LessonView(BundledView):
    """The strip of steps, and the current step's images with their control.

    Each step's content is a trait, ``content_<name>``, which is empty until the step is computed.

    Args:
        title: The lesson's title.
        steps: The steps, in order.
        scene: What is shown of an input that is not an image, see ``js/src/heatmap/scene.ts``; empty for an image.
        on_stop: Called when the user presses Stop.
        on_try: Called with the step's name and the shot's index when the user presses "Try it".
    """

    kind = traitlets.Unicode("lesson").tag(sync=True)
    title = traitlets.Unicode().tag(sync=True)
    steps = traitlets.List(traitlets.Dict()).tag(sync=True)
    step = traitlets.Int(0).tag(sync=True, echo_update=False)
    status = traitlets.Dict().tag(sync=True)
    scene = traitlets.Dict().tag(sync=True)
    colormap_luts = traitlets.Bytes().tag(sync=True)
    diverging_luts = traitlets.Bytes().tag(sync=True)

    def __init__(
        self,
        title: str,
        steps: Sequence[Step],
        *,
        scene: dict[str, Any],
        on_stop: Callable[[], None],
        on_try: Callable[[str, int], None],
    ) -> None:
        self._lock = threading.RLock()
        self._on_stop, self._on_try = on_stop, on_try
        self.add_traits(**{content_of(step.name): traitlets.Dict().tag(sync=True) for step in steps})
        colors = render.check_display({})
        super().__init__(
            title=title,
            scene=scene,
            steps=[
                {
                    "name": step.name,
                    "title": step.title,
                    "text": list(step.says),
                    "control": step.control,
                    "control_class": step.control_class,
                }
                for step in steps
            ],
            colormap_luts=render.lut(colors["colormap"]).tobytes(),
            diverging_luts=render.lut(colors["diverging"]).tobytes(),
        )
        self.on_msg(self._on_message)

    def __repr__(self) -> str:
        """Show the title and the number of steps, without bytes."""
        return f"LessonView({self.title!r}, {len(self.steps)} steps)"

    def set_state(self, sync_data: dict[str, Any]) -> None:
        """Apply a message from the front end, but not while the worker is writing."""
        with self._lock:
            super().set_state(sync_data)

    def show(self, name: str, content: dict[str, Any]) -> None:
        """Set a step's content."""
        with self._lock:
            setattr(self, content_of(name), content)

    def content(self, name: str) -> dict[str, Any]:
        """Return a step's content; empty until the step is computed."""
        return getattr(self, content_of(name))

    def set_status(self, **status: Any) -> None:
        """Update the status: "state" ("running", "done", "stopped"), "message" and "remedy"."""
        with self._lock:
            self.status = {"state": "running", "message": "", "remedy": "", **self.status, **status}

    def go_to(self, index: int) -> None:
        """Go to a step."""
        with self._lock:
            self.step = index
            self.send_state("step")  # even if unchanged here: a step change from the page may be in transit

    def _on_message(self, _widget: Widget, content: Any, _buffers: Any) -> None:
        kind = content.get("type") if isinstance(content, dict) else None
        if kind == "stop":
            self._on_stop()
        elif kind == "try":
            name, shot = content.get("step"), whole_number(content, "shot")
            if isinstance(name, str) and shot is not None:
                self._on_try(name, shot)

    def retire(self) -> None:
        """Drop the callbacks."""
        self._on_stop, self._on_try = (lambda: None), (lambda _step, _shot: None)
