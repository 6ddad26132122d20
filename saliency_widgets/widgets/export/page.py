"""A view as one HTML file that opens from disk, without a kernel, a server or network access.

The page holds the state of the view and of every model of this package that it refers to, and the front end, in
which ``js/src/page`` replaces the kernel. Recorded settings are stored as the changed traits for each combination.
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
"""Model -> trait name -> value."""

_ENDING = re.compile(r"<(/(?:script|style)|!--)", re.IGNORECASE)
_REFERENCE = re.compile(r"(IPY_MODEL_|anywidget:)(\w+)")


@dataclass(frozen=True)
class Axis:
    """A setting that can be changed on the page.

    Attributes:
        name: The name in code.
        label: The label on the page.
        help: A description of one sentence.
        labels: The labels of the values.
        begin: The index of the value with which the page opens.
        ordered: Whether the control is a slider instead of a menu.
        only: The name of another axis, and the indices on it at which this axis applies. Default: always.
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
    """The settings that can be changed on a page, and the resulting traits.

    Attributes:
        axes: The settings.
        states: The changed traits, by the index on each axis, which is None for an axis that doesn't apply.
        targets: The explained class at each index of the axis "target"; without that axis, the class of all maps.
    """

    axes: tuple[Axis, ...] = ()
    states: Mapping[tuple[int | None, ...], Patch] = field(default_factory=dict)
    targets: tuple[int | None, ...] = ()


@dataclass(frozen=True)
class Saved:
    """A saved page.

    Attributes:
        path: The file.
        bytes: The size of the file.
        maps: The number of maps on the page.
    """

    path: Path
    bytes: int
    maps: int

    def __str__(self) -> str:
        """Describe the page in one line."""
        return f"{self.path}: {count(self.maps, 'map')}, {size_text(self.bytes)}"


LARGEST = 50_000_000
"""The default size limit in bytes: a browser opens such a page without a pause, and most mail systems accept it."""


MAX_BYTES = Param("max_bytes", LARGEST, low=1, kind="int", maximum=math.inf, help="The maximum size of the file.")


