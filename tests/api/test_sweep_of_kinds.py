"""Sweeps over texts, signals and volumes: numbers in closed form for linear models, keys, processes, and the view."""

from __future__ import annotations

import concurrent.futures as cf
import multiprocessing
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toys import Counting, rows

import saliency_widgets as sw
from saliency_widgets.api.sweep.arguments import read_inputs
from saliency_widgets.api.sweep.cells import Reply
from saliency_widgets.session.frames import coded
from saliency_widgets.widgets.base.parts import parts_of
from saliency_widgets.widgets.compare.grid import GridView

VOCABULARY = {"[UNK]": 0, "the": 1, "cat": 2, "sat": 3, "on": 4, "a": 5, "mat": 6}
STEPS = {"n_steps": [2, 4]}


@pytest.fixture(autouse=True)
def no_unsaved_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saliency_widgets.api.sweep._unsaved", None)


class Bag(nn.Module):
    """The mean of embeddings, and a linear layer: each token's share is w · e / T, and that of [UNK] is zero."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.head = nn.Embedding(len(VOCABULARY), 5), nn.Linear(5, 3, bias=False)
        self.double()
        with torch.no_grad():
            self.embedding.weight += 0.5 * self.head.weight[1].sign()
            self.embedding.weight[0] = 0

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.embedding(ids).mean(1))


class Weighted(nn.Module):
    """Sums of an input's channels with a positive weight each, for any number of samples or voxels."""

    def __init__(self, channels: int, activation: type[nn.Module] = nn.Identity) -> None:
        super().__init__()
        self.weight, self.activation = nn.Parameter(rows(9, 3, channels).abs()), activation()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(x).flatten(2).sum(2) @ self.weight.T


def of_tokens(model: Bag, text: str) -> Tensor:
    ids = torch.tensor([VOCABULARY[word] for word in text.split()])
    return (model.embedding(ids) @ model.head.weight[1]).detach() / len(ids)


def of_numbers(model: Weighted, x: Tensor) -> Tensor:
    return x * model.weight[1].detach().view(-1, *[1] * (x.ndim - 1))


class Case(NamedTuple):
    """A linear model of one kind of input, two inputs of different sizes, and the exact share of each feature."""

    model: nn.Module
    inputs: list[Any]
    options: dict[str, Any]
    shares: Callable[[Any, Any], Tensor]
    shape: tuple[int, ...]
    sign: str = "signed"


CASES = {
    "text": Case(Bag(), ["the cat sat", "a mat on the cat"], {"tokenizer": VOCABULARY}, of_tokens, (3,)),
    "signal": Case(
        Weighted(2),
        [rows(1, 2, 9) + 0.5, rows(2, 2, 7) + 0.5],
        {"sampling_rate": 10, "time_axis": "last"},
        of_numbers,
        (2, 9),
    ),
    "volume": Case(
        Weighted(1),
        [rows(1, 1, 2, 3, 4) + 0.5, rows(2, 1, 3, 3, 2) + 0.5],
        {"slices": "axial"},
        of_numbers,
        (2, 3, 4),
        "absolute",
    ),
}


def sweep(case: Case, metrics: list[str], **more: Any) -> sw.Sweep:
    settings = {"method": "integrated_gradients", "grid": STEPS, "target": 1, "progress": False}
    return sw.sweep(case.model, case.inputs, metrics=metrics, **{**settings, **case.options, **more})


@pytest.mark.parametrize("kind", CASES)
def test_maps_and_areas_of_linear_models_in_closed_form(kind: str) -> None:
    case = CASES[kind]
    for index, item in enumerate(case.inputs):
        share = case.shares(case.model, item)
        share = share.sum(0) if kind == "volume" else share
        shown = share.abs() if case.sign == "absolute" else share
        count = share.numel()
        result = sweep(case, ["deletion", "insertion", "delta"], baseline="zero", fill="zero", steps=count)
        np.testing.assert_allclose(result.map_of(index, n_steps=4), shown.float(), rtol=1e-5)
        ordered = share.flatten()[shown.flatten().argsort(descending=True)]
        inserted = torch.cat([ordered.new_zeros(1), ordered.cumsum(0)]) / ordered.sum()
        area = float(torch.trapezoid(inserted) / count)
        row = result.table[(result.table.input == index) & (result.table.n_steps == 4)].iloc[0]
        assert row.insertion == pytest.approx(area, rel=1e-9)
        assert row.deletion == pytest.approx(1 - area, rel=1e-9)
        assert row.delta < 1e-12
    assert result.map_of(0, n_steps=4).shape == case.shape


