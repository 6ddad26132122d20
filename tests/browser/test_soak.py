"""A minute of the browser's part of the soak: see tests/soak/browser.py."""

from __future__ import annotations

import pytest
from lab import Lab
from lab_server import LabServer
from soak.browser import play
from soak.figures import Figures

pytestmark = pytest.mark.browser


def test_a_short_attack_by_mouse_and_keyboard_finds_nothing(lab: Lab, lab_server: LabServer) -> None:
    figures = Figures()
    play(lab, lab_server.log, figures, seed=1, widgets=4)
    assert figures.counts["settled"] >= 8
    assert figures.counts["pictures compared"] >= 1
    assert {name: count for name, count in figures.faults.items() if count} == {}, figures.examples
