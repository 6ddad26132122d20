"""Sweeps: numbers against hand-computed ones on every executor, interruptions, and invalid arguments."""

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
def no_unsaved_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saliency_widgets.api.sweep._unsaved", None)


class Counting(cf.Executor):
    """Forwards cells to another executor and counts them."""

    def __init__(self, inner: cf.Executor) -> None:
        self.inner = inner
        self._client = getattr(inner, "_client", None)
        self.cells = 0

    def submit(self, fn: Any, /, key: Any, cell: Any, packed: Any) -> cf.Future:  # type: ignore[override]
        self.cells += 1
        return self.inner.submit(fn, key, cell, packed)


class ModelTransfers:
    """Counts how often the model was sent, and how often each process unpacked it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent = 0
        self.unpacked: Counter[str] = Counter()
        pack, receive = _Dispatcher._pack, _Dispatcher._receive

        def count_packed(dispatcher: Any) -> bytes:
            self.sent += 1
            return pack(dispatcher)

        def count_received(dispatcher: Any, future: cf.Future) -> Iterator[Any]:
            if not future.cancelled() and future.exception() is None:
                self.unpacked[future.result().process] += future.result().loaded
            return receive(dispatcher, future)

        monkeypatch.setattr(_Dispatcher, "_pack", count_packed)
        monkeypatch.setattr(_Dispatcher, "_receive", count_received)


@pytest.fixture
def transfers(monkeypatch: pytest.MonkeyPatch) -> ModelTransfers:
    return ModelTransfers(monkeypatch)


class Plain(nn.Module):
    """A small image classifier."""

    factor = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.net = conv_net()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) * self.factor if "a" in {"a", "b", "c"} else x


class Raising(nn.Module):
    """A small image classifier that raises in its twelfth pass only; copies share the count of passes."""

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
def serial() -> sw.Sweep:
    """4 noise levels x 4 sample counts over 16 images, computed without an executor."""
    return sw.sweep(conv_net(), images(0, 16, 3, 8, 8), "smoothgrad", GRID, METRICS, progress=False)


# ---- numbers


def test_each_number_matches_a_single_attribution(serial: sw.Sweep) -> None:
    model, x = conv_net(), images(0, 16, 3, 8, 8)

    def result(position: int, **params: Any) -> tuple[sw.Attribution, Tensor]:
        attribution = sw.attribute(model, x[position : position + 1], method="smoothgrad", **params)
        return attribution, Reduction("absolute")(attribution.values, (8, 8))[0]

    table = serial.table
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
        shown = serial.map_of(position, noise_level=noise, n_samples=count)
        assert np.array_equal(shown, values.float().numpy())


def test_stability_between_seeds_matches_single_attributions() -> None:
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


def test_completeness_delta_is_zero_for_a_linear_model_and_shrinks_with_more_steps() -> None:
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


def test_the_recommendation_is_that_of_a_brute_force_table(serial: sw.Sweep) -> None:
    means = serial.table.groupby(["noise_level", "n_samples"], sort=False).agg(
        {"insertion": lambda column: column.mean(), "evaluations": "mean"}
    )
    undefined = serial.table.groupby("input").insertion.apply(lambda column: column.isna().all())
    assert 0 < undefined.sum() < 16  # where the score of the image is not above that of its blurred version
    best = means.insertion.max()
    within = means[(best - means.insertion) / best <= 0.02]
    cheapest = within[within.evaluations == within.evaluations.min()].insertion.idxmax()
    assert serial.recommended == dict(zip(GRID, cheapest, strict=True))
    top = means.insertion.idxmax()
    assert f"Noise level {cheapest[0]:g}, {cheapest[1]} samples" in serial.words
    assert f"noise level {top[0]:g}, {top[1]} samples" in serial.words or cheapest == top
    assert any(f"{undefined.sum()} of 16 inputs have no insertion" in note for note in serial.notes)
    explorer = sw.explore(conv_net(), images(0, 1, 3, 8, 8), method="smoothgrad", executor="inline")
    explorer.update(**serial.recommended)  # as the button "Use these" does
    assert {name: explorer.settings[name] for name in GRID} == serial.recommended
    explorer.close()


def test_default_metrics_are_those_that_apply() -> None:
    one = images(1, 1, 3, 8, 8)
    finer = sw.sweep(conv_net(), one, "smoothgrad", {"n_samples": [2, 4]}, progress=False)
    assert [m.name for m in finer.metrics] == ["similarity", "standard_error", "evaluations", "time"]
    assert finer.summary.similarity.tolist()[1] == 1.0
    assert any("Only one input" in note for note in finer.notes)
    layers = sw.sweep(conv_net(), one, "grad_cam", {"layer": ["0", "2"]}, target=0, progress=False)
    assert layers.quality == "insertion"
    assert layers.table.evaluations.tolist() == [1, 1]


def test_similarity_alone_adds_a_note_on_parameters_it_can_not_rank() -> None:
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
    assert 0 < small.memory < large.memory  # a pass of 16 rows needs more memory than one of a single row


def test_rows_of_tables_are_swept() -> None:
    frame = pd.DataFrame(rows(0, 12, 4).numpy(), columns=list("abcd"))
    result = sw.sweep(
        mlp(), frame.iloc[:3], "expected_gradients", {"n_samples": [2, 8]}, ["similarity"], background=frame,
        baselines="background", progress=False,
    )  # fmt: skip
    assert len(result.table) == 6
    assert result.map_of(2, n_samples=8).shape == (4,)


def test_the_model_is_unchanged() -> None:
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


def test_similarity_is_exact_for_values_of_very_different_magnitude() -> None:
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
    """A classifier of rows whose first feature has a weight of a million."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights)

    def forward(self, x: Tensor) -> Tensor:
        result = torch.tanh(x[:, 1:] * self.weights * 9).sum(1) + 1e6 * x[:, 0]
        return torch.stack([result, -result], 1)


