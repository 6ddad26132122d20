"""Sweeps: every number against one computed by hand, on all executors, through interruptions and bad input."""

from __future__ import annotations

import concurrent.futures as cf
import itertools
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from toys import Tally, conv_net, images, linear, mlp, power, rows, runner, state_of

import saliency_widgets as sw
from saliency_widgets.api.sweep import ExecutorDiedError
from saliency_widgets.api.sweep.dispatch import _Dispatcher
from saliency_widgets.attribution import Reduction
from saliency_widgets.evaluation.curves import curve
from saliency_widgets.evaluation.fills import FILL
from saliency_widgets.evaluation.similarity import spearman

GRID = {"noise_level": [0.05, 0.1, 0.2, 0.4], "n_samples": [2, 4, 8, 16]}
METRICS = ["insertion", "similarity", "standard_error"]
ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(autouse=True)
def no_memory_of_other_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saliency_widgets.api.sweep._unsaved", None)


class Counting(cf.Executor):
    """Hands cells on, and counts them."""

    def __init__(self, inner: cf.Executor) -> None:
        self.inner = inner
        self._client = getattr(inner, "_client", None)
        self.cells = 0

    def submit(self, fn: Any, /, key: Any, cell: Any, packed: Any) -> cf.Future:  # type: ignore[override]
        self.cells += 1
        return self.inner.submit(fn, key, cell, packed)


class Travels:
    """How often the model was sent, and how often each process unpacked it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent = 0
        self.unpacked: Counter[str] = Counter()
        pack, land = _Dispatcher._pack, _Dispatcher._receive

        def packing(flight: Any) -> bytes:
            self.sent += 1
            return pack(flight)

        def landing(flight: Any, future: cf.Future) -> Iterator[Any]:
            if not future.cancelled() and future.exception() is None:
                self.unpacked[future.result().process] += future.result().loaded
            return land(flight, future)

        monkeypatch.setattr(_Dispatcher, "_pack", packing)
        monkeypatch.setattr(_Dispatcher, "_receive", landing)


@pytest.fixture
def travels(monkeypatch: pytest.MonkeyPatch) -> Travels:
    return Travels(monkeypatch)


class Plain(nn.Module):
    """A small image classifier."""

    factor = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.net = conv_net()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) * self.factor if "a" in {"a", "b", "c"} else x


class Raising(nn.Module):
    """A small image classifier that raises in its twelfth pass, once; what it counts is no part of it."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.net, self.tally = conv_net(), Tally()
        self.tally.error = error

    def forward(self, x: Tensor) -> Tensor:
        self.tally.passes += 1
        if self.tally.passes == 12:
            raise self.tally.error
        return self.net(x)


@pytest.fixture(scope="module")
def here() -> sw.Sweep:
    """4 noise levels x 4 sample counts over 16 images, computed one after another."""
    return sw.sweep(conv_net(), images(0, 16, 3, 8, 8), "smoothgrad", GRID, METRICS, progress=False)


# ---- numbers


def test_each_number_is_what_asking_by_hand_gives(here: sw.Sweep) -> None:
    model, x = conv_net(), images(0, 16, 3, 8, 8)

    def result(position: int, **params: Any) -> tuple[sw.Attribution, Tensor]:
        attribution = sw.attribute(model, x[position : position + 1], method="smoothgrad", **params)
        return attribution, Reduction("absolute")(attribution.values, (8, 8))[0]

    table = here.table
    assert list(table.columns) == ["input", *GRID, *METRICS, "evaluations", "error"]
    assert len(table) == 16 * 16
    for position, noise, count in ((0, 0.05, 2), (3, 0.2, 8), (15, 0.4, 16)):
        row = table[(table.input == position) & (table.noise_level == noise) & (table.n_samples == count)].iloc[0]
        attribution, values = result(position, noise_level=noise, n_samples=count)
        _, finest = result(position, noise_level=noise, n_samples=16)
        assert row.similarity == pytest.approx(spearman(values.float(), finest.float()), rel=1e-12)
        assert row.standard_error == pytest.approx(
            float(attribution.standard_error.mean() / attribution.values.abs().mean()), rel=1e-12
        )
        target = attribution.settings["target"]
        *_, path = curve(runner(model, x[position : position + 1], target), values, "insertion", fill=FILL.default)
        assert row.insertion == pytest.approx(path.area, rel=1e-9, nan_ok=True)
        assert row.evaluations == count
        shown = here.map_of(position, noise_level=noise, n_samples=count)
        assert np.array_equal(shown, values.float().numpy())


