"""Inputs nested in lists, tuples, mappings and dataclasses, and inputs of one number per sample, shape (N,)."""

import dataclasses
import json
from collections import UserDict
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toys import each, far, rows

import saliency_widgets as sw
from saliency_widgets.session import Problem

A, B, C = rows(1, 2, 4), rows(2, 2, 4), rows(3, 2, 4)
IDS = torch.tensor([[2, 3], [4, 5]])


class Base(nn.Module):
    """A nonlinear score of three rows, times a factor."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.last = nn.Linear(12, 3).double()

    def score(self, a, b, c, factor=1.0):
        return self.last(torch.tanh(torch.cat([a, b, c], 1))) * factor


class Flat(Base):
    def forward(self, x):
        return self.score(*x.split(4, 1))


class Pair(NamedTuple):
    a: Tensor
    rest: list


@dataclasses.dataclass(frozen=True)
class Batch:
    a: Tensor
    rest: list
    label: str = "no tensor"


class Dotted(dict):
    """A dict with attributes, as configurations and batches often are."""

    __getattr__ = dict.__getitem__


class TupleModel(Base):
    def forward(self, xs):
        assert type(xs) is tuple
        return self.score(*xs)


class ListModel(Base):
    def forward(self, xs, factor=1):
        assert type(xs) is list
        return self.score(*xs, factor)


class MappingModel(Base):
    def forward(self, batch):
        return self.score(batch["x"]["a"], *batch["x"]["rest"])


class BatchModel(Base):
    kind = Batch

    def forward(self, batch):
        assert type(batch) is self.kind
        return self.score(batch.a, *batch.rest)


class PairModel(BatchModel):
    kind = Pair


class DottedModel(BatchModel):
    kind = Dotted


class UserDictModel(Base):
    """Takes a mapping that is not a dict and has a key that is not a string."""

    def forward(self, batch):
        assert type(batch) is UserDict
        return self.score(batch[0], *batch["rest"])


class InPlaceModel(Base):
    """Changes its inputs in place."""

    def forward(self, batch):
        x = batch.pop("x")
        x["rest"].append(x["rest"][0] * 1)
        x["a"] *= 2
        return self.score(x["a"] / 2, x["rest"].pop(), x["rest"][1])


NAMES = ["a", "rest.0", "rest.1"]
FORMS = {
    "a tuple": (TupleModel, ((A, B, C),), [f"xs.{k}" for k in range(3)]),
    "a tuple by name": (TupleModel, {"xs": (A, B, C)}, [f"xs.{k}" for k in range(3)]),
    "a list": (ListModel, ([A, B, C], 1), [f"xs.{k}" for k in range(3)]),
    "a list by name": (ListModel, {"xs": [A, B, C], "factor": 1}, [f"xs.{k}" for k in range(3)]),
    "arrays": (ListModel, ([A.numpy(), B.numpy(), C.numpy()],), [f"xs.{k}" for k in range(3)]),
    "mappings": (MappingModel, {"batch": {"x": {"a": A, "rest": (B, C)}, "ids": IDS}}, [f"batch.x.{n}" for n in NAMES]),
    "a dataclass": (BatchModel, (Batch(A, [B, C]),), [f"batch.{n}" for n in NAMES]),
    "a named tuple": (PairModel, (Pair(A, [B, C]),), ["batch.0", "batch.1.0", "batch.1.1"]),
    "a dict with attributes": (DottedModel, {"batch": Dotted(a=A, rest=[B, C])}, [f"batch.{n}" for n in NAMES]),
    "another mapping": (UserDictModel, UserDict({0: A, "rest": [B, C]}), ["0", "rest.0", "rest.1"]),
    "changed in place": (InPlaceModel, {"x": {"a": A, "rest": [B, C]}}, [f"x.{n}" for n in NAMES]),
}
TOGETHER = torch.cat([A, B, C], 1)


@pytest.mark.parametrize("method", ["gradient", "integrated_gradients", "smoothgrad"])
@each("form", FORMS)
def test_nested_inputs_have_the_values_of_concatenated_ones(form, method):
    kind, inputs, names = FORMS[form]
    settings = {"n_steps": 8, "quadrature": "gauss_legendre"} if method == "integrated_gradients" else {}
    settings = {"noise_level": 0.0, "n_samples": 3} if method == "smoothgrad" else settings
    before = [x.clone() for x in (A, B, C)]
    result = sw.attribute(kind(), inputs, method=method, target=1, **settings)
    assert far(result.values, sw.attribute(Flat(), TOGETHER, method=method, target=1, **settings).values) < 1e-12
    assert list(result.parts) == names
    for name, piece in zip(names, result.values.split(4, 1), strict=True):
        assert torch.equal(result.part(name).values, piece)
    assert all(map(torch.equal, (A, B, C), before))


def test_the_callers_mapping_is_not_changed():
    inputs = {"x": {"a": A, "rest": [B, C]}}
    sw.attribute(InPlaceModel(), inputs, method="gradient", target=1)
    assert list(inputs) == ["x"]
    assert len(inputs["x"]["rest"]) == 2


@each(
    ("explain", "columns"),
    [
        ("batch", [0, 1, 2]),
        ("batch.x", [0, 1, 2]),
        (0, [0, 1, 2]),
        ("batch.x.rest", [1, 2]),
        ("batch.x.rest.1", [2]),
        (["batch.x.rest.1", "batch.x.a"], [0, 2]),
    ],
)
def test_explain_takes_paths_and_prefixes(explain, columns):
    kind, inputs, names = FORMS["mappings"]
    result = sw.attribute(kind(), inputs, method="gradient", target=1, explain=explain)
    whole = sw.attribute(Flat(), TOGETHER, method="gradient", target=1).values.split(4, 1)
    assert far(result.values, torch.cat([whole[k] for k in columns], 1)) < 1e-13
    assert list(result.parts) == ([names[k] for k in columns] if len(columns) > 1 else [])
    assert torch.equal(sw.attribute(kind(), inputs, **result.settings).values, result.values)


def test_part_takes_a_path_or_a_prefix():
    kind, inputs, _ = FORMS["mappings"]
    result = sw.attribute(kind(), inputs, method="gradient", target=1)
    rest = result.part("batch.x.rest")
    assert torch.equal(rest.values, result.values[:, 4:])
    assert torch.equal(rest.part("batch.x.rest.1").values, result.values[:, 8:])
    with pytest.raises(ValueError, match=r"part: 'batch\.x\.b' is not known"):
        result.part("batch.x.b")


class WithConstants(Base):
    def forward(self, x, extra):
        assert extra["weights"].shape == (7,)
        return self.score(x, extra["scale"] * x, extra["rows"]) * extra["weights"].sum()


@pytest.mark.parametrize("chunk_size", [1, 3, 16])
def test_inputs_without_a_row_per_sample_are_held_constant_and_noted(chunk_size):
    extra = {"rows": C, "scale": torch.tensor(2.0).double(), "weights": torch.ones(7), "flag": None, "name": "n"}
    settings = {"n_steps": 6, "quadrature": "gauss_legendre", "chunk_size": chunk_size}
    result = sw.attribute(WithConstants(), (A, extra), method="integrated_gradients", target=1, **settings)
    assert list(result.parts) == ["x", "extra.rows"]
    assert any("they don't have 2 rows, one for each sample: {'extra.weights': 7}" in note for note in result.notes)
    one = [
        sw.attribute(
            WithConstants(),
            (A[k : k + 1], {**extra, "rows": C[k : k + 1]}),
            method="integrated_gradients",
            target=1,
            **settings,
        ).values
        for k in range(2)
    ]
    assert far(result.values, torch.cat(one)) < 1e-12


def test_changing_a_nested_input_changes_the_version():
    inner = rows(5, 2, 4)
    for inputs in ({"batch": {"x": {"a": inner, "rest": [B, C]}}}, (Batch(inner, [B, C]),)):
        model = MappingModel() if isinstance(inputs, dict) else BatchModel()
        problem = Problem(model, inputs)
        before = problem.version()
        inner += 1
        assert problem.version() != before
        assert torch.equal(problem.tensor[:, :4], inner)


def test_settings_of_nested_inputs_can_be_serialized(tmp_path):
    kind, inputs, _ = FORMS["mappings"]
    result = sw.attribute(
        kind(), inputs, method="gradient", target=1, explain=["batch.x.a", "batch.x.rest"], device="cpu"
    )
    assert json.loads(result.to_json())["explain"] == ["batch.x.a", "batch.x.rest"]
    assert "explain=['batch.x.a', 'batch.x.rest']" in result.to_code()


# ---- baselines


BASES = [rows(6, 1, 4), rows(7, 1, 4), rows(8, 1, 4)]
BASELINES = {
    "a tuple": tuple(BASES),
    "nested as the inputs are": ({"x": {"a": BASES[0], "rest": BASES[1:]}},),
    "by name, nested": {"batch": {"x": {"a": BASES[0], "rest": tuple(BASES[1:])}}},
    "by path": dict(zip(FORMS["mappings"][2], BASES, strict=True)),
    "by prefixes": {"batch.x.a": BASES[0], "batch.x.rest": BASES[1:]},
    "with None for a constant input": {"batch": {"x": {"a": BASES[0], "rest": BASES[1:]}, "ids": None}},
    "with a constant input": {"batch": {"x": {"a": BASES[0], "rest": BASES[1:]}, "ids": torch.tensor([1, 2])}},
    "a list": BASES,
    "in a dataclass": {"batch.x": Batch(BASES[0], BASES[1:], None)},
}


@each("form", BASELINES)
def test_baselines_by_position_name_and_path(form):
    kind, inputs, _ = FORMS["mappings"]
    settings = {"target": 1, "n_steps": 8, "quadrature": "gauss_legendre"}
    result = sw.attribute(kind(), inputs, baseline=BASELINES[form], **settings)
    assert far(result.values, sw.attribute(Flat(), TOGETHER, baseline=torch.cat(BASES, 1), **settings).values) < 1e-12
    captum = sw.attribute(kind(), inputs, method="captum.IntegratedGradients", baseline=BASELINES[form], target=1)
    assert far(captum.values, result.values) < 1e-6


@dataclasses.dataclass
class Scaled:
    x: torch.Tensor
    k: float


def test_a_baseline_nested_like_the_inputs_may_contain_settings():
    class Net(nn.Module):
        def forward(self, z, config):
            return (z.x * z.k) @ torch.ones(4, 2, dtype=torch.float64) * config["scale"]

    inputs = {"z": Scaled(A, 2.0), "config": {"scale": 3.0, "name": "big"}}
    base = {"z": Scaled(BASES[0], 5.0), "config": {"scale": 3.0, "name": "big"}}
    result = sw.attribute(Net(), inputs, baseline=base, target=1)
    assert far(result.values, 6 * (A - BASES[0])) < 1e-12
    with pytest.raises(ValueError, match=r"baseline: 'z\.y' is not known"):
        sw.attribute(Net(), inputs, baseline={"z": {"x": BASES[0], "y": 5.0}}, target=1)


def test_one_baseline_name_for_all_inputs_below_a_path():
    kind, inputs, _ = FORMS["mappings"]
    settings = {"target": 1, "n_steps": 8, "quadrature": "gauss_legendre"}
    result = sw.attribute(kind(), inputs, baseline={"batch.x.rest": "mean"}, **settings)
    means = [torch.zeros_like(A), *(x.mean(1, keepdim=True).expand_as(x) for x in (B, C))]
    assert far(result.values, sw.attribute(Flat(), TOGETHER, baseline=torch.cat(means, 1), **settings).values) < 1e-12


@each("argument", ["baseline", "baselines"])
@each(
    ("value", "message"),
    [
        ({"batch.y": A}, r"'batch\.y' is not known"),
        ({"batch": {"x": {"b": A}}}, r"'batch\.x\.b' is not known. Did you mean 'batch\.x\.a'"),
        ((A, B), r"a tuple must have one item for each explained input, \['batch\.x\.a', .*; got 2"),
    ],
)
def test_baselines_that_match_no_input_are_refused(argument, value, message):
    kind, inputs, _ = FORMS["mappings"]
    method = "integrated_gradients" if argument == "baseline" else "expected_gradients"
    with pytest.raises(ValueError, match=rf"{argument}: {message}"):
        sw.attribute(kind(), inputs, method=method, target=1, **{argument: value})


# ---- stacks of baselines


STACKS = [rows(9, 5, 4), rows(10, 5, 4), rows(11, 5, 4)]
BACKGROUNDS = {
    "a tuple": tuple(STACKS),
    "nested": {"batch": {"x": {"a": STACKS[0], "rest": STACKS[1:]}}},
    "by path": dict(zip(FORMS["mappings"][2], STACKS, strict=True)),
    "side by side": torch.cat(STACKS, 1),
}


@each("form", BACKGROUNDS)
def test_row_k_of_each_background_is_one_baseline(form):
    kind, inputs, _ = FORMS["mappings"]
    settings = {"method": "expected_gradients", "target": 1, "n_samples": 7}
    result = sw.attribute(kind(), inputs, baselines=BACKGROUNDS[form], **settings)
    expected = sw.attribute(Flat(), TOGETHER, baselines=torch.cat(STACKS, 1), **settings)
    assert far(result.values, expected.values) < 1e-12
    assert far(result.delta, expected.delta) < 1e-9


def test_expected_gradients_of_a_linear_model_from_a_single_baseline():
    """For a linear model and a single baseline, Expected Gradients are w (x - x') for all draws."""

    class Linear(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.net = nn.Linear(7, 1).double()

        def forward(self, x1, x2):
            return self.net(torch.cat([x1, x2], 1))

    model, x1, x2 = Linear(), rows(1, 2, 3), rows(2, 2, 4)
    b1, b2 = rows(3, 1, 3), rows(4, 1, 4)
    expected = torch.cat([x1 - b1, x2 - b2], 1) * model.net.weight.detach()
    for value in ((b1.expand(5, 3), b2.expand(5, 4)), {"x1": b1, "x2": b2.expand(3, 4)}, {"x1": b1[0], "x2": [b2[0]]}):
        result = sw.attribute(model, (x1, x2), method="expected_gradients", baselines=value, n_samples=4, target=0)
        assert far(result.values, expected) < 1e-12
        assert float(result.delta.abs().max()) < 1e-12
    only = sw.attribute(model, (x1, x2), method="expected_gradients", baselines={"x2": "zero"}, n_samples=4, target=0)
    assert far(only.part("x2").values, x2 * model.net.weight[:, 3:].detach()) < 1e-12
    alone = sw.attribute(
        model, (x1, x2), explain="x2", method="expected_gradients", baselines={"x2": b2}, n_samples=4, target=0
    )
    assert far(alone.values, expected[:, 3:]) < 1e-12


def test_an_input_that_is_not_named_has_noise_as_baselines():
    """The baselines of an input that the mapping doesn't name are noise."""
    kind, inputs, names = FORMS["mappings"]
    result = sw.attribute(
        kind(), inputs, method="expected_gradients", baselines=dict.fromkeys(names[1:], "zero"), n_samples=9, target=1
    )
    each = {names[0]: "noise", names[1]: "zero", names[2]: ["zero"]}
    again = sw.attribute(
        kind(), inputs, method="expected_gradients", baselines=each, n_samples=9, target=1, chunk_size=2
    )
    assert far(again.values, result.values) < 1e-12
    other = sw.attribute(kind(), inputs, method="expected_gradients", baselines="zero", n_samples=9, target=1)
    assert far(other.values, result.values) > 1e-3
    change = (result.values.sum(1) - result.delta).detach()
    assert not torch.equal(change, (other.values.sum(1) - other.delta).detach())


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            {"x1": torch.zeros(5, 3), "x2": torch.zeros(2, 4)},
            r"must have the same number of rows, or one; got \{'x1': 5, 'x2': 2\}",
        ),
        ({"x1": torch.zeros(5, 4)}, r"expected a stack of shape \(K, 3\) for 'x1'"),
        (torch.zeros(5, 3), r"each input needs separate baselines.*\{'x1': \(K, 3\), 'x2': \(K, 4\)\}"),
    ],
)
def test_stacks_of_wrong_shape_are_refused(value, message):
    class Two(nn.Module):
        def forward(self, x1, x2):
            return torch.cat([x1, x2], 1)

    with pytest.raises(ValueError, match=rf"baselines: .*{message}"):
        sw.attribute(Two(), (rows(1, 2, 3), rows(2, 2, 4)), method="expected_gradients", baselines=value, target=0)


