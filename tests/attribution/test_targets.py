"""Targets and scores: which number of the model's output is explained."""

from collections import OrderedDict
from types import MappingProxyType, SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from toys import each, far, mlp, rows

import saliency_widgets as sw

NAMES = ["tabby cat", "tiger cat", "golden retriever"]
X = rows(8, 2, 4)


def gradient(model=None, x=X, **settings):
    return sw.attribute(mlp() if model is None else model, x, method="gradient", **settings)


def expected(read, model=None, x=X):
    """The gradient of the sum over samples of ``read(logits)``."""
    leaf = x.clone().requires_grad_()
    (result,) = torch.autograd.grad(read((mlp() if model is None else model)(leaf)).sum(), leaf)
    return result


# ---- which class


@each(
    "target",
    [1, np.int64(1), torch.tensor(1), np.array(1), "tiger cat", "TIGER CAT ", "tiger", [1, 1], (1, 1)],
    ids=repr,
)
def test_one_class_in_every_accepted_form(target):
    result = gradient(target=target, class_names=NAMES)
    assert torch.equal(result.values, expected(lambda out: out[:, 1]))
    assert result.settings["target"] == 1
    assert type(result.settings["target"]) is int


@each(
    "target",
    [[2, 0], (2, 0), torch.tensor([2, 0]), np.array([2, 0]), ["retriever", "tabby"], [2, "tabby"]],
    ids=repr,
)
def test_one_class_for_each_sample(target):
    result = gradient(target=target, class_names=NAMES)
    assert torch.equal(
        result.values,
        expected(lambda out: out[:, 2] * torch.tensor([1, 0]) + out[:, 0] * torch.tensor([0, 1])),
    )
    assert result.settings["target"] == [2, 0]


def test_the_default_is_the_top_prediction_of_each_sample():
    x = rows(3, 40, 4)
    top = mlp()(x).argmax(1)
    assert len(top.unique()) > 1, "this net predicts the same class for all samples"
    result = gradient(x=x)
    assert torch.equal(result.values, expected(lambda out: out.max(1).values, x=x))
    assert result.settings["target"] == top.tolist()


def test_an_exact_name_wins_over_a_part_of_another():
    result = gradient(target="cat", class_names=["cat", "tiger cat", "dog"])
    assert result.settings["target"] == 0


@each(
    ("target", "error", "pattern"),
    [
        (3, ValueError, r"target: class 3 is out of range, the model scores classes 0 to 2"),
        (-1, ValueError, r"target: class -1 is out of range"),
        (True, TypeError, r"target: expected a class index.*bool"),
        (torch.tensor(True), TypeError, r"target: .*bool"),
        (1.0, TypeError, r"target: expected a class index.*float"),
        (torch.tensor(0.7), TypeError, r"target: .*float"),
        (np.array(0.7), TypeError, r"target: .*float"),
        ([0.0, 1.0], TypeError, r"target: .*float"),
        ([0, 5], ValueError, r"target: class 5 is out of range"),
        ([0], ValueError, r"target: expected one class for each of the 2 inputs, got 1"),
        ([0, 1, 2], ValueError, r"target: expected one class for each of the 2 inputs, got 3"),
        ([[0], [1]], ValueError, r"target: expected one class for each of the 2 inputs, got a nested list"),
        (np.zeros((2, 2), int), ValueError, r"target: expected one class for each"),
        ("cat", ValueError, r"target: 'cat' matches 2 classes: 0 \(tabby cat\), 1 \(tiger cat\).*index"),
        (
            "golden retreiver",
            ValueError,
            r"target: 'golden retreiver' is not known\. Did you mean 'golden retriever'",
        ),
        ("zebra", ValueError, r"target: 'zebra' is not known\. Known: 'tabby cat'"),
        ("", ValueError, r"target: '' is not known"),
        ({}, TypeError, r"target: expected a class index.*dict"),
    ],
    ids=repr,
)
def test_invalid_targets_are_refused(target, error, pattern):
    with pytest.raises(error, match=pattern):
        gradient(target=target, class_names=NAMES)


def test_a_class_name_without_class_names_is_refused():
    with pytest.raises(ValueError, match=r"target: got the class name 'cat', but no class_names="):
        gradient(target="cat")


def test_a_wrong_number_of_class_names_is_refused():
    with pytest.raises(ValueError, match=r"class_names: expected 3 names, one for each class, got 2"):
        gradient(target=0, class_names=NAMES[:2])


# ---- a function as target


def test_a_function_of_the_raw_output():
    result = gradient(target=lambda out: out[:, 0] * out[:, 1] ** 2)
    assert far(result.values, expected(lambda out: out[:, 0] * out[:, 1] ** 2)) < 1e-14
    assert torch.equal(result.score, (mlp()(X)[:, 0] * mlp()(X)[:, 1] ** 2).detach())


