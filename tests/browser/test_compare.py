"""A comparison in JupyterLab: display controls of 24 maps, one pixel read in all cells, and opening a cell."""

from __future__ import annotations

import base64
import json
import re

import numpy as np
import pytest
from lab import Lab
from playwright.sync_api import Locator, expect
from seen import NET, PIXELS, open_comparison

from saliency_widgets import render

pytestmark = pytest.mark.browser

GRID = (
    NET
    + """
images = {name: sample_image(name).resize((224, 224)) for name in ("chelsea", "coffee", "astronaut", "rocket")}
compared = sw.compare(
    net, images, n_samples=4, n_steps=4,
    methods=["gradient", "input_x_gradient", "smoothgrad", "integrated_gradients", "guided_backprop", "grad_cam"],
)
compared"""
)

MODELS = (
    NET
    + """
import copy

fresh = copy.deepcopy(net)
for module in fresh.modules():
    if hasattr(module, "reset_parameters"):
        module.reset_parameters()
compared = sw.compare(
    {"first": net, "second": fresh}, photo.resize((48, 48)),
    methods=["gradient", "grad_cam"], classes=[0, 1],
)
compared"""
)

# Record what the page paints, and after how many animation frames since the last key press.
_LISTEN = """root => {
  window.__frames = 0;
  window.__grid = [];
  window.__pressed = 0;
  const count = () => { if (root.isConnected) requestAnimationFrame(count); window.__frames++; };
  requestAnimationFrame(count);
  root.ownerDocument.addEventListener('keydown', () => { window.__pressed = window.__frames; }, true);
  root.addEventListener('sw-grid-paint', event => {
    window.__grid.push({...event.detail, after: window.__frames - window.__pressed});
  });
}"""

IN_KERNEL = """
import base64, json, numpy as np
frames = [compared._maps.frame(cell) for cell in compared._shown]
images_ = [compared._comparison.problem(cell).prepared.images[0] for cell in compared._shown]
pack = lambda a: base64.b64encode(np.ascontiguousarray(a).tobytes()).decode()
print(json.dumps([{"codes": pack(f.codes), "low": f.low, "high": f.high, "signed": f.signed, "shape": f.codes.shape,
                   "image": pack(p)} for f, p in zip(frames, images_)]))
"""


def kernel_maps(lab: Lab) -> list[tuple[render.Quantized, np.ndarray]]:
    result = json.loads(lab.execute(IN_KERNEL, seconds=60).splitlines()[-1])
    return [
        (
            render.Quantized(
                np.frombuffer(base64.b64decode(one["codes"]), "<u2").reshape(one["shape"]),
                one["low"], one["high"], one["signed"],
            ),
            np.frombuffer(base64.b64decode(one["image"]), np.uint8).reshape(*one["shape"], 3),
        )
        for one in result
    ]  # fmt: skip


def pixels(canvas: Locator, size: tuple[int, int]) -> np.ndarray:
    raw = canvas.evaluate(PIXELS, list(size))
    return np.frombuffer(base64.b64decode(raw), np.uint8).reshape(*size, 3)


def assert_painted(canvas: Locator, expected: np.ndarray) -> None:
    """Assert that the canvas shows these colors, within 1/255, once it is painted."""
    off = 255
    for _ in range(50):
        off = np.abs(pixels(canvas, expected.shape[:2]).astype(int) - expected.astype(int)).max()
        if off <= 1:
            return
        canvas.page.wait_for_timeout(100)
    raise AssertionError(f"the pixels are off by {off}")


def wait_for_charts(lab: Lab) -> None:
    """Wait until bqplot has laid out new charts again, 0.3 s after they appear: it logs errors if they are gone then.

    The wait uses the page's clock, because on a busy machine bqplot is late too.
    """
    lab.page.evaluate(
        "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 800))))"
    )


def wait_for_paints(lab: Lab) -> None:
    """Wait until all cells are painted."""
    lab.page.wait_for_function("window.__grid.length > 0 && window.__grid.at(-1).left === 0")


@pytest.mark.soak
def test_a_display_slider_repaints_all_cells_within_two_frames_and_without_the_kernel(lab: Lab) -> None:
    grid = open_comparison(lab, GRID)
    cells = grid.locator(".sw-cell")
    expect(cells).to_have_count(24)
    grid.evaluate(_LISTEN)
    handle = lab.output(0).locator(".sw-control-opacity .noUi-handle")
    handle.focus()
    before = [pixels(cells.nth(k).locator("canvas"), (64, 64)) for k in (0, 23)]
    with lab.paused_kernel():
        for _ in range(5):
            lab.page.evaluate("window.__grid = []")
            sent = lab.messages()
            handle.press("ArrowLeft")
            wait_for_paints(lab)
            paints = [paint for paint in lab.page.evaluate("window.__grid") if paint["cause"] == "display"]
            assert sorted({k for paint in paints for k in paint["painted"]}) == list(range(24))
            assert max(paint["after"] for paint in paints) <= 2
            lab.page.wait_for_timeout(200)  # by then the move has sent its messages
            assert (lab.messages() - sent)["send comm_msg"] <= 1
        after = [pixels(cells.nth(k).locator("canvas"), (64, 64)) for k in (0, 23)]
    for old, new in zip(before, after, strict=True):
        assert (old != new).any()
    assert lab.errors == []


