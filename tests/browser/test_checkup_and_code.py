"""The check-up's line and the button that copies the code, in JupyterLab."""

from __future__ import annotations

from typing import Any

import pytest
from lab import Lab
from playwright.sync_api import Locator, expect

pytestmark = pytest.mark.browser

VIEW = """
import io
import numpy as np
from PIL import Image
from saliency_widgets.widgets import DisplaySettings
from saliency_widgets.widgets.base import messages
from saliency_widgets.widgets.base.heatmap import HeatmapView

y, x = np.mgrid[:96, :96] / 95
sky = np.stack([120 + 60 * y, 150 - 30 * x, 190 - 90 * y], 2).astype(np.uint8)
file = io.BytesIO()
Image.fromarray(sky).save(file, "PNG")
codes = (65534 * np.exp(-((x - 0.4) ** 2 + (y - 0.5) ** 2) / 0.05)).astype("<u2")
CODE = 'import saliency_widgets as sw\\n\\nattribution = sw.attribute(\\n    model,\\n    inputs,\\n)  # "é" \\\\ <b>'

view = HeatmapView(file.getvalue(), DisplaySettings())

def show(index, state="done", **changes):
    frame = {"generation": 1, "index": index, "final": state == "done", "height": 96, "width": 96,
             "low": 0.0, "high": 1.0, "signed": False, "codes": codes.tobytes()}
    readings = [{"label": "Logit", "value": "8.31", "help": ""}, {"label": "Gradients", "value": "50", "help": ""}]
    parts = dict(generation=1, state=state, title="SmoothGrad · Egyptian cat", method="SmoothGrad", done=50, total=50,
                 unit="samples", elapsed=3.61, readings=readings)
    view.offer(frame, messages.status(**(parts | changes)))

def finding(severity, what, methods=(), where=(), remedy="Call the function torch.nn.ReLU() anew for each use."):
    return {"severity": severity, "what": what, "methods": list(methods), "where": list(where), "remedy": remedy}

RULES = finding("wrong", "These activation modules are called more than once in a pass, and a hook sees the last call.",
                ["Guided Backprop", "Deconvnet"], [f"features.{k}.block.0" for k in range(6)])
TRAIN = finding("wrong", "The model is in training mode: its dropout and batch statistics change with each pass.",
                where=["features.3", "classifier.0"], remedy="Call model.eval() before you explain it.")
ROWS = finding("slow", "One sample changes another's score, so samples are computed one at a time.", ["SmoothGrad"])
SMOOTH = finding("caution", "The model ends in a probability: where that is near 1, its gradient is near 0.",
                 remedy="Choose the logit as the score.")
"""


