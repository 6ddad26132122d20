"""Fixtures that run JupyterLab in a browser.

Tests use `lab`, a loaded JupyterLab page (see lab.py). Without a browser the tests fail; they are never skipped.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from ensure_browser import FLAGS, MISSING, find_browser
from forked_kernels import kernel_server
from lab import PLAIN, Lab
from lab_server import KERNEL, LabServer
from playwright.sync_api import Browser, Error, Page, expect, sync_playwright

VIEWPORT = {"width": 1440, "height": 900}
HERE = Path(__file__).parent
expect.set_options(timeout=60_000)  # only an upper bound: pages are slow on a busy machine
_failed = pytest.StashKey[bool]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder, and run them last, after the quick tests.

    They also run last because playwright keeps an event loop running in the main thread from its first test on.
    """
    here = [item for item in items if HERE in item.path.parents]
    for item in here:
        item.add_marker(pytest.mark.browser)
    items[:] = [item for item in items if item not in here] + here


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    item.stash[_failed] = item.stash.get(_failed, False) or report.failed
    return report


@pytest.fixture(scope="session")
def browser_path() -> Path:
    """The path of Chromium or Chrome; without one the test fails."""
    path = find_browser()
    if path is None:
        pytest.fail(MISSING, pytrace=False)
    return path


@pytest.fixture(scope="session")
def browser(browser_path: Path) -> Iterator[Browser]:
    """The running headless browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def lab_server(
    browser: Browser, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[LabServer]:
    """A JupyterLab server with temporary folders; its log is test-results/jupyterlab-WORKER.log."""
    folder = tmp_path_factory.mktemp("jupyterlab")
    (folder / "root").mkdir()
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    log = pytestconfig.rootpath / "test-results" / f"jupyterlab-{worker}.log"
    # Closing a notebook during an autosave opens a dialog, which would cover the page of the next test.
    settings = {"@jupyterlab/docmanager-extension/plugin": {"autosave": False}}
    with (
        kernel_server() as forked,
        LabServer(
            folder / "root",
            folder / "home",
            token="",
            log=log,
            expose_app=True,
            kernels={"python3": forked, PLAIN: KERNEL},
            settings=settings,
        ) as server,
    ):
        yield server


@pytest.fixture
def artifacts(request: pytest.FixtureRequest, pytestconfig: pytest.Config) -> Path:
    """This test's folder under test-results/: deleted at the start, and created by the first write."""
    name = re.sub(r"[^\w.-]+", "-", request.node.nodeid.removeprefix("tests/browser/")).strip("-")
    folder = pytestconfig.rootpath / "test-results" / name
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def new_page(browser: Browser) -> Page:
    return browser.new_context(viewport=VIEWPORT, device_scale_factor=1, locale="en-GB").new_page()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """An empty page that shares no cookies or storage."""
    page = new_page(browser)
    yield page
    page.context.close()


@pytest.fixture(scope="session")
def loaded(browser: Browser) -> list[Page]:
    """At most one page with JupyterLab loaded, for the next test: loading takes longer than most tests."""
    return []


@pytest.fixture
def lab(
    request: pytest.FixtureRequest, browser: Browser, loaded: list[Page], lab_server: LabServer, artifacts: Path
) -> Iterator[Lab]:
    """A JupyterLab page without notebooks, in the light theme; its kernels are shut down after the test.

    After a passed test the next one reuses the page, unless `lab.reusable` is False.
    """
    folder = lab_server.root / artifacts.name
    folder.mkdir()
    page = loaded.pop() if loaded else new_page(browser)
    lab = Lab(page, lab_server.base_url, lab_server.root, folder, artifacts)
    try:
        lab.start()
        yield lab
    finally:
        failed = request.node.stash.get(_failed, False)
        if failed:
            lab.keep_evidence()
        try:
            lab.close()
            page.set_viewport_size(VIEWPORT)
        except Error:  # a crashed page must not hide the test's failure; stopping the server ends its kernels
            failed = True
        if failed or not lab.reusable:
            page.context.close()
        else:
            loaded.append(page)
