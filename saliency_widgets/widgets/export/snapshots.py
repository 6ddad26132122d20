"""Snapshots of widgets as an image and a text, for readers without a kernel."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from saliency_widgets import render
from saliency_widgets.attribution.result import written
from saliency_widgets.widgets.base import messages
from saliency_widgets.widgets.base.charts import ACCENT, SECOND
from saliency_widgets.widgets.base.display import display_settings
from saliency_widgets.widgets.export.saving import provenance
from saliency_widgets.widgets.export.static_output import Snapshot

if TYPE_CHECKING:
    from saliency_widgets.api.sweep import Sweep
    from saliency_widgets.widgets.base.kind_view import Explored
    from saliency_widgets.widgets.compare.grid import GridView, MapCell
    from saliency_widgets.widgets.lesson.view import LessonView

Draw = Callable[[float], Image.Image]

_STRONGEST = 8  # tokens of a text
_WIDE, _WIDEST = 900, 260  # widths in pixels, of a grid and at most of one of its columns
_LANES, _NAMES = 600, 110  # widths in pixels, at most of a column of signals, and of the names in it
_LISTED = 4  # tokens of each text in a grid
_PAPER = (255, 255, 255)
_GRAY = (128, 128, 128)  # background of a map without an image, the same as on the page


def of_comparison(view: GridView, title: str, about: str) -> Snapshot:
    """Return a snapshot of a grid and the lines below its maps.

    Args:
        view: The grid.
        title: The first line.
        about: The provenance.
    """
    texts = [(cell.name, cell.status.get("message") or _result(cell)) for cell in view.cells]
    lines = [
        title,
        _progress({"unit": "maps", **view.progress}),
        about,
        *(f"{name}: {text}" for name, text in texts if text),
    ]
    return Snapshot(lines, _grid(view))


def _result(cell: MapCell) -> str:
    """Return the score of a map, and for a text its strongest tokens, as there is no drawing of it."""
    title, pieces = cell.status.get("title", ""), cell.scene.get("pieces")
    if pieces is None or not cell.frame:
        return title
    values = render.dequantize(_quantized(cell.frame))[0]
    order = np.argsort(-np.abs(values), kind="stable")[:_LISTED]
    words = ", ".join(f"{pieces[k]} {messages.number(values[k])}" for k in order if values[k])
    return f"{title}; strongest tokens: {words}" if words else title


def of_sweep(result: Sweep, maps: GridView | None) -> Snapshot:
    """Return a snapshot of a sweep: the recommendation, the maps of the settings, and the table."""
    settings = {"method": result.method.name, **result.fixed}
    about = ", ".join(f"{name}={written(name, value)}" for name, value in settings.items())
    return Snapshot([result.words, *result.notes, about], None if maps is None else _grid(maps), result.summary)


def of_lesson(view: LessonView, names: Sequence[str], current: str, about: str) -> Snapshot:
    """Return a snapshot of the current step and the shot that is shown first.

    Args:
        view: The lesson's view.
        names: The names of all steps.
        current: The name of the current step.
        about: The provenance.
    """
    step, content = view.steps[view.step], view.content(current)
    contents = [one for name in names if (one := view.content(name))]
    shots = content.get("shots", [])
    shot = shots[content["start"]] if shots else {}
    panels = shot.get("panels", [])
    # Without the tokens, which are a line of the text, and rows of numbers, whose names have no room.
    drawn = [panel for panel in panels if ("map" in panel or "scene" not in panel) and "rows" not in panel]
    lines = [
        f"{view.title} · {step['title']}",
        about,
        " ".join(step["text"]),
        " · ".join(panel["caption"] for panel in panels),
        " ".join(view.scene.get("pieces", [])),
        shot.get("text", ""),
        *content.get("notes", []),
        f"{content.get('message', '')} {content.get('remedy', '')}".strip(),
        f"Step {view.step + 1} of {len(view.steps)}.",
        _progress({**view.status, "done": len(contents), "total": len(view.steps), "unit": "steps"}),
    ]
    return Snapshot(lines, _panels(drawn, contents, view.scene.get("pieces", [])) if drawn else None)


def lines_of(explorer: Explored, **look: Any) -> list[str]:
    """Return the texts around an explorer's map, its provenance and its display settings."""
    status, shown = messages.status(**explorer.view.status), explorer.session.shown
    attribution = None if shown is None else shown.attribution
    settings = explorer.request.settings if attribution is None else attribution.settings
    return [
        status["title"] or explorer.panel.title,
        " · ".join(f"{line['label']} {line['value']}" for line in status["readings"]),
        _progress(status),
        provenance(explorer.arguments["model"], settings),
        ", ".join(f"{name}={value!r}" for name, value in look.items()),
        f"{status['message']} {status['remedy']}".strip(),
        *status["notes"],
    ]


def _progress(status: Mapping[str, Any]) -> str:
    """Format the progress as text, empty if finished."""
    if status.get("state", "idle") not in ("idle", "running", "stopped"):
        return ""
    words = "Stopped" if status.get("state") == "stopped" else "Still being computed"
    return f"{words}: {status['done']} of {status['total']} {status['unit']}." if status.get("total") else f"{words}."


