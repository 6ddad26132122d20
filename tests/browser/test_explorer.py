"""The explorer in JupyterLab: pixels, intermediate frames, and what works without the kernel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from lab import Lab
from playwright.sync_api import expect
from seen import DEMO, SMALL, SMALLER, Seen, open_explorer, overlay

from saliency_widgets import render

pytestmark = pytest.mark.browser

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "explore.ipynb"
FRESH = "sw.attribute(**explorer.settings)"


def assert_seen(seen: Seen, expected: np.ndarray) -> None:
    """Assert that the page shows these pixels, within 1/255."""
    difference = np.abs(seen.pixels(len(expected)).astype(int) - expected.astype(int))
    assert difference.max() <= 1, f"{(difference.max(2) > 1).sum()} pixels differ, by up to {difference.max()}"


@pytest.mark.soak
def test_the_notebook_shows_the_egyptian_cat_and_more_steps_arrive_frame_by_frame(lab: Lab) -> None:
    lab.open(lab.copy_notebook(NOTEBOOK))
    lab.execute(SMALLER)
    lab.run_cell(1)
    seen = Seen(lab, lab.output(1))
    seen.wait()
    expect(seen.root.locator(".sw-title")).to_have_text("Integrated Gradients · Egyptian cat")
    first = seen.expected(FRESH)
    assert_seen(seen, overlay(first))

    lab.execute("explorer.update(n_steps=8, baseline='blur')")
    seen.wait()
    rough = seen.expected("explorer.attribution")
    seen.listen()
    steps = seen.handle("n_steps")
    steps.focus()
    steps.press("ArrowRight")
    steps.press("ArrowRight")
    lab.wait_for_value("explorer.settings['n_steps']", 32)
    seen.wait()
    paints = [p for p in seen.paints() if p["cause"] == "frame"]
    newest = max(p["generation"] for p in paints)
    partial = [p for p in paints if p["generation"] == newest and not p["final"]]
    assert partial, "no running estimate was painted"  # a slow page skips frames, so more can't be expected
    assert paints[-1]["final"]
    lab.execute(f"fresh = {FRESH}", seconds=120)
    assert lab.value("bool((explorer.attribution.values == fresh.values).all())") is True
    assert lab.value("explorer.attribution.evaluations") == 33
    fresh = seen.expected("fresh")
    assert_seen(seen, overlay(fresh))
    assert np.abs(overlay(fresh).astype(int) - overlay(rough).astype(int)).max() > 10

    for index in (4, 6):  # tests/test_notebooks.py runs the whole notebook
        lab.run_cell(index)
    coffee = Seen(lab, lab.output(4), "coffee")
    coffee.wait()
    expect(coffee.root.locator(".sw-title")).to_have_text("Grad-CAM · espresso")
    cyan = (coffee.pixels(144).astype(int) - [0, 255, 255]).__abs__().max(2) <= 8
    assert cyan[8, 50:140].mean() > 0.9, "the rectangle drawn on the annotations is not on the image"
    lab.screenshot("tour")
    assert lab.errors == []


def test_display_changes_repaint_while_the_kernel_is_stopped(lab: Lab) -> None:
    seen = open_explorer(lab, SMALL)
    result = seen.expected(FRESH)
    assert_seen(seen, overlay(result))
    with lab.paused_kernel():
        opacity = seen.handle("opacity")
        opacity.focus()
        for _ in range(20):
            opacity.press("ArrowRight")
        expect(opacity).to_have_attribute("aria-valuetext", "0.95")
        seen.listen()
        opacity.press("ArrowRight")
        lab.page.wait_for_function("() => window.__paints.length")
        assert_seen(seen, overlay(result, opacity=0.96))

        seen.control("colormap").locator("select").select_option("viridis")
        lab.page.wait_for_function("() => window.__paints.length > 1")
        assert_seen(seen, overlay(result, opacity=0.96, colormap="viridis"))

        top = seen.handle("clip", 1)
        top.focus()
        for _ in range(8):
            top.press("ArrowLeft")
        expect(top).to_have_attribute("aria-valuetext", "95")
        lab.page.wait_for_function("() => window.__paints.length > 2")
        lab.page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        assert_seen(seen, overlay(result, opacity=0.96, colormap="viridis", clip=(0, 95)))

        seen.control("blend").locator("select").select_option("uniform")
        threshold = seen.handle("threshold")
        threshold.focus()
        for _ in range(10):
            threshold.press("ArrowRight")
        expect(threshold).to_have_attribute("aria-valuetext", "0.10")
        lab.page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        shown = {
            "opacity": 0.96,
            "colormap": "viridis",
            "clip": (0, 95),
            "blend": "uniform",
            "threshold": 0.1,
        }
        assert_seen(seen, overlay(result, **shown))

        hold = seen.root.locator(".sw-hold")
        hold.focus()
        lab.page.keyboard.down("Space")
        lab.page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        assert_seen(seen, result["image"])
        lab.page.keyboard.up("Space")
        lab.page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        assert_seen(seen, overlay(result, **shown))
    lab.wait_for_value("explorer.kind_view.display.settings['threshold']", 0.1)
    assert lab.errors == []


COUNTED = (
    SMALLER
    + """
