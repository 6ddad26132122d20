"""Take the README's images again in JupyterLab: `make screenshots`."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ensure_browser import FLAGS, find_browser
from lab import Lab
from lab_server import LabServer
from playwright.sync_api import Locator, sync_playwright
from seen import Seen

CHECKOUT = Path(__file__).resolve().parent.parent
IMAGES = CHECKOUT / "docs" / "images"
EXPLORER = "import saliency_widgets as sw\nexplorer = sw.demo({})\nexplorer"


PLANTED = """import saliency_widgets as sw
from saliency_widgets.demos import planted

clever = planted()
explorer = sw.explore(clever.model, clever.image, class_names=clever.class_names)
explorer"""

SWEEP = """import saliency_widgets as sw
from saliency_widgets.demos import classifier, sample_image

model = classifier()
sw.sweep(
    model.model,
    [sample_image("chelsea"), sample_image("coffee")],
    "smoothgrad",
    {"noise_level": [0.05, 0.15, 0.3], "n_samples": [4, 16, 64]},
    transform=model.transform,
    class_names=model.class_names,
)"""


COMPARE = """import saliency_widgets as sw
from saliency_widgets.demos import classifier, sample_image

net = classifier()
sw.compare(
    net.model,
    {name: sample_image(name) for name in ("chelsea", "coffee", "astronaut", "rocket")},
    methods=["gradient", "smoothgrad", "grad_cam"],
    transform=net.transform,
    class_names=net.class_names,
)"""

LESSON = "import saliency_widgets as sw\nlesson = sw.demo('lesson')\nlesson"


def in_both_themes(lab: Lab, name: str, what: Locator) -> None:
    """Take an image of an element in both themes, and restore the light theme and the page's size."""
    for theme in ("light", "dark"):
        lab.theme(theme)
        lab.page.wait_for_timeout(800)
        lab.screenshot(f"{name}-{theme}", what)
    lab.theme("light")
    lab.page.set_viewport_size({"width": 1440, "height": 1000})


def trust(lab: Lab) -> None:
    """The open trust panel, with the planted watermark marked."""
    lab.page.set_viewport_size({"width": 1440, "height": 1560})
    lab.open(lab.write_notebook([PLANTED], "trust.ipynb"))
    lab.run_all()
    seen = Seen(lab, lab.output(0))
    seen.wait()
    seen.output.locator(".sw-trust .jupyter-widget-Collapse-header").first.click()
    seen.root.locator(".sw-region").get_by_text("Rectangle").click()
    lab.execute("import numpy as np; _pixels = np.argwhere(clever.mark); _ends = [*_pixels.min(0), *_pixels.max(0)]")
    top, left, bottom, right = lab.value("list(map(int, _ends))")
    seen.canvas.scroll_into_view_if_needed()
    box = seen.canvas.bounding_box()
    assert box is not None
    unit = box["width"] / 48
    lab.page.mouse.move(box["x"] + (left + 0.5) * unit, box["y"] + (top + 0.5) * unit)
    lab.page.mouse.down()
    lab.page.mouse.move(box["x"] + (right + 0.5) * unit, box["y"] + (bottom + 0.5) * unit, steps=6)
    lab.page.mouse.up()
    lab.page.mouse.move(0, 0)
    lab.wait_for_value("explorer.trust.wait(0) and len(explorer.trust._sections[0]._random_marks.x)", 8)
    in_both_themes(lab, "trust", seen.output)


def sweep(lab: Lab) -> None:
    """Settings of SmoothGrad on two images."""
    lab.page.set_viewport_size({"width": 1080, "height": 1560})
    lab.open(lab.write_notebook([SWEEP], "sweep.ipynb"))
    lab.run_all(seconds=600)
    widget = lab.output(0).locator(".sw-sweep")
    widget.locator(".sw-cell[data-generation]").nth(8).wait_for(timeout=120_000)
    in_both_themes(lab, "sweep", widget)


def compare(lab: Lab) -> None:
    """Three methods and four images, with one pixel read in all cells."""
    lab.page.set_viewport_size({"width": 1440, "height": 1560})
    lab.open(lab.write_notebook([COMPARE], "compare.ipynb"))
    lab.run_all()
    output = lab.output(0)
    output.locator(".sw-grid[data-state=done]").wait_for(timeout=120_000)
    output.locator(".sw-checkup", has_text="no problems found").wait_for(timeout=120_000)
    canvas = output.locator(".sw-cell canvas").nth(5)
    box = canvas.bounding_box()
    assert box is not None
    for theme in ("light", "dark"):
        lab.theme(theme)
        lab.page.wait_for_timeout(500)
        canvas.hover(position={"x": box["width"] * 0.45, "y": box["height"] * 0.55})
        lab.page.wait_for_timeout(300)
        lab.screenshot(f"compare-{theme}", output)
    lab.theme("light")


