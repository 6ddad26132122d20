"""The lesson in JupyterLab: keys, pixels, the size and contrast of text, and use without the kernel."""

from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import pytest
from lab import Lab
from playwright.sync_api import Locator, expect
from seen import BAG, NET

from saliency_widgets import render
from saliency_widgets.widgets.lesson.kinds import STEPS
from saliency_widgets.widgets.lesson.texts import STEPS as TEXT_STEPS

pytestmark = pytest.mark.browser

LESSON = (
    NET
    + """
lesson = sw.lesson(net, photo.resize((48, 48)), class_names=list("abcdefghij"), n_samples=4)
lesson"""
)
COUNT = len(STEPS)
TEXT_LESSON = (
    BAG
    + """
lesson = sw.lesson(Bag(20).eval(), "the good cat sat on a bad mat", tokenizer=WORDS, target=1, n_samples=4)
lesson"""
)

# The visible panels of the stage as text: the canvases' pixels and the charts' SVG.
_SEEN = """root => [...root.querySelectorAll('.sw-lesson-stage .sw-lesson-panel:not([hidden])')].map(panel => {
  const canvas = panel.querySelector('canvas.sw-lesson-canvas:not([hidden])');
  return canvas ? canvas.toDataURL() : panel.querySelector('svg').outerHTML;
}).join()"""

# Every visible element that has text: the font size in pixels, the contrast by WCAG 2.1, and whether it is cut off.
_WORDS = """root => {
  const parse = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = text => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, under) => [0, 1, 2].map(k => top[k] * top[3] + under[k] * (1 - top[3])).concat(1);
  const background = element => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) layers.unshift(rgba(getComputedStyle(e).backgroundColor));
    return layers.reduce((under, top) => over(top, under), [255, 255, 255, 1]);
  };
  const light = color => {
    const [r, g, b] = color.map(c => c / 255).map(c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const edge = root.getBoundingClientRect();
  const texts = [];
  for (const element of root.querySelectorAll('*')) {
    const hasText = [...element.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    const style = getComputedStyle(element);
    const box = element.getBoundingClientRect();
    if (!hasText || style.visibility === 'hidden' || !box.width) continue;
    if (element.closest('.sw-unseen, button:disabled')) continue;
    const svg = element instanceof SVGElement ? element.ownerSVGElement : null;
    const scale = svg ? svg.getBoundingClientRect().width / svg.viewBox.baseVal.width : 1;
    const under = background(element);
    const ink = over(rgba(svg ? style.fill : style.color), under);
    const [low, high] = [light(ink), light(under)].sort((a, b) => a - b);
    const room = svg ? svg.getBoundingClientRect() : edge;
    texts.push({
      words: element.textContent.trim(), name: element.getAttribute('class') || element.tagName,
      size: parseFloat(style.fontSize) * scale, contrast: (high + 0.05) / (low + 0.05),
      clipped: (!svg && (element.scrollWidth > element.clientWidth + 1 && style.display !== 'inline'))
        || box.left < room.left - 1 || box.right > room.right + 1
        || box.top < room.top - 1 || box.bottom > room.bottom + 1,
    });
  }
  return texts;
}"""


def shown(lab: Lab, cell: str = LESSON) -> Locator:
    """Show a lesson, and wait until it is finished."""
    lab.open(lab.write_notebook([cell, "1"]))
    lab.run_all()
    lab.execute("lesson.wait(120)", seconds=150)
    root = lab.output(0).locator(".sw-lesson")
    expect(root).to_have_attribute("data-state", "done", timeout=60_000)
    return root


def wait_for_step(root: Locator, step: int) -> None:
    """Wait until a step is painted."""
    root.page.wait_for_function(
        "([root, step]) => root.dataset.painted?.split(' ')[0] === String(step)", arg=[root.element_handle(), step]
    )
    expect(root.locator(".sw-lesson-counter")).to_have_text(re.compile(rf"^{step + 1} of \d+$"))
    expect(root.locator("[aria-current='step']")).to_have_count(1)


def seen(root: Locator) -> str:
    return root.evaluate(_SEEN)


def test_keys_go_through_all_steps_and_do_not_reach_the_notebook(lab: Lab) -> None:
    root = shown(lab)
    cell = "return [panel.content.activeCellIndex, panel.content.mode, panel.content.widgets.length];"
    root.locator(".sw-lesson-canvas").first.click()
    before = lab.js(cell)
    wait_for_step(root, 0)
    looks = [seen(root)]
    for step, key in zip(range(1, COUNT), itertools.cycle(["ArrowRight", "PageDown", "Space"]), strict=False):
        lab.page.keyboard.press(key)
        wait_for_step(root, step)
        looks.append(seen(root))
        title = list(STEPS.values())[step].title
        expect(root.locator(".sw-lesson-heading")).to_have_text(title)
        expect(root.locator("[aria-live='polite'].sw-unseen")).to_contain_text(f"Step {step + 1} of {COUNT}: {title}")
    assert all(a != b for a, b in itertools.pairwise(looks)), "two consecutive steps look the same"
    lab.page.keyboard.press("ArrowRight")
    wait_for_step(root, COUNT - 1)
    lab.wait_for_value("lesson.step", list(STEPS)[-1])
    for key, step in (("ArrowLeft", COUNT - 2), ("PageUp", COUNT - 3), ("Home", 0), ("End", COUNT - 1)):
        lab.page.keyboard.press(key)
        wait_for_step(root, step)
    lab.page.keyboard.press("d")
    lab.page.keyboard.press("d")
    lab.page.keyboard.press("b")
    assert lab.js(cell) == before
    lab.execute("lesson.step = 'noise'")
    wait_for_step(root, list(STEPS).index("noise"))
    assert lab.errors == []


