"""A view as one HTML file that opens from disk: no kernel, no server, no request.

The state of the view and of every model of ours that it refers to is put into the page with the front end, whose
``js/src/page`` stands in for the kernel. What was recorded beside it is a choice of traits for each place of some axes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
from ipycanvas import Canvas
from ipywidgets import Widget
from ipywidgets.widgets import widget as registry

from saliency_widgets import render
from saliency_widgets.files import as_path, put
from saliency_widgets.markup import element
from saliency_widgets.params import Param, check_text
from saliency_widgets.widgets.base.display import DisplaySettings
from saliency_widgets.widgets.bundle import bundle

Patch = Mapping[Widget, Mapping[str, Any]]
"""Traits by name, of some of the models."""

_ENDING = re.compile(r"<(/(?:script|style)|!--)", re.IGNORECASE)
_REFERENCE = re.compile(r"(IPY_MODEL_|anywidget:)(\w+)")


@dataclass(frozen=True)
class Axis:
    """Something that can be chosen on the page.

    Attributes:
        name: What it is called in code.
        label: What it is called by people.
        help: One sentence.
        labels: Its values, as people read them.
        begin: The place of the value with which the page opens.
        ordered: Whether it is a slider, rather than a menu.
        only: Another axis and its places at which this one matters; it always matters unless given.
    """

    name: str
    label: str
    help: str
    labels: tuple[str, ...]
    begin: int = 0
    ordered: bool = False
    only: tuple[str, tuple[int, ...]] | None = None


@dataclass(frozen=True)
class Recording:
    """What can be chosen on a page, and what is shown then.

    Attributes:
        axes: What can be chosen.
        states: The changed traits by the place on each axis, None where an axis doesn't matter.
        targets: The class that is explained at each place of the axis "target", or the one in all of them.
    """

    axes: tuple[Axis, ...] = ()
    states: Mapping[tuple[int | None, ...], Patch] = field(default_factory=dict)
    targets: tuple[int | None, ...] = ()


@dataclass(frozen=True)
class Saved:
    """A page that was written.

    Attributes:
        path: Where.
        bytes: Its size.
        maps: How many maps it holds.
    """

    path: Path
    bytes: int
    maps: int

    def __str__(self) -> str:
        """In one line."""
        return f"{self.path}: {count(self.maps, 'map')}, {size_text(self.bytes)}"


LARGEST = 50_000_000
"""Bytes: what a browser opens without a pause, and a mail system mostly takes."""


MAX_BYTES = Param("max_bytes", LARGEST, low=1, kind="int", maximum=math.inf, help="How large the file may be.")


def titled(title: Any, usual: str) -> str:
    """What stands above a page: what was given, or the usual."""
    return usual if title is None else check_text("title", title)


def write_page(
    path: str | os.PathLike[str],
    view: Widget,
    *,
    title: str,
    provenance: str,
    maps: int = 1,
    max_bytes: int = LARGEST,
    **about: Any,
) -> Saved:
    """Write a view with everything it shows as one HTML file; what is there is replaced once all of it is written.

    Args:
        path: Where to.
        view: Any widget of ours, whose state is in its synced traits.
        title: What stands above it.
        provenance: One line below it.
        maps: How many maps it holds.
        max_bytes: How large the file may be.
        **about: What else :func:`page` takes.

    Raises:
        ValueError: It is larger; the message says how large. Nothing is written.
        TypeError, ValueError, OSError: It can't be written there. What was there stays, and nothing else.
    """
    max_bytes = MAX_BYTES.check(max_bytes)
    text = page(view, title=title, provenance=provenance, **about).encode()
    if len(text) > max_bytes:
        raise ValueError(
            f"max_bytes: the page has {size_text(len(text))} ({count(maps, 'map')}), over the limit of "
            f"{size_text(max_bytes)}. Show fewer maps, or smaller images; or pass max_bytes={len(text)}."
        )
    return Saved(as_path(path), put(path, text), maps)


def page(
    view: Widget,
    *,
    title: str,
    provenance: str,
    recording: Recording | None = None,
    predictions: Sequence[tuple[int, str, float]] = (),
    overrides: Patch | None = None,
    images: Mapping[Widget, bytes] | None = None,
) -> str:
    """The page as text.

    Of the widgets that the view's traits refer to, as "IPY_MODEL_<id>" or "anywidget:<id>", those of ours and their
    own references come along, and canvases as the images that are given for them. Controls and layouts stay behind.

    Args:
        view: Any widget of ours, whose state is in its synced traits.
        title: What stands above it.
        provenance: One line below it.
        recording: What can be chosen on the page.
        predictions: Index, name and probability of classes, the most probable first.
        overrides: Traits that are others on the page than in the kernel.
        images: What was drawn on canvases, as PNG bytes.
    """
    recording = recording or Recording()
    models = _Models(overrides or {}, images or {})
    root = models.place(view)
    states = {
        " ".join("-" if at is None else str(at) for at in key): {
            str(models.place(widget)): models.plain(dict(traits)) for widget, traits in patch.items()
        }
        for key, patch in recording.states.items()
    }
    told = {
        "root": root,
        "models": models.traits,
        "images": models.images,
        "settings": [_setting(param) for param in render.DISPLAY],
        "displays": models.displays,
        "axes": [_axis(axis) for axis in recording.axes],
        "states": states,
        "predictions": [{"index": i, "name": name, "share": share} for i, name, share in predictions],
        "targets": list(recording.targets),
    }
    return _document(title, provenance, models.archive(told))


def packed_size(codes: np.ndarray) -> int:
    """Bytes that one more map of this kind takes in a page."""
    _, packed = render.pack_codes(codes)
    return len(zlib.compress(packed)) * 4 // 3


def size_text(size: int) -> str:
    """A size for people."""
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.0f} kB"


def count(number: int, what: str) -> str:
    """So many of something: "1 map", "24 maps"."""
    return f"{number} {what}{'' if number == 1 else 's'}"


class _Models:
    """The models of a page by their places, and the bytes in their traits, each kept once."""

    def __init__(self, overrides: Patch, images: Mapping[Widget, bytes]) -> None:
        self.traits: list[Any] = []
        self.images: list[dict[str, Any]] = []
        self.displays: list[int] = []
        self._overrides, self._drawn = overrides, images
        self._places: dict[str, int] = {}
        self._blocks: dict[bytes, int] = {}
        self._stored: list[tuple[int, str, int]] = []
        self._bytes: list[bytes] = []

    def place(self, widget: Widget) -> int:
        """The place of a model, which comes along with everything it refers to."""
        known = self._places.get(widget.model_id)
        if known is not None:
            return known
        place = self._places[widget.model_id] = len(self.traits)
        self.traits.append({})  # before what it refers to, which may refer to it
        if isinstance(widget, Canvas):
            drawn = {"width": widget.width, "height": widget.height}
            self.traits[place] = drawn
            self.images.append({"model": place, **drawn, "png": self.plain(self._drawn.get(widget, b""))})
            return place
        if isinstance(widget, DisplaySettings):
            self.displays.append(place)
        state = {name: value for name, value in widget.get_state().items() if _is_own(name)}
        self.traits[place] = self.plain({**state, **self._overrides.get(widget, {})})
        return place

    def plain(self, value: Any) -> Any:
        """A trait's value as JSON has it: bytes by the place of their block, references by that of their model."""
        if isinstance(value, (bytes, memoryview, bytearray)):
            return {"$bytes": self._block(bytes(value))}
        if isinstance(value, Widget):
            return self.plain(f"IPY_MODEL_{value.model_id}")
        if isinstance(value, str):
            return self._reference(value)
        if isinstance(value, Mapping):
            codes, width = value.get("codes"), value.get("width")
            found = {str(name): self.plain(item) for name, item in value.items() if name != "codes"}
            if isinstance(codes, (bytes, memoryview)) and isinstance(width, int) and len(codes) % (2 * width) == 0:
                return found | {"codes": {"$bytes": self._block(bytes(codes), width)}}
            return found if codes is None else found | {"codes": self.plain(codes)}
        if isinstance(value, (list, tuple)):
            return [self.plain(item) for item in value]
        if isinstance(value, float) and not math.isfinite(value):
            return None  # JSON has no word for it
        return value

    def _reference(self, text: str) -> str:
        match = _REFERENCE.fullmatch(text)
        found = None if match is None else registry._instances.get(match[2])
        if match is None or not isinstance(found, (anywidget.AnyWidget, Canvas)):
            return text
        return f"{match[1]}{self.place(found)}"

    def _block(self, content: bytes, width: int = 0) -> int:
        """The place of a block of bytes; with a width, they are a map's codes."""
        if content not in self._blocks:
            self._blocks[content] = len(self._stored)
            packing, packed = "raw", content
            if width and content:
                packing, packed = render.pack_codes(np.frombuffer(content, "<u2").reshape(-1, width))
            self._stored.append((len(packed), packing, width))
            self._bytes.append(packed)
        return self._blocks[content]

    def archive(self, told: Mapping[str, Any]) -> str:
        """Everything in one deflated block, as base64: the size of the JSON, the JSON, the blocks."""
        text = json.dumps({**told, "bytes": self._stored}, allow_nan=False, separators=(",", ":")).encode()
        whole = b"".join([len(text).to_bytes(4, "little"), text, *self._bytes])
        return base64.b64encode(zlib.compress(whole)).decode()


