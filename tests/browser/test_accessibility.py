"""The explorer by keyboard and screen reader, neither of which ipywidgets' accordions and sliders support."""

from __future__ import annotations

import pytest
from lab import Lab
from playwright.sync_api import Locator, expect
from seen import NET, Seen, open_explorer

pytestmark = pytest.mark.browser

CELL = (
    NET
    + """
explorer = sw.explore(net, photo.resize((48, 48)), method="integrated_gradients", quadrature="trapezoid", n_steps=64)
explorer"""
)

IN_KERNEL = """
import ipywidgets
from saliency_widgets.widgets.base.parts import parts_of
accordions = {part.titles[0]: part for part in parts_of(explorer, []) if isinstance(part, ipywidgets.Accordion)}
"""
ACCORDIONS = ("More settings", "Can I trust this map?", "Save as a page")

# The style, width and color of an element's focus ring, and its background color.
RING = """element => {
  const style = getComputedStyle(element);
  return {style: style.outlineStyle, width: parseFloat(style.outlineWidth), color: style.outlineColor,
          behind: style.backgroundColor};
}"""

# Visible controls without an accessible name.
NAMELESS = """root => {
  const all = root.querySelectorAll(
    'select, input, button, [role=slider], [role=button], [role=textbox], [contenteditable=true]');
  const nameless = e => !e.getAttribute('aria-label') && !e.title && !e.labels?.length
    && !e.textContent.trim();
  return [...all].filter(e => e.offsetParent !== null && nameless(e)).map(e => e.outerHTML.slice(0, 200));
}"""


@pytest.fixture
def seen(lab: Lab) -> Seen:
    return open_explorer(lab, CELL)


def tab_to(lab: Lab, target: Locator) -> None:
    """Press Tab until the target has the focus."""
    for _ in range(80):
        lab.page.keyboard.press("Tab")
        if target.evaluate("element => element === document.activeElement"):
            return
    raise AssertionError("Tab doesn't reach the target")


@pytest.mark.soak
def test_accordions_open_by_keyboard_and_report_their_state(lab: Lab, seen: Seen) -> None:
    seen.control("method").locator("select").focus()
    lab.execute(IN_KERNEL)
    assert lab.value("sorted(accordions)") == sorted(ACCORDIONS)
    for name in ACCORDIONS:
        header = seen.output.get_by_role("button", name=name, exact=True)
        expect(header).to_have_attribute("aria-expanded", "false")
        contents = seen.output.locator(f"#{header.get_attribute('aria-controls')}")
        expect(contents).to_be_hidden()
        seen.control("method").locator("select").focus()
        tab_to(lab, header)
        for key, opened in (("Enter", True), ("Space", False), ("Space", True), ("Enter", False)):
            lab.page.keyboard.press(key)
            expect(header).to_have_attribute("aria-expanded", str(opened).lower())
            expect(contents).to_be_visible(visible=opened)
            expect(header).to_be_focused()
            lab.wait_for_value(f"accordions[{name!r}].selected_index", 0 if opened else None)
        header.click()
        expect(header).to_have_attribute("aria-expanded", "true")
        lab.execute(f"accordions[{name!r}].selected_index = None")
        expect(header).to_have_attribute("aria-expanded", "false")
    assert lab.page.locator(".jp-Notebook.jp-mod-editMode").count() == 0, "Enter started to edit the cell"
    for theme in ("light", "dark"):
        lab.theme(theme)
        seen.control("method").locator("select").focus()
        tab_to(lab, seen.output.get_by_role("button", name="More settings", exact=True))
        ring = lab.page.locator(":focus").evaluate(RING)
        assert ring["style"] == "solid"
        assert ring["width"] >= 2
        assert ring["color"] != ring["behind"]
        lab.screenshot(f"{theme}-focus", seen.output)
    # bqplot logs errors about <rect> if it draws a chart that has been hidden meanwhile.
    assert [error for error in lab.errors if "<rect>" not in error] == []


def test_sliders_report_their_values_and_each_control_has_a_name(lab: Lab, seen: Seen) -> None:
    steps = seen.control("n_steps").get_by_role("slider")
    expect(steps).to_have_accessible_name("IG steps")
    expect(steps).to_have_attribute("aria-valuetext", "64 steps")
    steps.focus()
    for value in (128, 256, 128):
        steps.press(
            "ArrowRight" if value == 256 or steps.get_attribute("aria-valuetext") == "64 steps" else "ArrowLeft"
        )
        expect(steps).to_have_attribute("aria-valuetext", f"{value} steps")
        lab.wait_for_value("explorer.settings['n_steps']", value)
    lab.execute("explorer.update(n_steps=50)")  # this adds a position to the slider
    expect(steps).to_have_attribute("aria-valuetext", "50 steps")
    opacity = seen.control("opacity").get_by_role("slider")
    expect(opacity).to_have_accessible_name("Opacity")
    before = opacity.get_attribute("aria-valuetext")
    assert before == seen.control("opacity").locator(".widget-readout").inner_text()
    low, high = seen.control("clip").get_by_role("slider").all()
    expect(low).to_have_accessible_name("Clip range (%), from")
    expect(high).to_have_accessible_name("Clip range (%), to")
    for name in ACCORDIONS:
        seen.output.get_by_role("button", name=name, exact=True).click()
    expect(seen.root.locator(".sw-region")).to_be_visible()
    assert seen.output.locator(".sw-explorer").evaluate(NAMELESS) == []
    assert lab.errors == []