import threading
import saliency_widgets as sw
from saliency_widgets.demos import classifier, sample_image

net = classifier()
alive, most = 0, 0
lock = threading.Lock()

class Counted(type(net.model)):
    def forward(self, x):
        global alive, most
        with lock:
            alive += 1
            most = max(most, alive)
        try:
            return super().forward(x)
        finally:
            with lock:
                alive -= 1

net.model.__class__ = Counted
explorer = sw.explore(net.model, sample_image(), transform=net.transform, class_names=net.class_names,
                      method="smoothgrad", n_samples=16, noise_level=0.0)
explorer
"""
)


@pytest.mark.soak
def test_dragging_over_a_hundred_slider_positions_ends_with_the_last_map_and_nothing_stale(lab: Lab) -> None:
    seen = open_explorer(lab, COUNTED)  # the layout is final now, so the slider doesn't move
    expect(seen.output.locator(".sw-predictions .bar")).to_have_count(10)
    seen.listen()
    handle = seen.handle("noise_level")
    handle.scroll_into_view_if_needed()
    track = seen.control("noise_level").locator(".noUi-target").bounding_box()
    box = handle.bounding_box()
    assert track is not None
    assert box is not None
    middle = box["y"] + box["height"] / 2
    lab.page.mouse.move(box["x"] + box["width"] / 2, middle)
    lab.page.mouse.down()
    for k in range(1, 101):
        lab.page.mouse.move(track["x"] + track["width"] * 0.6 * k / 100, middle)
        lab.page.wait_for_timeout(25)
    lab.page.mouse.up()
    lab.wait_for_value("explorer.settings['noise_level'] > 0.5", True)
    lab.page.wait_for_function(
        "([root]) => window.__paints.length && window.__paints.at(-1).final && root.dataset.state === 'done'",
        arg=[seen.root.element_handle()],
        timeout=120_000,
    )
    seen.wait()
    stamps = [(p["generation"], p["index"]) for p in seen.paints() if p["cause"] == "frame"]
    assert stamps == sorted(set(stamps))
    assert stamps[-1][0] == lab.value("explorer.session.generation")
    assert stamps[-1][0] > 20, "the drag reached the kernel as one move only"
    assert lab.value("most") == 1
    noise = float(handle.get_attribute("aria-valuetext") or "nan")
    assert lab.value("explorer.attribution.settings['noise_level']") == pytest.approx(noise)
    assert 0.55 < noise < 0.65
    lab.execute(f"fresh = {FRESH}", seconds=120)
    assert lab.value("bool((explorer.attribution.values == fresh.values).all())") is True
    assert_seen(seen, overlay(seen.expected("fresh")))
    assert lab.errors == []


def test_target_bars_search_errors_and_the_stop_button(lab: Lab) -> None:
    seen = open_explorer(lab, DEMO)
    title = seen.root.locator(".sw-title")
    expect(title).to_have_text("Gradient · Egyptian cat")
    bars = seen.output.locator(".sw-predictions .bar")
    expect(bars).to_have_count(10)  # five bars, and over each a rectangle of its whole row, which takes clicks
    bars.nth(5 + 4).click()
    expect(title).to_have_text("Gradient · plastic bag")
    bars.nth(5 + 1).click()
    expect(title).to_have_text("Gradient · tiger cat")
    search = seen.control("target").locator("input")
    expect(search).to_have_value("tiger cat (282)")

    search.fill("espresso (967)")
    search.press("Enter")
    expect(title).to_have_text("Gradient · espresso")
    seen.wait()
    before = seen.pixels()
    search.fill("purple elephant")
    search.press("Enter")
    error = seen.root.locator(".sw-error")
    expect(error).to_be_visible()
    expect(error).to_contain_text("purple elephant")
    assert np.array_equal(seen.pixels(), before)
    search.fill("285")
    search.press("Enter")
    expect(title).to_have_text("Gradient · Egyptian cat")
    expect(error).to_be_hidden()

    seen.control("method").locator("select").select_option("SmoothGrad")
    for name in ("noise_level", "n_samples", "statistic"):
        expect(seen.control(name)).to_be_visible()
    for name in ("n_steps", "baseline", "layer"):
        expect(seen.control(name)).to_be_hidden()
    lab.execute("explorer.update(n_samples=500)")
    stop = seen.root.locator(".sw-stop")
    expect(stop).to_be_enabled()
    seen.root.locator(".sw-progress-text", has_text="of 500 samples").wait_for()
    stop.click()
    seen.root.locator("xpath=self::*[@data-state='stopped']").wait_for()
    expect(seen.root.locator(".sw-progress-text")).to_contain_text("of 500 samples")
    assert lab.value("explorer.attribution is None") is True
    seen.control("method").locator("select").select_option("Grad-CAM")
    seen.wait()
    expect(title).to_have_text("Grad-CAM · Egyptian cat")
    expect(seen.control("layer")).to_be_visible()
    assert lab.errors == []


BUSY = [
    SMALLER + "import saliency_widgets as sw\nexplorer = sw.demo(method='smoothgrad', n_samples=4)\nexplorer",
    "import time\ntime.sleep(8)",
]


@pytest.mark.soak
def test_a_control_that_was_never_used_works_while_a_cell_runs(lab: Lab) -> None:
    lab.open(lab.write_notebook(BUSY))
    lab.js(
        """
        window.__primed = new Set();
        kernel.anyMessage.connect((_, {msg, direction}) => {
          if (direction === 'send' && msg.content.data?.state && '_view_count' in msg.content.data.state)
            window.__primed.add(msg.content.comm_id);
        });
        """
    )
    lab.run_cell(0)
    seen = Seen(lab, lab.output(0))
    seen.wait()
    controls = lab.value("[control.model_id for control in explorer.view.controls]")
    lab.page.wait_for_function("ids => ids.every(id => window.__primed.has(id))", arg=controls)
    lab.execute("pass")  # by then the kernel has handled all earlier messages
    assert len(controls) > 10

    before = int(seen.root.get_attribute("data-generation") or 0)
    seen.root.evaluate(
        """root => {
          window.__running = true;
          window.__paints = [];
          root.addEventListener('sw-paint', event =>
            window.__paints.push({...event.detail, running: window.__running}));
        }"""
    )
    lab.js(
        """
        panel.content.deselectAll();
        panel.content.activeCellIndex = 1;
        app.commands.execute('notebook:run-cell').then(() => { window.__running = false; });
        """
    )
    lab.cell(1).locator(".jp-InputPrompt", has_text="[*]").wait_for()
    handle = seen.handle("noise_level")
    handle.focus()
    handle.press("ArrowRight")
    lab.page.wait_for_function(
        "before => window.__paints.some(paint => paint.generation > before && paint.final)", arg=before
    )
    lab.page.wait_for_function("() => !window.__running")
    new = [paint for paint in seen.paints() if paint["generation"] > before]
    assert new[-1]["final"]
    assert new[0]["running"], "the move waited for the cell"
    assert lab.errors == []


@pytest.mark.soak
def test_a_restarted_kernel_is_reported_and_display_controls_still_work(lab: Lab) -> None:
    seen = open_explorer(lab, DEMO)
    lab.execute("explorer.update(method='smoothgrad', n_samples=500)")
    seen.root.locator(".sw-progress-text", has_text="of 500 samples").wait_for()
    lab.restart_kernel()
    expect(seen.root.locator(".sw-notes")).to_contain_text("The kernel is gone")
    expect(seen.root.locator(".sw-stop")).to_be_disabled()
    seen.listen()
    opacity = seen.handle("opacity")
    opacity.focus()
    opacity.press("ArrowRight")
    lab.page.wait_for_function("() => window.__paints.length")


def test_wait_resends_the_state_once_and_nothing_is_repainted(lab: Lab) -> None:
    seen = open_explorer(lab, SMALL)
    lab.wait_for_value("explorer.view.checked", True)  # the check-up runs in idle time
    lab.execute("explorer.session._jobs._executor.close()")  # nothing else is sent meanwhile
    seen.listen()
    before = lab.messages()
    lab.execute("explorer.wait(60) and None")
    sent = (lab.messages() - before)["recv comm_msg"]
    assert 0 < sent < 40
    lab.execute("explorer.wait(60) and None")
    assert (lab.messages() - before)["recv comm_msg"] == sent
    lab.page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert seen.paints() == []
    assert lab.errors == []


def test_hovering_and_arrow_keys_show_a_pixels_position_and_value(lab: Lab) -> None:
    seen = open_explorer(lab, SMALL)
    result = seen.expected(FRESH)
    values = result["codes"] / 65534 * result["high"]
    box = seen.canvas.bounding_box()
    assert box is not None
    lab.page.mouse.move(box["x"] + box["width"] * 100.5 / 224, box["y"] + box["height"] * 50.5 / 224)
    readout = seen.root.locator(".sw-readout")
    expect(readout).to_contain_text("100")
    expect(readout).to_contain_text("50")
    expect(readout).to_contain_text(render.format_number(float(values[50, 100])))
    seen.canvas.focus()
    seen.canvas.press("ArrowRight")
    expect(readout).to_contain_text(render.format_number(float(values[50, 101])))


@pytest.mark.soak
def test_a_reloaded_page_shows_the_same_map_and_keeps_working(lab: Lab) -> None:
    seen = open_explorer(lab, SMALL)
    lab.execute("explorer.annotations.fill_style = 'red'; explorer.annotations.fill_rect(0, 0, 20, 20)")
    before = seen.expected(FRESH)
    lab.save()
    lab.reload()
    lab.output(0).locator(".sw-heatmap[data-state=done]").wait_for()  # the kernel still has the widget
    lab.run_all()
    again = Seen(lab, lab.output(0))
    again.wait()
    assert_seen(again, overlay(before))
    lab.execute("explorer.annotations.fill_style = 'lime'; explorer.annotations.fill_rect(0, 0, 20, 20)")
    lab.page.wait_for_function(
        "canvas => { const d = canvas.getContext('2d').getImageData(9, 9, 1, 1).data; "
        "return d[1] > 200 && d[0] < 60; }",
        arg=again.canvas.element_handle(),
    )
    again.control("method").locator("select").select_option("Grad-CAM")
    again.wait()
    assert lab.errors == []


@pytest.mark.parametrize(
    ("width", "theme"),
    [(1000, "light"), *(pytest.param(width, "dark", marks=pytest.mark.soak) for width in (700, 1600))],
)
def test_the_explorer_fits_its_cell_and_nothing_shifts(lab: Lab, width: int, theme: str) -> None:
    lab.page.set_viewport_size({"width": width, "height": 900})
    lab.theme(theme)
    if width < 1000:
        lab.js("if (!app.shell.leftCollapsed) app.shell.collapseLeft();")
    seen = open_explorer(lab, DEMO)
    lab.page.wait_for_timeout(300)
    explorer = seen.output.locator(".sw-explorer")
    assert explorer.evaluate("e => e.scrollWidth <= e.clientWidth + 1"), "the explorer is wider than its cell"
    clipped = explorer.evaluate(
        """e => [...e.querySelectorAll('.widget-label, button, .sw-title, .sw-readout, .sw-progress-text')]
            .filter(x => x.offsetParent && x.scrollWidth > x.clientWidth + 1)
            .map(x => x.className + ' ' + x.textContent)"""
    )
    assert clipped == []
    before = seen.canvas.bounding_box()
    lab.execute("explorer.update(method='smoothgrad', n_samples=8)")
    seen.root.locator("xpath=self::*[@data-state='running']").wait_for()
    assert seen.canvas.bounding_box() == before
    seen.wait()
    assert seen.canvas.bounding_box() == before
    lab.screenshot(f"{theme}-{width}")
    lab.screenshot(f"{theme}-{width}-all", explorer)


EDITED = (
    SMALLER
    + """
