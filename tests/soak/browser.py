"""Random input in JupyterLab: each settled map equals a fresh computation, and the page leaks no memory."""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from ensure_browser import FLAGS, MISSING, find_browser
from lab import Lab
from lab_server import LabServer
from memory import PageMemory, Usage
from playwright.sync_api import Error, sync_playwright
from seen import Seen, overlay

from soak.figures import Figures

MOVES = 20  # per widget, which the cell's next run replaces
SETTLED = 10  # moves between two checks
GROWTH = 150  # nodes per 100 moves that JupyterLab itself and bqplot's tooltips leave
TOOLBAR = 258  # nodes of a cell's toolbar that JupyterLab 4.6.6 leaks whenever another cell becomes active
SIZE = 32  # of the image, in pixels
_VIEWPORT = {"width": 1440, "height": 900}

OTHER, CONSOLE, KERNEL, DISORDER, SILENT, GROWS, UNFORESEEN = (
    "wrong map", "console error", "kernel error", "frame out of order", "message unanswered", "nodes grow",
    "unexpected error",
)  # fmt: skip

SETUP = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
import numpy as np
import saliency_widgets as sw
from soak.in_kernel import problems
from toys import conv_net, mlp

net, rows = conv_net(), mlp()
names = ["ant", "bee", "cow", "dog"]
draw = np.random.default_rng(0)
image = draw.integers(0, 256, ({SIZE}, {SIZE}, 3), dtype=np.uint8)
table = draw.normal(size=(30, 4))
"""
SHOWN = {
    "explorer": "sw.explore(net, image, class_names=names, method='smoothgrad')",
    "table": "sw.explore(rows, table[0], background=table, class_names=names[:3], feature_names=list('abcd'))",
    "comparison": "sw.compare(net, image, class_names=names, methods=['gradient', 'smoothgrad', 'grad_cam'])",
}

# On SIGUSR1 the kernel writes the stack traces of its threads. Prints its process id.
_TRACED = """
import faulthandler, os, signal
faulthandler.register(signal.SIGUSR1, open({path!r}, "w"))
print(os.getpid())
"""

# CSS selectors of what can be operated, by the kind of input.
PARTS = {
    "slide": ".noUi-handle",
    "choose": "select",
    "type": "input[type=text], input[type=number], .widget-readout[contenteditable=true]",
    "press": "button, input[type=checkbox]",
    "fold": ".jupyter-widget-Collapse-header, summary",
    "draw": "canvas",
    "click": ".bqplot .bar, .bqplot rect",
}
MARKED = ".sw-region:not([hidden]) [title^='Clear the marked']:enabled"  # exists while a marked region covers the map
WORDS = ["bee", "cow (2)", "3", "7", "1.5", "-2", "0.25", "1e9", "", "no such class", "<b>&amp;", "名前"]

# Record in the page, from now on, what must not happen.
WATCH = """
const watched = window.__soak = {unanswered: new Set(), kernel: [], disorder: [], toolbars: 0};
panel.content.activeCellChanged.connect(() => watched.toolbars++);
const last = new WeakMap();
document.addEventListener('sw-paint', ({target, detail}) => {
  const [generation, index] = last.get(target) ?? [0, -1];
  if (detail.generation < generation || (detail.generation === generation && detail.index < index))
    watched.disorder.push(`${detail.generation}.${detail.index} after ${generation}.${index}`);
  last.set(target, [detail.generation, detail.index]);
});
kernel.anyMessage.connect((_, {msg, direction}) => {
  const {header: {msg_type: type, msg_id: id}, parent_header: parent, content} = msg;
  if (direction === 'send' && type === 'comm_msg') watched.unanswered.add(id);
  if (type === 'status' && content.execution_state === 'idle') watched.unanswered.delete(parent.msg_id);
  if (type === 'error') watched.kernel.push(content.traceback.join('\\n'));
  if (type === 'stream' && content.text.includes('Traceback')) watched.kernel.push(content.text);
});
// bqplot 0.13.1 removes the parts of a figure one after another, so a scale that is gone may still move elements that
// have left the page, to NaN.
const set = Element.prototype.setAttribute;
Element.prototype.setAttribute = function(name, value) {
  if (name !== 'transform' || this.isConnected || !String(value).includes('NaN')) set.call(this, name, value);
};
"""
TAKE = """
const {kernel: errors, disorder, unanswered} = window.__soak;
return {kernel: errors.splice(0), disorder: disorder.splice(0), unanswered: unanswered.size};
"""
# JupyterLab 4.6.6 keeps references to every key press, in each cell to the element that was clicked last, and in each
# cell's editor to the element in which text was selected last, and so to the widgets that contain them: see
# tests/README.md. They are dropped before nodes are counted.
FORGET_INPUT = """
app.commands._holdKeyBindingPromises?.clear();
for (const cell of panel.content.widgets) {
  const [target, handler] = [cell._lastTarget, cell._lastOnCaretMovedHandler];
  for (const from of [target, document]) from?.removeEventListener('selectionchange', handler);
  cell._lastTarget = cell._lastOnCaretMovedHandler = null;
}
getSelection().selectAllChildren(document.body);
getSelection().removeAllRanges();
document.dispatchEvent(new Event('selectionchange'));
"""
# Pick one of the visible and enabled elements, and scroll it into view.
PICK = """(output, [selector, share, focus]) => {
  const parts = [...output.querySelectorAll(selector)].filter(part =>
    !part.disabled && part.checkVisibility({visibilityProperty: true}) && part.getBoundingClientRect().width > 0);
  const part = parts[Math.floor(share * parts.length)];
  if (!part) return null;
  part.scrollIntoView({block: 'center'});
  if (focus) part.focus({preventScroll: true});
  const {x, y, width, height} = part.getBoundingClientRect();
  return {x, y, width, height, choices: part.options?.length ?? 0};
}"""
CHOOSE = """(output, index) => {
  const menu = output.ownerDocument.activeElement;
  menu.selectedIndex = index;
  for (const name of ['input', 'change']) menu.dispatchEvent(new Event(name, {bubbles: true}));
}"""


def attack(seed: int, seconds: float) -> Figures:
    """Operate one widget after another in a new browser."""
    figures = Figures()
    with opened() as (lab, log):
        play(lab, log, figures, seed, until=time.monotonic() + seconds)
    return figures


@contextmanager
def opened() -> Iterator[tuple[Lab, Path]]:
    """Start a JupyterLab server and open a page; yield the page and the server's log."""
    path = find_browser()
    if path is None:
        raise RuntimeError(MISSING)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        root, log = Path(folder, "root"), Path(folder, "lab.log")
        root.mkdir()
        with LabServer(root, Path(folder, "home"), token="", log=log, expose_app=True) as server:
            browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
            page = browser.new_page(viewport=_VIEWPORT, device_scale_factor=1)
            lab = Lab(page, server.base_url, server.root, server.root, Path(folder, "artifacts"))
            lab.start()
            yield lab, log
            browser.close()


