"""Saved pages, opened from disk without a network: they show the kernel's maps and request nothing."""

from __future__ import annotations

import base64
import itertools
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lab import Lab
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from seen import DEMO, PIXELS, SMALL, open_explorer
from torch import nn

import saliency_widgets as sw
from saliency_widgets import render
from saliency_widgets.attribution import Reduction
from saliency_widgets.session import frame_of
from saliency_widgets.widgets import Explorer

SIZE = 24
FRESH = "sw.attribute(**explorer.settings)"
EVIL = "</script><img src=https://example.invalid/x onerror=\"document.title='harmed'\">"
NAMES = ["ant", EVIL, "猫", "cat", "dog & <b>eel</b>", "eel"]
RECORD = {
    "method": ["gradient", "smoothgrad", "grad_cam"],
    "noise_level": [0.05, 0.1, 0.2],
    "n_samples": [2, 4, 8],
    "target": ["ant", 1],
}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Linear(4 * SIZE * SIZE, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.conv(x).relu().flatten(1))


@pytest.fixture
def explorer() -> Iterator[Explorer]:
    image = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    settings = {"method": "smoothgrad", "n_samples": 4, "noise_level": 0.1, "target": 0}
    made = Explorer(Net().eval(), image, class_names=NAMES, executor="inline", **settings)
    yield made
    made.close()


class Opened:
    """A page opened from disk in an offline browser, with all its requests and errors."""

    def __init__(self, page: Page, path: Path) -> None:
        self.page, self.requests, self.errors = page, [], []
        page.context.set_offline(True)
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", lambda message: message.type == "error" and self.errors.append(message.text))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.url = path.as_uri()
        page.goto(self.url)
        page.wait_for_selector("html[data-opened]")
        self.root = page.locator(".sw-heatmap")
        self.wait_until_painted()

    def wait_until_painted(self) -> None:
        """Wait until the newest frame is painted."""
        self.page.wait_for_function(
            "() => Number(document.querySelector('.sw-heatmap').dataset.generation) ==="
            " saliency.root.get('frame').generation"
        )
        self.page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def pixels(self, size: int = SIZE) -> np.ndarray:
        raw = self.root.locator(".sw-canvas").evaluate(PIXELS, [size, size])
        return np.frombuffer(base64.b64decode(raw), np.uint8).reshape(size, size, 3)

    def codes(self, size: int = SIZE) -> np.ndarray:
        """The codes of the frame that the view has received."""
        raw = self.page.evaluate("""() => {
          const view = saliency.root.get('frame').codes;
          return Array.from(new Uint8Array(view.buffer, view.byteOffset, view.byteLength));
        }""")
        return np.array(raw, np.uint8).view("<u2").reshape(size, size)

    def choose(self, name: str, position: int) -> None:
        """Set a control of the page: a slider by keys, or an item of a menu."""
        row = self.page.locator(f"[data-name={name}]")
        if row.locator("select").count():
            row.locator("select").select_option(index=position)
        else:
            handle = row.locator("input")
            handle.focus()
            handle.press("Home")
            for _ in range(position):
                handle.press("ArrowRight")
        self.wait_until_painted()

    def assert_harmless(self) -> None:
        """Assert that the page requested nothing but itself and logged no errors."""
        assert self.requests == [self.url]
        assert self.errors == []


@pytest.fixture
def opened(page: Page) -> Callable[[Path], Opened]:
    return lambda path: Opened(page, path)


def overlay(explorer: Explorer, frame: Any, **changes: Any) -> np.ndarray:
    display = explorer.kind_view.display.settings | changes
    table = render.lut(display.pop("diverging" if frame.signed else "colormap"))
    for name in ("diverging", "colormap"):
        display.pop(name, None)
    return render.blend(explorer.kind_view.image, frame, lut=table, **display)


def near(result: np.ndarray, expected: np.ndarray) -> bool:
    return int(np.abs(result.astype(int) - expected.astype(int)).max()) <= 1