def test_tensor_baselines_are_distinguished() -> None:
    edge = torch.zeros(1, 3, 24, 24, dtype=torch.float64)
    inner = edge.clone()
    inner[..., 6:-6, 6:-6] = 1  # both have the same repr, which omits the center
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


def test_each_input_can_have_its_own_target() -> None:
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


def test_a_note_says_if_the_recommendation_is_the_largest_in_the_grid() -> None:
    result = sw.sweep(conv_net(), images(), "smoothgrad", {"n_samples": [1, 2]}, ["similarity"], progress=False)
    assert any("2 samples are the most in the grid" in note for note in result.notes)


# ---- executors


def same(result: sw.Sweep, expected: sw.Sweep) -> bool:
    """Return whether tables and maps of two sweeps are equal, bit for bit."""
    maps = all(np.array_equal(cell.values, expected.cells[key].values) for key, cell in result.cells.items())
    return result.table.equals(expected.table) and maps


def run_sweep(executor: Any, **more: Any) -> sw.Sweep:
    x = images(0, 16, 3, 8, 8)
    return sw.sweep(conv_net(), x, "smoothgrad", GRID, METRICS, executor=executor, progress=False, **more)


@pytest.mark.soak
def test_threads_give_equal_results_without_sending_the_model(serial: sw.Sweep, transfers: ModelTransfers) -> None:
    with cf.ThreadPoolExecutor(3) as pool:
        counting = Counting(pool)
        assert same(run_sweep(counting), serial)
    assert (counting.cells, transfers.sent) == (256, 0)


@pytest.mark.soak
def test_processes_give_equal_results_and_each_unpacks_the_model_once(
    serial: sw.Sweep, transfers: ModelTransfers
) -> None:
    with cf.ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"), initializer=one_thread) as pool:
        assert same(run_sweep(pool), serial)
    assert set(transfers.unpacked.values()) == {1}  # a worker that starts late may get no cell
    assert 1 <= transfers.sent <= 16  # if cells are fast, one worker may take several that were sent with the model


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
def test_a_dask_cluster_gives_equal_results_and_each_worker_gets_the_model_once(
    serial: sw.Sweep, client: Any, transfers: ModelTransfers
) -> None:
    assert same(run_sweep(client.get_executor()), serial)
    assert sorted(transfers.unpacked.values()) == [1, 1]
    assert transfers.sent == 2