def test_the_lesson_works_while_the_kernel_is_stopped(lab: Lab) -> None:
    root = shown(lab)
    with lab.paused_kernel():
        root.locator(".sw-lesson-step").nth(list(STEPS).index("saturation")).click()
        wait_for_step(root, list(STEPS).index("saturation"))
        slider = root.locator(".sw-lesson-slider")
        looks = []
        for shot in (12, 11, 0):
            slider.fill(str(shot))
            root.page.wait_for_function(
                "([root, shot]) => root.dataset.painted.endsWith(` ${shot}`)", arg=[root.element_handle(), shot]
            )
            looks.append(seen(root))
        assert len(set(looks)) == 3
        # An arrow key moves the focused slider, while a presenter's remote (PageDown) still changes the step.
        slider.focus()
        lab.page.keyboard.press("ArrowRight")
        expect(slider).to_have_value("1")
        lab.page.keyboard.press("PageDown")
        wait_for_step(root, list(STEPS).index("path"))
        box = slider.bounding_box()
        assert box is not None
        lab.page.mouse.click(box["x"] + 0.5 * box["width"], box["y"] + box["height"] / 2)
        expect(slider).to_have_value("6")
        lab.page.keyboard.press("ArrowRight")  # a clicked slider loses the focus, so arrow keys change steps again
        wait_for_step(root, list(STEPS).index("guided_backprop"))
        root.locator(".sw-lesson-choice").nth(1).click()
        expect(root.locator(".sw-lesson-choice").nth(1)).to_have_attribute("aria-pressed", "true")
        root.locator(".sw-lesson-canvas").first.hover()
        expect(root.locator(".sw-lesson-readout")).to_contain_text("attribution")
    assert lab.errors == []


def go_to(root: Locator, step: str, names: Any) -> None:
    root.locator(".sw-lesson-step").nth(list(names).index(step)).click()
    wait_for_step(root, list(names).index(step))


def test_the_lesson_on_a_text_works_while_the_kernel_is_stopped(lab: Lab) -> None:
    root = shown(lab, TEXT_LESSON)
    with lab.paused_kernel():
        go_to(root, "tokens", TEXT_STEPS)
        tokens = root.locator(".sw-lesson-tokens li")
        expect(tokens).to_have_text(["the1", "good6", "cat2", "sat3", "on4", "a0 · unknown", "bad7", "mat5"])
        # One token is followed through the steps.
        go_to(root, "embedding", TEXT_STEPS)
        label = root.locator(".sw-lesson-choice").nth(3).inner_text()
        root.locator(".sw-lesson-choice").nth(3).click()
        for step in ("embedding", "gradient", "sum"):
            go_to(root, step, TEXT_STEPS)
            expect(root.locator(".sw-lesson-choice[aria-pressed='true']")).to_have_text([label])
            expect(root.locator(".sw-lesson-facts")).to_contain_text(f"“{label}”")
        expect(root.locator(".sw-lesson-panel svg text.sw-lesson-strong").first).to_have_text(label)
        root.locator(".sw-lesson-step").nth(list(TEXT_STEPS).index("gradient")).click()
        expect(root.locator(".sw-lesson-row.sw-lesson-strong")).to_have_text([label])
        root.locator(".sw-lesson-canvas").first.hover()
        expect(root.locator(".sw-lesson-readout")).to_have_text(re.compile(r"^\w+ · number \d+ · -?[\d.e-]+$"))
        # The text is read by key, which doesn't change the step.
        go_to(root, "color", TEXT_STEPS)
        text = root.locator(".sw-tokens")
        text.focus()
        lab.page.keyboard.press("ArrowRight")
        lab.page.keyboard.press("ArrowRight")
        expect(root.locator(".sw-lesson-readout")).to_have_text(re.compile(r"^good · id 6 · attribution "))
        wait_for_step(root, list(TEXT_STEPS).index("color"))
        deepest = {token_colors(root) for _ in slide(root, (0, 4, 7))}
        assert len(deepest) == 3
        lab.page.keyboard.press("PageDown")
        wait_for_step(root, list(TEXT_STEPS).index("noise"))
        # All maps of the path share the scale of the last one.
        go_to(root, "path", TEXT_STEPS)
        ticks = [root.locator(".sw-lesson-ticks").first.inner_text() for _ in slide(root, (12, 6, 1))]
        assert len(set(ticks)) == 1
    assert lab.errors == []