def titled(title: Any, usual: str) -> str:
    """Return the title, or a default if it is None."""
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
    """Write a view as one HTML file; an existing file is replaced only after everything is written.

    Args:
        path: The file.
        view: A widget of this package, whose state is in its synced traits.
        title: The heading.
        provenance: A line at the end of the page.
        maps: The number of maps on the page.
        max_bytes: The maximum size of the file.
        **about: Further arguments of :func:`page`.

    Raises:
        ValueError: The page is larger than ``max_bytes``. Nothing is written.
        TypeError, ValueError, OSError: The file can't be written to this path. An existing file stays.
    """
    max_bytes = MAX_BYTES.check(max_bytes)
    text = page(view, title=title, provenance=provenance, **about).encode()
    if len(text) > max_bytes:
        raise ValueError(
            f"max_bytes: the page size is {size_text(len(text))} ({count(maps, 'map')}), over the limit of "
            f"{size_text(max_bytes)}. Show fewer maps or smaller images, or pass max_bytes={len(text)}."
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
    """Return the HTML of the page.

    Widgets of this package that the view's traits refer to, as "IPY_MODEL_<id>" or "anywidget:<id>", are included
    recursively; canvases are replaced by the images passed for them. Controls and layouts are omitted.

    Args:
        view: A widget of this package, whose state is in its synced traits.
        title: The heading.
        provenance: A line at the end of the page.
        recording: The settings that can be changed on the page.
        predictions: The index, name and probability of each class, most probable first.
        overrides: Trait values that replace the widgets' own on the page.
        images: The drawings on canvases, as PNG bytes.
    """
    recording = recording or Recording()
    models = _Models(overrides or {}, images or {})
    root = models.index_of(view)
    states = {
        " ".join("-" if at is None else str(at) for at in key): {
            str(models.index_of(widget)): models.plain(dict(traits)) for widget, traits in patch.items()
        }
        for key, patch in recording.states.items()
    }
    contents = {
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
    return _document(title, provenance, models.archive(contents))


def packed_size(frame: Mapping[str, Any]) -> int:
    """Return the number of bytes by which another frame of this kind enlarges a page."""
    _, packed = render.pack_codes(np.frombuffer(frame["codes"], "<u2").reshape(frame["height"], frame["width"]))
    return len(zlib.compress(packed)) * 4 // 3


def size_text(size: int) -> str:
    """Format a size in bytes."""
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.0f} kB"


def count(number: int, what: str) -> str:
    """Format a count: "1 map", "24 maps"."""
    return f"{number} {what}{'' if number == 1 else 's'}"


class _Models:
    """The models of a page by index, and the blocks of bytes in their traits, each stored once."""

    def __init__(self, overrides: Patch, images: Mapping[Widget, bytes]) -> None:
        self.traits: list[Any] = []
        self.images: list[dict[str, Any]] = []
        self.displays: list[int] = []
        self._overrides, self._drawn = overrides, images
        self._indices: dict[str, int] = {}
        self._blocks: dict[bytes, int] = {}
        self._stored: list[tuple[int, str, int]] = []
        self._bytes: list[bytes] = []

    def index_of(self, widget: Widget) -> int:
        """Return the index of a model, adding a new model with everything it refers to."""
        if widget.model_id in self._indices:
            return self._indices[widget.model_id]
        index_of = self._indices[widget.model_id] = len(self.traits)
        self.traits.append({})  # before its references, which may refer back to it
        if isinstance(widget, Canvas):
            drawn = {"width": widget.width, "height": widget.height}
            self.traits[index_of] = drawn
            self.images.append({"model": index_of, **drawn, "png": self.plain(self._drawn.get(widget, b""))})
            return index_of
        if isinstance(widget, DisplaySettings):
            self.displays.append(index_of)
        state = {name: value for name, value in widget.get_state().items() if _is_state(name)}
        self.traits[index_of] = self.plain({**state, **self._overrides.get(widget, {})})
        return index_of

    def plain(self, value: Any) -> Any:
        """Convert a trait's value to JSON: bytes become the index of their block, references that of their model."""
        if isinstance(value, (bytes, memoryview, bytearray)):
            return {"$bytes": self._block(bytes(value))}
        if isinstance(value, Widget):
            return self.plain(f"IPY_MODEL_{value.model_id}")
        if isinstance(value, str):
            return self._reference(value)
        if isinstance(value, Mapping):
            codes, width = value.get("codes"), value.get("width")
            items = {str(name): self.plain(item) for name, item in value.items() if name != "codes"}
            if isinstance(codes, (bytes, memoryview)) and isinstance(width, int) and len(codes) % (2 * width) == 0:
                return items | {"codes": {"$bytes": self._block(bytes(codes), width)}}
            return items if codes is None else items | {"codes": self.plain(codes)}
        if isinstance(value, (list, tuple)):
            return [self.plain(item) for item in value]
        if isinstance(value, float) and not math.isfinite(value):
            return None  # JSON has no NaN or infinity
        return value

    def _reference(self, text: str) -> str:
        match = _REFERENCE.fullmatch(text)
        model = None if match is None else registry._instances.get(match[2])
        if match is None or not isinstance(model, (anywidget.AnyWidget, Canvas)):
            return text
        return f"{match[1]}{self.index_of(model)}"

    def _block(self, content: bytes, width: int = 0) -> int:
        """Return the index of a block of bytes; with a width, the bytes are a map's codes."""
        if content not in self._blocks:
            self._blocks[content] = len(self._stored)
            packing, packed = "raw", content
            if width and content:
                packing, packed = render.pack_codes(np.frombuffer(content, "<u2").reshape(-1, width))
            self._stored.append((len(packed), packing, width))
            self._bytes.append(packed)
        return self._blocks[content]

    def archive(self, contents: Mapping[str, Any]) -> str:
        """Deflate the size of the JSON, the JSON and the blocks together, and encode the result as base64."""
        text = json.dumps({**contents, "bytes": self._stored}, allow_nan=False, separators=(",", ":")).encode()
        whole = b"".join([len(text).to_bytes(4, "little"), text, *self._bytes])
        return base64.b64encode(zlib.compress(whole)).decode()


def _is_state(name: str) -> bool:
    """Return whether a trait belongs to the view rather than to Jupyter's layout and bookkeeping."""
    return not name.startswith("_") and name not in ("layout", "root", "tabbable", "tooltip")


def _setting(param: Param) -> dict[str, Any]:
    fields = {name: getattr(param, name) for name in ("name", "help", "kind", "low", "high", "unit")}
    return fields | {"label": param.title, "options": param.options()}


def _axis(axis: Axis) -> dict[str, Any]:
    fields: dict[str, Any] = {name: getattr(axis, name) for name in ("name", "label", "help", "begin", "ordered")}
    fields["labels"] = list(axis.labels)
    return fields if axis.only is None else fields | {"only": {"axis": axis.only[0], "at": list(axis.only[1])}}


def _document(title: str, provenance: str, archive: str) -> str:
    # Escape text that would end the element early; in JavaScript and CSS strings the meaning is the same.
    script, style = (_ENDING.sub(r"<\\\1", bundle(f"page.{kind}").strip()) for kind in ("js", "css"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # Nothing may be fetched, and no other script may run.
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
<div id="sw-view"><noscript>This page requires JavaScript, which is disabled here.</noscript></div>
<div id="sw-controls"></div>
</main>
{element("p", provenance, class_="sw-provenance")}
</div>
<script type="text/plain" id="sw-archive">{archive}</script>
<script type="module">{script}</script>
</body>
</html>
"""
