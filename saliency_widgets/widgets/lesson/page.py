"""What one step of a lesson is, and what it shows: images, maps, bars and curves, chosen by one control."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from saliency_widgets import render
from saliency_widgets.session.frames import Frame
from saliency_widgets.widgets.base.messages import raw_frame
from saliency_widgets.widgets.image.png import png_bytes

if TYPE_CHECKING:
    from saliency_widgets.widgets.lesson.board import Board

_CLIP = next(param.default for param in render.DISPLAY if param.name == "clip")
_OPACITY = next(param.default for param in render.DISPLAY if param.name == "opacity")
_BLENDS = next(param.options() for param in render.DISPLAY if param.name == "blend")


@dataclass(frozen=True)
class Step:
    """One step of a lesson.

    Attributes:
        name: What it is called in code.
        title: What it is called by people: short, it stands in the strip.
        says: What is to be known of it: two sentences.
        control: What the explorer's control is called that changes this.
        place: The CSS class of that control.
        settings: What the explorer is moved to by "Try it".
        build: Fills the page.
        method: The method whose needs the model must meet; none where it is empty.
    """

    name: str
    title: str
    says: tuple[str, str]
    control: str
    place: str
    settings: Mapping[str, Any]
    build: Callable[[Board, Page], None]
    method: str = ""


def step(
    title: str,
    *says: str,
    control: str,
    place: str,
    settings: Mapping[str, Any] | None = None,
    method: str = "",
) -> Callable[[Callable[[Board, Page], None]], Step]:
    """Make a function that fills a page a step of a lesson, named like the function."""

    def wrap(build: Callable[[Board, Page], None]) -> Step:
        first, second = says
        return Step(build.__name__, title, (first, second), control, place, settings or {}, build, method)

    return wrap


@dataclass
class Page:
    """What a step shows. Of several shots one is seen, chosen by the step's control.

    Attributes:
        known: Names of the images and maps that other pages have brought already.
        images: PNG files by name.
        maps: Maps by name, as the front end takes them.
        shots: What can be chosen.
        settings: Of each shot: what "Try it" adds to the step's settings.
        notes: What is to be known besides.
        label: What the control is called; without one, there is one shot.
        slider: Whether the control is a slider; a row of buttons otherwise.
        start: The shot that is seen first.
    """

    known: Collection[str] = ()
    images: dict[str, bytes] = field(default_factory=dict)
    maps: dict[str, dict[str, Any]] = field(default_factory=dict)
    shots: list[dict[str, Any]] = field(default_factory=list)
    settings: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    label: str = ""
    slider: bool = False
    start: int = 0

    @property
    def content(self) -> dict[str, Any]:
        """As the front end takes it: see ``js/src/lesson/content.ts``."""
        return {
            "state": "ready",
            "images": self.images,
            "maps": self.maps,
            "shots": self.shots,
            "notes": self.notes,
            "label": self.label,
            "slider": self.slider,
            "start": self.start,
        }

    @property
    def names(self) -> set[str]:
        """Of the images and maps that it brings."""
        return {*self.images, *self.maps}

    def asks(self, label: str, *, slider: bool = False, start: int = 0) -> None:
        """What the control is called that chooses the shot."""
        self.label, self.slider, self.start = label, slider, start

    def shot(self, label: str, *panels: dict[str, Any], said: str = "", **settings: Any) -> None:
        """One more shot.

        Args:
            label: What it is called at the control.
            *panels: What is seen side by side.
            said: What was measured, in a sentence or two.
            **settings: What "Try it" adds to the step's settings.
        """
        self.shots.append({"label": label, "says": said, "panels": list(panels)})
        self.settings.append(settings)

    def image(self, name: str, caption: str, make: Callable[[], np.ndarray]) -> dict[str, Any]:
        """An image; made only where no page has brought it.

        Args:
            name: Of the image, in the whole lesson.
            caption: What stands below it.
            make: Gives it, uint8 (H, W, 3).
        """
        if name not in self.known and name not in self.images:
            self.images[name] = png_bytes(make())
        return {"caption": caption, "image": name}

    def map(
        self,
        name: str,
        caption: str,
        make: Callable[[], Frame],
        *,
        over: str = "",
        opacity: float | None = None,
        clip: tuple[float, float] = _CLIP,
        scale: str = "",
    ) -> dict[str, Any]:
        """A map; made only where no page has brought it.

        Args:
            name: Of the map, in the whole lesson.
            caption: What stands below it.
            make: Gives it.
            over: The image that it is laid over; alone unless given.
            opacity: How much it covers the image: the display's default over one.
            clip: Percentiles of the weakest and the strongest color.
            scale: The map whose colors are used, where several share a range; its own unless given.
        """
        if name not in self.known and name not in self.maps:
            self.maps[name] = raw_frame(make())
        opacity = (_OPACITY if over else 1.0) if opacity is None else opacity
        look = {"opacity": opacity, "clip": list(clip), "blend": _BLENDS.index("by value" if over else "uniform")}
        return {"caption": caption, "map": name, "scale": scale or name, **look, **({"image": over} if over else {})}

    @staticmethod
    def bars(caption: str, bars: Sequence[tuple[str, float]], chosen: int) -> dict[str, Any]:
        """Shares as bars.

        Args:
            caption: What stands below them.
            bars: What each is called, and its share from 0 to 1.
            chosen: Which of them is marked.
        """
        told = [{"label": label, "share": share} for label, share in bars]
        return {"caption": caption, "bars": told, "chosen": chosen}

    @staticmethod
    def curve(
        caption: str, points: tuple[Sequence[float], Sequence[float]], at: float, *, across: str, up: str,
        mark: tuple[float, str] | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """A curve with a marker on it.

        Args:
            caption: What stands below it.
            points: Where they are across, ascending, and up.
            at: Where the marker is, across.
            across: What is shown across.
            up: What is shown up.
            mark: A place across, and what is there.
        """
        x, y = ([float(value) for value in values] for values in points)
        told = None if mark is None else {"at": float(mark[0]), "label": mark[1]}
        return {"caption": caption, "curve": {"x": x, "y": y, "at": at, "across": across, "up": up, "mark": told}}
