"""A short run of the soak test's browser attack: random input to every kind of widget causes no faults.

`make soak` runs it for longer.
"""

from __future__ import annotations

import pytest
from soak import running
from soak.browser import SHOWN

pytestmark = [pytest.mark.browser, pytest.mark.soak]

SECONDS = 60.0  # plus the rest of the last round


def test_a_short_attack_in_the_browser_finds_no_faults() -> None:
    figures = running.run("browser", 1, SECONDS).figures
    assert figures.counts["moves"] >= 20 * len(SHOWN)
    assert figures.counts["settled"] > 0
    assert figures.counts["images compared"] > 0
    assert all(figures.counts[f"{kind}s"] > 0 for kind in SHOWN)
    assert {name: count for name, count in figures.faults.items() if count} == {}, figures.examples
