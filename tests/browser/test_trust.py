"""The trust panel in JupyterLab: the score of a marked region, and controls that work while a test runs."""

from __future__ import annotations

import numpy as np
import pytest
from lab import Lab
from playwright.sync_api import expect
from seen import Seen, open_explorer

pytestmark = pytest.mark.browser

PLANTED = """import saliency_widgets as sw
from saliency_widgets.demos import planted

clever = planted()
explorer = sw.explore(clever.model, clever.image, class_names=clever.class_names, method="gradient")
explorer"""
MARKED = "int(explorer.trust._sections[0].region.sum())"


@pytest.fixture
def seen(lab: Lab) -> Seen:
    return open_explorer(lab, PLANTED)


def open_panel(seen: Seen) -> None:
    seen.output.locator(".sw-trust .lm-Collapse-header, .sw-trust .jupyter-widget-Collapse-header").first.click()
    expect(seen.root.locator(".sw-region")).to_be_visible()


def drag(seen: Seen, *path: tuple[float, float]) -> None:
    """Drag the pointer along a path over the image, in fractions of its size."""
    seen.canvas.scroll_into_view_if_needed()
    box = seen.canvas.bounding_box()
    assert box is not None
    points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in path]
    seen.lab.page.mouse.move(*points[0])
    seen.lab.page.mouse.down()
    for point in points[1:]:
        seen.lab.page.mouse.move(*point, steps=8)
    seen.lab.page.mouse.up()


def test_a_region_is_marked_ablated_and_undone_by_pointer_and_by_keys(lab: Lab, seen: Seen) -> None:
    expect(seen.root.locator(".sw-region")).to_be_hidden()
    before = seen.pixels()
    open_panel(seen)
    tools = seen.root.locator(".sw-region")
    tools.get_by_text("Rectangle").click()
    drag(seen, (0.26, 0.26), (0.49, 0.74))
    line = seen.output.locator(".sw-trust .sw-said").first
    expect(line).to_contain_text("12.5%", timeout=60_000)  # a quarter of the width and half of the height
    assert lab.value(MARKED) == 12 * 24
    lab.execute("_ablation = sw.ablate(clever.model, clever.image, explorer.trust._sections[0].region)")
    after = lab.value("_ablation.after")
    expect(line).to_contain_text(f"to {after:.3g} (")
    changed = np.abs(seen.pixels().astype(int) - before.astype(int)).max(2) > 8
    quarter = len(changed) // 4  # the canvas is read at a higher resolution than the image's
    assert changed[quarter : 3 * quarter, quarter : 2 * quarter].mean() > 0.8, "the region is not visible on the image"
    assert not changed[: quarter - 6].any()

    tools.get_by_text("Invert").click()
    expect(line).to_contain_text("87.5%", timeout=60_000)
    tools.get_by_text("Undo").click()
    expect(line).to_contain_text("12.5%", timeout=60_000)
    tools.get_by_text("Clear").click()
    expect(tools.locator(".sw-region-words")).to_have_text("Nothing marked yet")

    # The same by keyboard only.
    tools.get_by_text("Brush").click()
    seen.canvas.focus()
    for key in ("ArrowRight", "[", "[", "Space", "Shift+ArrowRight", "Space", "i", "u"):
        lab.page.keyboard.press(key)
    lab.wait_for_value(f"0 < {MARKED} < 1500", True)
    count = lab.value(MARKED)
    lab.page.keyboard.press("Control+z")
    lab.wait_for_value(f"0 < {MARKED} < {count}", True)
    expect(seen.output.locator(".sw-trust .sw-said").first).to_contain_text("of the image", timeout=60_000)
    lab.page.keyboard.press("Delete")
    expect(seen.root.locator(".sw-region-words")).to_have_text("Nothing marked yet")
    assert lab.errors == []


@pytest.mark.soak
def test_the_strongest_part_is_marked_and_controls_work_while_tests_run(lab: Lab, seen: Seen) -> None:
    open_panel(seen)
    share = seen.handle("share")
    share.focus()
    share.press("ArrowRight")
    expect(seen.root.locator(".sw-region-words")).to_contain_text("% marked", timeout=60_000)
    for title, words in (
        ("Deletion and insertion", "of 3."),
        ("Random weights", "reacts"),
        ("Saturation", "aturated"),
        ("Stability and agreement", "max-sensitivity"),
    ):
        seen.output.locator(".sw-trust").get_by_text(title, exact=True).click()
        expect(seen.output.locator(".sw-trust .sw-said:visible").first).to_contain_text(words, timeout=120_000)
    seen.output.locator(".sw-trust").get_by_text("Random weights", exact=True).click()
    seen.control("method").locator("select").select_option("SmoothGrad")  # this interrupts the test
    lab.wait_for_value("explorer.settings['method']", "smoothgrad")
    seen.wait()
    expect(seen.root.locator(".sw-title")).to_contain_text("SmoothGrad")
    expect(seen.output.locator(".sw-trust .sw-said:visible").first).to_contain_text("SmoothGrad", timeout=120_000)
    seen.output.locator(".sw-trust .lm-Collapse-header, .sw-trust .jupyter-widget-Collapse-header").first.click()
    expect(seen.root.locator(".sw-region")).to_be_hidden()
    lab.wait_for_value("explorer.trust._examiner.jobs.wait(0)", True)
    assert lab.errors == []