@pytest.mark.soak
def test_killed_dask_workers_lose_no_cells(
    serial: sw.Sweep, client: Any, transfers: ModelTransfers, tmp_path: Path
) -> None:
    killed = 2
    workers = set(client.run(os.getpid).values())

    class Killing(Counting):
        def submit(self, fn: Any, /, key: Any, cell: Any, packed: Any) -> cf.Future:  # type: ignore[override]
            if self.cells == 60:
                for pid in sorted(workers)[:killed]:
                    os.kill(pid, signal.SIGKILL)
            return super().submit(fn, key, cell, packed)

    assert same(run_sweep(Killing(client.get_executor()), store=tmp_path / "cells"), serial)
    assert len(workers - set(client.run(os.getpid).values())) == killed
    assert max(transfers.unpacked.values()) == 1
    assert 2 <= transfers.sent <= 2 + 4 * killed  # cells in flight when a worker dies are sent again with the model


def test_a_closed_dask_cluster_is_an_error(client: Any, tmp_path: Path) -> None:
    executor = client.get_executor()
    client.close()
    with pytest.raises(ExecutorDiedError, match="after 0 of 256 cells"):
        run_sweep(executor, store=tmp_path / "cells")


# ---- interruptions


@pytest.mark.soak
def test_a_sweep_killed_halfway_computes_only_the_rest(tmp_path: Path, serial: sw.Sweep) -> None:
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
            def counted(self, name, result):
                global count
                put(self, name, result)
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
        assert same(run_sweep(rest, store=store), serial)
        assert rest.cells == 128
        again = Counting(pool)
        assert same(run_sweep(again, store=store), serial)
        assert again.cells == 0


@pytest.mark.parametrize("change", ["weights", "image", "noise", "target", "fill", "mode", "attribute", "hook", "code"])
def test_stored_cells_are_not_used_after_a_change(tmp_path: Path, change: str) -> None:
    def count_computed(changed: bool) -> int:
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

    assert [count_computed(False), count_computed(False), count_computed(True), count_computed(True)] == [1, 0, 1, 0]


