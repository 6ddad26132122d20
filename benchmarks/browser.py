"""The time from a control to pixels in JupyterLab, compared with the usual alternative.

Ours is the explorer; theirs is `ipywidgets.interact` with captum and matplotlib, in another notebook of the same
JupyterLab, so that settings in our kernel don't affect it. Both have the same model, image, method (Integrated
Gradients, 50 steps, black baseline) and gesture: an arrow key moves the slider of the steps from 32 to 50. They are
measured in turn, so that other load on the machine affects both.

Times are measured in the page with `performance.now()`, from the DOM event to the end of an animation frame. They are
wall times and include other load, so the table states how much of it there was.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from playwright.sync_api import Locator, sync_playwright

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(CHECKOUT / "tools"), str(CHECKOUT / "tests" / "browser")]

from ensure_browser import FLAGS, MISSING, find_browser  # noqa: E402
from lab import Lab  # noqa: E402
from lab_server import LabServer  # noqa: E402
from seen import Seen  # noqa: E402

# Tall enough for a whole output, so that a gesture doesn't begin with scrolling.
VIEWPORT = {"width": 1440, "height": 2100}
STEPS, FEWER = 50, 32
TARGET = 285

# n_steps=50 from Python adds "50" to the positions of the slider, between 32 and 64. The other class is a warm-up.
OURS = f"""
import saliency_widgets as sw
sw.tune_allocator()
explorer = sw.demo(method="integrated_gradients", n_steps={STEPS}, quadrature="trapezoid", target=281)
explorer
"""

THEIRS = f"""
%matplotlib inline
import matplotlib.pyplot as plt
import torch
from captum.attr import IntegratedGradients
from ipywidgets import SelectionSlider, interact
from saliency_widgets.demos import classifier, sample_image

net = classifier()
x = net.transform(sample_image("chelsea"))[None]
black = torch.full_like(x, (0 - 127) / 128)
photo = ((x[0] * 128 + 127) / 255).movedim(0, -1)
integrated_gradients = IntegratedGradients(net.model)

def saliency(n_steps):
    values = integrated_gradients.attribute(x, baselines=black, target={TARGET}, n_steps=n_steps)
    plt.imshow(photo)
    plt.imshow(values[0].abs().amax(0), cmap="inferno", alpha=0.75)
    plt.axis("off")
    plt.show()

interact(saliency, n_steps=SelectionSlider(options=[{FEWER}, {STEPS}], continuous_update=False));
"""

CELLS = {"ours": OURS, "theirs": THEIRS}

# Sets window.__measured to a promise of {first, frames, final}: milliseconds from the DOM event to the first frame
# with other pixels, how many frames that took, and milliseconds to the final image.
# Pixels are read in a task that the frame's callback posts: by then all callbacks of the frame have painted.
_WATCH = """(element, {display}) => {
  const canvas = element.querySelector('canvas.sw-canvas');
  const generation = Number(element.dataset.generation);
  // Only a band across the middle, which every new map changes: reading all of it would take a tenth of the CPU.
  const pixels = () => {
    const {data} = canvas.getContext('2d').getImageData(0, canvas.height >> 1, canvas.width, 32);
    return new Uint32Array(data.buffer);
  };
  const before = canvas ? pixels() : element.querySelector('img').src;
  const changed = () => {
    if (canvas) {
      const now = pixels();
      return now.length !== before.length || now.some((pixel, i) => pixel !== before[i]);
    }
    const image = element.querySelector('img');
    return image !== null && image.src !== before && image.complete && image.naturalWidth > 0;
  };
  // Whether the last frame of a newer request is painted, according to the page. Theirs has one image, which is final.
  const final = () => !canvas || display || (Number(element.dataset.generation) > generation
    && element.dataset.final === 'true' && element.dataset.state === 'done');
  window.__measured = new Promise(resolve => {
    const channel = new MessageChannel();
    let start = null, first = null, frames = 0, over = false;
    const begin = event => { start ??= event.timeStamp; };
    const events = ['keydown', 'change'];
    for (const name of events) addEventListener(name, begin, {capture: true});
    const frame = () => {
      if (over) return;
      requestAnimationFrame(frame);  // here and not in the task, which may run late, so that all frames are counted
      if (start === null) return;
      frames += 1;
      channel.port2.postMessage(null);
    };
    channel.port1.onmessage = () => {
      const now = performance.now();
      if (over) return;
      if (first === null && changed()) first = {ms: now - start, frames};
      if (first === null || !final()) return;
      over = true;
      for (const name of events) removeEventListener(name, begin, {capture: true});
      channel.port1.close();
      resolve({first: first.ms, frames: first.frames, final: now - start});
    };
    requestAnimationFrame(frame);
  });
}"""

# Sets window.__measured to a promise of {ms}: milliseconds from the end of a stroke to the next text of the score line.
_SAID = """element => {
  const text = () => [...element.querySelectorAll('.sw-said')].map(said => said.textContent).join();
  const before = text();
  window.__measured = new Promise(resolve => {
    let start = null;
    addEventListener('pointerup', event => { start ??= event.timeStamp; }, {capture: true, once: true});
    const look = () => {
      if (start !== null && text() !== before) resolve({ms: performance.now() - start});
      else requestAnimationFrame(look);
    };
    requestAnimationFrame(look);
  });
}"""

# Time plain forward passes of the image.
_FORWARD = """
import time as _time, torch as _torch
_model, _x = explorer.problem.model, explorer.problem.tensor
def _forward():
    _begun = _time.perf_counter()
    with _torch.no_grad():
        _model(_x)
    return 1000 * (_time.perf_counter() - _begun)
