"""Methods access a model only through Query, so a fake of twenty lines suffices to test them."""

import inspect
from dataclasses import dataclass, replace

import torch
from torch import nn
from toys import each

import saliency_widgets as sw
from saliency_widgets.attribution import Score
from saliency_widgets.attribution.query import Query
from saliency_widgets.runtime.passes import Passes
from saliency_widgets.runtime.runner import Runner

METHODS = sw.methods()
W = torch.tensor([[2.0, -1.0, 0.5]], dtype=torch.float64)


@dataclass(frozen=True)
class Cubic:
    """A fake query of F(x) = sum w x^3, with its gradient by hand."""

    inputs: torch.Tensor
    parts: tuple = ()
    precision: str | None = None

    def scores(self, rows):
        return (W * rows**3).sum(1)

    def gradient(self, rows, rule=None):
        return 3 * W * rows**2, self.scores(rows)

    def baseline(self, value, seed):
        return torch.zeros_like(self.inputs)

    def noise_scale(self):
        return self.inputs.amax(1, keepdim=True) - self.inputs.amin(1, keepdim=True)

    def chunks(self, total, size, first=(1, 3)):
        return [range(total)]

    def once(self, key, work):
        return work()

    def on(self, rows):
        return replace(self, inputs=rows)


X = torch.tensor([[1.0, 2.0, -1.0]], dtype=torch.float64)
EXPECTED = {
    "gradient": 3 * W * X**2,
    "input_x_gradient": 3 * W * X**3,
    "integrated_gradients": W * X**3,
    "smoothgrad": 3 * W * X**2,
}
SETTINGS = {
    "integrated_gradients": {"n_steps": 8, "quadrature": "gauss_legendre", "tolerance": 0.0},
    "smoothgrad": {"noise_level": 0.0, "n_samples": 4},
}


@each("name", EXPECTED)
def test_a_method_runs_without_a_model(name):
    method = METHODS[name]
    *_, last = method.run(Cubic(X), **method.check_params(SETTINGS.get(name, {})))
    assert torch.allclose(last.values, EXPECTED[name], rtol=0, atol=1e-12)


def _names(kind):
    return {name for name in vars(kind) if not name.startswith("_")}


def test_query_has_at_most_12_names_and_the_runner_implements_them_all():
    assert len(_names(Query)) <= 12
    for name in _names(Query):
        wanted, have = vars(Query)[name], getattr(Runner, name)
        if inspect.isfunction(wanted):
            expected = list(inspect.signature(wanted).parameters)
            assert list(inspect.signature(have).parameters)[: len(expected)] == expected, name
        else:
            assert isinstance(have, property), name


def test_cached_results_are_not_used_for_other_inputs():
    class Store(dict):
        put = dict.__setitem__

    runner = Runner(Passes(nn.Identity(), X, Score("logit", torch.tensor([0]))), results=Store())
    assert [runner.once("key", lambda n=n: n) for n in (1, 2)] == [1, 1]
    assert runner.on(2 * X).once("key", lambda: 3) == 3
