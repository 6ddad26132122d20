"""The explorer of a text in JupyterLab: the color of each token, its reading, and the display without the kernel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from lab import DARK, Lab
from playwright.sync_api import Locator, Page, expect
from seen import BAG, open_explorer
from torch import nn

import saliency_widgets as sw
from saliency_widgets import render
from saliency_widgets.session import frame_of

pytestmark = pytest.mark.browser

TEXT = (
    BAG
    + """
explorer = sw.explore(Bag().eval(), "the good cat sat", tokenizer=WORDS, target=1, baseline="zero")
explorer"""
)

# The colors of the ground and of the letters of each token.
_COLORS = """root => [...root.querySelectorAll('.sw-token')].map(token => {
  const { backgroundColor, color } = getComputedStyle(token);
  return [backgroundColor, color].map(text => text.match(/[0-9]+/g).slice(0, 3).map(Number));
})"""


def expected(lab: Lab, ground: int, **display: object) -> np.ndarray:
    """The grounds that `render` computes for the kernel's map over a plain ground, shape (T, 3)."""
    frame = lab.value("(lambda f: [f.codes.tolist(), f.low, f.high, f.signed])(explorer.session.last.frame)")
    quantized = render.Quantized(np.array(frame[0], np.uint16), *frame[1:])
    settings = {param.name: param.default for param in render.DISPLAY} | display
    image = np.full((1, len(frame[0][0]), 3), ground, np.uint8)
    return render.blend(image, quantized, **settings)[0]


