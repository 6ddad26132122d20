"""A device that is not the CPU, for every test in this folder. Without a C++ compiler they fail; they never skip."""

from __future__ import annotations

from pathlib import Path

import pytest

from device.pretend import DEVICE, CompilerMissingError, extension

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything in this folder."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.device)


@pytest.fixture(scope="session", autouse=True)
def device() -> str:
    """The name of the device, which is built first; no compiler is a failure."""
    try:
        extension()
    except CompilerMissingError as error:
        pytest.fail(str(error), pytrace=False)
    return DEVICE
