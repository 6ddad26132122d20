"""The page of a step: images, maps, bars and curves, selected by one control."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from saliency_widgets import render
from saliency_widgets.render import Quantized
from saliency_widgets.widgets.base.display import display_traits
from saliency_widgets.widgets.base.messages import raw_frame
from saliency_widgets.widgets.image.png import png_bytes

_DISPLAY = render.check_display({})


@dataclass
class Page:
    """The page of a step. The step's control selects which of its shots is visible.

    Attributes:
        existing: The names of the images and maps of earlier pages.
        images: PNG files by name.
        maps: Maps by name, in the format of the front end.
        shots: The shots to choose from.
        settings: For each shot, the settings that "Try it" adds to those of the step.
        notes: Further notes.
        label: The control's label; empty if there is only one shot.
        slider: Whether the control is a slider instead of a row of buttons.
        start: The shot that is shown first.
    """

    existing: Collection[str] = ()
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
        """The content in the format of the front end, see ``js/src/lesson/content.ts``."""
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
        """The names of this page's images and maps."""
        return {*self.images, *self.maps}

    def set_control(self, label: str, *, slider: bool = False, start: int = 0) -> None:
        """Set the control that selects the shot."""
        self.label, self.slider, self.start = label, slider, start

    def shot(self, label: str, *panels: dict[str, Any], text: str = "", **settings: Any) -> None:
        """Add a shot.

        Args:
            label: The shot's label in the control.
            *panels: The panels, side by side.
            text: The measured values, in one or two sentences.
            **settings: The settings that "Try it" adds to those of the step.
        """
        self.shots.append({"label": label, "text": text, "panels": list(panels)})
        self.settings.append(settings)

    def image(self, name: str, caption: str, make: Callable[[], np.ndarray]) -> dict[str, Any]:
        """Return an image panel; the image is created only if no page has it yet.

        Args:
            name: The image's name, unique in the lesson.
            caption: The caption below it.
            make: A function that returns the image, uint8 (H, W, 3).
        """
        if name not in self.existing and name not in self.images:
            self.images[name] = png_bytes(make())
        return {"caption": caption, "image": name}

    def map(
        self,
        name: str,
        caption: str,
        make: Callable[[], Quantized],
        *,
        over: str = "",
        opacity: float | None = None,
        clip: tuple[float, float] = _DISPLAY["clip"],
        scale: str = "",
        scene: bool = False,
    ) -> dict[str, Any]:
        """Return a map panel; the map is created only if no page has it yet.

        Args:
            name: The map's name, unique in the lesson.
            caption: The caption below it.
            make: A function that returns the map.
            over: The name of the image below it. Default: none.
            opacity: The map's opacity. Default: the display's default over an image.
            clip: The percentiles of the weakest and the strongest color.
            scale: The name of the map whose color range is used. Default: its own.
            scene: Whether the map colors the lesson's scene, such as a text.
        """
        if name not in self.existing and name not in self.maps:
            self.maps[name] = raw_frame(make())
        laid = bool(over) or scene
        opacity = (_DISPLAY["opacity"] if laid else 1.0) if opacity is None else opacity
        look = display_traits({"opacity": opacity, "clip": clip, "blend": "by value" if laid else "uniform"})
        panel = {"caption": caption, "map": name, "scale": scale or name, "display": look}
        return panel | ({"scene": True} if scene else {}) | ({"image": over} if over else {})

    def numbers(
        self,
        name: str,
        caption: str,
        make: Callable[[], Quantized],
        axes: tuple[Sequence[str], Sequence[str]],
        chosen: int,
    ) -> dict[str, Any]:
        """Return a panel with a map of numbers, such as vectors one below the other.

        Args:
            name: See :meth:`map`.
            caption: The caption below it.
            make: A function that returns the map.
            axes: The names of its rows and of its columns.
            chosen: The index of the marked row.
        """
        shown = self.map(name, caption, make, clip=(0.0, 100.0))
        return {**shown, "rows": list(axes[0]), "columns": list(axes[1]), "chosen": chosen}

    @staticmethod
    def tokens(caption: str) -> dict[str, Any]:
        """Return a panel with the tokens of the lesson's text and their ids."""
        return {"caption": caption, "scene": True}

    @staticmethod
    def bars(caption: str, bars: Sequence[tuple[str, float]], chosen: int) -> dict[str, Any]:
        """Return a panel with shares as bars.

        Args:
            caption: The caption below them.
            bars: The label and the share, from 0 to 1, of each bar.
            chosen: The index of the marked bar.
        """
        items = [{"label": label, "share": share} for label, share in bars]
        return {"caption": caption, "bars": items, "chosen": chosen}

    @staticmethod
    def values(caption: str, bars: Sequence[tuple[str, float]], chosen: int = -1) -> dict[str, Any]:
        """Return a panel with numbers as bars, to the left of zero if they are negative.

        Args:
            caption: The caption below them.
            bars: The label and the number of each bar.
            chosen: The index of the marked bar.
        """
        largest = max((abs(value) for _, value in bars), default=0.0) or 1.0
        items = [{"label": name, "share": value / largest, "text": number(value)} for name, value in bars]
        return {"caption": caption, "bars": items, "chosen": chosen}

    @staticmethod
    def vector(caption: str, numbers: Sequence[float], names: Sequence[str], x_label: str) -> dict[str, Any]:
        """Return a panel with the numbers of one vector as columns, below zero if they are negative.

        Args:
            caption: The caption below them.
            numbers: The numbers.
            names: The name of each number.
            x_label: The label of the x axis.
        """
        return {"caption": caption, "vector": {"values": list(numbers), "names": list(names), "across": x_label}}

    @staticmethod
    def curve(
        caption: str, points: tuple[Sequence[float], Sequence[float]], at: float, *, x_label: str, y_label: str,
        mark: tuple[float, str] | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Return a panel with a curve and a marker on it.

        Args:
            caption: The caption below it.
            points: The x values in ascending order, and the y values.
            at: The marker's x value.
            x_label: The label of the x axis.
            y_label: The label of the y axis.
            mark: A marked x value and its label.
        """
        x, y = ([float(value) for value in values] for values in points)
        label = None if mark is None else {"at": float(mark[0]), "label": mark[1]}
        curve = {"x": x, "y": y, "at": at, "across": x_label, "up": y_label, "mark": label}
        return {"caption": caption, "curve": curve}


def number(value: float) -> str:
    """Format a number with two decimals or three significant digits."""
    return f"{value:.2f}" if 0.01 <= abs(value) < 10000 else render.format_number(value)


def percent(share: float) -> str:
    """Format a share as a percentage, with one decimal if it is below 10%."""
    return f"{share:.0%}" if abs(share) >= 0.0995 or share == 0 else f"{share:.1%}"


def two_decimals(value: float) -> str:
    """Format a correlation, which is undefined for a constant map."""
    return "undefined, as a map is constant" if value != value else f"{value:.2f}"