@pytest.mark.parametrize("kind", CASES)
def test_numbers_are_those_of_evaluate(kind: str) -> None:
    case = CASES[kind]
    if kind != "text":  # for a linear model, the default fill would leave the score unchanged
        case = case._replace(model=Weighted(len(case.inputs[0]), nn.ReLU))
    result = sweep(case, ["deletion", "insertion"], grid={"n_samples": [4, 8]}, method="smoothgrad")
    table = sw.evaluate(
        case.model, case.inputs, ["smoothgrad"], params={"n_samples": 8}, target=1, progress=False, **case.options
    )
    for index in range(2):
        row = result.table[(result.table.input == index) & (result.table.n_samples == 8)].iloc[0]
        for name in ("deletion", "insertion"):
            assert not np.isnan(row[name])
            assert row[name] == pytest.approx(table.loc[("smoothgrad", index), name], rel=1e-12)


TEXT = {"target": 1, "tokenizer": VOCABULARY}


@pytest.mark.parametrize(("method", "grid"), [("integrated_gradients", STEPS), ("smoothgrad", {"n_samples": [2, 4]})])
def test_a_map_of_a_text_is_that_of_the_explorer(method: str, grid: dict[str, list[int]]) -> None:
    text = "the cat sat on a mat"
    result = sw.sweep(Bag(), text, method, grid, ["similarity"], progress=False, **TEXT)
    attribution = sw.attribute(Bag(), text, method=method, **{name: values[1] for name, values in grid.items()}, **TEXT)
    shown = attribution.by_token()["attribution"].to_numpy()
    np.testing.assert_array_equal(result.cells[0, 1].values, shown.astype("f4"))


def test_evaluate_and_ablate_rank_tokens_as_they_are_shown() -> None:
    text, areas = "the cat sat on a mat", ["deletion", "insertion"]
    attribution = sw.attribute(Bag(), text, **TEXT)
    shown = attribution.by_token()["attribution"].to_numpy()
    largest = attribution.values.abs().amax(2)[0].numpy()
    assert list(shown.argsort()) != list(largest.argsort())  # otherwise this test could not fail
    maps = {"method": "integrated_gradients", "attribution": attribution, "array": shown}
    table = sw.evaluate(Bag(), text, maps, progress=False, **TEXT)
    assert not table[areas].isna().any(axis=None)
    for name in ("attribution", "array"):
        np.testing.assert_allclose(table.loc[name, areas], table.loc["method", areas], rtol=1e-12)
    first = torch.zeros(6, dtype=torch.bool)
    first[int(shown.argmax())] = True
    strongest = sw.ablate(Bag(), text, attribution, top=1 / 6, draws=0, **TEXT)
    assert float(strongest.after) == float(sw.ablate(Bag(), text, first, draws=0, **TEXT).after)


# ---- keys of stored cells


def names(model: nn.Module, inputs: list[Any], **options: Any) -> list[str]:
    return [item.name for item in read_inputs(model, inputs, options, named=True)[1]]


def test_texts_with_equal_embeddings_have_different_keys() -> None:
    model = Bag()
    with torch.no_grad():
        model.embedding.weight[VOCABULARY["mat"]] = model.embedding.weight[VOCABULARY["cat"]]
    keys = names(model, ["the cat", "the mat", "the cat sat", "the cat"], tokenizer=VOCABULARY)
    assert keys[0] == keys[3]
    assert len(set(keys)) == 3


def test_keys_depend_on_what_a_kind_adds_to_the_numbers() -> None:
    without = {word: index for word, index in VOCABULARY.items() if word != "[UNK]"}
    others = ["a mat", "the mat"]
    assert len({
        *names(Bag(), ["the cat"], tokenizer=VOCABULARY),
        *names(Bag(), ["the cat"], tokenizer=without),  # there is no baseline "unknown"
        *(key for other in others for key in names(Bag(), ["the cat"], tokenizer=VOCABULARY, background=other)),
    }) == 4  # fmt: skip
    square = rows(1, 2, 2)
    assert len({
        key
        for more in ({}, {"time_axis": "first"}, {"background": rows(2, 3, 2, 2)}, {"background": rows(3, 3, 2, 2)})
        for key in names(Weighted(2), [square], **{"time_axis": "last", **more})
    }) == 4  # fmt: skip
    cube = rows(1, 2, 2, 2, 2)
    assert len({key for slices in ("time", "time first") for key in names(Weighted(2), [cube], slices=slices)}) == 2