def test_every_recorded_map_equals_the_kernels_and_sliders_change_pixels(explorer, tmp_path, opened):
    size = explorer.page_size(RECORD)
    saved = explorer.save_html(tmp_path / "page.html", record=RECORD, progress=False)
    assert saved.maps == size.maps == 2 * (1 + 9 + 1)
    assert saved.bytes == saved.path.stat().st_size
    result = opened(saved.path)
    assert result.root.locator(".sw-title").inner_text() == "SmoothGrad · ant"
    seen = []
    for m, method in enumerate(RECORD["method"]):
        result.choose("method", m)
        for t in (0, 1):
            result.choose("target", t)
            settings = {**explorer.settings, "target": t, "method": method}
            grid = [(n, s) for n in range(3) for s in range(3)] if method == "smoothgrad" else [(0, 0)]
            for n, s in grid:
                local = {"noise_level": RECORD["noise_level"][n], "n_samples": RECORD["n_samples"][s]}
                if method == "smoothgrad":
                    result.choose("noise_level", n)
                    result.choose("n_samples", s)
                else:
                    expect(result.page.locator("[data-name=n_samples] input")).to_be_disabled()
                shared = {name: settings[name] for name in ("model", "inputs", "class_names", "method", "target")}
                fresh = sw.attribute(**shared, **(local if method == "smoothgrad" else {}))
                frame = frame_of(fresh, Reduction("positive" if method == "grad_cam" else "absolute"))
                assert np.array_equal(result.codes(), frame.codes)
                pixels = result.pixels()
                assert near(pixels, overlay(explorer, frame))
                seen.append(pixels)
    assert len(seen) == saved.maps
    changed = [int(np.abs(a.astype(int) - b.astype(int)).max()) for a, b in itertools.pairwise(seen)]
    assert min(changed) > 20
    result.assert_harmless()


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.soak)])
def test_the_display_settings_are_live_and_the_page_is_readable(explorer, tmp_path, page, opened, scheme, artifacts):
    saved = explorer.save_html(tmp_path / "page.html", record={"sign": ["absolute", "signed"]}, progress=False)
    page.emulate_media(color_scheme=scheme)
    result = opened(saved.path)
    frame = frame_of(explorer.attribution, Reduction("absolute"))
    assert near(result.pixels(), overlay(explorer, frame))

    result.choose("colormap", render.SEQUENTIAL.index("viridis"))
    assert near(result.pixels(), overlay(explorer, frame, colormap="viridis"))
    result.choose("opacity", 40)
    assert near(result.pixels(), overlay(explorer, frame, colormap="viridis", opacity=0.4))
    top = page.locator("[data-name=clip] input").nth(1)
    top.focus()
    for _ in range(8):
        top.press("ArrowLeft")
    result.wait_until_painted()
    changes = {"colormap": "viridis", "opacity": 0.4, "clip": (0, 95)}
    assert near(result.pixels(), overlay(explorer, frame, **changes))
    result.choose("threshold", 30)
    result.choose("blend", 1)
    changes |= {"threshold": 0.3, "blend": "uniform"}
    assert near(result.pixels(), overlay(explorer, frame, **changes))

    expect(page.locator("[data-name=diverging]")).to_be_hidden()
    result.choose("sign", 1)
    expect(page.locator("[data-name=diverging]")).to_be_visible()
    expect(page.locator("[data-name=colormap]")).to_be_hidden()
    signed = frame_of(explorer.attribution, Reduction("signed"))
    assert np.array_equal(result.codes(), signed.codes)
    assert near(result.pixels(), overlay(explorer, signed, **changes))

    assert contrast(page, "body") >= 7
    assert contrast(page, ".sw-provenance") >= 4.5
    assert contrast(page, ".sw-page-label >> nth=0") >= 7
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    artifacts.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=artifacts / f"{scheme}.png", full_page=True)
    result.assert_harmless()


def contrast(page: Page, selector: str) -> float:
    """The contrast of an element's text with the page's background, as WCAG 2 defines it."""
    ink = page.locator(selector).evaluate("e => getComputedStyle(e).color.match(/[\\d.]+/g).map(Number)")
    background = page.locator("body").evaluate("e => getComputedStyle(e).backgroundColor.match(/[\\d.]+/g).map(Number)")

    def luminance(color: list[float]) -> float:
        parts = np.array(color[:3]) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    dark, light = sorted([luminance(ink), luminance(background)])
    return (light + 0.05) / (dark + 0.05)