_times = sorted(_forward() for _ in range(9))
"""

Timing = dict[str, float]


class Bench:
    """The two notebooks, and the gestures.

    Args:
        lab: The JupyterLab page, started.
    """

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        lab.js("if (!app.shell.leftCollapsed) app.shell.collapseLeft();")
        self.paths = {who: lab.write_notebook([code], f"{who}.ipynb") for who, code in CELLS.items()}
        self.kernels: list[psutil.Process] = []
        for path in self.paths.values():
            lab.open(path)
            lab.run_all(seconds=180)
            self.kernels.append(psutil.Process(lab.kernel_pid()))
        # Each is the output of the first cell, of the notebook that is in front.
        self.seen, self.theirs = Seen(lab, lab.output(0)), lab.output(0)
        self.theirs.locator("img").wait_for()
        self.front("ours")
        self.seen.wait()
        for key in ("ArrowRight", "ArrowLeft"):  # warm up torch, captum and matplotlib
            self.slide_theirs(key)

    def front(self, who: str) -> None:
        """Bring a notebook to the front."""
        self.lab.open(self.paths[who])

    def ours(self, target: int) -> Timing:
        """Move the slider of the steps to 50, for a class that was not requested before, with an empty cache."""
        self.front("ours")
        self.settle(f"explorer.update(method='integrated_gradients', n_steps={FEWER}, target={target})")
        self.lab.execute("explorer.session.cache.forget(explorer.session.owner)")
        return self.press(self.seen.root, self.seen.handle("n_steps"), "ArrowRight")

    def ours_again(self) -> Timing:
        """Move the slider away and back to the 50 steps that were shown before."""
        steps = self.seen.handle("n_steps")
        self.press(self.seen.root, steps, "ArrowLeft")
        return self.press(self.seen.root, steps, "ArrowRight")

    def ours_class(self, target: int) -> Timing:
        """Type a class that was not requested before into the search, with the gradient method."""
        self.front("ours")
        self.settle("explorer.update(method='gradient')")
        search = self.seen.control("target").locator("input")
        search.fill(str(target))
        return self.press(self.seen.root, search, "Enter")

    def slide_theirs(self, key: str) -> Timing:
        """Move the slider of `interact`."""
        self.front("theirs")
        return self.press(self.theirs, self.theirs.locator(".noUi-handle"), key)

    def ours_display(self) -> list[Timing]:
        """Change opacity, color map and clip range while the kernel's process is stopped."""
        seen = self.seen
        self.rest()
        with self.lab.paused_kernel():
            colors = seen.control("colormap").locator("select")
            other = "viridis" if colors.evaluate("e => e.selectedOptions[0].label") != "viridis" else "inferno"
            return [
                self.watch(seen.root, lambda: seen.handle("opacity").press("ArrowLeft"), display=True),
                self.watch(seen.root, lambda: colors.select_option(other), display=True),
                self.watch(seen.root, lambda: seen.handle("clip", 1).press("ArrowLeft"), display=True),
            ]

    def ours_brush(self, k: int) -> Timing:
        """Draw a rectangle on the image, and time the ablation's score line; also time one forward pass."""
        self.front("ours")
        seen, mouse = self.seen, self.lab.page.mouse
        tools = seen.root.locator(".sw-region")
        if not tools.is_visible():
            seen.output.locator(".sw-trust .jupyter-widget-Collapse-header").first.click()
            tools.get_by_text("Rectangle").click()
        seen.canvas.scroll_into_view_if_needed()
        box = seen.canvas.bounding_box()
        assert box is not None
        left, top = box["x"] + (0.1 + 0.07 * k) * box["width"], box["y"] + 0.3 * box["height"]

        def draw() -> None:
            mouse.move(left, top)
            mouse.down()
            mouse.move(left + 0.2 * box["width"], top + 0.2 * box["height"], steps=4)
            mouse.up()

        if not k:  # the first ablation also runs the whole image, whose score is cached
            draw()
            left += 0.4 * box["width"]
        self.rest()
        self.lab.execute(_FORWARD)
        seen.output.locator(".sw-trust").evaluate(_SAID)  # each update replaces the line's element
        draw()
        measured = self.lab.js("return await window.__measured;", seconds=120)
        return {"final": measured["ms"], "forward": self.lab.value("_times[4]")}

    def press(self, element: Locator, control: Locator, key: str) -> Timing:
        """Press a key on a control while the kernels are idle."""
        control.focus()
        self.rest()
        return self.watch(element, lambda: self.lab.page.keyboard.press(key))

    def watch(self, element: Locator, gesture: Callable[[], Any], *, display: bool = False) -> Timing:
        """Time a gesture by the pixels of the element that it changes."""
        element.evaluate(_WATCH, {"display": display})
        gesture()
        return self.lab.js("return await window.__measured;", seconds=120)

    def settle(self, code: str) -> None:
        """Run code that requests a map, and wait for it."""
        self.lab.execute(code)
        self.lab.execute("explorer.wait(120)", seconds=150)
        self.seen.wait()

    def rest(self, seconds: float = 120) -> None:
        """Wait until the kernels use no CPU, neither for a request nor for idle work."""

        def used() -> float:
            return sum(sum(kernel.cpu_times()[:2]) for kernel in self.kernels)

        calm, spent = 0, used()
        for _ in range(int(seconds / 0.2)):
            self.lab.page.wait_for_timeout(200)
            now = used()
            calm = calm + 1 if now - spent <= 0.02 else 0
            if calm == 3:
                return
            spent = now
        raise AssertionError(f"the kernel does not come to rest within {seconds:g} s")