def play(
    lab: Lab, log: Path, figures: Figures, seed: int, *, until: float = float("inf"), widgets: int = 10**9
) -> None:
    """Operate one widget after another in whole rounds, at most ``widgets`` of them, until a monotonic time."""
    figures.expect_none_of(OTHER, CONSOLE, KERNEL, DISORDER, SILENT, GROWS, UNFORESEEN)
    player = Player(lab, log, figures, seed)
    first: tuple[int, Usage] | None = None
    for number in range(widgets):
        if number % len(SHOWN) == 0 and time.monotonic() > until:
            break  # only after a widget of the last kind, as in the first memory measurement
        try:
            player.play(list(SHOWN)[number % len(SHOWN)])
        except (AssertionError, Error) as error:
            figures.fault(UNFORESEEN, f"{player.step}: {error} {player.traces()}")
            break
        if number == len(SHOWN) - 1:  # by now everything exists that the page keeps once per kind
            first = figures.counts["moves"], player.usage()
    if first is not None and figures.counts["moves"] > first[0]:
        player.compare_memory(*first)


class Player:
    """Operates the widget shown in one cell of a notebook, and checks it.

    Args:
        lab: The page.
        log: The server's log, where the kernel's uncaught errors are.
        figures: Where moves and faults are counted.
        seed: The seed of the moves.
    """

    def __init__(self, lab: Lab, log: Path, figures: Figures, seed: int) -> None:
        self.lab, self.log, self.figures = lab, log, figures
        self.seed, self.draw = seed, random.Random(seed)
        self.step, self._seen, self._read = f"seed {seed}", 0, 0
        lab.js("if (!app.shell.leftCollapsed) app.shell.collapseLeft();")
        lab.open(lab.write_notebook([SETUP, ""]))
        lab.run_cell(0, seconds=180)
        lab.js(WATCH)
        self._traces = lab.root / "traces"
        self._kernel = int(lab.execute(_TRACED.format(path=str(self._traces))))
        self._read = log.stat().st_size
        self.memory = PageMemory(lab)
        self.output = lab.output(1)

    def play(self, kind: str) -> None:
        """Show a widget, operate and check it, and close it."""
        counts = self.figures.counts
        self._show(kind)
        counts[f"{kind}s"] += 1
        for number in range(1, MOVES + 1):
            counts["moves"] += 1
            self._move(kind)
            if number % SETTLED == 0:
                self._settle(kind)
        self.lab.page.set_viewport_size(_VIEWPORT)
        self._run("shown.close()")
        self._take()

    def traces(self) -> str:
        """The stack traces of the kernel's threads."""
        os.kill(self._kernel, signal.SIGUSR1)
        time.sleep(1.0)
        return self._traces.read_text()

    def usage(self) -> Usage:
        """The page's memory, without what JupyterLab keeps because of key presses and clicks."""
        self.lab.js(FORGET_INPUT + "window.__soak.toolbars = 0;")
        return self.memory.usage()

    def compare_memory(self, begun: int, before: Usage) -> None:
        """Count the growth since an earlier measurement, per 100 moves."""
        share = (self.figures.counts["moves"] - begun) / 100
        self.lab.js(FORGET_INPUT)
        toolbars = TOOLBAR * self.lab.js("return window.__soak.toolbars;")
        grown = self.memory.growth(before, round(GROWTH * share + toolbars))
        nodes, kilobytes = round((grown.nodes - toolbars) / share), round(grown.heap / share / 1000)
        self.figures.counts["nodes of toolbars"] += toolbars
        self.figures.counts["nodes in 100 moves"] += nodes
        self.figures.counts["kB of heap in 100 moves"] += kilobytes
        if nodes > GROWTH:
            self.figures.fault(GROWS, f"seed {self.seed}: {nodes} in 100 moves")

    def _show(self, kind: str) -> None:
        self._run(f"shown = {SHOWN[kind]}\nshown")
        self.output.locator(".sw-view, .sw-grid").first.wait_for(timeout=60_000)

    def _run(self, code: str) -> None:
        self.lab.set_source(1, code)
        self.lab.run_cell(1, seconds=120)

    # ---- moves

    def _move(self, kind: str) -> None:
        names = [*PARTS, "slide", "choose", "press", "fold", "look", "resize", "theme", "run again"]
        name = self.draw.choices(names, [*[6] * (len(names) - 4), 4, 2, 1, 1])[0]
        self.step = f"seed {self.seed}, {kind}, move {self.figures.counts['moves']}: {name}"
        box = None
        if name in PARTS:
            where = [PARTS[name], self.draw.random(), name in ("slide", "choose", "draw")]
            box = self.output.evaluate(PICK, where)
            if box is None:
                self.figures.counts["nothing to move"] += 1
                return
        getattr(self, "_" + name.replace(" ", "_"))(box)

    def _slide(self, box: dict[str, float]) -> None:
        if self.draw.random() < 0.5:
            self._drag(box, self.draw.uniform(-150, 150), 0)
        else:
            key = self.draw.choice(["ArrowLeft", "ArrowRight", "PageUp", "PageDown", "Home", "End"])
            self._strike([key] * self.draw.randrange(1, 6))

    def _choose(self, box: dict[str, float]) -> None:
        self.output.evaluate(CHOOSE, self.draw.randrange(max(1, int(box["choices"]))))

    def _type(self, box: dict[str, float]) -> None:
        keyboard = self.lab.page.keyboard
        self._press(box)
        keyboard.press("ControlOrMeta+a")
        keyboard.insert_text(self.draw.choice(WORDS))
        keyboard.press("Enter")

    def _press(self, box: dict[str, float]) -> None:
        self.lab.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)

    _fold = _click = _press

    def _draw(self, box: dict[str, float]) -> None:
        if self.draw.random() < 0.5:
            reach = 0.4 * box["width"]
            self._drag(box, self.draw.uniform(-reach, reach), self.draw.uniform(-reach, reach))
            return
        keys = ["ArrowLeft", "ArrowDown", "Shift+ArrowRight", "Space", "[", "]", "i", "u", "Delete"]
        self._strike(self.draw.choices(keys, k=self.draw.randrange(1, 8)))

    def _strike(self, keys: Sequence[str]) -> None:
        """Press keys while the widget has the focus. Others would reach JupyterLab, where "i" twice interrupts."""
        for key in keys:
            if not self.output.evaluate("output => output.contains(document.activeElement)"):
                return
            self.lab.page.keyboard.press(key)

    def _drag(self, box: dict[str, float], across: float, down: float) -> None:
        mouse, x, y = self.lab.page.mouse, box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        mouse.move(x, y)
        mouse.down()
        mouse.move(x + across, y + down, steps=self.draw.randrange(1, 9))
        mouse.up()

    def _look(self, _box: None) -> None:
        self.lab.page.mouse.move(self.draw.uniform(50, 1000), self.draw.uniform(50, 700))
        self.lab.page.mouse.wheel(0, self.draw.choice([-300, 300]))

    def _resize(self, _box: None) -> None:
        self.lab.page.set_viewport_size({"width": self.draw.choice([900, 1200, 1440]), "height": 900})

    def _theme(self, _box: None) -> None:
        self.lab.theme(self.draw.choice(["light", "dark"]))

    def _run_again(self, _box: None) -> None:
        self.lab.run_cell(1, seconds=120)

    # ---- checks

    def _settle(self, kind: str) -> None:
        """Wait until everything is handled and painted; check the map and what the page has recorded."""
        self._answered()
        self.step += ", settled"
        for problem in self.lab.value("problems(shown)", seconds=300):
            self.figures.fault(OTHER, f"{self.step}: {problem}")
        self.figures.counts["settled"] += 1
        if kind == "explorer":
            self._compare_pixels()
        self._take()

    def _answered(self) -> None:
        """Wait until the kernel has handled all messages of the page: a control sends its next one only then."""
        try:
            self.lab.page.wait_for_function("() => window.__soak.unanswered.size === 0", timeout=120_000)
        except Error as error:
            self.figures.fault(SILENT, f"{self.step}: {error}")

    def _compare_pixels(self) -> None:
        seen = Seen(self.lab, self.output, "shown")
        seen.wait()
        self._answered()
        marked = seen.root.locator(MARKED).count() or self.lab.value("bool(shown.view.region)")
        if marked or seen.canvas.evaluate("canvas => canvas.width") < SIZE:
            return
        result = seen.expected("shown.attribution")
        display: dict[str, Any] = self.lab.value("shown.kind_view.display.settings")
        off = np.abs(seen.pixels(SIZE).astype(int) - overlay(result, **display).astype(int)).max()
        self.figures.counts["images compared"] += 1
        if off > 1:
            self.figures.fault(OTHER, f"{self.step}: on the screen, pixels are off by {off}")

    def _take(self) -> None:
        """Count the errors that the page, the console and the server's log have recorded since the last call."""
        noted = self.lab.js(TAKE)
        for name, texts in ((KERNEL, noted["kernel"]), (DISORDER, noted["disorder"])):
            for text in texts:
                self.figures.fault(name, f"{self.step}: {text[-1500:]}")
        errors = self.lab.errors
        for text in errors[self._seen :]:
            self.figures.fault(CONSOLE, f"{self.step}: {text[:1500]}")
        self._seen = len(errors)
        with self.log.open("rb") as log:
            log.seek(self._read)
            added = log.read()
        self._read += len(added)
        if b"Traceback" in added:
            self.figures.fault(KERNEL, f"{self.step}: {added.decode(errors='replace')[-1500:]}")