def test_the_cells_show_the_kernels_maps_on_one_scale(lab: Lab) -> None:
    grid = open_comparison(lab, MODELS)
    grid.evaluate("root => root.style.setProperty('--sw-cell', '300px')")
    lab.page.wait_for_timeout(300)
    maps = kernel_maps(lab)
    cells = grid.locator(".sw-cell")
    expect(cells).to_have_count(len(maps))
    defaults = {param.name: param.default for param in render.DISPLAY}
    table = render.lut(defaults.pop("colormap"))
    defaults.pop("diverging")

    def assert_cell(k: int, limits: tuple[float, float] | None) -> None:
        quantized, image = maps[k]
        assert_painted(
            cells.nth(k).locator("canvas"), render.blend(image, quantized, lut=table, limits=limits, **defaults)
        )

    columns = lab.value("len(compared.view.columns)")
    for row in range(2):
        group = [k for k in range(len(maps)) if k // columns == row]
        ends = render.shared_ends([maps[k][0] for k in group], defaults["clip"])
        for k in group:
            assert_cell(k, render.limits_of(maps[k][0], ends))
    cells.nth(0).locator(".sw-lock").click()
    lab.wait_for_value("compared.view.unlocked", [0])
    rest = [k for k in range(1, len(maps)) if k // columns == 0]
    ends = render.shared_ends([maps[k][0] for k in rest], defaults["clip"])
    assert_cell(0, None)
    for k in rest:
        assert_cell(k, render.limits_of(maps[k][0], ends))
    grid.get_by_text("Same clip for all").click()
    for k in range(len(maps)):
        assert_cell(k, None)
    assert lab.errors == []


def test_one_pixel_is_read_in_all_cells_and_two_cells_are_subtracted(lab: Lab) -> None:
    grid = open_comparison(lab, MODELS)
    cells = grid.locator(".sw-cell")
    columns = lab.value("len(compared.view.columns)")
    maps = kernel_maps(lab)
    canvas = cells.nth(0).locator("canvas")
    box = canvas.bounding_box()
    height, width = maps[0][0].codes.shape
    canvas.hover(position={"x": box["width"] * 0.25, "y": box["height"] * 0.75})
    x, y = int(0.25 * width), int(0.75 * height)
    expect(grid.locator(".sw-cell .sw-cursor:visible")).to_have_count(len(maps))
    for k, (quantized, _image) in enumerate(maps):
        near = render.dequantize(quantized)[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2].ravel()
        shown = re.split(" · ", cells.nth(k).locator(".sw-cell-line").text_content() or "")[0]
        assert shown in {render.format_number(value) for value in near}
    grid.locator(".sw-pair-summary").click()
    for index, k in enumerate((0, 1)):
        grid.locator(".sw-pair-select").nth(index).select_option(str(k))
    lab.wait_for_value("compared.view.pair", [0, 1])
    expect(grid.locator(".sw-pair-words")).to_contain_text("Unscaled values")
    difference = render.difference(maps[0][0], maps[1][0])
    display = {param.name: param.default for param in render.DISPLAY}
    table = render.lut(display.pop("diverging"))
    display.pop("colormap")
    expected = render.blend(maps[0][1], difference, lut=table, **display)
    assert_painted(grid.locator(".sw-pair canvas").first, expected)
    grid.locator(".sw-pair-select").nth(1).select_option(str(columns))
    expect(grid.locator(".sw-pair-words")).to_contain_text("different units")
    assert lab.errors == []


@pytest.mark.soak
def test_a_cell_opens_in_the_explorer_by_click_and_by_key(lab: Lab) -> None:
    grid = open_comparison(lab, MODELS)
    cells = grid.locator(".sw-cell")
    cells.nth(1).locator("canvas").click()
    explorer = lab.output(0).locator(".sw-explorer")
    explorer.locator(".sw-heatmap[data-state=done]").wait_for(timeout=60_000)
    title = lab.value("compared._comparison.method(compared._shown[1]).title")
    expect(explorer.locator(".sw-title").first).to_contain_text(title)
    drawn = explorer.locator(".sw-predictions .bar, .sw-predictions rect").first
    drawn.wait_for(state="attached")
    wait_for_charts(lab)
    cells.nth(0).focus()
    lab.page.keyboard.press("ArrowDown")
    lab.page.keyboard.press("Enter")
    columns = lab.value("len(compared.view.columns)")
    title = lab.value(f"compared._comparison.method(compared._shown[{columns}]).title")
    expect(lab.output(0).locator(".sw-explorer .sw-title").first).to_contain_text(title, timeout=60_000)
    expect(lab.output(0).locator(".sw-explorer")).to_have_count(1)
    explorer.locator(".sw-heatmap[data-state=done]").wait_for(timeout=60_000)
    drawn.wait_for(state="attached")
    wait_for_charts(lab)
    lab.output(0).get_by_text("Close the explorer").click()
    expect(lab.output(0).locator(".sw-explorer")).to_have_count(0)
    lab.output(0).locator(".sw-menu-classes select").select_option(index=1)
    lab.wait_for_value("{cell.classes for cell in compared._shown} == {1}", True)
    lab.output(0).locator(".sw-grid[data-state=done]").wait_for(timeout=60_000)
    expect(grid.locator(".sw-model-checkup")).to_have_count(2)
    lab.execute("compared.close()")
    assert lab.errors == []
