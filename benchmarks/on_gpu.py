"""The numerics benchmarks on a CUDA device, and the gain there by batches, TF32 and CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from models import bare_gradient, input_of, model_of, tuned_by_hand
from numerics import MODELS, TARGET, N, Ours
from numerics import measure as measured
from timing import Row, interleaved, seconds
from torch import Tensor

from saliency_widgets.runtime.precision import float32_as
from saliency_widgets.runtime.reuse.cuda_graphs import Replay

_ROWS = 64


def measure(rounds: int) -> list[Row]:
    """Measure everything.

    Raises:
        SystemExit: If there is no CUDA device.
    """
    if not torch.cuda.is_available():
        raise SystemExit("There is no CUDA device here.")
    rows = measured(rounds, "cuda")
    for name in MODELS:
        rows += _batches(name, rounds) + _choices(name, rounds)
    return rows


def _choices(name: str, rounds: int) -> list[Row]:
    """The gain by each choice of precision or CUDA graphs, for a request of small passes and one of large ones."""
    how: dict[str, dict[str, Any]] = {
        "full precision": {"precision": "full"},
        "CUDA graphs": {"precision": "full", "cuda_graphs": True},
        "TF32": {"precision": "tf32"},
        "bfloat16": {"precision": "bfloat16"},
    }
    ours = {key: Ours.named(name, "cuda", **choice) for key, choice in how.items()}
    settings: dict[str, dict[str, Any]] = {"passes of 1": {"chunk_size": 1}, "passes of 32": {}}
    rows = []
    for size, params in settings.items():
        timers = {key: it.fresh("smoothgrad", n_samples=N, **params) for key, it in ours.items()}
        t = interleaved(timers, max(rounds, 3))  # a graph is recorded when its shape comes for the third time
        for key in list(how)[1:]:
            last = ours[key].last
            notes = () if last is None or last.attribution is None else last.attribution.notes
            said = next((note for note in notes if note.startswith("Computed in")), "")
            what = f"SmoothGrad-{N}, {size}, {key} / full precision"
            rows.append(Row(name, what, t[key] / t["full precision"], note=said))
    return rows


def _batches(name: str, rounds: int) -> list[Row]:
    model, x = tuned_by_hand(model_of(name, "cuda")), input_of(device="cuda")
    gradient = bare_gradient(model, TARGET)
    many = x.expand(_ROWS, -1, -1, -1).contiguous()
    replay = Replay(model, x.contiguous(memory_format=torch.channels_last))

    def replayed(rows: Tensor) -> Tensor:
        return replay(rows, lambda output: output[:, TARGET])[0]

    def rough(rows: Tensor) -> Tensor:
        with float32_as("tf32"):
            return gradient(rows)

    works: dict[str, Callable[[], Any]] = {
        "one by one": lambda: [gradient(x) for _ in range(_ROWS)],
        "together": lambda: gradient(many),
        "graph": lambda: [replayed(x) for _ in range(_ROWS)],
        "TF32": lambda: rough(many),
    }
    t = interleaved({key: (lambda work=work: seconds(work)) for key, work in works.items()}, rounds)
    exact = gradient(many)
    error = float((rough(many) - exact).abs().sum() / exact.abs().sum())
    return [
        Row(name, f"{_ROWS} rows together / one by one", t["together"] / t["one by one"]),
        Row(name, "one by one, CUDA graph / eager", t["graph"] / t["one by one"]),
        Row(name, "TF32 / float32", t["TF32"] / t["together"], note=f"the map's error is {error:.1e}"),
    ]
