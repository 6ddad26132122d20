"""The explorer of a signal in JupyterLab: colors of the lines, readings, zoom, marks, and the display alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from lab import DARK, Lab
from playwright.sync_api import Page, expect
from seen import WEIGHTED, Seen, open_explorer
from torch import nn

import saliency_widgets as sw
from saliency_widgets import render
from saliency_widgets.attribution import Reduction
from saliency_widgets.session import frame_of

pytestmark = pytest.mark.browser

SETUP = """import torch
import saliency_widgets as sw

torch.manual_seed(0)
torch.set_num_threads(1)
"""

FLAT = (
    WEIGHTED
    + """
explorer = sw.explore(Weighted().eval(), signal, sampling_rate=10, channel_names=["up", "down"], time_axis="last",
                      target=1, method="input_x_gradient")
explorer"""
)

LONG = (
    SETUP
    + """
signal = torch.randn(12, 100_000)
net = torch.nn.Sequential(torch.nn.Conv1d(12, 4, 9, stride=4), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool1d(1),
                          torch.nn.Flatten(), torch.nn.Linear(4, 3)).eval()
explorer = sw.explore(net, signal, sampling_rate=500, method="input_x_gradient")
explorer"""
)

# The color in the middle of a lane, at the middle of each of `count` equal parts, and that of the ground.
_COLORS = """(canvas, [lanes, count]) => {
  const context = canvas.getContext('2d');
  const color = (x, y) => [...context.getImageData(Math.floor(x), Math.floor(y), 1, 1).data.slice(0, 3)];
  return [...Array(lanes).keys()].map(lane => [...Array(count).keys()].map(part =>
    color((part + 0.5) * canvas.width / count, (lane + 0.5) * canvas.height / lanes)));
}"""

# The color of a line without any value: half of the text's color over the ground.
_INK = """root => {
  const parse = text => text.match(/[0-9.]+/g).map(Number);
  const ground = parse(getComputedStyle(root.querySelector('.sw-lanes')).backgroundColor);
  const [r, g, b, alpha = 1] = parse(getComputedStyle(root.querySelector('.sw-signal-scene')).color);
  return [r, g, b].map((part, i) => Math.round(ground[i] + 0.5 * alpha * (part - ground[i])));
}"""


def expected(lab: Lab, ink: list[int], **display: object) -> np.ndarray:
    """The colors that `render` computes for the kernel's map over a plain color, shape (C, T, 3)."""
    frame = lab.value("(lambda f: [f.codes.tolist(), f.low, f.high, f.signed])(explorer.session.last.frame)")
    quantized = render.Quantized(np.array(frame[0], np.uint16), *frame[1:])
    settings = {param.name: param.default for param in render.DISPLAY} | display
    image = np.broadcast_to(np.array(ink, np.uint8), (*quantized.codes.shape, 3))
    return render.blend(np.ascontiguousarray(image), quantized, **settings)


def assert_colored(lab: Lab, seen: Seen, **display: object) -> None:
    """Check the colors, which follow a change in one of the next animation frames."""
    canvas = seen.root.locator(".sw-lanes-canvas")
    for _ in range(100):
        colors = np.array(canvas.evaluate(_COLORS, [2, 20]))
        off = np.abs(colors - expected(lab, seen.root.evaluate(_INK), **display)).max()
        if off <= 2:
            break
        lab.page.wait_for_timeout(50)
    assert off <= 2