def test_a_function_may_return_a_column_and_works_for_outputs_of_any_form():
    class Map(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 5, 3, padding=1).double()

        def forward(self, x):
            return {"masks": self.conv(x), "extra": None}

    x = rows(1, 2, 1, 6, 6)
    model = Map()
    result = gradient(model, x, target=lambda out: out["masks"][:, 3].mean((1, 2))[:, None])
    assert torch.equal(result.values, expected(lambda out: out["masks"][:, 3].mean((1, 2)), model, x))


def test_of_scores_at_all_positions_the_mean_is_explained():
    model = nn.Conv2d(1, 5, 3, padding=1).double()
    x = rows(1, 2, 1, 6, 6)
    result = gradient(model, x, target=3)
    assert far(result.values, expected(lambda out: out[:, 3].mean((1, 2)), model, x)) < 1e-14
    assert any("each position" in note for note in result.notes)
    shares = gradient(model, x, target=3, score="probability")
    assert far(shares.values, expected(lambda out: out.softmax(1)[:, 3].mean((1, 2)), model, x)) < 1e-12
    assert far(shares.score, model(x).softmax(1)[:, 3].mean((1, 2)).detach()) < 1e-14


def test_an_output_of_another_shape_is_refused_with_advice():
    model = nn.Sequential(nn.Linear(4, 6), nn.Unflatten(1, (2, 3))).double()
    with pytest.raises(ValueError, match=r"target: the model's output has shape \(2, 2, 3\).*lambda out"):
        gradient(model, X, target=3)


@each(
    ("function", "got"),
    [
        (lambda out: out, r"got shape \(2, 3\)"),
        (lambda out: out.sum(), r"got shape \(\)"),
        (lambda out: out[:1, 0], r"got shape \(1,\)"),
        (lambda out: 3.0, "got a float"),
        (lambda out: None, "got a NoneType"),
    ],
)
def test_a_function_must_return_one_number_per_sample(function, got):
    with pytest.raises(ValueError, match=r"target: the function must return one number per sample.*" + got):
        gradient(target=function)


def test_a_function_works_with_methods_that_repeat_the_samples():
    for method in ("smoothgrad", "integrated_gradients", "gradient"):
        by_function = sw.attribute(mlp(), X, method=method, target=lambda out: out[:, 2])
        assert torch.equal(by_function.values, sw.attribute(mlp(), X, method=method, target=2).values)


# ---- contrast


@pytest.mark.parametrize("method", ["gradient", "input_x_gradient", "smoothgrad", "integrated_gradients"])
@each("score", ["logit", "log_probability", "probability"])
def test_a_contrast_is_the_difference_of_two_scores(method, score):
    settings = {"method": method, "score": score}
    if method == "integrated_gradients":  # so that all use the same nodes
        settings["quadrature"] = "trapezoid"
    both = sw.attribute(mlp(), X, target=[0, 1], contrast=2, **settings)
    parts = [sw.attribute(mlp(), X, target=target, **settings) for target in ([0, 1], 2)]
    assert far(both.values, parts[0].values - parts[1].values) < 1e-13
    if both.score is not None:
        assert torch.allclose(both.score, parts[0].score - parts[1].score)


def test_contrast_by_name_and_for_each_sample_is_recorded_as_indices():
    result = gradient(target="tabby", contrast=["retriever", "tiger"], class_names=NAMES)
    assert result.settings["contrast"] == [2, 1]
    assert torch.equal(gradient(**{k: result.settings[k] for k in ("target", "contrast")}).values, result.values)


def test_contrast_of_log_probabilities_is_that_of_logits():
    """log p_a - log p_b = z_a - z_b: the normalizer cancels."""
    result = [gradient(target=0, contrast=1, score=score).values for score in ("logit", "log_probability")]
    assert far(*result) < 1e-13


def test_contrast_and_a_function_exclude_each_other():
    with pytest.raises(ValueError, match=r"contrast: .*target= a function; subtract inside"):
        gradient(target=lambda out: out[:, 0], contrast=1)


@each(("contrast", "error"), [(3, ValueError), (True, TypeError), ("x", ValueError), (len, TypeError)])
def test_contrast_is_checked_like_a_target(contrast, error):
    with pytest.raises(error, match="contrast: "):
        gradient(target=0, contrast=contrast, class_names=NAMES)


# ---- scales


SCALES = {
    "logit": lambda out: out[:, 1],
    "value": lambda out: out[:, 1],
    "probability": lambda out: out.softmax(1)[:, 1],
    "log_probability": lambda out: out.log_softmax(1)[:, 1],
}


@each("score", SCALES)
def test_scales(score):
    result = gradient(target=1, score=score)
    assert far(result.values, expected(SCALES[score])) < 1e-13
    assert far(result.score, SCALES[score](mlp()(X)).detach()) < 1e-14


def test_the_chain_rule_links_the_scales():
    p = gradient(target=1, score="probability")
    log_p = gradient(target=1, score="log_probability")
    assert far(p.values, p.score[:, None] * log_p.values) < 1e-13


BINARY = {
    "logit": lambda out: out,
    "value": lambda out: out,
    "probability": torch.sigmoid,
    "log_probability": nn.functional.logsigmoid,
}