def test_background_is_refused_for_several_inputs():
    with pytest.raises(ValueError, match=r"background: it applies only to rows of a table\. .*baselines= a mapping"):
        sw.attribute(TupleModel(), ((A, B, C),), background=A, target=0)


# ---- refused inputs


@each(
    ("inputs", "error", "message"),
    [
        ([(A, B, C)], TypeError, r"a list is a batch of inputs of one shape, but this one contains a tuple of tensors"),
        ([{"xs": A}], TypeError, r"this one contains a dict of tensors\. Pass a tuple of the model's arguments"),
        (Batch(A, [B]), TypeError, r"a Batch can't be passed as a single input\. Pass a tuple.*\(a,\) for one"),
        ({"a.b": A, "a": {"b": B}}, ValueError, r"two inputs have the path 'a\.b'"),
        ({"xs": {"ids": IDS}}, ValueError, r"no input has a gradient; got \{'xs\.ids': 'torch\.int64'\}\. Integers"),
        ({"xs": {"n": torch.tensor(1.0)}}, ValueError, r"no input has a gradient.*one row for each sample; they may"),
        ({"xs": [A, B[:1]]}, ValueError, r"same number of samples .*, got \{'xs\.0': 2, 'xs\.1': 1\}\. Pass explain="),
    ],
    ids=range(7),
)
def test_unreadable_inputs_are_refused(inputs, error, message):
    with pytest.raises(error, match=rf"inputs: .*{message}"):
        sw.attribute(TupleModel(), inputs, target=0)