def test_each_sample_has_the_color_of_its_value(lab: Lab) -> None:
    seen = open_explorer(lab, FLAT)
    root, page = seen.root, lab.page
    expect(root.locator(".sw-lane-title")).to_have_text(["up", "down"])
    expect(root.locator(".sw-time-tick").first).to_have_text("0.0")
    assert_colored(lab, seen)

    canvas = root.locator(".sw-lanes-canvas")
    box = canvas.bounding_box()
    assert box is not None
    canvas.hover(position={"x": box["width"] * 4.5 / 20, "y": box["height"] * 0.75})
    readout = root.locator(".sw-readout")
    expect(readout).to_contain_text("down · 0.4 s · value 2 · attribution")
    canvas.focus()
    page.keyboard.press("ArrowUp")
    expect(readout).to_contain_text("up · 0.4 s · value 1")
    page.keyboard.press("ArrowRight")
    expect(readout).to_contain_text("up · 0.5 s")
    page.keyboard.press("End")
    expect(readout).to_contain_text("up · 1.9 s")

    with lab.paused_kernel():
        seen.listen()
        seen.handle("opacity").press("End")
        page.wait_for_function("window.__paints.length > 0")
    assert_colored(lab, seen, opacity=1.0)

    lab.theme("dark")
    expect(root.locator(".sw-lanes")).to_have_css("background-color", DARK)
    assert max(seen.root.evaluate(_INK)) < 160, "the line isn't in a dark theme's color"
    assert_colored(lab, seen, opacity=1.0)
    lab.theme("light")


def test_zoom_and_pan_show_a_part(lab: Lab) -> None:
    seen = open_explorer(lab, FLAT)
    root, page = seen.root, lab.page
    words, canvas = root.locator(".sw-range-words"), root.locator(".sw-lanes-canvas")
    whole = np.array(canvas.evaluate(_COLORS, [2, 20]))
    expect(words).to_have_text("2 s")
    expect(root.get_by_label("Zoom out")).to_be_disabled()
    canvas.focus()
    for _ in range(6):
        page.keyboard.press("+")
    expect(words).to_have_text("0.6 s to 1.4 s")  # eight samples, the fewest
    expect(root.get_by_label("Zoom in")).to_be_disabled()
    assert np.array_equal(np.array(canvas.evaluate(_COLORS, [2, 8])), whole[:, 6:14])
    page.keyboard.press("PageDown")
    expect(words).to_have_text("1.0 s to 1.8 s")
    assert np.array_equal(np.array(canvas.evaluate(_COLORS, [2, 8])), whole[:, 10:18])
    box = canvas.bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 4, box["y"] + box["height"] / 4
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + box["width"] / 2, y, steps=4)
    page.mouse.up()
    expect(words).to_have_text("0.6 s to 1.4 s")
    canvas.dblclick()
    expect(words).to_have_text("2 s")
    page.mouse.move(x, y)
    canvas.focus()
    page.mouse.wheel(0, -400)
    expect(words).not_to_have_text("2 s")
    page.mouse.wheel(0, 4000)
    expect(words).to_have_text("2 s")


def test_an_interval_is_marked_and_ablated(lab: Lab) -> None:
    seen = open_explorer(lab, FLAT)
    root, page = seen.root, lab.page
    tools = root.locator(".sw-marks")
    expect(tools).to_be_hidden()
    before = np.array(root.locator(".sw-lanes-canvas").evaluate(_COLORS, [4, 20]))
    seen.output.locator(".sw-trust .lm-Collapse-header, .sw-trust .jupyter-widget-Collapse-header").first.click()
    expect(tools).to_be_visible()
    canvas = root.locator(".sw-lanes-canvas")

    def drag(start: float, end: float, lane: float) -> None:
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        assert box is not None
        y = box["y"] + lane * box["height"]
        page.mouse.move(box["x"] + start * box["width"], y)
        page.mouse.down()
        page.mouse.move(box["x"] + end * box["width"], y, steps=5)
        page.mouse.up()

    drag(0.26, 0.44, 0.25)  # samples 5 to 8
    line = seen.output.locator(".sw-trust .sw-said").first
    expect(line).to_contain_text("20.0%")
    lab.execute("mask = torch.zeros(2, 20, dtype=torch.bool); mask[:, 5:9] = True")
    assert lab.value("bool((explorer.trust._sections[0].region == mask).all())")
    after = np.array(canvas.evaluate(_COLORS, [4, 20]))
    changed = (before != after).any(2)[[0, 2]]  # above the lines
    assert changed[:, 5:9].all()
    assert changed.sum() == 8

    tools.get_by_text("In one channel").click()
    drag(0.01, 0.09, 0.75)
    expect(line).to_contain_text("5.0%")
    assert lab.value("explorer.trust._sections[0].region.nonzero().tolist()") == [[1, 0], [1, 1]]
    tools.get_by_text("Channel", exact=True).click()
    drag(0.5, 0.5, 0.25)
    expect(line).to_contain_text("50.0%")
    assert lab.value("explorer.trust._sections[0].region.sum(1).tolist()") == [20, 0]
    tools.get_by_text("In one channel").click()
    canvas.focus()
    page.keyboard.press("Home")
    page.keyboard.press("Space")
    expect(tools).to_contain_text("One end is set")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Space")
    expect(line).to_contain_text("27.5%")