def test_stability_between_seeds_is_what_asking_by_hand_gives() -> None:
    result = sw.sweep(conv_net(), images(), "smoothgrad", {"n_samples": [2, 8]}, ["seeds"], turns=2, progress=False)
    values = [
        Reduction("absolute")(
            sw.attribute(conv_net(), images()[:1], method="smoothgrad", n_samples=8, seed=seed).values, (8, 8)
        )[0]
        for seed in range(3)
    ]
    by_hand = np.mean([spearman(values[0], other) for other in values[1:]])
    assert result.table.seeds[1] == pytest.approx(by_hand, rel=1e-12)
    assert result.table.seeds[0] < result.table.seeds[1]


def test_completeness_is_zero_for_a_linear_model_and_the_error_of_few_steps_is_told() -> None:
    grid, fixed = {"n_steps": [2, 8, 64]}, {"tolerance": 0.0, "baseline": "zero", "progress": False}
    exact = sw.sweep(linear(torch.tensor([1.0, -2.0, 3.0])), [1.0, 2.0, 4.0], "integrated_gradients", grid, **fixed)
    assert exact.table.delta.abs().max() < 1e-6
    cubes = sw.sweep(power(3), torch.ones(1, 3, dtype=torch.float64), "integrated_gradients", grid, **fixed)
    by_hand = [
        abs(float(result.delta) / 3.0)
        for n in grid["n_steps"]
        for result in [
            sw.attribute(
                power(3), torch.ones(1, 3, dtype=torch.float64), method="integrated_gradients", n_steps=n,
                tolerance=0.0, baseline="zero",
            )
        ]
    ]  # fmt: skip
    assert cubes.table.delta.tolist() == pytest.approx(by_hand, rel=1e-9)
    assert by_hand[0] > 10 * by_hand[2]


def test_the_recommendation_is_that_of_a_brute_force_table(here: sw.Sweep) -> None:
    means = here.table.groupby(["noise_level", "n_samples"], sort=False).agg(
        {"insertion": lambda column: column.mean(), "evaluations": "mean"}
    )
    silent = here.table.groupby("input").insertion.apply(lambda column: column.isna().all())
    assert 0 < silent.sum() < 16  # this net's images are not all above their blur
    best = means.insertion.max()
    within = means[(best - means.insertion) / best <= 0.02]
    cheapest = within[within.evaluations == within.evaluations.min()].insertion.idxmax()
    assert here.recommended == dict(zip(GRID, cheapest, strict=True))
    top = means.insertion.idxmax()
    assert f"Noise level {cheapest[0]:g}, {cheapest[1]} samples" in here.words
    assert f"noise level {top[0]:g}, {top[1]} samples" in here.words or cheapest == top
    assert any(f"{silent.sum()} of 16 inputs have no insertion" in note for note in here.notes)
    explorer = sw.explore(conv_net(), images(0, 1, 3, 8, 8), method="smoothgrad", executor="inline")
    explorer.update(**here.recommended)  # "use these"
    assert {name: explorer.settings[name] for name in GRID} == here.recommended
    explorer.close()