@each("score", BINARY)
@each("squeezed", [False, True])
def test_a_single_logit_is_a_binary_model(score, squeezed):
    model = nn.Sequential(mlp(classes=1), nn.Flatten(0) if squeezed else nn.Identity())
    result = gradient(model, target=0, score=score)
    assert far(result.values, expected(BINARY[score], model)) < 1e-13
    assert torch.equal(result.values, gradient(model, score=score).values)
    with pytest.raises(ValueError, match="class 1 is out of range, the model scores classes 0 to 0"):
        gradient(model, target=1, score=score)


def test_the_gradient_of_a_very_low_log_probability_does_not_vanish():
    model = nn.Sequential(mlp(), nn.Linear(3, 3, bias=False).double())
    with torch.no_grad():
        model[1].weight.copy_(torch.eye(3) * 1e4)
    least = int(mlp()(X[:1]).argmin())
    assert bool(gradient(model, X[:1], target=least, score="log_probability").values.any())
    assert not bool(gradient(model, X[:1], target=least, score="probability").values.any())


def test_an_output_of_several_values_needs_an_index():
    with pytest.raises(
        ValueError, match=r"target: the model returns 3 values; with score='value', pass the index of one"
    ):
        gradient(score="value")
    assert gradient(mlp(classes=1), score="value").settings["target"] == 0


def test_an_unknown_scale_is_refused():
    with pytest.raises(ValueError, match=r"score: 'logits' is not known\. Did you mean 'logit'"):
        gradient(score="logits")


# ---- forms of output


