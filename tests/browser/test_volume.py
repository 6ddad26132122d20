"""The explorer of a volume in JupyterLab: pixels of its planes, moving them, the display alone, and a marked box. And
saved pages of a volume and of a video, opened from disk.
"""

from __future__ import annotations

import base64
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from lab import Lab
from playwright.sync_api import Locator, Page, expect
from seen import PIXELS, Seen, open_explorer
from torch import nn

import saliency_widgets as sw
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
    return planes_of(blended(np.array(values, np.float32), np.array(volume), signed=False, **display), at)


def blended(values: np.ndarray, volume: np.ndarray, *, signed: bool, **display: object) -> np.ndarray:
    """The map of a volume (D, H, W) over its gray, blended as one image, (D, H, W, 3)."""
    whole = render.quantize(values.reshape(-1, values.shape[-1]), signed=signed)
    low, high = np.percentile(volume, (0.5, 99.5))
    gray = np.round(np.clip((volume - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    settings = {param.name: param.default for param in render.DISPLAY} | display
    image = np.repeat(gray.reshape(-1, gray.shape[-1])[..., None], 3, 2)
    return render.blend(image, whole, **settings).reshape(*volume.shape, 3)


def assert_planes(lab: Lab, seen: Seen, at: tuple[int, int, int], **display: object) -> None:
    assert_pixels(seen.root, expected(lab, at, **display), f"at {at}")


def assert_pixels(root: Locator, planes: list[np.ndarray], where: str) -> None:
    for k, plane in enumerate(planes):
        canvas = root.locator(".sw-plane-canvas").nth(k)
        pixels = np.frombuffer(base64.b64decode(canvas.evaluate(PIXELS, list(plane.shape[:2]))), np.uint8)
        assert np.abs(pixels.reshape(plane.shape).astype(int) - plane).max() <= 2, f"plane {k} {where}"


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


_PLAYED = """async (position, count) => {
  const shown = new Set();
  await new Promise(done => new MutationObserver(() => {
    shown.add(position.textContent);
    if (shown.size === count) done();
  }).observe(position, { childList: true, characterData: true, subtree: true }));
  return [...shown].sort();
}"""


def play_all(root: Locator, count: int) -> None:
    """Play a video until each of its frames has been shown, then stop it."""
    play = root.locator(".sw-play")
    play.click()
    expect(play).to_have_text("Pause")
    shown = root.locator(".sw-plane-position").evaluate(_PLAYED, count)
    assert shown == [f"{time} of {count - 1}" for time in range(count)]
    play.click()
    expect(play).to_have_text("Play")


def test_a_video_plays(lab: Lab) -> None:
    seen = open_explorer(lab, VIDEO)
    root = seen.root
    expect(root.locator(".sw-plane")).to_have_count(1)
    play_all(root, D)


def opened(page: Page, path: Path) -> tuple[Locator, list[str]]:
    """Open a page from disk without a network; return its view, and the list of errors so far."""
    errors: list[str] = []
    page.context.set_offline(True)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-opened]")
    root = page.locator(".sw-heatmap")
    expect(root).to_have_attribute("data-final", "true")
    return root, errors


def after_paint(page: Page) -> None:
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def test_a_saved_page_cuts_the_planes_of_each_recorded_map(page: Page, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv3d(1, 3, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(3 * D * H * W, 3)).eval()
    volume = torch.linspace(0.1, 1, D * H * W).view(D, H, W)
    options = {"slices": "axial", "method": "input_x_gradient"}
    with closing(sw.explore(net, volume, target=0, executor="inline", **options)) as explorer:
        explorer.kind_view._on_scene({"at": [1, 2, 3]})
        record = {"target": [0, 2], "sign": ["absolute", "signed"]}
        saved = explorer.save_html(tmp_path / "page.html", record=record, progress=False)
    maps = [sw.attribute(net, volume, target=target, **options).values[0, 0].numpy() for target in (0, 2)]
    expected = {
        (target, signed): blended(values if signed else np.abs(values), volume.numpy(), signed=signed)
        for target, values in zip((0, 2), maps, strict=True)
        for signed in (False, True)
    }
    assert np.abs(expected[0, False].astype(int) - expected[2, False]).max() > 20  # the targets can be told apart

    root, errors = opened(page, saved.path)
    position = root.locator(".sw-plane-position")
    expect(position).to_have_text(["1 of 5", "2 of 7", "3 of 9"])  # where the explorer was
    after_paint(page)
    assert_pixels(root, planes_of(expected[0, False], (1, 2, 3)), "when opened")

    canvas = root.locator(".sw-plane-canvas")
    canvas.first.focus()
    page.keyboard.press("PageDown")
    page.keyboard.press("ArrowRight")
    canvas.nth(2).focus()
    page.keyboard.press("End")
    expect(position).to_have_text(["2 of 5", "2 of 7", "9 of 9"])
    expect(root.locator(".sw-readout")).to_contain_text("depth 2, height 2, width 9")
    after_paint(page)
    assert_pixels(root, planes_of(expected[0, False], (2, 2, 9)), "after keys")

    page.get_by_role("combobox", name="Target").select_option(index=1)
    after_paint(page)
    assert_pixels(root, planes_of(expected[2, False], (2, 2, 9)), "for another class")
    page.get_by_role("combobox", name="Sign").select_option(index=1)
    root.locator(".sw-plane-slider").nth(1).press("Home")
    expect(position).to_have_text(["2 of 5", "0 of 7", "9 of 9"])
    after_paint(page)
    assert_pixels(root, planes_of(expected[2, True], (2, 0, 9)), "signed")
    page.get_by_role("slider", name="Opacity").press("End")
    after_paint(page)
    opaque = blended(maps[1], volume.numpy(), signed=True, opacity=1.0)
    assert_pixels(root, planes_of(opaque, (2, 0, 9)), "opaque")
    expect(root.locator(".sw-volume-marks")).to_be_hidden()
    expect(root.locator(".sw-play")).to_be_hidden()
    assert errors == []


def test_a_saved_page_of_a_video_plays(page: Page, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv3d(3, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(2 * 2 * 6 * 8, 2)).eval()
    video = torch.rand(3, 4, 8, 10)
    with closing(sw.explore(net, video, slices="time", method="gradient", target=0, executor="inline")) as explorer:
        saved = explorer.save_html(tmp_path / "page.html", progress=False)
        values = explorer.attribution.reduced(explorer.kind_view.reduction)
    quantized = render.quantize(values.numpy().reshape(-1, 10), signed=False)
    colors = np.ascontiguousarray((255 * video).round().byte().movedim(0, -1).numpy().reshape(-1, 10, 3))
    display = {param.name: param.default for param in render.DISPLAY}
    frames = render.blend(colors, quantized, **display).reshape(4, 8, 10, 3)

    root, errors = opened(page, saved.path)
    play_all(root, 4)
    position = root.locator(".sw-plane-position")
    for key, time in (("Home", 0), ("PageDown", 1), ("End", 3)):
        root.locator(".sw-plane-canvas").press(key)
        expect(position).to_have_text(f"{time} of 3")
        after_paint(page)
        assert_pixels(root, [frames[time]], f"at {time}")
    assert errors == []