class Page:
    """A page with a single image view and no model."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        lab.open(lab.write_notebook([VIEW, "view"]))
        lab.run_all()
        self.root = lab.output(1).locator(".sw-heatmap").first
        self.copy = self.root.locator(".sw-copy")
        self.line = self.root.locator(".sw-checkup-line:visible")
        self.findings = self.root.locator(".sw-findings")

    def run(self, code: str) -> None:
        """Run code in the kernel, and wait until the page shows the resulting state."""
        self.lab.execute(code)
        self.lab.execute("view.flush()")
        state = self.lab.value("view.status.get('state', 'idle')")
        self.root.locator(f"xpath=self::*[@data-state='{state}']").wait_for()

    def boxes(self, *names: str) -> list[dict[str, float]]:
        """The boxes of parts of the view, relative to it."""
        parts = names or ("stage", "scale", "hold", "copy", "stop", "readings", "checkup")
        return self.root.evaluate(
            """(root, names) => {
              const from = root.getBoundingClientRect();
              return names.map(name => {
                const box = root.querySelector('.sw-' + name).getBoundingClientRect();
                return {x: box.x - from.x, y: box.y - from.y, width: box.width,
                        height: name === 'checkup' ? 0 : box.height};
              });
            }""",
            list(parts),
        )

    def height(self) -> float:
        return self.root.evaluate("root => root.getBoundingClientRect().height")

    def focus(self) -> str:
        """The class of the element that has the focus."""
        return self.lab.page.evaluate("document.activeElement.className")

    def clipboard(self) -> str:
        return self.lab.page.evaluate("navigator.clipboard.readText()")


def allow(lab: Lab) -> None:
    lab.page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=lab.base_url)


def same(before: list[dict[str, float]], after: list[dict[str, float]]) -> bool:
    return all(abs(a[key] - b[key]) <= 1 for a, b in zip(before, after, strict=True) for key in a)


def test_the_line_sums_up_the_findings_opens_by_keyboard_and_shifts_nothing(lab: Lab) -> None:
    page = Page(lab)
    page.run("show(0)")
    expect(page.line).to_have_count(0)
    position = page.height()
    before = page.boxes()
    page.run("view.show_findings([])")
    expect(page.line).to_have_text("Check-up: no problems found")
    assert same(before, page.boxes())
    page.run("view.show_findings([RULES, SMOOTH, ROWS])")
    expect(page.line).to_have_text("Check-up: 2 findings about this method (1 may mislead), 1 about others")
    expect(page.line.locator(".sw-mark-caution")).to_be_visible()
    assert same(before, page.boxes())
    assert page.height() == position
    expect(page.findings).to_be_hidden()

    page.copy.focus()  # disabled, so the focus doesn't move
    page.root.locator(".sw-hold").focus()
    lab.page.keyboard.press("Tab")
    assert "sw-checkup-line" in page.focus()
    lab.page.keyboard.press("Enter")
    expect(page.findings).to_be_visible()
    assert same(before, page.boxes())
    first = page.findings.locator(".sw-finding").first
    expect(first).to_have_attribute("data-severity", "caution")
    expect(first).to_contain_text("May mislead. The model ends in a probability")
    expect(first).to_contain_text("concerns all methods")
    expect(first).to_contain_text("What to do: Choose the logit as the score.")
    last = page.findings.locator(".sw-findings-heading + .sw-finding")
    expect(last).to_contain_text("in features.0.block.0, features.1.block.0 and 4 more")
    expect(last).to_contain_text("concerns Guided Backprop, Deconvnet")

    page.run("show(1, method='Deconvnet', title='Deconvnet · Egyptian cat')")
    expect(page.line).to_have_text("Check-up: 2 findings about this method (1 makes this map wrong), 1 about others")
    expect(page.findings).to_be_visible()
    assert "sw-checkup-line" in page.focus()
    page.run("show(2, method='')")
    expect(page.line).to_have_text("Check-up: 3 findings (1 makes maps wrong)")
    page.run("show(3, method='Gradient'); view.show_findings([RULES])")
    expect(page.line).to_have_text("Check-up: no findings about this method, 1 finding about others")
    lab.page.keyboard.press("Enter")
    expect(page.findings).to_be_hidden()
    assert same(before, page.boxes())
    assert lab.errors == []


def test_the_button_copies_the_code_of_the_map_and_confirms_it(lab: Lab) -> None:
    allow(lab)
    page = Page(lab)
    expect(page.copy).to_be_disabled()
    page.run("show(0, state='running', done=7)")
    expect(page.copy).to_be_disabled()
    page.run("show(1, code=CODE)")
    expect(page.copy).to_be_enabled()
    expect(page.copy).to_have_attribute("title", "Python code that reproduces this map exactly")
    code = lab.value("view.code")
    assert code == lab.value("CODE")
    before = page.boxes()
    lab.page.clock.install()
    page.root.locator(".sw-hold").focus()
    lab.page.keyboard.press("Tab")
    lab.page.keyboard.press("Enter")
    announcement = page.root.locator("[aria-live]", has_text="Copied")
    expect(announcement).to_have_count(1)
    expect(page.copy.locator(".sw-copy-said")).to_be_visible()
    assert page.clipboard() == code
    assert same(before, page.boxes())
    lab.page.clock.run_for(700)  # real time counts too, and there is more of it on a slow machine
    expect(page.copy.locator(".sw-copy-said")).to_be_visible()
    lab.page.clock.run_for(900)
    expect(page.copy.locator(".sw-copy-ask")).to_be_visible()
    expect(announcement).to_have_count(0)
    assert same(before, page.boxes())

    page.run("show(2, state='running', done=3)")
    expect(page.copy).to_be_disabled()
    assert page.focus() == "sw-canvas", "the focus went to the notebook"
    assert lab.errors == []


def test_without_the_clipboard_api_the_code_is_copied_by_selection_or_else_by_hand(lab: Lab) -> None:
    allow(lab)
    page = Page(lab)
    page.run("show(0, code=CODE)")
    code = lab.value("view.code")
    lab.page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('not here')); }")
    page.copy.click()
    expect(page.copy.locator(".sw-copy-said")).to_be_visible()
    assert page.clipboard() == code
    assert "sw-copy" in page.focus()

    lab.page.evaluate("() => { document.execCommand = () => false; }")
    before = page.boxes("stage", "scale", "copy")
    page.copy.click()
    area = page.root.locator(".sw-by-hand-text")
    expect(area).to_be_visible()
    assert area.input_value() == code
    assert area.evaluate("a => a.readOnly && a.value.slice(a.selectionStart, a.selectionEnd)") == code
    assert page.focus() == "sw-by-hand-text"
    expect(page.copy.locator(".sw-copy-ask")).to_be_visible()
    assert same(before, page.boxes("stage", "scale", "copy"))
    lab.screenshot("by-hand", page.root)
    lab.page.keyboard.press("Escape")
    expect(area).to_be_hidden()
    assert "sw-copy" in page.focus()
    page.copy.press("Enter")
    expect(area).to_be_visible()
    lab.page.keyboard.press("Control+c")
    expect(area).to_be_hidden()
    assert page.clipboard() == code
    assert "sw-copy" in page.focus()
    assert lab.errors == []
    lab.page.evaluate("() => { delete navigator.clipboard.writeText; delete document.execCommand; }")


def test_line_and_button_work_when_the_kernel_is_gone(lab: Lab) -> None:
    allow(lab)
    page = Page(lab)
    page.run("show(0, code=CODE); view.show_findings([TRAIN, RULES])")
    code = lab.value("view.code")
    lab.restart_kernel()
    page.copy.click()
    expect(page.copy.locator(".sw-copy-said")).to_be_visible()
    assert page.clipboard() == code
    page.line.click()
    expect(page.findings).to_contain_text("The model is in training mode")
    expect(page.findings).to_contain_text("in features.3 and classifier.0 · concerns all methods")


@pytest.mark.soak
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_view_fits_at_every_width_and_nothing_shifts(lab: Lab, theme: Any) -> None:
    lab.page.set_viewport_size({"width": 1300, "height": 1300})
    lab.theme(theme)
    page = Page(lab)
    remark = "4 rows per pass (8 did not fit in memory)"
    for index, width in enumerate([250, 320, 420, 600]):
        lab.execute(f"view.layout.width = '{width}px'; view.checked = False; view.findings = []")
        expect(page.line).to_have_count(0)
        expect(page.root).to_have_css("width", f"{width}px")
        page.run(f"show({index}, code=CODE, remark={remark!r}, method='Deconvnet')")
        text = page.root.locator(".sw-progress-text")
        expect(text).to_have_attribute("title", f"50 of 50 samples · 3.6 s · {remark}")
        before, height = page.boxes(), page.height()
        page.run("view.show_findings([])")
        expect(page.line).to_contain_text("no problems found")
        assert page.height() == height
        lab.screenshot(f"{theme}-{width}-clear", page.root)
        page.run("view.show_findings([TRAIN, RULES, SMOOTH, ROWS, ROWS])")
        expect(page.line).to_contain_text("3 findings about this method (2 make this map wrong), 2 about others")
        assert same(before, page.boxes())
        assert page.height() == height
        page.line.click()
        expect(page.findings).to_be_visible()
        assert same(before, page.boxes())
        lab.screenshot(f"{theme}-{width}-open", page.root)
        page.findings.evaluate("e => e.scrollTo(0, e.scrollHeight)")
        lab.screenshot(f"{theme}-{width}-end", page.root)
        assert _too_wide(page.root) == []
        assert page.findings.evaluate("e => e.scrollHeight > e.clientHeight && e.offsetHeight <= 260")
        page.line.click()
        expect(page.findings).to_be_hidden()
        assert page.height() == height
    assert lab.errors == []


def _too_wide(root: Locator) -> list[str]:
    return root.evaluate(
        """root => [...root.querySelectorAll('button, .sw-checkup *, .sw-buttons, .sw-body')]
            .filter(x => x.offsetParent && x.scrollWidth > x.clientWidth + 1 && x.clientWidth > 1)
            .map(x => x.className + ' ' + x.textContent)"""
    )
