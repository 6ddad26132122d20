"""Inputs inside lists, tuples, mappings and dataclasses, and one number for each sample: read, named, and explained."""

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
    """A score of three rows and a factor, curved in each of them."""

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
    """As configurations and batches often are."""

    __getattr__ = dict.__getitem__


class OfTuple(Base):
    def forward(self, xs):
        assert type(xs) is tuple
        return self.score(*xs)


class OfList(Base):
    def forward(self, xs, factor=1):
        assert type(xs) is list
        return self.score(*xs, factor)


class OfMapping(Base):
    def forward(self, batch):
        return self.score(batch["x"]["a"], *batch["x"]["rest"])


class OfKind(Base):
    kind = Batch

    def forward(self, batch):
        assert type(batch) is self.kind
        return self.score(batch.a, *batch.rest)


class OfPair(OfKind):
    kind = Pair


class OfDotted(OfKind):
    kind = Dotted


class OfOneDict(Base):
    """Of a mapping that is no dict, with keys that are no names."""

    def forward(self, batch):
        assert type(batch) is UserDict
        return self.score(batch[0], *batch["rest"])


class Writes(Base):
    """To whatever it is given."""

    def forward(self, batch):
        x = batch.pop("x")
        x["rest"].append(x["rest"][0] * 1)
        x["a"] *= 2
        return self.score(x["a"] / 2, x["rest"].pop(), x["rest"][1])


NAMES = ["a", "rest.0", "rest.1"]
FORMS = {
    "a tuple": (OfTuple, ((A, B, C),), [f"xs.{k}" for k in range(3)]),
    "a tuple by name": (OfTuple, {"xs": (A, B, C)}, [f"xs.{k}" for k in range(3)]),
    "a list": (OfList, ([A, B, C], 1), [f"xs.{k}" for k in range(3)]),
    "a list by name": (OfList, {"xs": [A, B, C], "factor": 1}, [f"xs.{k}" for k in range(3)]),
    "arrays": (OfList, ([A.numpy(), B.numpy(), C.numpy()],), [f"xs.{k}" for k in range(3)]),
    "mappings": (OfMapping, {"batch": {"x": {"a": A, "rest": (B, C)}, "ids": IDS}}, [f"batch.x.{n}" for n in NAMES]),
    "a dataclass": (OfKind, (Batch(A, [B, C]),), [f"batch.{n}" for n in NAMES]),
    "a named tuple": (OfPair, (Pair(A, [B, C]),), ["batch.0", "batch.1.0", "batch.1.1"]),
    "a dict with attributes": (OfDotted, {"batch": Dotted(a=A, rest=[B, C])}, [f"batch.{n}" for n in NAMES]),
    "another mapping": (OfOneDict, UserDict({0: A, "rest": [B, C]}), ["0", "rest.0", "rest.1"]),
    "written to": (Writes, {"x": {"a": A, "rest": [B, C]}}, [f"x.{n}" for n in NAMES]),
}
TOGETHER = torch.cat([A, B, C], 1)


@pytest.mark.parametrize("method", ["gradient", "integrated_gradients", "smoothgrad"])
@each("form", FORMS)
def test_what_lies_inside_is_explained_as_if_it_lay_side_by_side(form, method):
    kind, inputs, names = FORMS[form]
    few = {"n_steps": 8, "quadrature": "gauss_legendre"} if method == "integrated_gradients" else {}
    few = {"noise_level": 0.0, "n_samples": 3} if method == "smoothgrad" else few
    before = [x.clone() for x in (A, B, C)]
    result = sw.attribute(kind(), inputs, method=method, target=1, **few)
    assert far(result.values, sw.attribute(Flat(), TOGETHER, method=method, target=1, **few).values) < 1e-12
    assert list(result.parts) == names
    for name, piece in zip(names, result.values.split(4, 1), strict=True):
        assert torch.equal(result.part(name).values, piece)
    assert all(map(torch.equal, (A, B, C), before))


def test_what_was_given_keeps_its_form():
    inputs = {"x": {"a": A, "rest": [B, C]}}
    sw.attribute(Writes(), inputs, method="gradient", target=1)
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
def test_explain_takes_paths_and_their_beginnings(explain, columns):
    kind, inputs, names = FORMS["mappings"]
    result = sw.attribute(kind(), inputs, method="gradient", target=1, explain=explain)
    whole = sw.attribute(Flat(), TOGETHER, method="gradient", target=1).values.split(4, 1)
    assert far(result.values, torch.cat([whole[k] for k in columns], 1)) < 1e-13
    assert list(result.parts) == ([names[k] for k in columns] if len(columns) > 1 else [])
    assert torch.equal(sw.attribute(kind(), inputs, **result.settings).values, result.values)


