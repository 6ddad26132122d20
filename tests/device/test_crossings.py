"""How often the host waits for a device: copies to the host, and single numbers that are read.

A GPU is idle during each wait. The goal is at most 6 waits for a gradient and 2 for each further chunk: one to check
the chunk for NaN, and one for an adaptive rule to evaluate its results. The bounds below are the numbers reached;
fewer are fine. ``make test-device PYTEST_ARGS="-n0 -s -k crossings"`` prints the table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from torch import Tensor
from toys import conv_net, images

import saliency_widgets as sw
from device.pretend import Crossings, counted
from saliency_widgets.runtime.batching import chunks, most_rows
from saliency_widgets.session import problem, session
from saliency_widgets.widgets import Explorer

GRADIENT, CHUNK = 6, 2
IMAGE = images(3, 1, 3, 8, 8)
ADAPTIVE = {"method": "integrated_gradients", "tolerance": 0.0}
FIXED = {"method": "integrated_gradients", "quadrature": "trapezoid"}
FIRST = "an explorer's first map, checkup included"

BOUNDS = {
    "gradient": 4,  # one of them reads the sample of weights for the model's version
    "gradient, input on the device": 6,
    "gradient, float32": 5,
    "smoothgrad, 64": 9,
    "integrated_gradients, fixed, 64": 8,
    "integrated_gradients, adaptive, 64": 22,
    "grad_cam": 5,
    FIRST: 50,
    "move: gradient": 8,
    "move: sign": 9,
    "move: smoothgrad, 16": 14,
    "move: 32 samples": 12,
    "move: noise": 14,
    "move: target": 15,
    "move: adaptive": 19,
    "move: grad_cam": 10,
}


@pytest.fixture(autouse=True)
def independent_of_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the number of frames and the size of passes independent of the machine's speed."""
    monkeypatch.setattr(session, "_FRAME_SECONDS", math.inf)
    monkeypatch.setattr(problem, "paced_rows", lambda *_: None)


@pytest.fixture(scope="module")
def table() -> Iterator[dict[str, Crossings]]:
    """The counts by name, printed at the end."""
    result: dict[str, Crossings] = {}
    yield result
    print(f"\n{'':44}waits  to host  reads  bound")
    for name, crossings in result.items():
        print(f"{name:44}{crossings.waits:5}{crossings.to_host:9}{crossings.read:7}{BOUNDS.get(name, ''):>7}")


def once(device: str, x: Tensor = IMAGE, **settings: Any) -> Crossings:
    model = conv_net().to(device, x.dtype)
    with counted() as crossings:
        sw.attribute(model, x, **settings)
    return crossings


MAPS: dict[str, Callable[[str], Crossings]] = {
    "gradient": lambda device: once(device, method="gradient"),
    "gradient, input on the device": lambda device: once(device, IMAGE.to(device), method="gradient"),
    "gradient, float32": lambda device: once(device, IMAGE.float(), method="gradient"),
    "smoothgrad, 64": lambda device: once(device, method="smoothgrad", n_samples=64),
    "integrated_gradients, fixed, 64": lambda device: once(device, n_steps=64, **FIXED),
    "integrated_gradients, adaptive, 64": lambda device: once(device, n_steps=64, **ADAPTIVE),
    "grad_cam": lambda device: once(device, method="grad_cam"),
}


@pytest.mark.parametrize("name", MAPS)
def test_a_map_stays_within_its_bound(device: str, table: dict[str, Crossings], name: str) -> None:
    table[name] = MAPS[name](device)
    assert table[name].waits <= BOUNDS[name]


def test_a_gradient_reaches_the_goal(device: str) -> None:
    for name in ("gradient", "gradient, input on the device", "gradient, float32"):
        assert MAPS[name](device).waits <= GRADIENT


@pytest.mark.parametrize(
    ("settings", "name", "first"),
    [
        ({"method": "smoothgrad"}, "n_samples", (1, 3)),
        ({"method": "expected_gradients"}, "n_samples", (1, 3)),
        (FIXED, "n_steps", (1,)),
        ({"method": "blur_ig"}, "n_steps", (1,)),
    ],
    ids=["smoothgrad", "expected_gradients", "fixed", "blur_ig"],
)
def test_each_further_chunk_reaches_the_goal(device: str, settings: dict, name: str, first: tuple[int, ...]) -> None:
    few, many = (once(device, chunk_size=8, **settings, **{name: total}) for total in (32, 128))
    further = len(chunks(128, 8, first=first)) - len(chunks(32, 8, first=first))
    assert most_rows(IMAGE.to(device).device) > 8
    assert further == 12
    assert few.waits < many.waits <= few.waits + CHUNK * further


def test_each_further_round_of_an_adaptive_rule_reaches_the_goal(device: str) -> None:
    few, many = (once(device, n_steps=n, **ADAPTIVE) for n in (32, 128))
    assert few.waits < many.waits <= few.waits + CHUNK * (128 - 32) // 8


def test_an_explorer_stays_within_its_bounds(device: str, table: dict[str, Crossings]) -> None:
    model = conv_net().to(device)
    with counted() as table[FIRST]:
        explorer = sw.explore(model, IMAGE, executor="inline")
        explorer.wait()
    assert isinstance(explorer, Explorer)
    moves: dict[str, dict[str, Any]] = {
        "gradient": {"method": "gradient"},
        "sign": {"sign": "signed"},
        "smoothgrad, 16": {"method": "smoothgrad", "n_samples": 16},
        "32 samples": {"n_samples": 32},
        "noise": {"noise_level": 0.3},
        "target": {"target": 2},
        "adaptive": {"method": "integrated_gradients", "n_steps": 64},
        "grad_cam": {"method": "grad_cam"},
    }
    for name, settings in moves.items():
        with counted() as table[f"move: {name}"]:
            explorer.update(**settings)
            explorer.wait()
    explorer.close()
    over = {name: one.waits for name, one in table.items() if one.waits > BOUNDS[name]}
    assert not over