@each(
    ("explain", "message"),
    [
        ("xs.3", r"explain: 'xs\.3' is not known. Did you mean 'xs\.2'"),
        (["xs", "xs.0"], r"explain: expected one or more of .*each once"),
        ("n", r"explain: 'n' is a single number for all samples.*shape \(N,\)"),
        ("ids", r"explain: nothing in 'ids' can be explained; it holds \{'ids\.0': 'torch\.int64'\}"),
    ],
)
def test_explain_of_an_unsuitable_input_is_refused(explain, message):
    with pytest.raises(ValueError, match=message):
        sw.attribute(TupleModel(), {"xs": (A, B, C), "n": torch.tensor(1.0), "ids": [IDS]}, explain=explain, target=0)


# ---- one number per sample


class Numbers(nn.Module):
    """relu(relu(a) - 1 - relu(b)) for inputs of shape (N,), as captum's BasicModel2."""

    def __init__(self):
        super().__init__()
        self.one = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, a, b):
        assert a.ndim == b.ndim == 1
        return self.one * torch.relu(torch.relu(a) - 1 - torch.relu(b))


N3, N1 = torch.tensor([3.0, 3.0, 0.5]).double(), torch.tensor([1.0, 1.0, 1.0]).double()


@each("inputs", [(N3, N1), {"a": N3, "b": N1}, (N3.numpy(), N1.numpy())], ids=range(3))
@each("baseline", [None, N3 * 0, torch.zeros(1), torch.tensor(0.0), "zero", lambda x: x * 0])
def test_integrated_gradients_of_one_number_per_sample(inputs, baseline):
    """By hand: (1.5, -0.5) for the path from 0 to (3, 1), and 0 for the sample whose score is 0 on all of its path."""
    result = sw.attribute(Numbers(), inputs, baseline=baseline, n_steps=200, tolerance=0, target=0)
    assert far(result.values, torch.tensor([[1.5, -0.5], [1.5, -0.5], [0.0, 0.0]]).double()) < 1e-2
    assert result.part("a").values.shape == (3,)
    assert torch.equal(result.part("b").values, result.values[:, 1])