@pytest.mark.parametrize("kind", CASES)
def test_stored_cells_are_read_back(kind: str, tmp_path: Path) -> None:
    case = CASES[kind]
    for inputs, computed in ((case.inputs[:1], 2), (case.inputs, 2), (case.inputs[::-1], 0)):
        executor = Counting()
        result = sweep(case._replace(inputs=inputs), ["delta"], store=tmp_path / "cells", executor=executor)
        assert executor.cells == computed
        for index, item in enumerate(inputs):
            expected = sweep(case._replace(inputs=[item]), ["delta"])
            np.testing.assert_array_equal(result.map_of(index, n_steps=2), expected.map_of(n_steps=2))


# ---- workers


def test_a_process_gets_the_tokenizer() -> None:
    with cf.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        result = sweep(CASES["text"], ["delta"], executor=pool)
    expected = sweep(CASES["text"], ["delta"])
    assert not result.table.error.any()
    for index in range(2):
        np.testing.assert_allclose(result.map_of(index, n_steps=4), expected.map_of(index, n_steps=4), rtol=1e-5)


class Lacking(cf.Executor):
    """A worker that always lacks the payload."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> cf.Future:
        future: cf.Future = cf.Future()
        future.set_result(Reply(None, "process", "worker"))
        return future


def test_a_tokenizer_that_can_not_be_pickled_is_named() -> None:
    lock = threading.Lock()

    def tokenizer(text: str) -> list[int]:
        with lock:
            return [VOCABULARY[word] for word in text.split()]

    case = CASES["text"]._replace(options={"tokenizer": tokenizer})
    with pytest.raises(TypeError, match=r"^tokenizer: it can't be sent to another process \(.*ThreadPoolExecutor"):
        sweep(case, ["delta"], executor=Lacking())


# ---- the view


@pytest.mark.parametrize("kind", ["text", "signal"])
def test_the_view_shows_texts_and_signals_with_their_maps(kind: str) -> None:
    case = CASES[kind]
    result = sweep(case, ["delta"])
    (grid,) = [part for part in parts_of(result.widget, []) if isinstance(part, GridView)]
    for index in range(2):
        result.widget._input.value = index
        values = np.atleast_2d(result.map_of(index, n_steps=4))
        cell = grid.cells[1]
        assert (cell.scene["kind"], cell.frame["height"], cell.frame["width"]) == (kind, *values.shape)
        codes = coded(torch.from_numpy(values), signed=result.widget.maps.signed).codes
        assert bytes(cell.frame["codes"]) == codes.astype("<u2").tobytes()
        if kind == "text":
            assert cell.scene["pieces"] == case.inputs[index].split()
        else:
            np.testing.assert_array_equal(
                np.frombuffer(cell.scene["values"], "<f4"), case.inputs[index].flatten().float()
            )
    assert result.by(within=0.5).scenes is result.scenes
    assert not result.subjects  # these would keep the model


class Tagging(nn.Module):
    """Three scores for each token."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.head = nn.Embedding(len(VOCABULARY), 5), nn.Linear(5, 3)
        self.double()

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.embedding(ids))


def test_a_text_without_the_position_of_the_target_shows_the_error() -> None:
    case = CASES["text"]._replace(model=Tagging(), inputs=["a mat on the cat", "the cat sat"])
    result = sweep(case, ["delta"], target=(4, 1))
    assert result.widget.maps is not None
    cell = result.widget.maps.view.cells[0]
    assert (cell.scene["explained"], cell.status["state"]) == (4, "done")
    result.widget._input.value = 1
    assert (cell.scene, cell.status["state"]) == ({}, "error")
    assert "position 4 is out of range" in cell.status["message"]


def test_the_view_says_that_volumes_are_not_drawn() -> None:
    view = sweep(CASES["volume"], ["delta"]).widget
    assert not any(isinstance(part, GridView) for part in parts_of(view, []))
    assert any("The maps of volumes are not drawn here" in getattr(part, "value", "") for part in parts_of(view, []))


def test_a_sweep_moves_an_explorer_of_a_text() -> None:
    case = CASES["text"]
    explorer = sw.explore(case.model, case.inputs[0], target=1, executor="inline", **case.options)
    view = sweep(case, ["delta"]).widget_for(explorer)
    view._on_open(0)
    assert explorer.wait().settings["n_steps"] == 2
    explorer.close()