def measure(rounds: int = 3) -> list[dict[str, Any]]:
    """Measure everything, `rounds` times, ours and theirs in turn.

    Returns:
        Rows with the keys "what", "value", "limit", "unit" ("ratio" to theirs or to one forward pass, or "frames"),
        "ours_ms" and "theirs_ms".
    """
    path = find_browser()
    if path is None:
        raise SystemExit(MISSING)
    ours, again, switch, theirs, display, brush = [], [], [], [], [], []
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        root = Path(folder, "root")
        root.mkdir()
        with LabServer(root, Path(folder, "home"), token="", log=Path(folder, "lab.log"), expose_app=True) as server:
            browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
            page = browser.new_page(viewport=VIEWPORT, device_scale_factor=1)
            lab = Lab(page, server.base_url, server.root, server.root, Path(folder, "artifacts"))
            lab.start()
            bench = Bench(lab)
            for k in range(rounds):
                ours.append(bench.ours((TARGET + 37 * k) % 1000))
                again.append(bench.ours_again())
                theirs.append(bench.slide_theirs("ArrowRight"))
                bench.slide_theirs("ArrowLeft")
                switch.append(bench.ours_class((967 + 37 * k) % 1000))
                display += bench.ours_display()
            bench.ours_brush(0)
            brush = [bench.ours_brush(k + 1) for k in range(rounds)]
            lab.end_kernels()
            browser.close()

    their_first, their_final = (median(timing[key] for timing in theirs) for key in ("first", "final"))

    def row(what: str, timings: list[Timing], key: str, theirs_ms: float, limit: float) -> dict[str, Any]:
        ours_ms = median(timing[key] for timing in timings)
        value = ours_ms / theirs_ms
        return {
            "what": what,
            "value": value,
            "limit": limit,
            "unit": "ratio",
            "ours_ms": ours_ms,
            "theirs_ms": theirs_ms,
        }

    forward = median(timing["forward"] for timing in brush)
    return [
        row("slider to first changed pixel, IG-50", ours, "first", their_first, 0.03),
        row("slider to final image, IG-50", ours, "final", their_final, 0.40),
        row("the same on reuse: class switch (gradient method)", switch, "final", their_final, 0.03),
        row("the same for a setting seen before", again, "final", their_final, 0.03),
        row("brush to score line, to one forward pass", brush, "final", forward, 1.0),
        {
            "what": "opacity, color map, clip: slider to pixel",
            "value": float(max(timing["frames"] for timing in display)),  # the worst case, not the median
            "limit": 2.0,
            "unit": "frames",
            "ours_ms": median(timing["first"] for timing in display),
            "theirs_ms": None,
        },
    ]


def main() -> None:
    """Print the table."""
    others = [psutil.cpu_percent(interval=2)]
    rows = measure()
    others.append(psutil.cpu_percent(interval=2))
    print(f"{'':<50} {'value':>7} {'limit':>6}  {'unit':<6} {'ours':>9} {'theirs':>9}")
    for row in rows:
        ours, theirs = ("" if row[key] is None else f"{row[key]:.0f} ms" for key in ("ours_ms", "theirs_ms"))
        places = 3 if row["unit"] == "ratio" else 0
        over = "  over" if row["value"] > row["limit"] else ""
        numbers = f"{row['value']:>7.{places}f} {row['limit']:>6g}  {row['unit']:<6} {ours:>9} {theirs:>9}"
        print(f"{row['what']:<50} {numbers}{over}")
    before, after = others
    print(f"Other processes used {before:.0f} % of the CPU just before and {after:.0f} % just after.")


if __name__ == "__main__":
    main()
