"""The explorer of table rows in JupyterLab: bars, what-if changes by slider and keys, and the trust tests."""

from __future__ import annotations

import pytest
from lab import Lab
from playwright.sync_api import Locator, expect

pytestmark = pytest.mark.browser

DEMO = """import saliency_widgets as sw
explorer = sw.demo("tabular")
explorer"""
SETTLED = "explorer.wait(30).complete and explorer.trust.wait(30)"


@pytest.fixture
def output(lab: Lab) -> Locator:
    lab.open(lab.write_notebook([DEMO]))
    lab.run_all()
    result = lab.output(0)
    result.locator(".sw-heatmap[data-state='done']").wait_for(timeout=90_000)
    return result


# The bars' labels from top to bottom, read in one call: between calls other elements may move the chart.
_LABELS = """chart => {
  const ticks = [...chart.querySelectorAll('.tick text')].filter(tick => tick.textContent.includes('='));
  const height = tick => tick.getBoundingClientRect().y;
  return ticks.sort((a, b) => height(a) - height(b)).map(tick => tick.textContent);
}"""


def labels(output: Locator) -> list[str]:
    """The bars' labels on the page, from top to bottom."""
    return output.locator(".sw-bars").first.evaluate(_LABELS)


def expected(lab: Lab) -> list[str]:
    return lab.value("[label for label in explorer.kind_view.bars.labels if '=' in label]")


_SHOWS = f"([chart, wanted]) => ({_LABELS})(chart).join() === wanted.join()"


def wait_for_bars(lab: Lab, output: Locator) -> None:
    """Wait until the page shows the kernel's bars, which bqplot draws some time after the message."""
    chart = output.locator(".sw-bars").first.element_handle()
    lab.page.wait_for_function(_SHOWS, arg=[chart, expected(lab)], timeout=20_000)
    assert labels(output) == expected(lab)


def handle(output: Locator, name: str) -> Locator:
    return output.locator(f".sw-control-{name} .noUi-handle").first


@pytest.mark.soak
def test_a_row_is_explored_by_pointer_and_by_keys(lab: Lab, output: Locator) -> None:
    wait_for_bars(lab, output)
    # The page's sliders have changed nothing by themselves.
    assert lab.value("explorer.kind_view.what_if.changed") == {}
    assert lab.value("explorer.session.generation") == 1
    sizes = [bar.bounding_box() for bar in output.locator(".sw-bars").first.locator(".bar").all()]
    assert sum(box is not None and box["width"] > 1 for box in sizes) >= 10

    # What-if: choose the third bar's feature by a click on its row, and change it by keys.
    third = lab.value("explorer.by_feature().index[2]")
    chart = output.locator(".sw-bars").first.bounding_box()
    assert chart is not None
    ticks = output.locator(".sw-bars").first.locator(".tick text").filter(has_text=labels(output)[2]).bounding_box()
    assert ticks is not None
    lab.page.mouse.click(chart["x"] + 0.8 * chart["width"], ticks["y"] + ticks["height"] / 2)
    lab.wait_for_value("explorer.kind_view.what_if._feature.value", third)
    before = lab.value("float(explorer.wait(30).score)")
    slider = handle(output, "what-if-value")
    slider.focus()
    for _ in range(5):
        slider.press("ArrowRight")
    lab.wait_for_value("len(explorer.kind_view.what_if.changed)", 1)
    expect(output.locator(".sw-predicted")).to_contain_text("before the changes")
    lab.wait_for_value(SETTLED, True)
    assert lab.value("float(explorer.wait(30).score)") != before
    wait_for_bars(lab, output)
    output.get_by_text("Undo all").click()
    lab.wait_for_value("explorer.kind_view.what_if.changed", {})
    lab.wait_for_value(f"abs(float(explorer.wait(30).score) - {before!r}) < 1e-5", True)
    check_sliders_and_trust_tests(lab, output)
    assert lab.errors == []


def check_sliders_and_trust_tests(lab: Lab, output: Locator) -> None:
    """Continue on the same page, because loading JupyterLab takes longer than all of this."""
    # The page doesn't round a value that Python has set between two steps.
    lab.execute("explorer.update(method='smoothgrad', noise_level=0.1234)")
    lab.wait_for_value(SETTLED, True)
    slider = handle(output, "n_samples")
    slider.focus()
    slider.press("ArrowRight")
    lab.wait_for_value("explorer.wait(30).settings['n_samples']", 51)
    assert lab.value("explorer.settings['noise_level']") == 0.1234
    output.locator(".sw-control-method select").select_option("Integrated Gradients")
    output.locator(".sw-control-baseline select").select_option("a row of the background")
    row = output.locator(".sw-control-baseline-row .noUi-handle")
    expect(row).to_be_visible()
    row.focus()
    row.press("ArrowRight")
    lab.wait_for_value("explorer.panel.baseline_row", 1)

    output.locator(".sw-trust .jupyter-widget-Collapse-header").first.click()
    line = output.locator(".sw-trust .sw-said:visible").first
    expect(line).to_contain_text("This row:", timeout=60_000)
    expect(output.locator(".sw-trust .sw-said:visible").nth(1)).to_contain_text("cross-entropy", timeout=60_000)
    lab.wait_for_value("len(explorer.kind_view.bars._marker_marks.x)", 10)
    for title, words in (
        ("Over many rows", "depend most on"),
        ("Saturation", "aturated"),
        ("Stability and agreement", ":"),
    ):
        output.locator(".sw-trust").get_by_text(title, exact=True).click()
        expect(output.locator(".sw-trust .sw-said:visible").first).to_contain_text(words, timeout=60_000)
    lab.wait_for_value("len(explorer.kind_view.bars._marker_marks.x)", 0)
    output.locator(".sw-trust .jupyter-widget-Collapse-header").first.click()
    lab.wait_for_value("explorer.trust._examiner.jobs.wait(0)", True)
    lab.execute("explorer.close()")
