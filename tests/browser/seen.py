"""The pixels that an explorer shows on the page, and those that it should show."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
from lab import Lab
from playwright.sync_api import Locator

from saliency_widgets import render

# Code for the kernel: a small untrained model, for tests of the page that don't depend on good predictions.
NET = """import torch
import saliency_widgets as sw
from saliency_widgets.demos import sample_image
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)
net = nn.Sequential(
    nn.Conv2d(3, 8, 5, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2), nn.ReLU(),
    nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(256, 10),
).eval()
photo = sample_image("chelsea").resize((224, 224))
"""

SMALL = NET + "explorer = sw.explore(net, photo, method='gradient')\nexplorer"

# Code for the kernel: a classifier of texts, and one of signals.
BAG = """import torch
import saliency_widgets as sw

torch.manual_seed(0)
WORDS = {word: index for index, word in enumerate("<unk> the cat sat on mat good bad".split())}

class Bag(torch.nn.Module):
    def __init__(self, numbers=4):
        super().__init__()
        self.embedding, self.head = torch.nn.Embedding(8, numbers), torch.nn.Linear(numbers, 3)

    def forward(self, ids):
        return self.head(self.embedding(ids).tanh().mean(1))
"""

# Constant lanes: the line of each is at a known height, and each of its pixels has the color of the value there.
WEIGHTED = """import torch
import saliency_widgets as sw

torch.manual_seed(0)
torch.set_num_threads(1)

class Weighted(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(3, 2, 20))

    def forward(self, x):
        return torch.stack([(x * weight).flatten(1).sum(1) for weight in self.weight], 1)

signal = torch.tensor([[1.0], [2.0]]).repeat(1, 20)
"""

# At 224 pixels the demo takes most of a test's time; at 144 the model still recognizes the cat and the coffee.
SMALLER = "from saliency_widgets.demos import imagenet\n\nimagenet._SIZE = 144\n"
DEMO = SMALLER + "import saliency_widgets as sw\nexplorer = sw.demo(method='gradient')\nexplorer"

# Read the canvas's color at the center of each pixel of the image.
PIXELS = """(canvas, [height, width]) => {
  const context = canvas.getContext('2d');
  const data = context.getImageData(0, 0, canvas.width, canvas.height).data;
  const colors = new Uint8Array(height * width * 3);
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) {
    const row = Math.floor((y + 0.5) * canvas.height / height);
    const column = Math.floor((x + 0.5) * canvas.width / width);
    const from = 4 * (row * canvas.width + column);
    for (let k = 0; k < 3; k++) colors[3 * (y * width + x) + k] = data[from + k];
  }
  let text = '';
  for (let i = 0; i < colors.length; i += 8192) text += String.fromCharCode(...colors.subarray(i, i + 8192));
  return btoa(text);
}"""

# Record all paints from now on in window.__paints, oldest first.
_LISTEN = """root => {
  window.__paints = [];
  root.addEventListener('sw-paint', event => window.__paints.push({
    ...event.detail, time: performance.now(),
  }));
}"""

IN_KERNEL = """
import base64 as _b64, json as _json
import numpy as _np
from saliency_widgets import render as _render
from saliency_widgets.attribution import Reduction as _Reduction
from saliency_widgets.session import frame_of as _frame_of

def _arrays(explorer, attribution):
    frame = _frame_of(attribution, explorer.panel.reduction)
    pack = lambda a: _b64.b64encode(_np.ascontiguousarray(a).tobytes()).decode()
    print(_json.dumps({"codes": pack(frame.codes), "low": frame.low, "high": frame.high, "signed": frame.signed,
                       "shape": frame.codes.shape, "image": pack(explorer.kind_view.image)}))