@pytest.mark.parametrize("method", ["gradient", "smoothgrad", "guided_backprop", "input_x_gradient"])
@each("explain", [None, "a", "b", ["a", "b"]])
def test_gradients_of_one_number_per_sample(method, explain):
    slopes = torch.tensor([[1.0, -1.0], [1.0, -1.0], [0.0, 0.0]]).double()
    if method == "guided_backprop":
        slopes = slopes.clamp(min=0)  # relu(b) blocks negative gradients
    elif method == "input_x_gradient":
        slopes = slopes * torch.stack([N3, N1], 1)
    result = sw.attribute(Numbers(), (N3, N1), method=method, explain=explain, target=0)
    expected = slopes if explain is None or len(explain) == 2 else slopes[:, "ab".index(explain)]
    assert torch.equal(result.values, expected)
    assert result.input_shape == tuple(expected.shape)
    if method == "smoothgrad":
        assert result.standard_error.shape == expected.shape
        assert any("No noise was added to" in note for note in result.notes)


def test_smoothgrad_of_numbers_without_a_range_is_its_base_method():
    noise = sw.attribute(Numbers(), (N3, N1), method="smoothgrad", base="input_x_gradient", n_samples=3, target=0)
    plain = sw.attribute(Numbers(), (N3, N1), method="input_x_gradient", target=0)
    assert torch.equal(noise.values, plain.values)