def lesson(lab: Lab) -> None:
    """The step that compares Guided Backprop with the gradient."""
    lab.open(lab.write_notebook([LESSON], "lesson.ipynb"))
    lab.run_all()
    lab.execute("lesson.wait(); lesson.step = 'guided_backprop'", seconds=120)
    widget = lab.output(0).locator(".sw-lesson")
    widget.locator(".sw-lesson-choice[aria-pressed='true']").wait_for(timeout=30_000)
    in_both_themes(lab, "lesson", widget)


def table(lab: Lab) -> None:
    """A row of a table, with the shuffle test next to its bars."""
    lab.page.set_viewport_size({"width": 1440, "height": 1560})
    lab.open(lab.write_notebook([EXPLORER.format("'diabetes'")], "table.ipynb"))
    lab.run_all()
    output = lab.output(0)
    output.locator(".sw-heatmap[data-state='done']").wait_for(timeout=90_000)
    output.locator(".sw-trust .jupyter-widget-Collapse-header").first.click()
    lab.wait_for_value("len(explorer.kind_view.bars._marker_marks.x) and explorer.trust.wait(0) and 1", 1)
    lab.execute("explorer.kind_view.what_if._feature.value = 'bmi'")
    in_both_themes(lab, "table", output)


def signal(lab: Lab) -> None:
    """A signal, with a sample of the planted beat read."""
    lab.page.set_viewport_size({"width": 1440, "height": 1000})
    lab.open(lab.write_notebook([EXPLORER.format("'signal'")], "signal.ipynb"))
    lab.run_all()
    seen = Seen(lab, lab.output(0))
    seen.wait()
    canvas = seen.root.locator(".sw-lanes-canvas")
    box = canvas.bounding_box()
    assert box is not None
    canvas.hover(position={"x": box["width"] * 0.638, "y": box["height"] * 0.75})
    in_both_themes(lab, "signal", seen.output)


def volume(lab: Lab) -> None:
    """A volume, with the planes moved to the planted nodule."""
    lab.page.set_viewport_size({"width": 1440, "height": 1000})
    lab.open(lab.write_notebook([EXPLORER.format("'volume'")], "volume.ipynb"))
    lab.run_all()
    seen = Seen(lab, lab.output(0))
    seen.wait()
    canvas = seen.root.locator(".sw-plane-canvas").first
    box = canvas.bounding_box()
    assert box is not None
    canvas.click(position={"x": box["width"] * 0.45, "y": box["height"] * 0.5})
    lab.wait_for_value("explorer.kind_view.at[0] == explorer.session.last.reduction.at[0]", True)
    in_both_themes(lab, "volume", seen.output)


def text(lab: Lab) -> None:
    """A sentence."""
    lab.page.set_viewport_size({"width": 1440, "height": 1000})
    lab.open(lab.write_notebook([EXPLORER.format("'text'")], "text.ipynb"))
    lab.run_all()
    seen = Seen(lab, lab.output(0))
    seen.wait()
    in_both_themes(lab, "text", seen.output)


def main() -> None:
    """Write docs/images/*.png."""
    browser_path = find_browser()
    if browser_path is None:
        raise SystemExit("No Chromium or Chrome was found: run `make browser`.")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        home = Path(folder)
        root = home / "root"
        root.mkdir()
        log = home / "lab.log"
        with LabServer(root, home / "home", token="", log=log, expose_app=True) as server:
            browser = playwright.chromium.launch(executable_path=browser_path, args=FLAGS)
            page = browser.new_page(viewport={"width": 1440, "height": 1000}, device_scale_factor=2)
            lab = Lab(page, server.base_url, server.root, root, IMAGES)
            lab.start()
            lab.js("if (!app.shell.leftCollapsed) app.shell.collapseLeft();")
            lab.open(lab.write_notebook([EXPLORER.format("")]))
            lab.run_all()
            seen = Seen(lab, lab.output(0))
            seen.wait()
            for theme in ("light", "dark"):
                lab.theme(theme)
                page.wait_for_timeout(500)
                lab.screenshot(f"explorer-{theme}", lab.page.locator(".jp-NotebookPanel:visible .jp-Notebook"))
            lab.theme("light")
            trust(lab)
            table(lab)
            sweep(lab)
            compare(lab)
            lesson(lab)
            signal(lab)
            volume(lab)
            text(lab)
            lab.open(lab.write_notebook([EXPLORER.format("")], "methods.ipynb"))
            lab.run_all()
            seen = Seen(lab, lab.output(0))
            seen.wait()
            for method, settings in (
                ("gradient", ""),
                ("smoothgrad", "n_samples=50"),
                ("integrated_gradients", "n_steps=128, baseline='blur'"),
                ("blur_ig", "n_steps=64"),
                ("guided_backprop", ""),
                ("grad_cam", ""),
                ("layer_cam", "layer='_blocks.10'"),
                ("guided_grad_cam", ""),
            ):
                lab.execute(f"explorer.update(method={method!r}, {settings})", seconds=120)
                lab.wait_for_value("explorer.attribution is not None", True, seconds=120)
                seen.wait()
                lab.execute(f"explorer.save_png({str(IMAGES / method)!r} + '.png', scale=1)")
            lab.end_kernels()
            browser.close()


if __name__ == "__main__":
    main()
