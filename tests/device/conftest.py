"""The pretend device, for every test in this folder. Without a C++ compiler they fail instead of being skipped."""

from __future__ import annotations

from pathlib import Path

import pytest

from device.pretend import DEVICE, CompilerMissingError, extension

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests in this folder with ``device``."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.device)


@pytest.fixture(scope="session", autouse=True)
def device() -> str:
    """Build the device and return its name; fail if there is no compiler."""
    try:
        extension()
    except CompilerMissingError as error:
        pytest.fail(str(error), pytrace=False)
    return DEVICE