def test_the_display_of_a_long_signal_needs_no_kernel(lab: Lab) -> None:
    seen = open_explorer(lab, LONG)
    root, page = seen.root, lab.page
    expect(root.locator(".sw-lane-title")).to_have_count(12)
    canvas = root.locator(".sw-lanes-canvas")
    size = canvas.evaluate("e => [e.width, e.height]")
    assert size[1] < 12 * 56, "the canvas has only the lanes that fit"
    before = canvas.evaluate(_COLORS, [1, 200])
    with lab.paused_kernel():
        seen.listen()
        handle = seen.handle("opacity")
        handle.press("Home")
        page.wait_for_function("window.__paints.length > 0")
        handle.press("ArrowRight")
        page.wait_for_function("window.__paints.length > 1")
        assert {paint["cause"] for paint in page.evaluate("window.__paints")} == {"display"}
        sent, paints = lab.settled_messages(), page.evaluate("window.__paints.length")
        canvas.focus()
        page.keyboard.press("+")
        expect(root.locator(".sw-range-words")).to_contain_text(" to ")
        page.wait_for_function("paints => window.__paints.length > paints", arg=paints)
        assert not (lab.settled_messages() - sent)["send comm_msg"]
    assert canvas.evaluate(_COLORS, [1, 200]) != before
    assert lab.errors == []


def test_a_saved_page_shows_the_signal_without_a_kernel(page: Page, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv1d(2, 3, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(60, 3)).eval()
    signal = torch.tensor([[1.0], [2.0]]).repeat(1, 20)
    settings = {"sampling_rate": 10, "channel_names": ["up", "down"], "executor": "inline"}
    explorer = sw.explore(net, signal, method="input_x_gradient", target=0, **settings)
    frames = [
        frame_of(sw.attribute(net, signal, sampling_rate=10, method="input_x_gradient", target=k), Reduction("signed"))
        for k in (0, 1)
    ]
    saved = explorer.save_html(tmp_path / "page.html", record={"target": [0, 1]}, progress=False)
    explorer.close()
    assert saved.maps == 2

    page.context.set_offline(True)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(saved.path.as_uri())
    page.wait_for_selector("html[data-opened]")
    expect(page.locator("h1")).to_have_text("Which samples affect the output of Sequential")
    root = page.locator(".sw-heatmap")
    expect(root).to_have_attribute("data-final", "true")
    expect(root.locator(".sw-lane-title")).to_have_text(["up", "down"])
    canvas = root.locator(".sw-lanes-canvas")
    for k, scheme in ((0, "light"), (1, "light"), (1, "dark")):
        page.emulate_media(color_scheme=scheme)
        page.get_by_role("combobox", name="Target").select_option(index=k)
        page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        image = np.broadcast_to(np.array(root.evaluate(_INK), np.uint8), (2, 20, 3))
        display = {param.name: param.default for param in render.DISPLAY}
        expected = render.blend(np.ascontiguousarray(image), frames[k], **display)
        assert np.abs(np.array(canvas.evaluate(_COLORS, [2, 20])) - expected).max() <= 2
    page.get_by_label("Zoom in").click()
    expect(root.locator(".sw-range-words")).to_contain_text(" to ")
    assert errors == []