def test_a_part_is_a_path_or_its_beginning():
    kind, inputs, _ = FORMS["mappings"]
    result = sw.attribute(kind(), inputs, method="gradient", target=1)
    rest = result.part("batch.x.rest")
    assert torch.equal(rest.values, result.values[:, 4:])
    assert torch.equal(rest.part("batch.x.rest.1").values, result.values[:, 8:])
    with pytest.raises(ValueError, match=r"part: 'batch\.x\.b' is not known"):
        result.part("batch.x.b")


class Held(Base):
    def forward(self, x, extra):
        assert extra["weights"].shape == (7,)
        return self.score(x, extra["scale"] * x, extra["rows"]) * extra["weights"].sum()


@pytest.mark.parametrize("chunk_size", [1, 3, 16])
def test_what_has_no_row_for_each_sample_is_held_and_that_is_said(chunk_size):
    extra = {"rows": C, "scale": torch.tensor(2.0).double(), "weights": torch.ones(7), "flag": None, "name": "n"}
    settings = {"n_steps": 6, "quadrature": "gauss_legendre", "chunk_size": chunk_size}
    result = sw.attribute(Held(), (A, extra), method="integrated_gradients", target=1, **settings)
    assert list(result.parts) == ["x", "extra.rows"]
    assert any("they don't have 2 rows, one for each sample: {'extra.weights': 7}" in note for note in result.notes)
    one = [
        sw.attribute(
            Held(), (A[k : k + 1], {**extra, "rows": C[k : k + 1]}), method="integrated_gradients", target=1, **settings
        ).values
        for k in range(2)
    ]
    assert far(result.values, torch.cat(one)) < 1e-12


def test_edits_inside_are_noticed():
    inner = rows(5, 2, 4)
    for inputs in ({"batch": {"x": {"a": inner, "rest": [B, C]}}}, (Batch(inner, [B, C]),)):
        model = OfMapping() if isinstance(inputs, dict) else OfKind()
        problem = Problem(model, inputs)
        before = problem.version()
        inner += 1
        assert problem.version() != before
        assert torch.equal(problem.tensor[:, :4], inner)


def test_settings_of_nested_inputs_can_be_written_down(tmp_path):
    kind, inputs, _ = FORMS["mappings"]
    result = sw.attribute(
        kind(), inputs, method="gradient", target=1, explain=["batch.x.a", "batch.x.rest"], device="cpu"
    )
    assert json.loads(result.to_json())["explain"] == ["batch.x.a", "batch.x.rest"]
    assert "explain=['batch.x.a', 'batch.x.rest']" in result.to_code()


# ---- baselines of each


BASES = [rows(6, 1, 4), rows(7, 1, 4), rows(8, 1, 4)]
BASELINES = {
    "a tuple": tuple(BASES),
    "nested as the inputs are": ({"x": {"a": BASES[0], "rest": BASES[1:]}},),
    "by name, nested": {"batch": {"x": {"a": BASES[0], "rest": tuple(BASES[1:])}}},
    "by path": dict(zip(FORMS["mappings"][2], BASES, strict=True)),
    "by beginnings": {"batch.x.a": BASES[0], "batch.x.rest": BASES[1:]},
    "with nothing for what is held": {"batch": {"x": {"a": BASES[0], "rest": BASES[1:]}, "ids": None}},
    "with what is held as it is": {"batch": {"x": {"a": BASES[0], "rest": BASES[1:]}, "ids": torch.tensor([1, 2])}},
    "a list": BASES,
    "in a dataclass": {"batch.x": Batch(BASES[0], BASES[1:], None)},
}


@each("form", BASELINES)
def test_baselines_by_position_name_and_path(form):
    kind, inputs, _ = FORMS["mappings"]
    few = {"target": 1, "n_steps": 8, "quadrature": "gauss_legendre"}
    result = sw.attribute(kind(), inputs, baseline=BASELINES[form], **few)
    assert far(result.values, sw.attribute(Flat(), TOGETHER, baseline=torch.cat(BASES, 1), **few).values) < 1e-12
    captum = sw.attribute(kind(), inputs, method="captum.IntegratedGradients", baseline=BASELINES[form], target=1)
    assert far(captum.values, result.values) < 1e-6


@dataclasses.dataclass
class Scaled:
    x: torch.Tensor
    k: float


def test_a_baseline_nested_as_inputs_with_settings_in_them():
    class Net(nn.Module):
        def forward(self, z, config):
            return (z.x * z.k) @ torch.ones(4, 2, dtype=torch.float64) * config["scale"]

    inputs = {"z": Scaled(A, 2.0), "config": {"scale": 3.0, "name": "big"}}
    base = {"z": Scaled(BASES[0], 5.0), "config": {"scale": 3.0, "name": "big"}}
    result = sw.attribute(Net(), inputs, baseline=base, target=1)
    assert far(result.values, 6 * (A - BASES[0])) < 1e-12
    with pytest.raises(ValueError, match=r"baseline: 'z\.y' is not known"):
        sw.attribute(Net(), inputs, baseline={"z": {"x": BASES[0], "y": 5.0}}, target=1)