class Wrapped(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.net, self.wrap = mlp(), wrap

    def forward(self, x):
        return self.wrap(self.net(x))


OUTPUTS = {
    "tensor": lambda out: out,
    "tuple": lambda out: (out, torch.zeros(2)),
    "list": lambda out: [out],
    "tuple with something else first": lambda out: (None, "loss", out),
    "dict with logits": lambda out: {"aux": out * 0, "logits": out},
    "dict without logits": lambda out: {"out": out, "aux": out * 0},
    "ordered dict": lambda out: OrderedDict(out=out),
    "object with logits": lambda out: SimpleNamespace(logits=out, loss=None),
}


@each("form", OUTPUTS)
def test_forms_of_output(form):
    assert torch.equal(gradient(Wrapped(OUTPUTS[form]), target=1).values, expected(lambda out: out[:, 1]))


@each("wrap", [lambda out: "cat", lambda out: {}, lambda out: (), lambda out: {"logits": None}])
def test_an_output_without_scores_is_refused(wrap):
    with pytest.raises(
        TypeError, match=r"target: the model returned a .* with no tensor of scores.*target= a function"
    ):
        gradient(Wrapped(wrap), target=1)


def test_a_class_that_is_masked_with_minus_infinity_does_not_affect_the_others():
    mask = torch.tensor([0.0, float("-inf"), 0.0])
    model = Wrapped(lambda out: out + mask)
    assert torch.equal(gradient(model, target=2).values, expected(lambda out: out[:, 2]))
    assert set(gradient(model, rows(3, 40, 4)).settings["target"]) == {0, 2}
    with pytest.raises(ValueError, match="score is NaN or infinite"):
        gradient(model, target=1)


# ---- notes, refusals and functions


def test_of_several_tensors_that_could_be_scores_a_note_names_the_explained_one():
    class Both(nn.Module):
        def __init__(self, names):
            super().__init__()
            self.net, self.head, self.names = mlp(), nn.Linear(3, 5).double(), names
            self.eval()

        def forward(self, x):
            features = self.net(x)
            pair = (features, self.head(features))
            return pair if self.names is None else dict(zip(self.names, pair, strict=True))

    for names, text in (
        (None, "returns 2 tensors that could be scores (0, 1); the first is explained"),
        (("features", "classes"), "(features, classes); the first is explained"),
    ):
        result = gradient(Both(names), X, target=0)
        assert [text in note for note in result.notes] == [True]
        assert torch.equal(result.values, gradient(mlp(), X, target=0).values)
    assert gradient(Both(("features", "logits")), X, target=4).notes == ()
    assert gradient(Both(None), X, target=lambda out: out[1][:, 4]).notes == ()


@pytest.mark.parametrize("score", ["probability", "log_probability"])
def test_a_function_as_target_excludes_probabilities(score):
    with pytest.raises(ValueError, match=rf"score: '{score}' can't be combined with target= a function; compute it"):
        gradient(target=lambda out: out[:, 0], score=score)


def test_a_class_against_itself_is_refused():
    for target, contrast in ((1, 1), ([0, 1], [2, 1])):
        with pytest.raises(ValueError, match="contrast: it is the same class as target"):
            gradient(target=target, contrast=contrast)


def test_a_squeezed_number_is_the_score_of_a_single_row():
    class Squeezed(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 1).double()

        def forward(self, x):
            return self.linear(x).squeeze()

    model = Squeezed()
    for x in (X[:1], X):
        result = gradient(model, x, score="value")
        assert torch.equal(result.values, model.linear.weight.detach().expand_as(x))


def test_complex_scores_need_a_function():
    class Complex(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 3).double()

        def forward(self, x):
            return torch.complex(self.linear(x), self.linear(2 * x))

    with pytest.raises(TypeError, match=r"target: the model's output is complex\. Pass target= a function"):
        gradient(Complex(), X, target=0)
    result = gradient(Complex(), X, target=lambda out: out[:, 0].real)
    assert bool(result.values.any())


def test_a_function_may_read_what_a_hook_stored():
    """The target is a hidden unit, stored by a forward hook."""

    class Keep:
        def __call__(self, _module, _inputs, output):
            self.output = output

    model, stored, keep = mlp().eval(), {}, Keep()
    model[0].register_forward_hook(lambda _m, _i, output: stored.update(first=output))
    model[2].register_forward_hook(keep)
    first = gradient(model, X, target=lambda _out: stored["first"][:, 3])
    assert far(first.values, model[0].weight[3].detach().expand_as(X)) < 1e-14
    hidden = gradient(model, X, target=lambda _out: keep.output[:, 2])
    leaf = X.clone().requires_grad_()
    (expected,) = torch.autograd.grad(model[:3](leaf)[:, 2].sum(), leaf)
    assert far(hidden.values, expected) < 1e-14
    assert "first" in stored, "the hook must also run in the caller's own call of the model"


# ---- one logit with two class names


TWO = ["neg", "pos"]
PAIR = {  # the scores of class 0 and class 1, from the logit z
    "logit": (lambda z: -z, lambda z: z),
    "value": (lambda z: -z, lambda z: z),
    "probability": (lambda z: 1 - z.sigmoid(), torch.sigmoid),
    "log_probability": (lambda z: (1 - z.sigmoid()).log(), nn.functional.logsigmoid),
}


@each("score", PAIR)
@each("squeezed", [False, True])
def test_one_logit_with_two_class_names_scores_both_classes(score, squeezed):
    model = nn.Sequential(mlp(classes=1), nn.Flatten(0) if squeezed else nn.Identity())
    for index, read in enumerate(PAIR[score]):
        for target in (index, TWO[index], [index, index]):
            result = gradient(model, target=target, class_names=TWO, score=score)
            assert far(result.values, expected(read, model)) < 1e-13
            assert far(result.score, read(model(X)).detach().flatten()) < 1e-14
            assert result.settings["target"] == index
            # The settings hold the names: without them, target 0 would be the logit itself.
            assert torch.equal(sw.attribute(model, X, **result.settings).values, result.values)


def test_the_class_names_of_a_binary_model_do_not_change_the_map_of_its_logit():
    model = mlp(classes=1)
    for method in ("gradient", "integrated_gradients", "smoothgrad"):
        result = sw.attribute(model, X, target="pos", class_names=TWO, method=method)
        assert torch.equal(result.values, sw.attribute(model, X, target=0, method=method).values)


def test_a_binary_model_explains_its_likelier_class():
    model, x = mlp(classes=1), rows(3, 40, 4)
    with torch.no_grad():
        model[-1].bias -= model(x).median()
    likelier = (model(x)[:, 0] > 0).long()
    assert set(likelier.tolist()) == {0, 1}
    result = gradient(model, x, class_names=TWO)
    assert result.settings["target"] == likelier.tolist()
    assert far(result.values, expected(torch.abs, model, x)) < 1e-13
    assert gradient(model, x, class_names=TWO, score="value").settings["target"] == 1  # a value is no class


def test_contrast_of_both_classes_of_one_logit():
    model = mlp(classes=1)
    for score, read in {"logit": lambda z: 2 * z, "log_probability": lambda z: z}.items():
        result = gradient(model, target="pos", contrast="neg", class_names=TWO, score=score)
        assert far(result.values, expected(read, model)) < 1e-13


def test_one_logit_at_each_position_scores_both_classes():
    model = nn.Conv2d(1, 1, 3, padding=1).double()
    x = rows(1, 2, 1, 6, 6)
    result = gradient(model, x, target="background", class_names=["background", "object"], score="probability")
    assert far(result.values, expected(lambda out: (1 - out.sigmoid()).mean((1, 2, 3)), model, x)) < 1e-14


def test_a_single_class_name_is_that_of_the_logit():
    model = mlp(classes=1)
    result = gradient(model, target="hot", class_names=["hot"])
    assert torch.equal(result.values, gradient(model, target=0).values)
    with pytest.raises(ValueError, match=r"class 1 is out of range.*class_names=\[negative, positive\]"):
        gradient(model, target=1)


# ---- an index into the output


def cube():
    """A model from (N, 4) to (N, 2, 3, 2): out[:, a, b, c] = (a + 1) (c + 1) z_b."""

    class Cube(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = mlp()

        def forward(self, x):
            z = self.net(x)[:, None, :, None]
            return z * torch.tensor([1.0, 2.0])[:, None, None] * torch.tensor([1.0, 2.0])

    return Cube()


def test_a_tuple_is_an_index_into_each_samples_output():
    result = gradient(cube(), target=(1, 2, 0))
    assert far(result.values, expected(lambda out: 2 * out[:, 2])) < 1e-13
    assert result.settings["target"] == (1, 2, 0)
    assert far(result.score, 2 * mlp()(X)[:, 2].detach()) < 1e-14
    assert not any("each position" in note for note in result.notes)


@pytest.mark.parametrize("method", ["gradient", "smoothgrad", "integrated_gradients", "expected_gradients"])
def test_a_list_of_tuples_has_an_index_for_each_sample(method):
    settings = {"method": method, "chunk_size": 4} if method != "gradient" else {"method": method}
    both = sw.attribute(cube(), X, target=[(1, 2, 0), (0, 1, 1)], **settings)
    for row, target in enumerate([(1, 2, 0), (0, 1, 1)]):
        alone = sw.attribute(cube(), X, target=target, **settings)
        assert far(both.values[row], alone.values[row]) < 1e-13
    assert both.settings["target"] == [(1, 2, 0), (0, 1, 1)]


def test_an_index_may_be_contrasted_and_repeated():
    result = gradient(cube(), target=(1, 2, 0), contrast=(0, 1, 0))
    assert far(result.values, expected(lambda out: 2 * out[:, 2] - out[:, 1])) < 1e-13
    assert sw.Attribution.settings_from_json(result.to_json()) == result.settings
    names = {"model": cube(), "inputs": X}
    exec(result.to_code(), names)
    assert torch.equal(names["attribution"].values, result.values)


def test_an_index_of_a_segmentation_is_one_class_at_one_position():
    model = nn.Conv2d(1, 5, 3, padding=1).double()
    x = rows(1, 2, 1, 6, 6)
    scales = {"logit": lambda out: out, "probability": lambda out: out.softmax(1)}
    for score, scale in scales.items():
        result = gradient(model, x, target=(3, 2, 4), score=score)
        assert far(result.values, expected(lambda out, scale=scale: scale(out)[:, 3, 2, 4], model, x)) < 1e-14
        assert not any("each position" in note for note in result.notes)
    names = ["off", "on"]
    single = nn.Conv2d(1, 1, 3, padding=1).double()
    result = gradient(single, x, target=(0, 2, 4), class_names=names)
    assert far(result.values, expected(lambda out: -out[:, 0, 2, 4], single, x)) < 1e-14


def test_for_class_scores_an_index_has_one_number():
    assert gradient(target=(2,)).settings["target"] == 2
    assert gradient(target=[(2,), (0,)]).settings["target"] == [2, 0]


@each(
    ("target", "pattern"),
    [
        ((1, 2), r"which has shape \(2, 3, 2\) here, so it has 3 numbers.*Got \(1, 2\)"),
        ((2, 0, 0), r"index \(2, 0, 0\) is out of range, one sample's output has shape \(2, 3, 2\)"),
        ((0, 0, -1), r"index \(0, 0, -1\) is out of range"),
        ([(0, 0, 0)], "expected one index for each of the 2 inputs, got 1"),
    ],
)
def test_an_index_that_does_not_fit_is_refused(target, pattern):
    with pytest.raises(ValueError, match=f"target: .*{pattern}"):
        gradient(cube(), target=target)


def test_settings_that_an_index_excludes_are_refused():
    with pytest.raises(ValueError, match=r"has shape \(3,\) here, so it has one number; a list has one class for each"):
        gradient(target=(0, 1, 2))
    with pytest.raises(ValueError, match=r"contrast: expected an index of 3 numbers"):
        gradient(cube(), target=(0, 1, 1), contrast=1)
    tokens = nn.Sequential(nn.Linear(4, 6), nn.Unflatten(1, (2, 3))).double()
    with pytest.raises(ValueError, match=r"score: 'probability' needs the class dimension"):
        gradient(tokens, target=(0, 1), score="probability")
    with pytest.raises(ValueError, match="contrast: it is the same class as target"):
        gradient(tokens, target=(0, 1), contrast=(0, 1))


# ---- rows that are not independent samples


class Graph(nn.Module):
    """Two layers that average over neighbors: a node's score depends on the nodes near it."""

    def __init__(self, pooled=False):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.pooled = nn.Linear(4, 8), nn.Linear(8, 3), pooled
        self.double().eval()

    def forward(self, x, edges):
        a = torch.eye(len(x), dtype=x.dtype)
        a[edges[0], edges[1]] = 1
        a = a / a.sum(1, keepdim=True)
        out = self.second(a @ torch.tanh(a @ self.first(x)))
        return out.mean(0, keepdim=True) if self.pooled else out


NODES, EDGES = rows(5, 6, 4), torch.tensor([[0, 1, 2, 3, 4], [1, 2, 3, 4, 5]])


class Steps(nn.Module):
    """A sequence-first LSTM: its rows are time steps, and a step's score depends only on earlier steps and itself."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.lstm, self.head = nn.LSTM(4, 8), nn.Linear(8, 3)
        self.double().eval()

    def forward(self, x, _edges=None):
        return self.head(self.lstm(x)[0])


COUPLED = {"graph": Graph, "steps": Steps}
SUMS = {"class": (1, lambda out: out[:, 1].sum()), "one row": (lambda out: out[2, 1], lambda out: out[2, 1])}


def on_path(model, read, t):
    """Return the gradient of ``read`` at t times the nodes."""
    leaf = (t * NODES).requires_grad_()
    return torch.autograd.grad(read(model(leaf, EDGES)), leaf)[0]


@each("what", SUMS)
@each("kind", COUPLED)
def test_rows_that_influence_each_others_scores_are_explained_as_one_sample(kind, what):
    model, (target, read) = COUPLED[kind](), SUMS[what]
    settings = {"explain": 0, "target": target}
    result = gradient(model, (NODES, EDGES), **settings)
    assert far(result.values, on_path(model, read, 1.0)) < 1e-14
    assert sum("The rows influence each other" in note for note in result.notes) == 1
    score = read(model(NODES, EDGES)).detach()
    assert far(result.score, score[None]) < 1e-14

    fixed = {"method": "integrated_gradients", "baseline": "zero", "quadrature": "midpoint", "n_steps": 20}
    by_hand = NODES * sum(on_path(model, read, (k + 0.5) / 20) for k in range(20)) / 20
    with torch.no_grad():
        change = read(model(NODES, EDGES)) - read(model(0 * NODES, EDGES))
    for chunk_size in (None, 64):
        integrated = sw.attribute(model, (NODES, EDGES), **settings, **fixed, chunk_size=chunk_size)
        assert far(integrated.values, by_hand) < 1e-14
        assert float((integrated.delta - (by_hand.sum() - change)).abs()) < 1e-14

    noisy = {"method": "smoothgrad", "n_samples": 5, "noise_level": 0.0}
    assert far(sw.attribute(model, (NODES, EDGES), **settings, **noisy).values, result.values) < 1e-14
    one = {"method": "expected_gradients", "n_samples": 100, "baselines": torch.zeros(1, 6, 4)}
    drawn = sw.attribute(model, (NODES, EDGES), **settings, **one)
    assert drawn.values.shape == drawn.standard_error.shape == NODES.shape
    assert float(((drawn.values - by_hand).abs() / drawn.standard_error.clamp(min=1e-4)).max()) < 4.5


def test_each_node_gets_its_own_noise():
    """Samples share their noise; shared noise would shift all nodes of a graph alike."""
    seen = []

    class Spied(Graph):
        def forward(self, x, edges):
            seen.append(x.detach().clone())
            return super().forward(x, edges)

    sw.attribute(Spied(), (NODES, EDGES), explain=0, target=1, method="smoothgrad", n_samples=1)
    noise = seen[-1] - NODES
    assert len(noise[:, 0].unique()) == 6


def test_the_single_score_of_a_graph_needs_a_function():
    model = Graph(pooled=True)
    result = gradient(model, (NODES, EDGES), explain=0, target=lambda out: out[0, 1])
    assert far(result.values, on_path(model, lambda out: out[0, 1], 1.0)) < 1e-14
    with pytest.raises(ValueError, match=r"returned 1 rows of scores for 6 inputs.*one number for all of them"):
        gradient(model, (NODES, EDGES), explain=0, target=1)


def test_a_number_expanded_to_all_nodes_counts_once():
    result = gradient(Graph(), (NODES, EDGES), explain=0, target=lambda out: out[0, 1].expand(len(out)))
    assert far(result.values, on_path(Graph(), lambda out: out[0, 1], 1.0)) < 1e-14


def test_a_function_that_returns_a_score_for_each_node_is_refused():
    with pytest.raises(ValueError, match=r"target: the function returns a score for each of the 6 rows.*out\[0, 1\]"):
        gradient(Graph(), (NODES, EDGES), explain=0, target=lambda out: out[:, 1])
    with pytest.raises(ValueError, match=r"target: the function returns a score for each of the 2 rows"):
        gradient(target=lambda out: out[0, 1].repeat(2))  # only the function couples the rows


def test_class_activation_maps_of_coupled_rows_are_refused():
    class Frames(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 3, 3, padding=1).double()

        def forward(self, x):
            return (self.conv(x) + self.conv(x).mean(0, keepdim=True)).tanh().mean((2, 3))

    with pytest.raises(ValueError, match=r"method: Grad-CAM explains single images\. The rows influence each other"):
        sw.attribute(Frames(), rows(1, 3, 1, 6, 6), target=0, method="grad_cam")


def test_several_inputs_of_nodes_are_explained_one_at_a_time():
    class Two(Graph):
        def forward(self, x, y):
            return super().forward(x + y, EDGES)

    with pytest.raises(ValueError, match=r"explain: The rows influence each other.*one of \['x', 'y'\]"):
        gradient(Two(), (NODES, NODES), target=1)
    result = gradient(Two(), (NODES, NODES), target=1, explain="y")
    assert far(result.values, on_path(lambda x, _: Two()(x, NODES), lambda out: out[:, 1].sum(), 1.0)) < 1e-14


@pytest.mark.parametrize("training", [False, True])
def test_independent_samples_are_not_coupled(training):
    """BatchNorm in training mode must not make the rows of a batch count as one sample."""
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)).double().train(training)
    result = sw.attribute(model, rows(2, 5, 4), target=1, method="integrated_gradients")
    assert result.delta.shape == (5,)
    assert not any("The rows influence each other" in note for note in result.notes)


@pytest.mark.parametrize("rows_of", [14, 28])
def test_coupled_rows_in_repeating_groups_are_detected(rows_of):
    """As in a consensus of segments, rows that are half the batch apart share their score."""

    class Consensus(nn.Module):
        def forward(self, x):
            return x.square().view(2, -1, x.shape[1]).mean(0).repeat(2, 1)

    x = rows(0, rows_of, 3)
    result = sw.attribute(Consensus(), x, method="integrated_gradients", target=1, quadrature="midpoint", n_steps=8)
    assert result.notes[0].startswith("The rows influence each other")
    assert result.delta.shape == (1,)
    assert far(result.values[:, 1], x[:, 1] ** 2) < 1e-12


def test_rows_coupled_without_a_gradient_are_reported():
    class Detached(nn.Module):
        def forward(self, x):
            return x + x.mean(0).detach()

    result = sw.attribute(Detached().eval(), rows(0, 6, 3), method="gradient", target=1)
    assert any("no gradient connects them" in note for note in result.notes)
    noisy = nn.Sequential(nn.Linear(3, 3), nn.RReLU(), nn.BatchNorm1d(3)).double().train()
    assert not any("no gradient connects them" in note for note in sw.attribute(noisy, rows(0, 6, 3), target=1).notes)


class Bags(nn.Module):
    """Multiple-instance learning: a softmax over the rows of each bag. Half of the batch may consist of whole bags."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.weigh, self.head = nn.Linear(4, 1), nn.Linear(4, 3)
        self.double().eval()

    def forward(self, x, bag):
        weights = torch.zeros(len(x), 1, dtype=x.dtype)
        for one in bag.unique():
            weights[bag == one] = self.weigh(x[bag == one]).softmax(0)
        return self.head(torch.tanh(weights * x))


@pytest.mark.parametrize("bags", [[0, 0, 0, 1, 2, 2, 2], [0, 1] * 6, [0] * 3 + [*range(1, 31)] + [31] * 3])
def test_the_rows_of_bags_are_explained_as_one_sample(bags):
    bag = torch.tensor(bags)
    x = rows(0, len(bags), 4)
    result = sw.attribute(Bags(), (x, bag), explain=0, target=1, method="integrated_gradients", tolerance=1e-3)
    assert result.notes[0].startswith("The rows influence each other")
    with torch.no_grad():
        change = (Bags()(x, bag) - Bags()(0 * x, bag))[:, 1].sum()
    assert float((result.delta - (result.values.sum() - change)).abs()) < 1e-12
    assert not [f for f in sw.checkup(Bags(), (x, bag), explain=0, target=1) if "backward" in f.what]


@each("rows_of", [2, 3, 8, 16])
@each("kind", ["output", "head"])
def test_rounding_errors_are_not_taken_for_influence(rows_of, kind):
    """Float64 scores of a float32 computation change by float32 rounding if the pass has other rows."""

    class Widened(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.body, self.head = nn.Sequential(nn.Linear(64, 32), nn.ReLU()), nn.Linear(32, 3)
            if kind == "head":
                self.head.double()

        def forward(self, x):
            return self.head(self.body(x).to(self.head.weight.dtype)).double()

    result = gradient(Widened().eval(), rows(0, rows_of, 64).float(), target=1)
    assert not any("other rows" in note or "influence" in note for note in result.notes)


def test_evaluations_of_single_inputs_refuse_coupled_rows():
    x = rows(0, 6, 4)
    model = nn.Sequential(Centered(), nn.Linear(4, 3)).double().eval()
    for call in (
        lambda: sw.evaluate(model, x, "gradient", target=1, progress=False),
        lambda: sw.sweep(model, x, "smoothgrad", {"n_samples": [2, 4]}, target=1, progress=False),
        lambda: sw.evaluate(Graph(), (NODES, EDGES), "gradient", target=1, explain=0, progress=False),
    ):
        with pytest.raises(ValueError, match=r"inputs: the rows influence each other.*one map of all 6"):
            call()


class Centered(nn.Module):
    """The rows minus their mean, through tanh."""

    def forward(self, x):
        return torch.tanh(x - x.mean(0, keepdim=True))


def test_methods_that_run_the_model_themselves_refuse_coupled_rows():
    class Mean(nn.Module):
        def forward(self, x):
            return x * x.mean(0)

    with pytest.raises(ValueError, match=r"method: InputXGradient \(captum\) runs the model itself.*'gradient'"):
        sw.attribute(Mean(), rows(0, 6, 3), method="captum.InputXGradient", target=1)
    with pytest.raises(ValueError, match=r"inputs: The rows influence each other.*Pass shape \(N, 1\)"):
        sw.attribute(centered(), {"a": rows(0, 5, 1)[:, 0]}, method="integrated_gradients", target=0)


def centered():
    class Centered(nn.Module):
        def forward(self, a):
            return torch.stack([torch.tanh(a - 2 * a.mean()), a * a], 1)

    return Centered()


def test_lrp_explains_only_outputs_of_the_model():
    model = mlp(classes=1)
    for settings in ({"target": 0}, {"score": "probability", "target": 1}):
        with pytest.raises(ValueError, match="score: LRP can only explain an output of the model"):
            sw.attribute(model, rows(), method="captum.LRP", class_names=["no", "yes"], **settings)


def test_a_mapping_of_names_with_gaps_is_refused():
    with pytest.raises(ValueError, match=r"class_names: a mapping must name the classes 0 to 2, each once; \[1\] have"):
        gradient(target="a", class_names={0: "a", 2: "c"})


# ---- outputs that are probabilities already


class Squashed(nn.Module):
    """One output after a sigmoid, in the usual forms; class 1 is unlikely."""

    FORMS = MappingProxyType(
        {
            "module": None,
            "functional": torch.sigmoid,
            "squeezed": lambda z: z.sigmoid().squeeze(1),
            "indexed": lambda z: nn.functional.sigmoid(z)[:, 0],
            "flattened": lambda z: torch.special.expit(z).view(-1),
            "bounded": lambda z: torch.sigmoid(z).clamp(1e-6, 1 - 1e-6),
        }
    )

    def __init__(self, form):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1)).double()
        with torch.no_grad():
            self.net[2].bias.fill_(-2.0)
        self.last = self.FORMS[form] or nn.Sigmoid()
        self.eval()

    def forward(self, x):
        return self.last(self.net(x))


ON_SCALES = {
    "logit": (lambda p: -p, lambda p: p),
    "probability": (lambda p: 1 - p, lambda p: p),
    "log_probability": (lambda p: (1 - p).log(), torch.log),
}


@each("fold", [True, False])
@each("form", Squashed.FORMS)
def test_no_second_sigmoid_is_applied_to_a_probability(form, fold):
    model, x = Squashed(form), rows(0, 3, 4)
    names = {"class_names": ["neg", "pos"], "fold": fold}
    top = gradient(model, x, **names)
    assert top.settings["target"] == 0
    assert sum("probabilities already" in note for note in top.notes) == 1
    for scale, reads in ON_SCALES.items():
        for target, read in enumerate(reads):
            leaf = x.clone().requires_grad_()
            score = read(model(leaf).reshape(3))
            result = gradient(model, x, target=target, score=scale, **names)
            assert far(result.values, torch.autograd.grad(score.sum(), leaf)[0]) < 1e-12
            assert far(result.score, score.detach()) < 1e-12
    assert not any("probabilities already" in note for note in result.notes)


def test_the_outputs_of_a_softmax_are_used_as_probabilities():
    model, x = nn.Sequential(mlp(), nn.Softmax(1)).eval(), rows(0, 3, 4)
    leaf = x.clone().requires_grad_()
    share = model(leaf)[:, 1]
    result = gradient(model, x, target=1, score="probability")
    assert far(result.score, share.detach()) < 1e-12
    assert far(result.values, torch.autograd.grad(share.sum(), leaf)[0]) < 1e-12
    assert any("probabilities already" in note for note in gradient(model, x, target=1).notes)
    assert not any("probabilities already" in note for note in gradient(mlp(), x, target=1).notes)


def test_a_sigmoid_gate_inside_the_model_is_not_taken_for_its_output():
    class Gated(Squashed):
        def forward(self, x):
            return self.net(x) * x[:, :1].sigmoid()

    result = gradient(Gated("module"), rows(0, 3, 4), class_names=["neg", "pos"], target=1, score="probability")
    with torch.no_grad():
        assert far(result.score, Gated("module")(rows(0, 3, 4)).sigmoid()[:, 0]) < 1e-12
    assert not any("probabilities already" in note for note in result.notes)


def test_ablate_shows_a_probability_unchanged():
    model, x = Squashed("squeezed"), rows(0, 1, 4)
    share = float(model(x))
    assert 0 < share < 0.3
    table = sw.ablate(model, x, torch.tensor([True, False, False, False]), class_names=["neg", "pos"], draws=0)
    assert table.predictions()["before"].to_dict() == pytest.approx({"neg": 1 - share, "pos": share})
    alone = sw.ablate(model, x, torch.tensor([True, False, False, False]), target=0, draws=0).predictions()
    assert alone["before"].tolist() == pytest.approx([share])


@pytest.mark.parametrize("one", [torch.tensor([1]), np.array([1]), torch.tensor(1)])
def test_an_array_of_one_class_applies_to_all_samples(one):
    assert torch.equal(gradient(target=one).values, gradient(target=1).values)


def test_no_second_softmax_is_applied_to_the_probability_of_a_pixel():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1).double(), nn.Softmax(1)).eval(), rows(0, 1, 3, 5, 6)
    result = gradient(model, x, target=(2, 1, 4), score="probability")
    with torch.no_grad():
        assert far(result.score, model(x)[:, 2, 1, 4]) < 1e-12