def test_by_default_what_applies_is_measured_and_the_rest_left_out() -> None:
    one = images(1, 1, 3, 8, 8)
    finer = sw.sweep(conv_net(), one, "smoothgrad", {"n_samples": [2, 4]}, progress=False)
    assert [m.name for m in finer.metrics] == ["similarity", "standard_error", "evaluations", "time"]
    assert finer.summary.similarity.tolist()[1] == 1.0
    assert any("Only one input" in note for note in finer.notes)
    layers = sw.sweep(conv_net(), one, "grad_cam", {"layer": ["0", "2"]}, target=0, progress=False)
    assert layers.quality == "insertion"
    assert layers.table.evaluations.tolist() == [1, 1]


def test_similarity_alone_says_what_it_can_not_tell() -> None:
    result = sw.sweep(conv_net(), images(), "smoothgrad", GRID, ["similarity"], progress=False)
    assert any("noise_level" in note for note in result.notes)


def test_time_and_memory_are_measured() -> None:
    grid = {"n_samples": [1, 64]}
    net = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 2)).eval()
    result = sw.sweep(
        net, torch.rand(1, 3, 128, 128), "smoothgrad", grid, ["similarity", "time", "memory"], progress=False
    )
    small, large = result.table.itertuples()
    assert 0 < small.time < large.time
    assert 0 < small.memory < large.memory  # 16 rows of 32 channels hold more than one


def test_rows_of_tables_are_swept() -> None:
    frame = pd.DataFrame(rows(0, 12, 4).numpy(), columns=list("abcd"))
    result = sw.sweep(
        mlp(), frame.iloc[:3], "expected_gradients", {"n_samples": [2, 8]}, ["similarity"], background=frame,
        baselines="background", progress=False,
    )  # fmt: skip
    assert len(result.table) == 6
    assert result.map_of(2, n_samples=8).shape == (4,)


def test_the_model_is_left_as_it_was_found() -> None:
    model = conv_net().train()
    before = state_of(model)
    sw.sweep(model, images(), "smoothgrad", {"base": ["gradient", "guided_backprop"]}, ["deletion"], progress=False)
    assert state_of(model) == before


def test_rows_are_swept_with_the_defaults() -> None:
    result = sw.sweep(
        mlp(), rows(0, 3, 4), "smoothgrad", {"noise_level": [0.1, 0.2], "n_samples": [2, 4]}, progress=False
    )
    assert result.quality == "insertion"
    assert (result.table.error == "").all()


def test_similarity_is_of_the_values_however_far_apart_they_are() -> None:
    weights = torch.nn.functional.normalize(rows(1, 40), dim=0)
    model = Uneven(weights)
    result = sw.sweep(
        model, rows(2, 1, 41), "smoothgrad", {"n_samples": [2, 64]}, ["similarity"], noise_level=0.5, progress=False
    )
    values = [
        sw.attribute(model, rows(2, 1, 41), method="smoothgrad", n_samples=n, noise_level=0.5).values[0].abs().float()
        for n in (2, 64)
    ]
    assert result.table.similarity[0] == pytest.approx(spearman(*values), rel=1e-9)
    assert result.table.similarity[0] < 0.9


