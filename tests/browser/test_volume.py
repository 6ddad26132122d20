"""The explorer of a volume in JupyterLab: pixels of its planes, moving them, the display alone, and a marked box."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from lab import Lab
from playwright.sync_api import expect
from seen import PIXELS, Seen, open_explorer

from saliency_widgets import render

pytestmark = pytest.mark.browser

SIZE = D, H, W = 6, 8, 10

CELL = f"""import torch
import saliency_widgets as sw

torch.manual_seed(0)
torch.set_num_threads(1)

class Weighted(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(3, 1, {D}, {H}, {W}))

    def forward(self, x):
        return torch.stack([(x * weight).flatten(1).sum(1) for weight in self.weight], 1)

volume = torch.linspace(0.1, 1, {D * H * W}).view({D}, {H}, {W})
explorer = sw.explore(Weighted().eval(), volume, slices="axial", target=1, method="input_x_gradient")
explorer"""

VIDEO = CELL.replace('slices="axial"', 'slices="time"')


def planes_of(array: np.ndarray, at: tuple[int, int, int]) -> list[np.ndarray]:
    d, h, w = at
    return [array[d], array[:, h], array[:, :, w]]


def expected(lab: Lab, at: tuple[int, int, int], **display: object) -> list[np.ndarray]:
    """The planes as `render` blends slices of the whole map, quantized and clipped as one image."""
    values, volume = lab.value("[explorer.attribution.values[0, 0].abs().tolist(), volume.tolist()]")
    whole = render.quantize(np.array(values, np.float32).reshape(-1, W), signed=False)
    voxels = np.array(volume)
    low, high = np.percentile(voxels, (0.5, 99.5))
    gray = np.round(np.clip((voxels - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    settings = {param.name: param.default for param in render.DISPLAY} | display
    blended = render.blend(np.repeat(gray.reshape(-1, W)[..., None], 3, 2), whole, **settings)
    return planes_of(blended.reshape(D, H, W, 3), at)


def assert_planes(lab: Lab, seen: Seen, at: tuple[int, int, int], **display: object) -> None:
    for k, plane in enumerate(expected(lab, at, **display)):
        canvas = seen.root.locator(".sw-plane-canvas").nth(k)
        pixels = np.frombuffer(base64.b64decode(canvas.evaluate(PIXELS, list(plane.shape[:2]))), np.uint8)
        assert np.abs(pixels.reshape(plane.shape).astype(int) - plane).max() <= 2, f"plane {k} at {at}"


def test_planes_have_the_pixels_of_their_slices_wherever_they_are(lab: Lab) -> None:
    seen = open_explorer(lab, CELL)
    root, page = seen.root, lab.page
    expect(root.locator(".sw-plane-title")).to_have_text(["Axial", "Coronal", "Sagittal"])
    expect(root.locator(".sw-plane-position")).to_have_text(["3 of 5", "4 of 7", "5 of 9"])
    assert_planes(lab, seen, (3, 4, 5))

    # One move: one frame, and no pass of the model.
    passes = lab.value("explorer.problem.memory.passes")
    seen.listen()
    canvas = root.locator(".sw-plane-canvas").first
    canvas.focus()
    page.keyboard.press("PageDown")
    page.wait_for_function("window.__paints.length > 0")
    expect(root.locator(".sw-plane-position").first).to_have_text("4 of 5")
    lab.wait_for_value("list(explorer.kind_view.at)", [4, 4, 5])
    assert_planes(lab, seen, (4, 4, 5))
    assert page.evaluate("window.__paints.length") == 1
    assert lab.value("explorer.problem.memory.passes") == passes

    # A click moves the two other planes; the wheel, the slider and the keys move one.
    box = canvas.bounding_box()
    assert box is not None
    canvas.click(position={"x": box["width"] * 2.5 / W, "y": box["height"] * 1.5 / H})
    lab.wait_for_value("list(explorer.kind_view.at)", [4, 1, 2])
    page.mouse.wheel(0, -100)
    lab.wait_for_value("list(explorer.kind_view.at)", [3, 1, 2])
    root.locator(".sw-plane-slider").nth(2).press("End")
    lab.wait_for_value("list(explorer.kind_view.at)", [3, 1, 9])
    canvas.focus()
    page.keyboard.press("ArrowDown")
    lab.wait_for_value("list(explorer.kind_view.at)", [3, 2, 9])
    expect(root.locator(".sw-readout")).to_contain_text("depth 3, height 2, width 9")
    expect(root.locator(".sw-readout")).to_contain_text("of the voxels")
    assert_planes(lab, seen, (3, 2, 9))

    # The display changes without the kernel.
    with lab.paused_kernel():
        seen.listen()
        seen.handle("opacity").press("End")
        page.wait_for_function("window.__paints.length > 0")
    assert_planes(lab, seen, (3, 2, 9), opacity=1.0)
    assert lab.value("explorer.problem.memory.passes") == passes


def test_a_box_is_marked_in_two_planes(lab: Lab) -> None:
    seen = open_explorer(lab, CELL)
    root, page = seen.root, lab.page
    seen.output.locator(".sw-trust .lm-Collapse-header, .sw-trust .jupyter-widget-Collapse-header").first.click()
    expect(root.locator(".sw-volume-marks")).to_be_visible()

    def drag(k: int, start: tuple[int, int], end: tuple[int, int], rows: int, columns: int) -> None:
        canvas = root.locator(".sw-plane-canvas").nth(k)
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        assert box is not None
        points = [
            (box["x"] + (x + 0.5) * box["width"] / columns, box["y"] + (y + 0.5) * box["height"] / rows)
            for y, x in (start, end)
        ]
        page.mouse.move(*points[0])
        page.mouse.down()
        page.mouse.move(*points[1], steps=5)
        page.mouse.up()

    drag(0, (3, 2), (6, 5), H, W)
    drag(1, (2, 2), (4, 5), D, W)
    lab.execute(f"mask = torch.zeros({D}, {H}, {W}, dtype=torch.bool); mask[2:5, 3:7, 2:6] = True")
    lab.wait_for_value("bool((explorer.trust._sections[0].region == mask).all())", True)


def test_a_video_plays(lab: Lab) -> None:
    seen = open_explorer(lab, VIDEO)
    root = seen.root
    expect(root.locator(".sw-plane")).to_have_count(1)
    play = root.locator(".sw-play")
    play.click()
    expect(play).to_have_text("Pause")
    expect(root.locator(".sw-plane-position")).to_have_text("5 of 5")
    expect(root.locator(".sw-plane-position")).to_have_text("1 of 5")
    play.click()
    expect(play).to_have_text("Play")