import saliency_widgets as sw
from PIL import ImageOps
from saliency_widgets.demos import classifier, sample_image

net, photo = classifier(), sample_image("chelsea").resize((144, 144))
explorer = sw.explore(net.model, photo, transform=net.transform, class_names=net.class_names,
                      method="gradient", target=285)
explorer
"""
)


@pytest.mark.soak
def test_an_image_edited_in_place_is_used_from_the_next_move_on(lab: Lab) -> None:
    seen = open_explorer(lab, EDITED)
    before = seen.expected(FRESH)
    assert_seen(seen, overlay(before))
    lab.execute("photo.paste(ImageOps.mirror(photo))")
    seen.control("method").locator("select").select_option("Input × Gradient")
    lab.wait_for_value("explorer.settings['method']", "input_x_gradient")
    seen.wait()
    after = seen.expected(FRESH)
    assert np.array_equal(after["image"], before["image"][:, ::-1])
    for _ in range(50):  # decoding the image takes the browser a while
        if np.abs(seen.pixels(144).astype(int) - overlay(after)).max() <= 1:
            break
        lab.page.wait_for_timeout(200)
    assert_seen(seen, overlay(after))
    expect(seen.root.locator(".sw-notes")).to_contain_text("the predictions are not")
    # The gradient that was shown before is of the unedited image: it must not be shown again.
    seen.control("method").locator("select").select_option("Gradient")
    lab.wait_for_value("explorer.settings['method']", "gradient")
    seen.wait()
    assert_seen(seen, overlay(seen.expected(FRESH)))
    assert lab.value(f"bool((explorer.attribution.values == {FRESH}.values).all())", seconds=60) is True
    lab.execute("explorer.update()")
    seen.wait()
    expect(seen.root.locator(".sw-notes")).not_to_contain_text("the predictions are not")
    assert lab.errors == []