def _grid(view: GridView) -> Draw | None:
    """Return a function that draws a grid's maps with the color scales of the page, see ``js/src/grid/scales.ts``."""
    rows, columns, cells = view.rows, view.columns, list(view.cells)
    drawn = all(cell.scene.get("kind", "signal") == "signal" for cell in cells)  # or an image
    if not drawn or not any(cell.frame for cell in cells):
        return None
    widest = _LANES if any(cell.scene for cell in cells) else _WIDEST
    shares = [view.scale == "shared" and k not in view.unlocked for k in range(len(cells))]

    def draw(share: float) -> Image.Image:
        side = max(8, round(min(widest, _WIDE / len(columns)) * share))
        sized = [
            (None, _quantized(cell.frame) if cell.frame else None)
            if cell.scene
            else _sized(cell.image, cell.frame, side)
            for cell in cells
        ]
        groups: dict[str, list[render.Quantized]] = {}
        for cell, shared, (_, quantized) in zip(cells, shares, sized, strict=True):
            if shared and quantized is not None:
                groups.setdefault(cell.group, []).append(quantized)
        ends = {name: render.shared_ends(maps, view.display.settings["clip"]) for name, maps in groups.items()}
        images = []
        for cell, shared, (image, quantized) in zip(cells, shares, sized, strict=True):
            look = dict(view.display.settings)
            if quantized is not None and shared:
                look["limits"] = render.limits_of(quantized, ends[cell.group])
            if image is None:
                images.append(_lanes(cell.scene, quantized, side, look))
            else:
                images.append(Image.fromarray(image if quantized is None else render.blend(image, quantized, **look)))
        return render.draw_grid(rows, columns, images, side)

    return draw


def _lanes(
    scene: Mapping[str, Any], quantized: render.Quantized | None, side: int, look: Mapping[str, Any]
) -> Image.Image:
    """Draw the signal of a scene, or nothing without its map."""
    if quantized is None:
        return Image.new("RGB", (side, 1), _PAPER)
    signal = np.frombuffer(scene["values"], "<f4").reshape(scene["channels"], -1)
    drawn = render.lanes_image(signal, quantized, scene["names"], width=max(8, side - _NAMES), **look)
    return drawn.resize((side, max(1, round(drawn.height * side / drawn.width)))) if drawn.width > side else drawn


def _panels(panels: Sequence[Mapping[str, Any]], contents: Sequence[Mapping[str, Any]], pieces: Sequence[str]) -> Draw:
    """Return a function that draws a lesson's panels as ``js/src/lesson/panel.ts`` does, with the maps of all steps.

    The values of a text are drawn as bars of its strongest tokens.
    """
    images, maps = (
        {name: one for content in contents for name, one in content.get(kind, {}).items()}
        for kind in ("images", "maps")
    )

    def draw(share: float) -> Image.Image:
        side = max(8, round(_WIDE / max(3, len(panels)) * share))
        captions = [panel["caption"] for panel in panels]
        return render.draw_grid([""], captions, [_panel(panel, images, maps, pieces, side) for panel in panels], side)

    return draw


def _panel(
    panel: Mapping[str, Any],
    images: Mapping[str, bytes],
    maps: Mapping[str, Mapping[str, Any]],
    pieces: Sequence[str],
    side: int,
) -> Image.Image:
    if "curve" in panel:
        return render.draw_curve(panel["curve"]["x"], panel["curve"]["y"], panel["curve"]["at"], side)
    if "bars" in panel:
        return render.draw_bars(
            [
                (
                    bar["label"],
                    bar["share"],
                    bar.get("text", f"{bar['share']:.1%}"),
                    ACCENT if k == panel["chosen"] else SECOND,
                )
                for k, bar in enumerate(panel["bars"])
            ],
            side,
        )
    if "vector" in panel:
        return _bars(panel["vector"]["names"], panel["vector"]["values"], side)
    if "scene" in panel:
        values = render.dequantize(_quantized(maps[panel["map"]]))[0].tolist()
        strongest = sorted(range(len(values)), key=lambda k: -abs(values[k]))[:_STRONGEST]
        return _bars([pieces[k] for k in strongest], [values[k] for k in strongest], side)
    image, quantized = _sized(images.get(panel.get("image", ""), b""), maps.get(panel.get("map", ""), {}), side)
    if quantized is not None:
        _, scale = _sized(b"", maps[panel["scale"]], side)
        assert scale is not None
        display = display_settings(panel["display"])
        limits = render.clip_limits(scale.codes, scale.signed, display["clip"])
        image = render.blend(image, quantized, **display, limits=limits)
    return Image.fromarray(image)


def _bars(names: Sequence[str], values: Sequence[float], side: int) -> Image.Image:
    return render.draw_bars(
        [(name, value, render.format_number(value), SECOND) for name, value in zip(names, values, strict=True)], side
    )


def _quantized(raw: Mapping[str, Any]) -> render.Quantized:
    codes = np.frombuffer(raw["codes"], "<u2").reshape(raw["height"], raw["width"])
    return render.Quantized(codes, raw["low"], raw["high"], raw["signed"])


def _sized(png: bytes, raw: Mapping[str, Any], side: int) -> tuple[np.ndarray, render.Quantized | None]:
    """Scale an image and its map, if present, so that the longer side has this length."""
    size = raw.get("width", 1), raw.get("height", 1)
    image = Image.open(io.BytesIO(png)).convert("RGB") if png else Image.new("RGB", size, _GRAY)
    scale = side / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    pixels = np.asarray(image.resize((width, height), Image.Resampling.BOX))
    if not raw:
        return pixels, None
    quantized = _quantized(raw)
    return pixels, replace(quantized, codes=render.fit(quantized.codes, height, width))