"""


def overlay(result: dict, **changes: object) -> np.ndarray:
    """The overlay that `render` computes for a map with the default display settings, except for `changes`."""
    display = {param.name: param.default for param in render.DISPLAY} | changes
    table = render.lut(display.pop("diverging" if result["signed"] else "colormap"))
    for name in ("diverging", "colormap"):
        display.pop(name, None)
    quantized = render.Quantized(result["codes"], result["low"], result["high"], result["signed"])
    return render.blend(result["image"], quantized, lut=table, **display)


class Seen:
    """One explorer on the page.

    Args:
        lab: The JupyterLab page.
        output: The output area that shows it.
        name: The explorer's variable in the kernel.
    """

    def __init__(self, lab: Lab, output: Locator, name: str = "explorer") -> None:
        self.lab = lab
        self.name = name
        self.output = output
        self.root = output.locator(".sw-heatmap").first
        self.canvas = self.root.locator(".sw-canvas")

    def wait(self, state: str = "done", seconds: float = 90) -> None:
        """Wait until the page shows this state and the last frame that the kernel sent."""
        self.lab.execute(f"{self.name}.session.wait({seconds})", seconds=seconds)
        self.root.locator(f"xpath=self::*[@data-state='{state}']").wait_for(timeout=1000 * seconds)
        self.lab.execute(f"{self.name}.view.flush()")
        while True:  # a redraw may send a newer frame than the one that was read
            number = self.lab.value(f"[{self.name}.view.frame['generation'], {self.name}.view.frame['index']]")
            root = self.root.element_handle()
            reached = self.lab.page.wait_for_function(
                """([root, generation, index]) => {
                  const painted = [Number(root.dataset.generation), Number(root.dataset.index)];
                  const ahead = painted[0] - generation || painted[1] - index;
                  return ahead >= 0 && painted;
                }""",
                arg=[root, *number],
            )
            painted = reached.json_value()
            for handle in (root, reached):  # until then the page keeps their objects alive, even of closed widgets
                handle.dispose()
            if painted == number:
                return

    def pixels(self, size: int = 224) -> np.ndarray:
        """The canvas's colors, one for each pixel of an image of this size: uint8 (size, size, 3)."""
        raw = self.canvas.evaluate(PIXELS, [size, size])
        return np.frombuffer(base64.b64decode(raw), np.uint8).reshape(size, size, 3)

    def listen(self) -> None:
        """Record every paint from now on."""
        self.root.evaluate(_LISTEN)

    def paints(self) -> list[dict[str, Any]]:
        """The recorded paints."""
        return self.lab.page.evaluate("window.__paints")

    def expected(self, attribution: str) -> dict[str, Any]:
        """The 16-bit map of an attribution (an expression in the kernel), and the image."""
        text = self.lab.execute(IN_KERNEL + f"\n_arrays({self.name}, {attribution})", seconds=120)
        result = json.loads(text.splitlines()[-1])
        shape = result["shape"]
        result["codes"] = np.frombuffer(base64.b64decode(result["codes"]), "<u2").reshape(shape)
        result["image"] = np.frombuffer(base64.b64decode(result["image"]), np.uint8).reshape(*shape, 3)
        return result

    def control(self, name: str) -> Locator:
        """The control of a parameter or a setting."""
        return self.output.locator(f".sw-control-{name}")

    def handle(self, name: str, number: int = 0) -> Locator:
        """The handle of a slider."""
        return self.control(name).locator(".noUi-handle").nth(number)


def open_explorer(lab: Lab, code: str) -> Seen:
    """Run code that makes an explorer in a new notebook, and wait until it shows its map."""
    lab.open(lab.write_notebook([code]))
    lab.run_all()
    seen = Seen(lab, lab.output(0))
    seen.wait()
    return seen


def open_comparison(lab: Lab, code: str) -> Locator:
    """Run code that makes `compared` in a new notebook, and return its grid once all maps are finished."""
    lab.open(lab.write_notebook([code]))
    lab.run_all()
    grid = lab.output(0).locator(".sw-grid")
    grid.wait_for(timeout=60_000)
    lab.output(0).locator(".sw-grid[data-state=done]").wait_for(timeout=120_000)
    lab.execute("compared.wait(progress=False)")
    return grid