@pytest.mark.parametrize("explain", [None, "a"])
def test_expected_gradients_of_one_number_per_sample(explain):
    """For the product a b and a baseline of 0, the values are a b t with t drawn from [0, 1): their mean is a b / 2."""

    class Product(nn.Module):
        def forward(self, a, b):
            return a * b

    background = (torch.zeros(4), torch.zeros(1)) if explain is None else torch.zeros(4)
    result = sw.attribute(
        Product(), (N3, N1), method="expected_gradients", baselines=background, explain=explain, n_samples=400, target=0
    )
    if explain == "a":  # the score is linear in it
        assert far(result.values, N3.float() * N1.float()) < 1e-6
    else:
        half = (N3 * N1).float()[:, None].expand(3, 2) / 2
        assert bool(((result.values - half).abs() <= 5 * result.standard_error).all())
    drawn = sw.attribute(Product(), (N3, N1), method="expected_gradients", explain=explain, target=0)
    assert not drawn.values.any()
    assert any("Noise has no range for" in note for note in drawn.notes)


def test_a_batch_of_numbers_has_the_values_of_its_samples():
    for method in ("integrated_gradients", "smoothgrad", "expected_gradients"):
        result = sw.attribute(Numbers(), (N3, N1), method=method, target=0)
        alone = [sw.attribute(Numbers(), (N3[[k]], N1[[k]]), method=method, target=0).values for k in range(3)]
        assert torch.equal(torch.cat(alone), result.values)