class TwoInputs(nn.Module):
    """A model of two inputs: an image and a row of two numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.side = conv_net(), nn.Linear(2, 4).double()

    def forward(self, image: Tensor, meta: Tensor) -> Tensor:
        return self.net(image) * self.side(meta)


def sweep_options(stored: bool, tmp_path: Path) -> dict[str, Any]:
    return {"progress": False, "metrics": ["insertion"], **({"store": tmp_path / "s"} if stored else {})}


@pytest.mark.parametrize("stored", [True, False])
def test_cells_depend_on_inputs_that_are_not_explained(tmp_path: Path, stored: bool) -> None:
    model, x = TwoInputs().eval(), images()[:1]
    inputs = [{"image": x, "meta": torch.tensor([numbers]).double()} for numbers in ([1.0, 2.0], [-3.0, 5.0])]
    settings = {"explain": "image", "target": 0, **sweep_options(stored, tmp_path)}
    for _ in range(2):
        result = sw.sweep(model, inputs, "integrated_gradients", {"n_steps": [8]}, **settings)
        for position, one in enumerate(inputs):
            attribution = sw.attribute(model, one, method="integrated_gradients", n_steps=8, explain="image", target=0)
            assert np.array_equal(
                result.map_of(position, n_steps=8), Reduction()(attribution.values, (8, 8))[0].float().numpy()
            )


@pytest.mark.parametrize("stored", [True, False])
def test_models_that_reuse_a_layer_are_distinguished(tmp_path: Path, stored: bool) -> None:
    layer = nn.Linear(4, 4).double()
    models = nn.Sequential(layer, nn.ReLU()), nn.Sequential(layer, nn.ReLU(), layer, layer)
    for model in models:
        result = sw.sweep(model, rows()[:1], "integrated_gradients", {"n_steps": [8]}, target=0, fill="zero",
                         **sweep_options(stored, tmp_path))  # fmt: skip
        attribution = sw.attribute(model, rows()[:1], method="integrated_gradients", n_steps=8, target=0)
        assert np.array_equal(result.map_of(n_steps=8), attribution.values[0].abs().float().numpy())


FACTOR = 1.0


def scaled(out: Tensor) -> Tensor:
    return out[:, 0] * helper()


def helper() -> float:
    return FACTOR


@pytest.mark.parametrize("what", ["global", "class attribute", "method object"])
def test_stored_cells_depend_on_the_callers_code(tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> np.ndarray:
        method: Any = "integrated_gradients"
        model = Plain()
        if what == "method object":
            from captum.attr import IntegratedGradients

            method = sw.from_captum(IntegratedGradients(model, multiply_by_inputs=Plain.factor == 1))
        return sw.sweep(
            model, images()[:1], method, {"n_steps": [8]}, target=scaled if what == "global" else 0,
            **sweep_options(True, tmp_path),
        ).map_of(n_steps=8)  # fmt: skip

    before = run()
    monkeypatch.setitem(globals(), "FACTOR", 5.0)
    if what != "global":
        monkeypatch.setattr(Plain, "factor", 5.0)
    after = run()
    assert not np.allclose(before, after)
    if what != "method object":
        assert np.allclose(5 * before, after)


@pytest.mark.soak
def test_signatures_are_equal_across_processes() -> None:
    paths = [str(ROOT / "tests" / "api"), str(ROOT / "tests")]
    code = (
        f"import sys; sys.path[:0] = {paths!r}\n"
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


def test_a_sweep_resumes_after_ctrl_c() -> None:
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
def test_a_dead_executor_is_an_error_and_finished_cells_are_kept(tmp_path: Path, serial: sw.Sweep) -> None:
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
        run_sweep(Dying(pool), store=store)
    with cf.ThreadPoolExecutor(1) as pool:
        rest = Counting(pool)
        assert same(run_sweep(rest, store=store), serial)
    assert 200 < rest.cells < 256


def test_a_failed_cell_is_reported_and_the_others_are_kept() -> None:
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
    assert (again.table.error == "").all()  # failed cells are not cached


# ---- invalid arguments


def big(**more: Any) -> dict[str, Any]:
    return {"grid": {"noise_level": [k / 1000 for k in range(1000)], "n_samples": list(range(1, 501))}, **more}


@pytest.mark.parametrize(
    ("change", "error", "message"),
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
def test_invalid_arguments_are_errors_and_leave_the_model_unchanged(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    settings = {"inputs": images(), "method": "smoothgrad", "grid": {"n_samples": [1, 2]}, "progress": False} | change
    model = conv_net()
    before = state_of(model)
    with pytest.raises(error, match=message):
        sw.sweep(model, **settings)
    assert state_of(model) == before


def test_a_pool_that_forks_is_refused() -> None:
    with (
        cf.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool,
        pytest.raises(ValueError, match="get_context\\('spawn'\\)"),
    ):
        run_sweep(pool)


@pytest.mark.soak
def test_a_model_that_can_not_be_pickled_is_an_error() -> None:
    model = conv_net()
    model.lock = __import__("threading").Lock()
    with (
        cf.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool,
        pytest.raises(TypeError, match="model: it can't be sent to another process"),
    ):
        sw.sweep(model, images(), "smoothgrad", {"n_samples": [1]}, ["insertion"], executor=pool, progress=False)


def test_a_file_of_another_program_is_left_alone(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "mine")
    other.execute("CREATE TABLE dear (data)")
    other.commit()
    with pytest.raises(ValueError, match="written by another program"):
        run_sweep(None, store=tmp_path / "mine")
    assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("dear",)]


def test_unknown_settings_and_inputs_are_errors(serial: sw.Sweep) -> None:
    for wrong, message in (({"noise": 1}, "'noise' is not known"), ({"noise_level": 0.1}, "4 settings match")):
        with pytest.raises(ValueError, match=message):
            serial.map_of(0, **wrong)
    with pytest.raises(ValueError, match="from 0 to 15"):
        serial.map_of(16, noise_level=0.1, n_samples=4)


def test_settings_are_in_the_order_of_the_grid(serial: sw.Sweep) -> None:
    assert [tuple(s.values()) for s in serial.settings] == list(itertools.product(*GRID.values()))
    assert "16 settings x 16 inputs" in repr(serial)
    assert serial.words in serial._repr_html_()