class Uneven(nn.Module):
    """The first number counts a million times more."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights)

    def forward(self, x: Tensor) -> Tensor:
        result = torch.tanh(x[:, 1:] * self.weights * 9).sum(1) + 1e6 * x[:, 0]
        return torch.stack([result, -result], 1)


def test_baselines_as_tensors_are_told_apart() -> None:
    edge = torch.zeros(1, 3, 24, 24, dtype=torch.float64)
    inner = edge.clone()
    inner[..., 6:-6, 6:-6] = 1  # printed, they are the same
    result = sw.sweep(
        conv_net(activation=nn.Softplus), images(0, 1, 3, 24, 24), "integrated_gradients",
        {"baseline": [edge, inner], "n_steps": [4, 64]}, ["similarity"], tolerance=0, progress=False,
    )  # fmt: skip
    assert result.table.baseline.tolist() == ["Tensor 1", "Tensor 1", "Tensor 2", "Tensor 2"]
    assert result.table.similarity[1] == result.table.similarity[3] == 1.0
    assert list(result.groups) == ["baseline Tensor 1", "baseline Tensor 2"]
    assert not np.array_equal(
        result.map_of(baseline=edge.clone(), n_steps=64), result.map_of(baseline=inner, n_steps=64)
    )


def test_each_input_has_a_target_of_its_own() -> None:
    result = sw.sweep(
        conv_net(), images(), "smoothgrad", {"n_samples": [4]}, ["insertion"], target=[2, 1], progress=False
    )
    for position, target in enumerate((2, 1)):
        attribution = sw.attribute(
            conv_net(), images()[position : position + 1], method="smoothgrad", n_samples=4, target=target
        )
        assert np.array_equal(
            result.map_of(position, n_samples=4), Reduction()(attribution.values, (8, 8))[0].float().numpy()
        )


def test_a_tuple_is_an_index_for_all_inputs_and_a_list_has_one_for_each() -> None:
    model = nn.Conv2d(3, 2, 3, padding=1).double().eval()
    for target, each in (((1, 2, 3), [(1, 2, 3)] * 2), ([(1, 2, 3), (0, 4, 5)], [(1, 2, 3), (0, 4, 5)])):
        result = sw.sweep(
            model, images(), "smoothgrad", {"n_samples": [4]}, ["insertion"], target=target, progress=False
        )
        for k, local in enumerate(each):
            attribution = sw.attribute(model, images()[k : k + 1], method="smoothgrad", n_samples=4, target=local)
            assert np.array_equal(
                result.map_of(k, n_samples=4), Reduction()(attribution.values, (8, 8))[0].float().numpy()
            )


def test_a_sweep_of_the_negative_class_of_one_logit() -> None:
    model = nn.Sequential(conv_net(), nn.Linear(4, 1).double()).eval()
    requested = {"class_names": ["neg", "pos"], "progress": False, "metrics": ["insertion"]}
    neg, pos = (
        sw.sweep(model, images()[:1], "smoothgrad", {"n_samples": [4]}, target=target, sign="signed", **requested)
        for target in ("neg", "pos")
    )
    np.testing.assert_array_equal(neg.map_of(n_samples=4), -pos.map_of(n_samples=4))


def test_the_most_of_the_grid_is_told_as_such() -> None:
    result = sw.sweep(conv_net(), images(), "smoothgrad", {"n_samples": [1, 2]}, ["similarity"], progress=False)
    assert any("2 samples are the most in the grid" in note for note in result.notes)


# ---- executors


def same(result: sw.Sweep, expected: sw.Sweep) -> bool:
    """Bit for bit."""
    maps = all(np.array_equal(cell.values, expected.cells[key].values) for key, cell in result.cells.items())
    return result.table.equals(expected.table) and maps


def ask(executor: Any, **more: Any) -> sw.Sweep:
    x = images(0, 16, 3, 8, 8)
    return sw.sweep(conv_net(), x, "smoothgrad", GRID, METRICS, executor=executor, progress=False, **more)


@pytest.mark.soak
def test_threads_find_the_same_and_no_model_travels(here: sw.Sweep, travels: Travels) -> None:
    with cf.ThreadPoolExecutor(3) as pool:
        counting = Counting(pool)
        assert same(ask(counting), here)
    assert (counting.cells, travels.sent) == (256, 0)


@pytest.mark.soak
def test_processes_find_the_same_and_the_model_travels_once_to_each(here: sw.Sweep, travels: Travels) -> None:
    with cf.ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"), initializer=one_thread) as pool:
        assert same(ask(pool), here)
    assert set(travels.unpacked.values()) == {1}  # a worker that was slow to start may find nothing left to do
    assert 1 <= travels.sent <= 16  # where cells take no time, a worker may take what was meant for another


def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def client() -> Iterator[Any]:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            protocol="tcp",
            dashboard_address="127.0.0.1:0",
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.mark.soak
def test_a_dask_cluster_finds_the_same_and_the_model_travels_once_to_each_worker(
    here: sw.Sweep, client: Any, travels: Travels
) -> None:
    assert same(ask(client.get_executor()), here)
    assert sorted(travels.unpacked.values()) == [1, 1]
    assert travels.sent == 2


@pytest.mark.soak
def test_workers_that_are_killed_lose_nothing(here: sw.Sweep, client: Any, travels: Travels, tmp_path: Path) -> None:
    killed = 2
    workers = set(client.run(os.getpid).values())

    class Killing(Counting):
        def submit(self, fn: Any, /, key: Any, cell: Any, packed: Any) -> cf.Future:  # type: ignore[override]
            if self.cells == 60:
                for pid in sorted(workers)[:killed]:
                    os.kill(pid, signal.SIGKILL)
            return super().submit(fn, key, cell, packed)

    assert same(ask(Killing(client.get_executor()), store=tmp_path / "cells"), here)
    assert len(workers - set(client.run(os.getpid).values())) == killed
    assert max(travels.unpacked.values()) == 1
    assert 2 <= travels.sent <= 2 + 4 * killed  # what was on its way when a worker ended travels again


def test_a_cluster_that_is_closed_is_told(client: Any, tmp_path: Path) -> None:
    executor = client.get_executor()
    client.close()
    with pytest.raises(ExecutorDiedError, match="after 0 of 256 cells"):
        ask(executor, store=tmp_path / "cells")


# ---- interruptions


@pytest.mark.soak
def test_killed_after_half_it_computes_only_the_rest(tmp_path: Path, here: sw.Sweep) -> None:
    store, script = tmp_path / "cells.sqlite", tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(f"""
            import os, signal, sys
            sys.path.insert(0, {str(ROOT / "tests")!r})
            import torch
            torch.set_num_threads(1)
            from toys import conv_net, images
            import saliency_widgets as sw
            from saliency_widgets.api.sweep.store import Store
            put, count = Store.put, 0
            def counted(self, name, found):
                global count
                put(self, name, found)
                count += 1
                if count == 128:
                    os.kill(os.getpid(), signal.SIGKILL)
            Store.put = counted
            sw.sweep(conv_net(), images(0, 16, 3, 8, 8), "smoothgrad", {GRID!r}, {METRICS!r},
                     store={str(store)!r}, progress=False)
        """)
    )
    killed = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    with cf.ThreadPoolExecutor(2) as pool:
        rest = Counting(pool)
        assert same(ask(rest, store=store), here)
        assert rest.cells == 128
        again = Counting(pool)
        assert same(ask(again, store=store), here)
        assert again.cells == 0


@pytest.mark.parametrize("change", ["weights", "image", "noise", "target", "fill", "mode", "attribute", "hook", "code"])
def test_what_was_kept_of_something_else_is_not_taken(tmp_path: Path, change: str) -> None:
    def ask(changed: bool) -> int:
        model, x = Plain(), images(0, 1, 3, 8, 8)
        more: dict[str, Any] = {"target": 0, "fill": "mean"}
        grid: dict[str, list] = {"noise_level": [0.1], "n_samples": [2]}
        if changed and change == "weights":
            model.net[0].weight.data[0, 0, 0, 0] += 1e-6
        elif changed and change == "image":
            x = x.clone()
            x[0, 0, 0, 0] += 1e-6
        elif changed and change == "noise":
            grid["noise_level"] = [0.2]
        elif changed and change in ("target", "fill"):
            more[change] = 1 if change == "target" else "zero"
        elif changed and change == "mode":
            model.train()
        elif changed and change == "attribute":
            model.scales = {"last": [1, 2]}
        elif changed and change == "hook":
            model.net[0].register_forward_hook(lambda module, args, output: output * 2)
        elif changed:

            class Other(Plain):
                def forward(self, x: Tensor) -> Tensor:
                    return super().forward(x) * 2

            model = Other()
        with cf.ThreadPoolExecutor(1) as pool:
            counting = Counting(pool)
            sw.sweep(
                model, x, "smoothgrad", grid, ["insertion"], store=tmp_path / "s", progress=False, executor=counting,
                **more,
            )  # fmt: skip
        return counting.cells

    assert [ask(False), ask(False), ask(True), ask(True)] == [1, 0, 1, 0]


class Two(nn.Module):
    """Of an image and two numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.side = conv_net(), nn.Linear(2, 4).double()

    def forward(self, image: Tensor, meta: Tensor) -> Tensor:
        return self.net(image) * self.side(meta)