def slide(root: Locator, shots: Any) -> Any:
    """Choose shots by the slider, one after the other."""
    for shot in shots:
        root.locator(".sw-lesson-slider").fill(str(shot))
        root.page.wait_for_function(
            "([root, shot]) => root.dataset.painted.endsWith(` ${shot}`)", arg=[root.element_handle(), shot]
        )
        yield shot


def token_colors(root: Locator) -> str:
    return root.evaluate(
        "root => [...root.querySelectorAll('.sw-token')].map(token => getComputedStyle(token).backgroundColor).join()"
    )


def test_the_colors_of_the_text_are_those_of_the_map(lab: Lab) -> None:
    root = shown(lab, TEXT_LESSON)
    content = lab.value(
        "(lambda m: [list(memoryview(m['codes']).cast('H')), m['low'], m['high'], m['signed']])"
        "(lesson.view.content('color')['maps']['product'])"
    )
    frame = render.Quantized(np.array(content[0], np.uint16)[None], *content[1:])
    settings = {param.name: param.default for param in render.DISPLAY}
    for theme, ground in (("light", 255), ("dark", 17)):
        lab.theme(theme)  # pyright: ignore[reportArgumentType]
        root.locator(".sw-lesson-step").nth(0).click()
        go_to(root, "color", TEXT_STEPS)
        image = np.full((1, frame.codes.shape[1], 3), ground, np.uint8)
        expected = render.blend(image, frame, **settings)[0]
        seen = np.array(re.findall(r"\d+", token_colors(root)), int).reshape(-1, 3)
        assert np.array_equal(seen, expected)
    assert lab.errors == []


@pytest.mark.soak
@pytest.mark.parametrize("cell", [LESSON, TEXT_LESSON], ids=["image", "text"])
@pytest.mark.parametrize(("theme", "size"), [("light", (1280, 800)), ("dark", (1920, 1080))])
def test_text_is_large_with_high_contrast_and_nothing_is_cut_off_or_shifts(
    lab: Lab, theme: Any, size: tuple[int, int], cell: str
) -> None:
    lab.page.set_viewport_size({"width": size[0], "height": size[1]})
    root = shown(lab, cell)
    lab.theme(theme)
    heights, offsets = set(), set()
    for step in range(COUNT if cell == LESSON else len(TEXT_STEPS)):
        root.locator(".sw-lesson-step").nth(step).click()
        wait_for_step(root, step)
        lab.page.mouse.move(0, 0)
        words = root.evaluate(_WORDS)
        sentences = [word for word in words if "lesson-sentences" in word["name"]]
        assert len(sentences) == 1
        assert sentences[0]["size"] >= 20
        small = [word for word in words if word["size"] < 12]
        assert not small, small
        # On the colors of a map, letters are black or white.
        faint = [word for word in words if word["contrast"] < (4.5 if "sw-token" in word["name"] else 7)]
        assert not faint, faint
        cut = [word for word in words if word["clipped"]]
        assert not cut, cut
        heights.add(root.evaluate("root => root.getBoundingClientRect().height"))
        next_ = root.locator(".sw-lesson-next").evaluate("b => b.offsetTop")
        offsets.add(next_)
    assert len(heights) == 1
    assert len(offsets) == 1
    assert heights.pop() <= size[1] - 110, "the lesson doesn't fit below JupyterLab's bars"


@pytest.mark.soak
def test_try_it_opens_an_explorer_at_the_steps_control(lab: Lab) -> None:
    root = shown(lab)
    root.locator(".sw-lesson-step").nth(list(STEPS).index("channels")).click()
    root.locator(".sw-lesson-choice").filter(has_text="L2").click()
    root.locator(".sw-lesson-try").click()
    control = lab.output(0).locator(".sw-control-channels")
    control.wait_for(timeout=60_000)
    lab.page.wait_for_function("() => document.querySelector('.sw-control-channels.sw-tried')", timeout=30_000)
    expect(control).to_be_in_viewport()
    lab.wait_for_value("lesson.explorer.panel.reduction.channels", "L2")
    lab.wait_for_value("lesson.explorer.settings['method']", "gradient")
    lab.page.wait_for_function("() => !document.querySelector('.sw-tried')", timeout=30_000)
    lab.execute("lesson.close()")
    assert lab.errors == []


@pytest.mark.soak
def test_the_lesson_enters_and_leaves_full_screen(lab: Lab) -> None:
    root = shown(lab)
    button = root.locator(".sw-lesson-full")
    button.click()
    lab.page.wait_for_function("() => document.fullscreenElement?.classList.contains('sw-lesson')")
    expect(button).to_have_text("Leave full screen")
    lab.page.keyboard.press("ArrowRight")
    wait_for_step(root, 1)
    button.click()
    lab.page.wait_for_function("() => !document.fullscreenElement")
    expect(button).to_have_text("Full screen")
    lab.page.keyboard.press("ArrowRight")
    wait_for_step(root, 2)
    assert lab.errors == []
