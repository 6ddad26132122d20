"""The harness itself: notebooks in JupyterLab, operated by keyboard, while the kernel runs and while it is stopped."""

from __future__ import annotations

import json
import sys

import psutil
import pytest
from lab import KernelError, Lab
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

SETUP = """
import ipywidgets as widgets
mover = widgets.IntSlider(value=10, min=0, max=100, description="mover")
follower = widgets.IntSlider(value=10, min=0, max=100, description="follower")
link = widgets.jslink((mover, "value"), (follower, "value"))
"""


def test_a_linked_slider_follows_while_the_kernel_is_stopped(lab: Lab) -> None:
    lab.open(lab.write_notebook([SETUP, "widgets.VBox([mover, follower])"]))
    lab.run_all()
    sliders = lab.output(1).locator(".widget-slider")
    mover, follower = (sliders.nth(k).locator(".noUi-handle") for k in range(2))
    readout = sliders.nth(1).locator(".widget-readout")
    expect(readout).to_have_text("10")

    mover.focus()
    mover.press("ArrowRight")
    expect(readout).to_have_text("11")
    lab.wait_for_value("[mover.value, follower.value]", [11, 11])

    with lab.paused_kernel() as pid:
        assert psutil.Process(pid).status() == psutil.STATUS_STOPPED
        before = lab.messages()
        mover.press("ArrowRight")
        expect(readout).to_have_text("12")
        expect(follower).to_have_attribute("aria-valuenow", "12.0")
        assert (lab.messages() - before)["send comm_msg"] > 0
    lab.wait_for_value("[mover.value, follower.value]", [12, 12])
    assert lab.errors == []


@pytest.mark.soak
def test_the_theme_changes_and_the_kernel_survives_a_reload(lab: Lab) -> None:
    lab.open(lab.write_notebook(["answer = 42"]))
    lab.run_all()
    pid = lab.kernel_pid()
    background = "() => getComputedStyle(document.body).getPropertyValue('--jp-layout-color1').trim()"
    light = lab.page.evaluate(background)
    lab.theme("dark")
    assert lab.page.evaluate(background) != light
    lab.theme("light")
    assert lab.page.evaluate(background) == light
    lab.reload()
    assert lab.kernel_pid() == pid
    assert lab.value("answer") == 42
    assert lab.screenshot("after-the-reload").stat().st_size > 0


@pytest.mark.soak
def test_jupyterlab_opens_no_dialogs(lab: Lab) -> None:
    fetch = "return (await app.serviceManager.settings.fetch(arg)).raw;"
    raw = lab.js(fetch, "@jupyterlab/apputils-extension:notification")
    assert json.loads(raw)["fetchNews"] == "false"
    expect(lab.page.locator(".jp-Dialog")).to_have_count(0)


def test_cells_run_in_this_environment_and_their_errors_are_raised(lab: Lab) -> None:
    lab.open(lab.write_notebook(["import sys; print(sys.executable)"]))
    lab.run_all()
    assert lab.text_output(0).strip() == sys.executable
    assert lab.text_output(lab.add_cell("6 * 7")) == "42"
    with pytest.raises(KernelError, match="ZeroDivisionError"):
        lab.add_cell("1 / 0")
    with pytest.raises(KernelError, match="KeyError"):
        lab.execute("{}['missing']")
    assert lab.cell_count() == 3