def both(stored: bool, tmp_path: Path) -> dict[str, Any]:
    return {"progress": False, "metrics": ["insertion"], **({"store": tmp_path / "s"} if stored else {})}


@pytest.mark.parametrize("stored", [True, False])
def test_other_inputs_of_the_model_count(tmp_path: Path, stored: bool) -> None:
    model, x = Two().eval(), images()[:1]
    inputs = [{"image": x, "meta": torch.tensor([numbers]).double()} for numbers in ([1.0, 2.0], [-3.0, 5.0])]
    settings = {"explain": "image", "target": 0, **both(stored, tmp_path)}
    for _ in range(2):
        result = sw.sweep(model, inputs, "integrated_gradients", {"n_steps": [8]}, **settings)
        for position, one in enumerate(inputs):
            attribution = sw.attribute(model, one, method="integrated_gradients", n_steps=8, explain="image", target=0)
            assert np.array_equal(
                result.map_of(position, n_steps=8), Reduction()(attribution.values, (8, 8))[0].float().numpy()
            )


@pytest.mark.parametrize("stored", [True, False])
def test_a_module_that_is_used_twice_counts_twice(tmp_path: Path, stored: bool) -> None:
    layer = nn.Linear(4, 4).double()
    models = nn.Sequential(layer, nn.ReLU()), nn.Sequential(layer, nn.ReLU(), layer, layer)
    for model in models:
        result = sw.sweep(model, rows()[:1], "integrated_gradients", {"n_steps": [8]}, target=0, fill="zero",
                         **both(stored, tmp_path))  # fmt: skip
        attribution = sw.attribute(model, rows()[:1], method="integrated_gradients", n_steps=8, target=0)
        assert np.array_equal(result.map_of(n_steps=8), attribution.values[0].abs().float().numpy())


