"""Mouse and keyboard at random on every kind of widget for some rounds: nothing is wrong on the page or in the kernel.

`make soak` does it for longer.
"""

from __future__ import annotations

import pytest
from soak import running
from soak.browser import SHOWN

pytestmark = [pytest.mark.browser, pytest.mark.soak]

SECONDS = 60.0  # and what is left of a round


def test_some_rounds_of_the_attack_in_the_browser_find_nothing() -> None:
    figures = running.run("browser", 1, SECONDS).figures
    assert figures.counts["moves"] >= 20 * len(SHOWN)
    assert figures.counts["settled"] > 0
    assert figures.counts["images compared"] > 0
    assert all(figures.counts[f"{kind}s"] > 0 for kind in SHOWN)
    assert {name: count for name, count in figures.faults.items() if count} == {}, figures.examples
