"""Comparisons of texts, signals and volumes in JupyterLab: their colors on one scale, differences, and a saved page."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import numpy as np
import pytest
from lab import DARK, Lab
from playwright.sync_api import Locator, Page, expect
from seen import BAG, PIXELS, WEIGHTED, open_comparison

from saliency_widgets import render

pytestmark = pytest.mark.browser

TEXTS = (
    BAG
    + """
compared = sw.compare(Bag().eval(), ["the good cat sat", "the bad mat sat", "the cat"], tokenizer=WORDS,
                      methods=["gradient", "input_x_gradient"], classes=1, rows="methods", columns="inputs")
compared"""
)

SIGNALS = (
    WEIGHTED
    + """
compared = sw.compare(Weighted().eval(), [signal, 3 * signal], sampling_rate=10, channel_names=["up", "down"],
                      time_axis="last", classes=1, methods="input_x_gradient")
compared"""
)

VOLUMES = """import torch
import saliency_widgets as sw

torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Conv3d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten(),
                          torch.nn.Linear(4 * 8 * 8 * 8, 3)).eval()
scan = torch.rand(8, 8, 8)
compared = sw.compare(net, [scan, 2 * scan], slices="depth", classes=1, methods="gradient")
compared"""

_GROUNDS = """root => [...root.querySelectorAll('.sw-token')].map(
  token => getComputedStyle(token).backgroundColor.match(/[0-9]+/g).slice(0, 3).map(Number))"""

_LANES = """(canvas, count) => {
  const context = canvas.getContext('2d');
  return [0, 1].map(lane => [...Array(count).keys()].map(part => [...context.getImageData(
    Math.floor((part + 0.5) * canvas.width / count), Math.floor((lane + 0.5) * canvas.height / 2), 1, 1,
  ).data.slice(0, 3)]));
}"""

# The color of a line without any value: half of the text's color over the ground.
_INK = """root => {
  const parse = text => text.match(/[0-9.]+/g).map(Number);
  const ground = parse(getComputedStyle(root.querySelector('.sw-lanes')).backgroundColor);
  const [r, g, b, alpha = 1] = parse(getComputedStyle(root.querySelector('.sw-signal-scene')).color);
  return [r, g, b].map((part, i) => Math.round(ground[i] + 0.5 * alpha * (part - ground[i])));
}"""


def kernel_maps(lab: Lab) -> list[render.Quantized]:
    frames = lab.value(
        "[[f.codes.tolist(), f.low, f.high, f.signed] for f in map(compared._maps.frame, compared._shown)]"
    )
    return [render.Quantized(np.array(codes, np.uint16), *rest) for codes, *rest in frames]


def blended(quantized: render.Quantized, ground: list[int], limits: tuple[float, float] | None, **display: object):
    settings = {param.name: param.default for param in render.DISPLAY} | display
    image = np.broadcast_to(np.array(ground, np.uint8), (*quantized.codes.shape, 3))
    return render.blend(np.ascontiguousarray(image), quantized, limits=limits, **settings)


def assert_grounds(cell: Locator, expected: np.ndarray) -> None:
    """Assert that the tokens have these colors, within 1/255, once they are painted."""
    off = 255
    for _ in range(50):
        off = np.abs(np.array(cell.evaluate(_GROUNDS)) - expected).max()
        if off <= 1:
            return
        cell.page.wait_for_timeout(100)
    raise AssertionError(f"the colors are off by {off}")


def test_texts_are_colored_on_one_scale_and_read_together(lab: Lab, tmp_path: Path) -> None:
    grid = open_comparison(lab, TEXTS)
    cells, maps = grid.locator(".sw-cell"), kernel_maps(lab)
    expect(cells).to_have_count(6)
    expect(cells.nth(1).locator(".sw-token")).to_have_text(["the", "bad", "mat", "sat"])
    expect(grid.locator("canvas.sw-cell-canvas:visible")).to_have_count(0)
    for row in (0, 1):
        ends = render.shared_ends(maps[3 * row : 3 * row + 3], [0.0, 99.0])
        for k in range(3 * row, 3 * row + 3):
            assert_grounds(cells.nth(k), blended(maps[k], [255] * 3, render.limits_of(maps[k], ends))[0])
    cells.nth(3).locator(".sw-lock").click()
    assert_grounds(cells.nth(3), blended(maps[3], [255] * 3, None)[0])
    lab.wait_for_value("compared.view.unlocked", [3])

    cells.nth(0).locator(".sw-token").nth(1).hover()
    for k, word in ((0, "good"), (1, "bad"), (3, "good"), (4, "bad")):  # the others have fewer tokens
        expect(cells.nth(k).locator(".sw-current")).to_have_text(word)
        value = render.format_number(float(render.dequantize(maps[k])[0, 1]))
        expect(cells.nth(k).locator(".sw-cell-line")).to_have_text(re.compile(f"^{re.escape(value)} · "))
    expect(grid.locator(".sw-current")).to_have_count(4)
    grid.locator(".sw-progress-text").hover()
    expect(grid.locator(".sw-current")).to_have_count(0)
    cells.nth(4).focus()
    lab.page.keyboard.press("Shift+ArrowRight")
    expect(cells.nth(4).locator(".sw-current")).to_have_text("sat")
    lab.page.keyboard.press("Escape")
    expect(grid.locator(".sw-current")).to_have_count(0)

    grid.locator(".sw-pair-summary").click()
    for index, k in enumerate((3, 4)):
        grid.locator(".sw-pair-select").nth(index).select_option(str(k))
    pair = grid.locator(".sw-pair-body")
    difference = render.difference(maps[3], maps[4])
    assert_grounds(pair, blended(difference, [255] * 3, None)[0])
    pair.locator(".sw-token").nth(2).hover()
    value = render.format_number(float(render.dequantize(difference)[0, 2]))
    expect(pair.locator(".sw-readout")).to_have_text(f"cat · id 2 · difference {value}")
    grid.locator(".sw-pair-select").nth(1).select_option("5")
    expect(grid.locator(".sw-pair-words")).to_contain_text("differ in size and can't be subtracted")

    lab.theme("dark")
    expect(cells.nth(0).locator(".sw-tokens")).to_have_css("background-color", DARK)
    ground = (
        cells.nth(0)
        .locator(".sw-tokens")
        .evaluate("e => getComputedStyle(e).backgroundColor.match(/[0-9]+/g).map(Number)")
    )
    assert max(ground) < 64
    ends = render.shared_ends(maps[:3], [0.0, 99.0])
    assert_grounds(cells.nth(0), blended(maps[0], ground, render.limits_of(maps[0], ends))[0])
    lab.theme("light")

    cells.nth(4).locator(".sw-token").nth(1).click()
    explorer = lab.output(0).locator(".sw-explorer")
    explorer.locator(".sw-heatmap[data-state=done]").wait_for(timeout=60_000)
    expect(explorer.locator(".sw-token")).to_have_text(["the", "bad", "mat", "sat"])
    lab.execute("compared.close()")
    assert lab.errors == []


def test_a_page_of_texts_needs_no_kernel(lab: Lab, page: Page, tmp_path: Path) -> None:
    grid = open_comparison(lab, TEXTS)
    maps, path = kernel_maps(lab), tmp_path / "texts.html"
    expect(grid.locator(".sw-cell")).to_have_count(6)
    lab.execute(f"saved = compared.save_html({str(path)!r}, progress=False)")
    page.goto(path.as_uri())
    cells = page.locator(".sw-cell")
    expect(cells).to_have_count(6)
    ends = render.shared_ends(maps[:3], [0.0, 99.0])
    for k in range(3):
        assert_grounds(cells.nth(k), blended(maps[k], [255] * 3, render.limits_of(maps[k], ends))[0])
    cells.nth(0).locator(".sw-token").nth(1).hover()
    expect(page.locator(".sw-current")).to_have_text(["good", "bad", "good", "bad"])
    assert lab.errors == []


def test_signals_are_colored_on_one_scale_and_read_together(lab: Lab) -> None:
    grid = open_comparison(lab, SIGNALS)
    cells, maps = grid.locator(".sw-cell"), kernel_maps(lab)
    expect(cells).to_have_count(2)
    expect(cells.nth(0).locator(".sw-lane-title")).to_have_text(["up", "down"])
    expect(grid.get_by_role("button", name="Zoom in")).to_have_count(0)
    ink = grid.evaluate(_INK)
    ends = render.shared_ends(maps, [0.0, 99.0])

    def assert_lanes(k: int, limits: tuple[float, float] | None) -> None:
        expected, off = blended(maps[k], ink, limits), 255
        for _ in range(50):
            colors = np.array(cells.nth(k).locator(".sw-lanes-canvas").evaluate(_LANES, 20))
            off = np.abs(colors - expected).max()
            if off <= 2:
                return
            lab.page.wait_for_timeout(100)
        raise AssertionError(f"the pixels are off by {off}")

    for k in (0, 1):
        assert_lanes(k, render.limits_of(maps[k], ends))
    grid.get_by_text("Same clip for all").click()
    for k in (0, 1):
        assert_lanes(k, None)

    canvas = cells.nth(0).locator(".sw-lanes-canvas")
    box = canvas.bounding_box()
    assert box is not None
    canvas.hover(position={"x": box["width"] * 4.5 / 20, "y": box["height"] * 0.75})
    for k, height in ((0, "2"), (1, "6")):
        value = render.format_number(float(render.dequantize(maps[k])[1, 4]))
        line = cells.nth(k).locator(".sw-cell-line")
        expect(line).to_have_text(re.compile(f"^{re.escape(value)} · .* of the total · down · 0.4 s · value {height}$"))
    expect(grid.locator(".sw-signal-dot:visible")).to_have_count(2)

    grid.locator(".sw-pair-summary").click()
    for index, k in enumerate((1, 0)):
        grid.locator(".sw-pair-select").nth(index).select_option(str(k))
    difference = render.difference(maps[1], maps[0])
    pair = grid.locator(".sw-pair-body")
    expect(pair).to_be_visible()
    lab.page.wait_for_timeout(300)
    colors = np.array(pair.locator(".sw-lanes-canvas").evaluate(_LANES, 20))
    assert np.abs(colors - blended(difference, ink, None)).max() <= 2

    cells.nth(1).locator(".sw-lanes-canvas").click()
    explorer = lab.output(0).locator(".sw-explorer")
    explorer.locator(".sw-heatmap[data-state=done]").wait_for(timeout=60_000)
    expect(explorer.get_by_role("button", name="Zoom in")).to_have_count(1)
    lab.execute("compared.close()")
    assert lab.errors == []


def assert_planes(lab: Lab, cell: Locator, name: str, expected: list[np.ndarray]) -> None:
    """Assert that the planes of a cell have these colors, within 1/255, once they are painted."""
    off = [255]
    for _ in range(50):
        canvases = cell.locator(".sw-plane-canvas").all()
        raw = [np.frombuffer(base64.b64decode(one.evaluate(PIXELS, [8, 8])), np.uint8) for one in canvases]
        off = [
            np.abs(one.reshape(8, 8, 3).astype(int) - wanted).max() for one, wanted in zip(raw, expected, strict=True)
        ]
        if max(off) <= 1:
            return
        lab.page.wait_for_timeout(100)
    raise AssertionError(f"{name}: the pixels are off by {off}")


def test_volumes_are_colored_on_one_scale_and_move_together(lab: Lab, page: Page, tmp_path: Path) -> None:
    grid = open_comparison(lab, VOLUMES)
    cells = grid.locator(".sw-cell")
    expect(cells.nth(0).locator(".sw-plane-title")).to_have_text(["Depth", "Height", "Width"])
    expect(grid.locator(".sw-plane-slider, .sw-play")).to_have_count(0)

    def wholes(at: tuple[int, int, int]) -> list[tuple[render.Quantized, list[np.ndarray]]]:
        """The map of each whole volume with two dimensions, and the pixels of the planes through a voxel."""
        lab.wait_for_value("[cell.frame['ground']['at'] for cell in compared.view.cells]", [list(at)] * 2)
        result = lab.value(
            "[[(m := compared._maps.whole(p)).codes.tolist(), m.low, m.high, m.signed, "
            "[*c.frame['ground']['pixels']]] for p, c in zip(compared._shown, compared.view.cells)]"
        )
        return [
            (render.Quantized(np.array(codes, np.uint16), *rest), [*np.array(pixels, np.uint8).reshape(3, 8, 8)])
            for codes, *rest, pixels in result
        ]

    def colors(index: int, at: tuple[int, int, int], maps: list, shared: bool) -> list[np.ndarray]:
        (whole, grounds), limits = maps[index], None
        if shared:
            limits = render.limits_of(whole, render.shared_ends([one for one, _ in maps], [0.0, 99.0]))
        else:
            limits = render.clip_limits(whole.codes, whole.signed, [0.0, 99.0])
        cube, (d, h, w) = whole.codes.reshape(8, 8, 8), at
        settings = {param.name: param.default for param in render.DISPLAY}
        return [
            render.blend(
                np.repeat(ground[..., None], 3, 2),
                render.Quantized(np.ascontiguousarray(plane), whole.low, whole.high, whole.signed),
                limits=limits,
                **settings,
            ).astype(int)
            for ground, plane in zip(grounds, (cube[d], cube[:, h], cube[:, :, w]), strict=True)
        ]

    at = (4, 4, 4)
    maps = wholes(at)
    for k in (0, 1):
        assert_planes(lab, cells.nth(k), f"cell {k}", colors(k, at, maps, True))
    lab.execute("for slider, k in zip(compared.panel.positions, (1, 7, 0)): slider.value = k")
    at = (1, 7, 0)
    maps = wholes(at)
    for k in (0, 1):
        assert_planes(lab, cells.nth(k), f"moved cell {k}", colors(k, at, maps, True))
    slider = lab.output(0).locator(".sw-slices-depth .noUi-handle")
    slider.press("ArrowRight")
    at = (2, 7, 0)
    maps = wholes(at)
    grid.get_by_text("Same clip for all").click()
    for k in (0, 1):
        assert_planes(lab, cells.nth(k), f"separate cell {k}", colors(k, at, maps, False))

    canvas = cells.nth(0).locator(".sw-plane-canvas").nth(1)
    box = canvas.bounding_box()
    assert box is not None
    canvas.hover(position={"x": box["width"] * 3.5 / 8, "y": box["height"] * 5.5 / 8})
    for k, (whole, _) in enumerate(maps):
        value = render.format_number(float(render.dequantize(whole).reshape(8, 8, 8)[5, 7, 3]))
        line = cells.nth(k).locator(".sw-cell-line")
        expect(line).to_contain_text(f"depth 5, height 7, width 3 · attribution {value} · above")
        expect(cells.nth(k).locator(".sw-cursor:visible")).to_have_count(1)
    grid.locator(".sw-pair-summary").click()
    for index in (0, 1):
        grid.locator(".sw-pair-select").nth(index).select_option(str(index))
    expect(grid.locator(".sw-pair-words")).to_contain_text("compared.difference(a, b) subtracts the whole volumes")
    expect(grid.locator(".sw-pair-body")).to_be_hidden()

    path = tmp_path / "volumes.html"
    lab.execute(f"saved = compared.save_html({str(path)!r}, progress=False)")
    page.goto(path.as_uri())
    assert_planes(lab, page.locator(".sw-cell").nth(1), "page", colors(1, at, maps, False))

    cells.nth(1).locator(".sw-plane-canvas").first.click()
    explorer = lab.output(0).locator(".sw-explorer")
    explorer.locator(".sw-heatmap[data-state=done]").wait_for(timeout=60_000)
    expect(explorer.locator(".sw-plane-slider")).to_have_count(3)
    lab.execute("compared.close()")
    assert lab.errors == []