def test_one_number_per_sample_with_rows_and_alone():
    class Gate(nn.Module):
        def forward(self, x, gate):
            return x * gate[:, None] ** 2

    x, gate = rows(1, 3, 4), torch.tensor([2.0, -1.0, 0.5]).double()
    result = sw.attribute(Gate(), (x.float(), gate), target=0, n_steps=9, quadrature="gauss_legendre")
    assert far(result.part("x").values[:, 0], x[:, 0].float() * gate.float() ** 2 / 3) < 1e-6
    assert far(result.part("gate").values, x[:, 0].float() * gate.float() ** 2 * 2 / 3) < 1e-6

    class Square(nn.Module):
        def forward(self, a):
            assert a.ndim == 1
            return a**2

    for inputs in ((gate,), {"a": gate}, {"a": gate.tolist()}):
        result = sw.attribute(Square(), inputs, target=0, n_steps=4, quadrature="gauss_legendre")
        assert far(result.values, gate.float() ** 2) < 1e-6


def test_a_single_one_dimensional_tensor_is_a_row():
    result = sw.attribute(nn.Linear(3, 2), torch.arange(3.0), method="gradient", target=0)
    assert result.values.shape == (1, 3)


def test_map_ablation_and_checkup_of_one_number_per_sample():
    result = sw.attribute(Numbers(), (N3, N1), method="gradient", explain="a", target=0)
    with pytest.raises(ValueError, match=r"values: a map needs shape \(B, C, H, W\), got \(1,\)"):
        result.saliency_map()
    taken = sw.ablate(Numbers(), (N3[:1], N1[:1]), np.array([True]), explain="a", fill="zero", target=0)
    assert float(taken.change) == -1  # from relu(3 - 1 - 1) to relu(0 - 1 - 1)
    assert "wrong" in str(sw.checkup(Numbers(), (N3[:1], N1[:1]), target=0))