def test_one_name_for_all_beneath_a_path():
    kind, inputs, _ = FORMS["mappings"]
    few = {"target": 1, "n_steps": 8, "quadrature": "gauss_legendre"}
    result = sw.attribute(kind(), inputs, baseline={"batch.x.rest": "mean"}, **few)
    means = [torch.zeros_like(A), *(x.mean(1, keepdim=True).expand_as(x) for x in (B, C))]
    assert far(result.values, sw.attribute(Flat(), TOGETHER, baseline=torch.cat(means, 1), **few).values) < 1e-12


@each("argument", ["baseline", "baselines"])
@each(
    ("value", "said"),
    [
        ({"batch.y": A}, r"'batch\.y' is not known"),
        ({"batch": {"x": {"b": A}}}, r"'batch\.x\.b' is not known. Did you mean 'batch\.x\.a'"),
        ((A, B), r"a tuple must have one item for each explained input, \['batch\.x\.a', .*; got 2"),
    ],
)
def test_baselines_for_what_is_not_there(argument, value, said):
    kind, inputs, _ = FORMS["mappings"]
    method = "integrated_gradients" if argument == "baseline" else "expected_gradients"
    with pytest.raises(ValueError, match=rf"{argument}: {said}"):
        sw.attribute(kind(), inputs, method=method, target=1, **{argument: value})


# ---- backgrounds of each


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
    few = {"method": "expected_gradients", "target": 1, "n_samples": 7}
    result = sw.attribute(kind(), inputs, baselines=BACKGROUNDS[form], **few)
    expected = sw.attribute(Flat(), TOGETHER, baselines=torch.cat(STACKS, 1), **few)
    assert far(result.values, expected.values) < 1e-12
    assert far(result.delta, expected.delta) < 1e-9


def test_backgrounds_of_all_alike_give_the_difference_of_the_scores():
    """Of a linear model from a single baseline, Expected Gradients are w (x - x'), whatever is drawn."""

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


def test_noise_for_one_and_a_stack_for_another():
    """What isn't named is noise within its own range; its share has the noise's spread, the other's has none."""
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
    few = (result.values.sum(1) - result.delta).detach()
    assert not torch.equal(few, (other.values.sum(1) - other.delta).detach())


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (
            {"x1": torch.zeros(5, 3), "x2": torch.zeros(2, 4)},
            r"must have the same number of rows, or one; got \{'x1': 5, 'x2': 2\}",
        ),
        ({"x1": torch.zeros(5, 4)}, r"expected a stack of shape \(K, 3\) for 'x1'"),
        (torch.zeros(5, 3), r"each input needs separate baselines.*\{'x1': \(K, 3\), 'x2': \(K, 4\)\}"),
    ],
)
def test_backgrounds_that_do_not_fit(value, said):
    class Two(nn.Module):
        def forward(self, x1, x2):
            return torch.cat([x1, x2], 1)

    with pytest.raises(ValueError, match=rf"baselines: .*{said}"):
        sw.attribute(Two(), (rows(1, 2, 3), rows(2, 2, 4)), method="expected_gradients", baselines=value, target=0)


def test_a_background_of_rows_is_not_for_several_inputs():
    with pytest.raises(ValueError, match=r"background: it applies only to rows of a table\. .*baselines= a mapping"):
        sw.attribute(OfTuple(), ((A, B, C),), background=A, target=0)


# ---- what can't be read


@each(
    ("inputs", "error", "said"),
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
def test_what_cannot_be_read_is_told(inputs, error, said):
    with pytest.raises(error, match=rf"inputs: .*{said}"):
        sw.attribute(OfTuple(), inputs, target=0)


@each(
    ("explain", "said"),
    [
        ("xs.3", r"explain: 'xs\.3' is not known. Did you mean 'xs\.2'"),
        (["xs", "xs.0"], r"explain: expected one or more of .*each once"),
        ("n", r"explain: 'n' is a single number for all samples.*shape \(N,\)"),
        ("ids", r"explain: nothing in 'ids' can be explained; it holds \{'ids\.0': 'torch\.int64'\}"),
    ],
)
def test_what_cannot_be_explained_is_told(explain, said):
    with pytest.raises(ValueError, match=said):
        sw.attribute(OfTuple(), {"xs": (A, B, C), "n": torch.tensor(1.0), "ids": [IDS]}, explain=explain, target=0)


# ---- one number for each sample


class Numbers(nn.Module):
    """relu(relu(a) - 1 - relu(b)) of inputs (N,), captum's BasicModel2."""

    def __init__(self):
        super().__init__()
        self.one = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, a, b):
        assert a.ndim == b.ndim == 1
        return self.one * torch.relu(torch.relu(a) - 1 - torch.relu(b))