def _is_own(name: str) -> bool:
    """Whether a trait is the view's, rather than about how Jupyter lays it out and finds it."""
    return not name.startswith("_") and name not in ("layout", "root", "tabbable", "tooltip")


def _setting(param: Param) -> dict[str, Any]:
    told = {name: getattr(param, name) for name in ("name", "help", "kind", "low", "high", "unit")}
    return told | {"label": param.title, "options": param.options()}


def _axis(axis: Axis) -> dict[str, Any]:
    told: dict[str, Any] = {name: getattr(axis, name) for name in ("name", "label", "help", "begin", "ordered")}
    told["labels"] = list(axis.labels)
    return told if axis.only is None else told | {"only": {"axis": axis.only[0], "at": list(axis.only[1])}}


def _document(title: str, provenance: str, archive: str) -> str:
    # What would end the element early is spelled otherwise: in JavaScript's and CSS's strings it is the same.
    script, style = (_ENDING.sub(r"<\\\1", bundle(f"page.{kind}").strip()) for kind in ("js", "css"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # Nothing may be fetched, from anywhere; no script but this one runs.
    allowed = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{allowed}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="saliency_widgets">
{element("title", title)}
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
<div class="sw-page">
{element("h1", title)}
<main class="sw-main">
<div id="sw-view"><noscript>This page draws its maps with JavaScript, which is turned off here.</noscript></div>
<div id="sw-controls"></div>
</main>
{element("p", provenance, class_="sw-provenance")}
</div>
<script type="text/plain" id="sw-archive">{archive}</script>
<script type="module">{script}</script>
</body>
</html>
"""