def test_names_that_look_like_markup_are_shown_as_text(explorer, tmp_path, opened):
    explorer.update(target=1)
    saved = explorer.save_html(tmp_path / "page.html", title=f"About {EVIL}", progress=False)
    result = opened(saved.path)
    assert result.root.locator(".sw-title").inner_text() == f"SmoothGrad · {EVIL.split(',')[0]}"
    assert result.page.title() == f"About {EVIL}"
    assert result.page.locator("h1").inner_text() == f"About {EVIL}"
    listed = result.page.locator(".sw-page-name").all_inner_texts()
    assert sorted(listed) == sorted(name for _, name, _ in explorer.panel.predictions)
    assert result.page.locator("img").count() == 0
    result.assert_harmless()


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """The address of a server, and the paths that were requested from it."""
    requested: list[str] = []

    class Recorder(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requested.append(self.path)
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()

        def log_message(self, *_message: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Recorder) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{made.server_port}", requested
        made.shutdown()


def test_the_pages_security_policy_blocks_all_requests(explorer, tmp_path, opened, server):
    address, requested = server
    result = opened(explorer.save_html(tmp_path / "page.html", progress=False).path)
    result.page.context.set_offline(False)
    attempts = """address => Promise.allSettled([
      fetch(address + '/fetched'),
      new Promise(done => {
        const image = new Image();
        image.onload = image.onerror = done;
        image.src = address + '/image';
      }),
      new Promise(done => {
        const script = document.createElement('script');
        script.onload = script.onerror = done;
        script.src = address + '/script';
        document.body.append(script);
      }),
    ])"""
    result.page.evaluate(attempts, address)
    assert requested == []
    result.page.goto(address)
    result.page.evaluate(attempts, address)
    assert {"/fetched", "/image", "/script"} <= {*requested}, "without the policy the requests fail too"


def test_readings_hover_and_code_work_without_a_kernel(explorer, tmp_path, opened):
    result = opened(explorer.save_html(tmp_path / "page.html", record={"n_samples": [2, 4]}, progress=False).path)
    frame = frame_of(explorer.attribution, Reduction("absolute"))
    canvas = result.root.locator(".sw-canvas")
    canvas.focus()
    canvas.press("ArrowRight")
    text = result.root.locator(".sw-readout").inner_text()
    x, y = (int(part.split()[1]) for part in text.split(" · ")[0].split(", "))
    value = render.format_number(frame.low + frame.codes[y, x] / 65534 * (frame.high - frame.low))
    assert f"attribution {value} " in text
    assert result.root.locator(".sw-readings").inner_text().count("Gradients") == 1
    expect(result.root.locator(".sw-copy")).to_be_enabled()
    for position, samples in ((0, 2), (1, 4)):
        result.choose("n_samples", position)
        code = result.page.evaluate("saliency.root.get('status').code")
        assert f"n_samples={samples}," in code
    expect(result.root.locator(".sw-stop")).to_be_hidden()
    result.assert_harmless()


def test_a_damaged_page_reports_that_it_cannot_be_opened(explorer, tmp_path, page):
    saved = explorer.save_html(tmp_path / "page.html", progress=False)
    text = saved.path.read_text()
    at = text.index('id="sw-archive">') + 400
    saved.path.write_text(text[:at] + text[at + 4000 :])
    page.goto(saved.path.as_uri())
    expect(page.locator("#sw-view")).to_contain_text("could not be opened")


@pytest.mark.soak
def test_a_page_of_the_demo_stays_below_10_mb(browser: Browser, tmp_path, opened):
    explorer = sw.demo(method="smoothgrad", n_samples=4)
    try:
        explorer.wait()
        record = {"noise_level": [0.05, 0.15, 0.3], "n_samples": [1, 2, 4], "target": ["Egyptian cat", "tabby"]}
        size = explorer.page_size(record)
        saved = explorer.save_html(tmp_path / "page.html", record=record, progress=False)
        assert saved.maps == 18
        assert saved.bytes < 10e6
        assert abs(size.bytes / saved.bytes - 1) < 0.2
        result = opened(saved.path)
        frame = frame_of(explorer.attribution, explorer.panel.reduction)
        assert np.array_equal(result.codes(224), frame.codes)
        assert near(result.pixels(224), overlay(explorer, frame))
        result.choose("n_samples", 0)
        assert not near(result.pixels(224), overlay(explorer, frame))
        result.assert_harmless()
    finally:
        explorer.close()


DRAWN = """
import io
import numpy as np
from PIL import Image

def drawn():
    png = explorer.annotations.image_data
    return bool(png) and bool(np.asarray(Image.open(io.BytesIO(bytes(png)))).any())
"""
DELAY_THE_FIRST = """() => {
  const encode = HTMLCanvasElement.prototype.toBlob;
  let calls = 0;
  window.restore = () => { HTMLCanvasElement.prototype.toBlob = encode; };
  HTMLCanvasElement.prototype.toBlob = function (done, ...how) {
    const first = calls++ === 0;
    encode.call(this, blob => setTimeout(() => { done(blob); window.late ||= first; }, first ? 1500 : 0), ...how);
  };
}"""


@pytest.mark.soak
def test_a_drawing_survives_an_outdated_image_that_arrives_last(lab: Lab) -> None:
    open_explorer(lab, SMALL)
    lab.page.evaluate(DELAY_THE_FIRST)
    lab.execute(DRAWN + "\nexplorer.annotations.fill_rect(10, 20, 60, 30)")
    lab.page.wait_for_function("window.late")
    lab.page.wait_for_timeout(2000)  # time for the outdated empty image to arrive and be corrected
    lab.wait_for_value("drawn()", True)
    lab.execute("explorer.annotations.clear()")
    lab.wait_for_value("drawn()", False)
    lab.page.evaluate("window.restore()")
    assert lab.errors == []


@pytest.mark.soak
def test_the_save_section_writes_a_page_with_the_annotations(lab: Lab, browser: Browser) -> None:
    seen = open_explorer(lab, DEMO)
    lab.add_cell("explorer.annotations.fill_style = 'cyan'\nexplorer.annotations.fill_rect(10, 20, 60, 30)")
    lab.execute(DRAWN)
    lab.wait_for_value("drawn()", True)  # an image of the empty canvas arrives first

    box = seen.output.locator(".sw-save")
    box.get_by_text("Save as a page").click()
    expect(box).to_contain_text("1 map, about")
    before = box.bounding_box()
    box.locator(".sw-record-target").get_by_text("Target").click()
    expect(box).to_contain_text("5 maps, about")
    assert box.bounding_box() == before
    lab.screenshot("section", seen.output)
    box.get_by_label("File").fill("cat")
    box.get_by_label("File").press("Enter")
    lab.wait_for_value("explorer.kind_view.saving._name.value", "cat")  # ipywidgets may send a click before the text
    box.locator(".sw-save-now").click()
    expect(box).to_contain_text("Saved: ", timeout=60_000)
    assert box.bounding_box() == before
    path = Path(lab.value("str(__import__('pathlib').Path('cat.html').resolve())"))
    expected = seen.expected(FRESH)
    lab.execute("explorer.save_png('cat.png', scale=1)")

    context = browser.new_context(viewport={"width": 1024, "height": 768})
    result = Opened(context.new_page(), path)
    assert result.page.locator("[data-name=target] option").count() == 5
    assert np.array_equal(result.codes(144), expected["codes"])
    pixels = result.pixels(144)
    drawn = np.abs(pixels.astype(int) - [0, 255, 255]).max(2) <= 8
    assert drawn[22:48, 12:68].all()
    assert drawn.mean() < 1.2 * 60 * 30 / 144**2
    image = np.asarray(Image.open(path.with_suffix(".png")).convert("RGB"))
    assert (np.abs(image.astype(int) - [0, 255, 255]).max(2) <= 8).sum() >= 56 * 26
    result.choose("target", 2)
    assert not np.array_equal(result.codes(144), expected["codes"])
    result.assert_harmless()
    context.close()
    assert lab.errors == []