N3, N1 = torch.tensor([3.0, 3.0, 0.5]).double(), torch.tensor([1.0, 1.0, 1.0]).double()


@each("inputs", [(N3, N1), {"a": N3, "b": N1}, (N3.numpy(), N1.numpy())], ids=range(3))
@each("baseline", [None, N3 * 0, torch.zeros(1), torch.tensor(0.0), "zero", lambda x: x * 0])
def test_integrated_gradients_of_one_number_for_each_sample(inputs, baseline):
    """By hand: (1.5, -0.5) from 0 to (3, 1), and nothing where the unit never wakes."""
    result = sw.attribute(Numbers(), inputs, baseline=baseline, n_steps=200, tolerance=0, target=0)
    assert far(result.values, torch.tensor([[1.5, -0.5], [1.5, -0.5], [0.0, 0.0]]).double()) < 1e-2
    assert result.part("a").values.shape == (3,)
    assert torch.equal(result.part("b").values, result.values[:, 1])


@pytest.mark.parametrize("method", ["gradient", "smoothgrad", "guided_backprop", "input_x_gradient"])
@each("explain", [None, "a", "b", ["a", "b"]])
def test_gradients_of_one_number_for_each_sample(method, explain):
    slopes = torch.tensor([[1.0, -1.0], [1.0, -1.0], [0.0, 0.0]]).double()
    if method == "guided_backprop":
        slopes = slopes.clamp(min=0)  # what comes back negative is stopped at relu(b)
    elif method == "input_x_gradient":
        slopes = slopes * torch.stack([N3, N1], 1)
    result = sw.attribute(Numbers(), (N3, N1), method=method, explain=explain, target=0)
    expected = slopes if explain is None or len(explain) == 2 else slopes[:, "ab".index(explain)]
    assert torch.equal(result.values, expected)
    assert result.input_shape == tuple(expected.shape)
    if method == "smoothgrad":
        assert result.standard_error.shape == expected.shape
        assert any("No noise was added to" in note for note in result.notes)


def test_averages_over_noise_of_integrated_gradients_need_no_range():
    noise = sw.attribute(Numbers(), (N3, N1), method="smoothgrad", base="input_x_gradient", n_samples=3, target=0)
    plain = sw.attribute(Numbers(), (N3, N1), method="input_x_gradient", target=0)
    assert torch.equal(noise.values, plain.values)


@pytest.mark.parametrize("explain", [None, "a"])
def test_expected_gradients_of_one_number_for_each_sample(explain):
    """Of a product, from 0 alone: a b t on the way, where t is drawn; its mean is half of a b."""

    class Product(nn.Module):
        def forward(self, a, b):
            return a * b

    background = (torch.zeros(4), torch.zeros(1)) if explain is None else torch.zeros(4)
    result = sw.attribute(
        Product(), (N3, N1), method="expected_gradients", baselines=background, explain=explain, n_samples=400, target=0
    )
    if explain == "a":  # linear in it
        assert far(result.values, N3.float() * N1.float()) < 1e-6
    else:
        half = (N3 * N1).float()[:, None].expand(3, 2) / 2
        assert bool(((result.values - half).abs() <= 5 * result.standard_error).all())
    drawn = sw.attribute(Product(), (N3, N1), method="expected_gradients", explain=explain, target=0)
    assert not drawn.values.any()
    assert any("Noise has no range for" in note for note in drawn.notes)


def test_a_batch_of_numbers_is_each_of_them():
    for method in ("integrated_gradients", "smoothgrad", "expected_gradients"):
        result = sw.attribute(Numbers(), (N3, N1), method=method, target=0)
        alone = [sw.attribute(Numbers(), (N3[[k]], N1[[k]]), method=method, target=0).values for k in range(3)]
        assert torch.equal(torch.cat(alone), result.values)


def test_numbers_beside_rows_and_alone():
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


def test_a_lone_tensor_of_one_dimension_is_a_row():
    result = sw.attribute(nn.Linear(3, 2), torch.arange(3.0), method="gradient", target=0)
    assert result.values.shape == (1, 3)


def test_what_is_said_of_a_number():
    result = sw.attribute(Numbers(), (N3, N1), method="gradient", explain="a", target=0)
    with pytest.raises(ValueError, match=r"values: a map needs shape \(B, C, H, W\), got \(1,\)"):
        result.saliency_map()
    taken = sw.ablate(Numbers(), (N3[:1], N1[:1]), np.array([True]), explain="a", fill="zero", target=0)
    assert float(taken.change) == -1  # relu(3 - 1 - 1) without a is relu(-2)
    assert "wrong" in str(sw.checkup(Numbers(), (N3[:1], N1[:1]), target=0))