def contrast(ground: list[int], ink: list[int]) -> float:
    def luminance(color: list[int]) -> float:
        shares = np.array(color) / 255
        linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    high, low = sorted((luminance(ground), luminance(ink)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def assert_colored(root: Locator, grounds: np.ndarray) -> None:
    """Check the colors, which follow a change in one of the next animation frames."""
    for _ in range(100):
        colors = root.evaluate(_COLORS)[: len(grounds)]  # without the token to come
        off = np.abs(np.array([ground for ground, _ in colors]) - grounds).max()
        if off <= 1:
            break
        root.page.wait_for_timeout(50)
    assert off <= 1
    assert min(contrast(*pair) for pair in colors) >= 4.5


def test_each_token_has_the_color_of_its_value(lab: Lab) -> None:
    seen = open_explorer(lab, TEXT)
    root = seen.root
    expect(root.locator(".sw-token")).to_have_text(["the", "good", "cat", "sat"])
    expect(root.locator(".sw-tokens")).to_have_text("the good cat sat")
    assert_colored(root, expected(lab, 255))

    root.locator(".sw-token").nth(2).hover()
    readout = root.locator(".sw-readout")
    expect(readout).to_contain_text("cat · id 2 · attribution")
    root.locator(".sw-tokens").focus()
    root.page.keyboard.press("ArrowRight")
    expect(readout).to_contain_text("sat · id 3")
    root.page.keyboard.press("Home")
    expect(readout).to_contain_text("the · id 1")

    with lab.paused_kernel():
        seen.listen()
        seen.handle("opacity").press("Home")
        root.page.wait_for_function("window.__paints.length > 0")
        assert_colored(root, np.full((4, 3), 255))
        seen.handle("opacity").press("End")
        root.page.wait_for_function("window.__paints.length > 1")
    assert_colored(root, expected(lab, 255, opacity=1.0))

    lab.theme("dark")
    expect(root.locator(".sw-tokens")).to_have_css("background-color", DARK)
    ground = root.locator(".sw-tokens").evaluate("e => Number(getComputedStyle(e).backgroundColor.match(/[0-9]+/)[0])")
    assert ground < 64
    assert_colored(root, expected(lab, ground, opacity=1.0))
    lab.theme("light")


CAUSAL = """import torch
import saliency_widgets as sw

torch.manual_seed(0)
WORDS = {word: index for index, word in enumerate("<unk> the cat sat on mat good bad".split())}

class Causal(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.head = torch.nn.Embedding(8, 6), torch.nn.Linear(6, 8)

    def forward(self, ids):
        steps = torch.arange(1, ids.shape[1] + 1)[None, :, None]
        return self.head(torch.tanh(self.embedding(ids).cumsum(1) / steps))

explorer = sw.explore(Causal().eval(), "the good cat sat", tokenizer=WORDS, method="gradient")
explorer"""


def test_a_click_on_a_token_explains_it(lab: Lab) -> None:
    seen = open_explorer(lab, CAUSAL)
    tokens = seen.root.locator(".sw-token")
    assert lab.value("explorer.attribution.settings['target'][0]") == 3  # what follows the text
    generation = lab.value("explorer.view.frame['generation']")
    tokens.nth(2).click()
    expect(seen.root.locator(".sw-explained")).to_have_text("cat")
    seen.wait()
    assert lab.value("explorer.attribution.settings['target']") == [1, 2]  # "cat", after "good"
    assert lab.value("explorer.view.frame['generation']") == generation + 1
    assert_colored(seen.root, expected(lab, 255))


def test_chosen_tokens_are_edited_and_marked(lab: Lab) -> None:
    seen = open_explorer(lab, TEXT)
    root = seen.root
    tokens, button = root.locator(".sw-token"), lambda name: root.get_by_role("button", name=name, exact=True)
    expect(button("Delete")).to_be_disabled()
    tokens.nth(1).click()
    expect(root.locator(".sw-chosen")).to_have_text(["good"])
    button("Replace").click()
    root.locator(".sw-edit-field").fill("bad")
    root.locator(".sw-edit-field").press("Enter")
    expect(tokens).to_have_text(["the", "bad", "cat", "sat"])
    lab.wait_for_value("explorer.session.last.state", "done")
    ranked = root.locator(".sw-ranked-row .sw-ranked-name")
    strongest = lab.value(
        "explorer.attribution.by_token().attribution.abs().sort_values(ascending=False).index[0].item()"
    )
    expect(ranked.first).to_have_text(["the", "bad", "cat", "sat"][strongest])

    seen.output.get_by_text("Can I trust this map?").click()
    expect(seen.output.get_by_text("Mark a region, or move the slider.")).to_be_visible()
    tokens.nth(0).hover()
    lab.page.mouse.down()
    tokens.nth(1).hover()
    lab.page.mouse.up()
    expect(root.locator(".sw-chosen")).to_have_text(["the", "bad"])
    expect(seen.output.get_by_text("Without 50.0% of the text")).to_be_visible()
    tokens.nth(3).click()
    expect(seen.output.get_by_text("Without 25.0% of the text")).to_be_visible()

    tokens.nth(3).press("Delete")
    expect(tokens).to_have_text(["the", "bad", "cat"])
    button("Restore").click()
    expect(tokens).to_have_text(["the", "good", "cat", "sat"])
    expect(button("Restore")).to_be_disabled()
    lab.wait_for_value("explorer.session.last.state", "done")
    assert_colored(root, expected(lab, 255))


def test_a_saved_page_shows_each_recorded_token_without_a_kernel(page: Page, tmp_path: Path) -> None:
    torch.manual_seed(0)
    words = {word: index for index, word in enumerate(["<unk>", "the", "cat", "sat", "on", "mat", "good", "bad"])}

    class Causal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.head = nn.Embedding(8, 6), nn.Linear(6, 8)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.head(torch.tanh(self.embedding(ids).cumsum(1)))

    net, targets = Causal().eval(), [(1, 2), (2, 3)]  # "cat" after "good", and "sat" after "cat"
    options = {"tokenizer": words, "method": "input_x_gradient"}
    explorer = sw.explore(net, "the good cat sat", target=targets[0], executor="inline", **options)
    reduction = explorer.panel.reduction
    frames = [
        frame_of(sw.attribute(net, "the good cat sat", target=target, **options), reduction) for target in targets
    ]
    saved = explorer.save_html(tmp_path / "page.html", record={"target": targets}, progress=False)
    explorer.close()
    assert saved.maps == 2

    page.context.set_offline(True)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(saved.path.as_uri())
    page.wait_for_selector("html[data-opened]")
    expect(page.locator("h1")).to_have_text("Which tokens affect the output of Causal")
    root = page.locator(".sw-heatmap")
    expect(root).to_have_attribute("data-final", "true")
    expect(root.locator(".sw-edit")).to_be_hidden()
    for k, word in enumerate(("cat", "sat")):
        page.get_by_role("combobox", name="Target").select_option(index=k)
        expect(root.locator(".sw-explained")).to_have_text(word)
        page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        display = {param.name: param.default for param in render.DISPLAY}
        assert_colored(root, render.blend(np.full((1, 4, 3), 255, np.uint8), frames[k], **display)[0])
    root.locator(".sw-token").first.click()  # nothing to ask
    expect(root.locator(".sw-readings, .sw-reading").first).to_be_visible()
    assert errors == []


LONG = TEXT.replace('"the good cat sat"', '" ".join(["the good cat sat"] * 1024)')

# Sets window.__frames to a promise of how many animation frames pass from a key to the paint, and of its milliseconds.
_WATCH = """root => {
  window.__frames = new Promise(resolve => {
    let began = null, frames = 0;
    addEventListener('keydown', event => { began = event.timeStamp; }, {capture: true, once: true});
    const count = () => {
      if (began !== null) frames += 1;
      requestAnimationFrame(count);
    };
    requestAnimationFrame(count);
    root.addEventListener('sw-paint', event => {
      if (began !== null) resolve({ frames, cause: event.detail.cause, ms: performance.now() - began });
    });
  });
}"""


def test_a_display_slider_repaints_4096_tokens_within_two_frames(lab: Lab) -> None:
    seen = open_explorer(lab, LONG)
    expect(seen.root.locator(".sw-token")).to_have_count(4096)
    expect(seen.root.locator(".sw-tokens")).to_have_css("overflow-y", "auto")
    lab.settled_messages()
    handle = seen.handle("opacity")
    before = seen.root.evaluate(_COLORS)
    with lab.paused_kernel():
        handle.press("Home")
        for key in ("ArrowRight", "End"):
            seen.root.evaluate(_WATCH)
            handle.press(key)
            paint = lab.page.evaluate("window.__frames")
            assert paint["cause"] == "display"
            assert paint["frames"] <= 2
        assert seen.root.evaluate(_COLORS) != before
    assert_colored(seen.root, expected(lab, 255, opacity=1.0))


PAIR = (
    BAG
    + """
class Pair(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.conv = torch.nn.Embedding(8, 4), torch.nn.Conv2d(3, 4, 3)

    def forward(self, input_ids, pixel_values):
        return self.embedding(input_ids).mean(1) * self.conv(pixel_values).mean((2, 3))

inputs = {"input_ids": torch.tensor([[1, 6, 2, 3]]), "pixel_values": torch.rand(1, 3, 8, 8)}
explorer = sw.explore(
    Pair().eval(), inputs, tokenizer=WORDS, target=1, method="input_x_gradient", sign="signed", channels="sum",
    explain=["pixel_values", "input_ids"],
)
explorer"""
)


def test_an_image_and_a_text_each_show_their_part_of_a_map(lab: Lab) -> None:
    seen = open_explorer(lab, PAIR)
    above, below = seen.output.locator(".sw-above"), seen.output.locator(".sw-below")
    expect(below.locator(".sw-token")).to_have_text(["the", "good", "cat", "sat"])
    label = "Saliency map over an image of 8 by 8 pixels. The arrow keys read single pixels."
    expect(above.locator("canvas.sw-canvas")).to_have_attribute("aria-label", label)
    canvas = above.locator("canvas.sw-canvas")
    seen_values = []
    for target in (1, 2):
        lab.value(f"[explorer.update(target={target}), explorer.wait(60)] and None")
        token = lab.value("float(explorer.attribution.part('input_ids').by_token().attribution[2])")
        pixel = lab.value("float(explorer.attribution.part('pixel_values').values[0, :, 4, 4].sum())")
        below.locator(".sw-token").nth(2).hover()
        assert_reads(below, token)
        box = canvas.bounding_box()
        assert box is not None
        canvas.hover(position={"x": 4.5 / 8 * box["width"], "y": 4.5 / 8 * box["height"]})
        assert_reads(above, pixel)
        seen_values.append((token, pixel))
    assert seen_values[0] != seen_values[1]
    assert lab.errors == []


def assert_reads(view: Locator, value: float) -> None:
    """Wait until the reading of a view shows a value, rounded to three digits after 16-bit codes."""
    view.page.wait_for_function(
        """([readout, value]) => {
          const number = readout.textContent.match(/attribution ([^ ]+)/);
          return number && Math.abs(Number(number[1]) - value) < 0.02 * Math.abs(value);
        }""",
        arg=[view.locator(".sw-readout").element_handle(), value],
    )
