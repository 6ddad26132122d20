"""A sweep in JupyterLab: its progress, the recommendation, and the button that applies it."""

from __future__ import annotations

import pytest
from lab import Lab
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

EXPLORER = """import saliency_widgets as sw
from saliency_widgets.demos import planted

clever = planted()
explorer = sw.explore(clever.model, clever.image, class_names=clever.class_names, method="smoothgrad")
explorer"""
SWEEP = """result = sw.sweep(
    clever.model, clever.image, "smoothgrad", {"noise_level": [0.05, 0.2], "n_samples": [4, 16, 64]}
)
result.widget_for(explorer)"""


@pytest.mark.soak
def test_a_button_applies_the_recommended_setting(lab: Lab) -> None:
    lab.open(lab.write_notebook([EXPLORER, SWEEP]))
    lab.run_all()
    output = lab.output(1)
    view = output.locator(".sw-sweep")
    view.wait_for(timeout=90_000)
    expect(output.locator(".jupyter-widgets .progress, .widget-hprogress").first).to_be_visible()
    expect(view.locator(".sw-said").first).to_have_text(lab.value("result.words"))
    cells = view.locator(".sw-cell")
    expect(cells).to_have_count(6)
    expect(view.locator(".sw-cell[data-generation]")).to_have_count(6)
    expect(view.get_by_text("Stop")).not_to_be_visible()
    expect(view.locator(".sw-cell-line").filter(has_text="○")).to_have_count(1)
    canvas = cells.nth(4).locator("canvas")
    before = canvas.evaluate("one => one.toDataURL()")
    view.locator(".sw-control-opacity .noUi-handle").press("Home")
    lab.page.wait_for_function("([one, old]) => one.toDataURL() !== old", arg=[canvas.element_handle(), before])
    expect(view.locator(".sw-chart .line").first).to_be_attached()
    view.get_by_text("Use these").click()
    chosen = lab.value("result.recommended")
    lab.wait_for_value("explorer.settings['noise_level']", chosen["noise_level"])
    lab.wait_for_value("explorer.settings['n_samples']", chosen["n_samples"])
    before = view.locator(".sw-said").first.text_content()
    view.locator("select").first.select_option("Similarity to the finest")
    expect(view.locator(".sw-said").first).not_to_have_text(before or "")
    cells.nth(1).locator("canvas").click()
    lab.wait_for_value("[explorer.settings[name] for name in result.grid]", [0.05, 16])
    expect(view.get_by_text("The explorer shows noise level 0.05, 16 samples.")).to_be_visible()
    lab.execute("explorer.close()")
    assert lab.errors == []