FACTOR = 1.0


def scaled(out: Tensor) -> Tensor:
    return out[:, 0] * helper()


def helper() -> float:
    return FACTOR


@pytest.mark.parametrize("what", ["global", "class attribute", "method object"])
def test_code_of_the_callers_counts_in_a_file(tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask() -> np.ndarray:
        method: Any = "integrated_gradients"
        model = Plain()
        if what == "method object":
            from captum.attr import IntegratedGradients

            method = sw.from_captum(IntegratedGradients(model, multiply_by_inputs=Plain.factor == 1))
        return sw.sweep(
            model, images()[:1], method, {"n_steps": [8]}, target=scaled if what == "global" else 0,
            **both(True, tmp_path),
        ).map_of(n_steps=8)  # fmt: skip

    before = ask()
    monkeypatch.setitem(globals(), "FACTOR", 5.0)
    if what != "global":
        monkeypatch.setattr(Plain, "factor", 5.0)
    after = ask()
    assert not np.allclose(before, after)
    if what != "method object":
        assert np.allclose(5 * before, after)


@pytest.mark.soak
def test_names_are_the_same_in_another_process() -> None:
    places = [str(ROOT / "tests" / "api"), str(ROOT / "tests")]
    code = (
        f"import sys; sys.path[:0] = {places!r}\n"
        "import test_sweep as t\nfrom saliency_widgets.runtime.model.stable_hash import signature\n"
        "model = t.Plain(); model.tags = {'alpha', 'beta', 'gamma'}\nprint(signature(model, t.scaled))"
    )
    result = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(result) == 1


def test_after_control_c_it_goes_on_where_it_was() -> None:
    x, grid = images(0, 2, 3, 8, 8), {"n_samples": [1, 2, 4]}
    model = Raising(KeyboardInterrupt())
    before = state_of(model)
    with pytest.raises(KeyboardInterrupt):
        sw.sweep(model, x, "smoothgrad", grid, ["similarity"], progress=False)
    assert state_of(model) == before
    with cf.ThreadPoolExecutor(1) as pool:
        rest = Counting(pool)
        result = sw.sweep(model, x, "smoothgrad", grid, ["similarity"], progress=False, executor=rest)
        assert 0 < rest.cells < 6
        assert pool.submit(int, "7").result() == 7
    assert len(result.table) == 6


@pytest.mark.soak
def test_an_executor_that_dies_is_told_and_what_was_finished_is_kept(tmp_path: Path, here: sw.Sweep) -> None:
    class Dying(Counting):
        def submit(self, fn: Any, /, key: Any, cell: Any, packed: Any) -> cf.Future:  # type: ignore[override]
            if self.cells == 40:
                pid = self.inner.submit(os.getpid).result()
                os.kill(pid, signal.SIGKILL)
            return super().submit(fn, key, cell, packed)

    store = tmp_path / "cells"
    context = multiprocessing.get_context("spawn")
    with (
        cf.ProcessPoolExecutor(1, mp_context=context, initializer=one_thread) as pool,
        pytest.raises(ExecutorDiedError, match=rf"after \d+ of 256 cells .*stored in {store}: call again"),
    ):
        ask(Dying(pool), store=store)
    with cf.ThreadPoolExecutor(1) as pool:
        rest = Counting(pool)
        assert same(ask(rest, store=store), here)
    assert 200 < rest.cells < 256


def test_a_cell_that_fails_is_told_and_the_others_stand() -> None:
    model = Raising(RuntimeError("no luck"))
    result = sw.sweep(model, images(0, 2, 3, 8, 8), "smoothgrad", {"n_samples": [1, 2, 4]}, ["similarity"],
                     progress=False)  # fmt: skip
    failed = result.table[result.table.error != ""]
    assert len(failed) == 1
    assert "no luck" in failed.error.iloc[0]
    assert any("1 of 6 cells failed" in note and "no luck" in note for note in result.notes)
    position, count = failed.input.iloc[0], failed.n_samples.iloc[0]
    with pytest.raises(ValueError, match="no luck"):
        result.map_of(position, n_samples=count)
    again = sw.sweep(model, images(0, 2, 3, 8, 8), "smoothgrad", {"n_samples": [1, 2, 4]}, ["similarity"],
                     progress=False)  # fmt: skip
    assert (again.table.error == "").all()  # what failed is not kept


# ---- what does not fit


def big(**more: Any) -> dict[str, Any]:
    return {"grid": {"noise_level": [k / 1000 for k in range(1000)], "n_samples": list(range(1, 501))}, **more}


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"metrics": ["insertio"]}, ValueError, "metrics: 'insertio' is not known. Did you mean 'insertion'"),
        ({"metrics": ["time"]}, ValueError, "are costs"),
        ({"metrics": ["similarity"], "grid": {"noise_level": [0.1]}}, ValueError, "varies none of"),
        ({"quality": "time"}, ValueError, "quality: 'time' is a cost"),
        ({"cost": None}, TypeError, "cost: expected one of"),
        ({"limit": None}, TypeError, "limit: expected an integer"),
        ({"store": True}, TypeError, "store: expected the path"),
        ({"metrics": []}, ValueError, "metrics: the list is empty"),
        ({"fill": "blurr", "metrics": ["insertion"]}, ValueError, "blurr"),
        ({"cost": "insertion"}, ValueError, "cost: 'insertion' is not a cost"),
        ({"within": 2}, ValueError, "within"),
        ({"grid": {}}, ValueError, "grid: it is empty"),
        ({"grid": {"n_samples": []}}, ValueError, "grid: n_samples: it is empty"),
        ({"grid": {"n_samples": 5}}, TypeError, "grid: n_samples: expected a list"),
        ({"grid": [1]}, TypeError, "a mapping"),
        ({"grid": {"samples": [5]}}, TypeError, "grid: 'samples' is not known"),
        ({"grid": {"n_samples": [5, 0]}}, ValueError, "grid: n_samples: expected a number from 1"),
        ({"grid": {"n_samples": [5, 5]}}, ValueError, "grid: n_samples: a value is repeated"),
        ({"n_samples": 5}, ValueError, "Pass it only once"),
        ({"n_stepps": 5}, TypeError, "n_stepps"),
        (big(), ValueError, r"1,000,000 maps .500,000 settings x 2 inputs.* s for one.*limit=1000000"),
        ({"inputs": []}, ValueError, "the list is empty"),
        ({"inputs": [images(0, 3, 8, 8), images(0, 3, 9, 8)]}, ValueError, "3x8x8 .input 0., 3x9x8 .input 1."),
        ({"inputs": [images(0, 2, 3, 8, 8)]}, ValueError, "a batch of 2"),
        ({"target": "tabby"}, ValueError, "class_names"),
        ({"executor": 3}, TypeError, "concurrent.futures.Executor, got a int"),
        ({"store": Path(__file__)}, ValueError, "store: .* can't be used"),
        ({"method": "blur_ig", "grid": {"n_steps": [4]}, "metrics": ["seeds"]}, ValueError, "is deterministic"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said(change: dict[str, Any], error: type[Exception], words: str) -> None:
    settings = {"inputs": images(), "method": "smoothgrad", "grid": {"n_samples": [1, 2]}, "progress": False} | change
    model = conv_net()
    before = state_of(model)
    with pytest.raises(error, match=words):
        sw.sweep(model, **settings)
    assert state_of(model) == before


def test_a_pool_that_forks_is_refused() -> None:
    with (
        cf.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool,
        pytest.raises(ValueError, match="get_context\\('spawn'\\)"),
    ):
        ask(pool)


@pytest.mark.soak
def test_a_model_that_can_not_travel_is_said() -> None:
    model = conv_net()
    model.lock = __import__("threading").Lock()
    with (
        cf.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool,
        pytest.raises(TypeError, match="model: it can't be sent to another process"),
    ):
        sw.sweep(model, images(), "smoothgrad", {"n_samples": [1]}, ["insertion"], executor=pool, progress=False)


def test_a_file_of_something_else_is_left_alone(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "mine")
    other.execute("CREATE TABLE dear (data)")
    other.commit()
    with pytest.raises(ValueError, match="written by another program"):
        ask(None, store=tmp_path / "mine")
    assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("dear",)]


def test_settings_that_are_not_there_are_said(here: sw.Sweep) -> None:
    for wrong, words in (({"noise": 1}, "'noise' is not known"), ({"noise_level": 0.1}, "4 settings match")):
        with pytest.raises(ValueError, match=words):
            here.map_of(0, **wrong)
    with pytest.raises(ValueError, match="from 0 to 15"):
        here.map_of(16, noise_level=0.1, n_samples=4)


def test_all_settings_are_there_in_order(here: sw.Sweep) -> None:
    assert [tuple(s.values()) for s in here.settings] == list(itertools.product(*GRID.values()))
    assert "16 settings x 16 inputs" in repr(here)
    assert here.words in here._repr_html_()
