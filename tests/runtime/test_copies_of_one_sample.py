"""Copies of one sample that share a pass: results are those of separate passes, even if the model mixes rows."""

import pytest
import torch
from torch import nn
from toys import each, far

import saliency_widgets as sw
from saliency_widgets.attribution import Score
from saliency_widgets.attribution.errors import Cancelled
from saliency_widgets.runtime.memory import Sharing
from saliency_widgets.runtime.passes import Passes
from saliency_widgets.runtime.runner import Runner
from saliency_widgets.session import Problem, Request
from saliency_widgets.session.compute import compute

X = torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
METHODS = {
    "integrated_gradients": {"n_steps": 12, "tolerance": 0.0},
    "smoothgrad": {"n_samples": 9},
    "expected_gradients": {"n_samples": 9, "baselines": torch.zeros(1, 5, 8)},
    "captum.IntegratedGradients": {"n_steps": 7},
    "captum.FeatureAblation": {},
}


class Attention(nn.Module):
    """An encoder without ``batch_first=True``, by mistake: its attention runs along the batch."""

    def __init__(self, batch_first=False):
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=batch_first)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.encoder(x).mean(1))


class Recurrent(nn.Module):
    """A network that takes the rows for time steps: later rows depend on earlier ones."""

    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(8, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.lstm(x)[0].mean(1))


class Softmax(nn.Module):
    """A softmax over the wrong dimension of an inner layer."""

    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(40, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.head((self.first(x.flatten(1)) * 3).softmax(0) + x.flatten(1)[:, :6])


class Alone(nn.Module):
    """Runs a model on one row at a time."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return torch.cat([self.model(row[None]) for row in x])


MIXING = {"attention": Attention, "recurrent": Recurrent, "softmax": Softmax}


def make_model(kind):
    torch.manual_seed(0)
    return kind().double().eval()


@pytest.mark.parametrize("method", METHODS)
@each("kind", MIXING)
def test_a_map_equals_that_of_rows_one_by_one(kind, method):
    model = make_model(MIXING[kind])
    result = sw.attribute(model, X, method=method, target=1, **METHODS[method])
    expected = sw.attribute(Alone(model), X, method=method, target=1, **METHODS[method])
    assert far(result.values, expected.values) < 1e-12
    assert sum("copies of the input run one at a time" in note for note in result.notes) == 1
    assert not any("run one at a time" in note for note in expected.notes)
    if result.delta is not None:
        assert float((result.delta - expected.delta).abs()) < 1e-12


def test_an_evaluation_equals_that_of_rows_one_by_one():
    row = X.flatten(1)

    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = make_model(Attention)

        def forward(self, x):
            return self.model(x.view(-1, 5, 8))

    model = Flat().eval()
    requested = {"methods": ["gradient", "smoothgrad"], "target": 1, "fill": "mean", "progress": False}
    result, expected = (sw.evaluate(m, row, **requested, params={"n_samples": 4}) for m in (model, Alone(model)))
    same = [name for name in result.columns if not name.startswith("randomized")]  # depends on the weights' names
    assert result.loc["gradient", ["deletion", "insertion", "noises", "settled"]].notna().all()
    assert float((result - expected)[same].abs().max().max()) < 1e-9


@pytest.mark.parametrize("method", ["captum.DeepLift", "captum.GradientShap"])
def test_captum_methods_that_need_rows_in_one_pass_are_refused(method):
    with pytest.raises(ValueError, match=r"runs the input together with variants of it.*batch_first"):
        sw.attribute(make_model(Attention), X, method=method, target=1)
    assert sw.attribute(Alone(make_model(Attention)), X, method="captum.Saliency", target=1).values.any()


def test_copies_share_passes_if_the_model_does_not_mix_rows():
    sizes = []

    class RecordsSizes(Attention):
        def forward(self, x):
            sizes.append(len(x))
            return super().forward(x)

    torch.manual_seed(0)
    model = RecordsSizes(batch_first=True).double().eval()
    result = sw.attribute(
        model, X, method="integrated_gradients", target=1, n_steps=16, quadrature="midpoint", chunk_size=8
    )
    assert max(sizes) == 8
    assert not any("run one at a time" in note for note in result.notes)


@pytest.mark.parametrize("training", [nn.Dropout(0.5), nn.RReLU()])
def test_random_layers_are_not_taken_for_mixing_rows(training):
    model = nn.Sequential(nn.Flatten(), nn.Linear(40, 6), training, nn.Linear(6, 3)).double().train()
    result = sw.attribute(model, X, method="smoothgrad", target=1, n_samples=5)
    assert not any("run one at a time" in note for note in result.notes)


SCALARS = {
    "an output that is a scalar": (lambda out: out[:, 1].sum(), None),
    "a target that returns a scalar": (lambda out: out, lambda out: out[0, 1]),
}


@pytest.mark.parametrize("method", METHODS)
@each("case", SCALARS)
def test_a_score_that_is_one_number_for_a_batch_is_computed_row_by_row(case, method):
    reduce, target = SCALARS[case]

    class Reduced(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = make_model(lambda: Attention(batch_first=True))

        def forward(self, x):
            return reduce(self.model(x))

    result = sw.attribute(Reduced().eval(), X, method=method, target=target, **METHODS[method])
    expected = sw.attribute(Reduced().eval().model, X, method=method, target=1, **METHODS[method])
    assert far(result.values, expected.values) < 1e-12
    assert sum("returns one number for a whole batch" in note for note in result.notes) == 1


def test_a_cancelled_check_for_mixing_is_repeated():
    model, sharing = make_model(Attention), Sharing()

    def stop():
        raise Cancelled

    score = Score("logit", torch.tensor([1]))
    with pytest.raises(Cancelled):
        Runner(Passes(model, X, score, check=stop, sharing=sharing)).scores(X.repeat(3, 1, 1))
    assert sharing.apart is None
    Runner(Passes(model, X, score, sharing=sharing)).scores(X * torch.tensor([0.5, 1.0, 2.0])[:, None, None])
    assert "change the score" in sharing.apart


class Reducing(nn.Module):
    """Returns one number for a whole batch while ``reduces`` is set."""

    def __init__(self):
        super().__init__()
        self.layer, self.reduces = nn.Linear(8, 3), False

    def forward(self, x):
        scores = self.layer(x.mean(1))
        return scores.sum() if self.reduces and len(x) > 1 else scores


def smoothgrad_of(problem):
    *_, result = compute(problem, Request.of("smoothgrad", {"n_samples": 9}, target=1))
    return result


def test_a_changed_model_is_checked_again():
    model = make_model(Reducing)
    problem = Problem(model, X)
    model.reduces = True
    assert any("returns one number for a whole batch" in note for note in smoothgrad_of(problem).notes)
    model.reduces = False
    result, expected = smoothgrad_of(problem), sw.attribute(model, X, method="smoothgrad", n_samples=9, target=1)
    assert torch.equal(result.values, expected.values)
    assert result.notes == expected.notes


def test_each_target_function_is_checked():
    problem = Problem(make_model(Reducing), X)
    scalar, per_row = Score("logit", lambda out: out.sum()), Score("logit", lambda out: out[:, 0])
    problem.runner(scalar).scores(X.repeat(3, 1, 1))
    assert problem.runner(scalar).passes.sharing.apart
    assert problem.runner(per_row).passes.sharing.apart is None
