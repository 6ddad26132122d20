"""Nothing is computed twice: the cost of each request, counted in rows of the model's passes."""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn
from toys import Shared, Tally, conv_net, each, images, tallied

from saliency_widgets.api.attribute import attribute
from saliency_widgets.attribution import Reduction, Score
from saliency_widgets.attribution.errors import Cancelled
from saliency_widgets.runtime.reuse.graph_cache import SPATIAL, layer_gradient
from saliency_widgets.session import Cache, Event, Problem, Request, Session
from saliency_widgets.session.cache import Scope


class Rows(nn.Module):
    """Counts the rows of its passes."""

    seen = tallied("passes")

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.tally = net, Tally()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += len(x)
        return self.net(x)


@pytest.fixture
def rows_for():
    """A function that submits a request to a session and returns the number of rows the model was run on."""
    model = Rows(conv_net())
    events: list[Event] = []
    session = Session(Problem(model, images(0, 1, 3, 8, 8)), events.append, executor="inline", cache=Cache())
    assert session.problem.layers

    def submit(method: str, target: int = 0, **params: object) -> int:
        model.seen = 0
        session.submit(Request.of(method, params, target=target))
        assert events[-1].error is None
        return model.seen

    submit.session, submit.events, submit.model = session, events, model
    submit("gradient")
    submit("smoothgrad", n_samples=8)  # which checks, once, whether copies may share a pass
    session.cache.forget(session.owner)
    yield submit
    session.close()


def test_another_class_takes_no_forward_pass(rows_for):
    assert rows_for("gradient") == 1
    assert rows_for("gradient", 1) == 0
    assert rows_for("gradient") == 0
    assert rows_for("input_x_gradient", 2) == 0


def assert_equals_fresh(rows_for):
    result = rows_for.events[-1].attribution
    expected = attribute(rows_for.model, images(0, 1, 3, 8, 8), **result.settings)
    assert torch.equal(result.values, expected.values)


def test_one_pass_serves_all_classes_of_a_layer_and_a_second_all_layers(rows_for):
    assert rows_for("grad_cam", layer="net.3") == 1
    for target in (1, 2, 0):
        assert rows_for("layer_cam", target, layer="net.3") == 0
        assert_equals_fresh(rows_for)
    assert rows_for("grad_cam", layer="net.1") == 1
    for layer in ("net.0", "net.1", "net.2", "net.3"):
        for target in (0, 1):
            rows_for("grad_cam", target, layer=layer)
            assert_equals_fresh(rows_for)
            rows_for.model.seen = 0
            assert rows_for("layer_cam", target, layer=layer) == 0
            assert_equals_fresh(rows_for)
    assert rows_for("gradient", 3) == 0


def test_after_a_gradient_two_layers_take_a_pass_each_and_all_others_none(rows_for):
    assert rows_for("gradient") == 1
    for layer, passes in (("net.0", 1), ("net.1", 1), ("net.2", 0), ("net.3", 0), ("net.0", 0)):
        assert rows_for("grad_cam", 1, layer=layer) == passes
        assert_equals_fresh(rows_for)
    for target in (1, 2, 3):
        assert rows_for("gradient", target) == 0
        assert_equals_fresh(rows_for)


class Thrice(nn.Module):
    """Runs one activation after each of three layers, and records for which runs autograd recorded a graph."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList([nn.Conv2d(3, 3, 3, padding=1) for _ in range(3)]).double()
        self.act, self.tally, self.times = nn.Tanh(), Tally(), 3
        self.tally.with_graph = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers[: self.times]:
            x = self.act(layer(x))
            self.tally.with_graph.append(x.requires_grad)
        return x.mean((2, 3))


def test_no_graph_is_recorded_before_the_last_run_of_a_layer():
    model, x = Thrice().eval(), images(0, 1, 3, 8, 8)
    events: list[Event] = []
    session = Session(Problem(model, x), events.append, executor="inline", cache=Cache())
    assert session.problem.layers["act"]
    assert len(session.problem.logits) == 1
    for target in (0, 1):
        model.tally.with_graph.clear()
        session.submit(Request.of("grad_cam", {"layer": "act"}, target=target))
        assert model.tally.with_graph == ([] if target else [False, False, True])
        result = events[-1].attribution
        assert any("ran 3 times" in note for note in result.notes)
        assert torch.equal(result.values, attribute(model, x, **result.settings).values)
    session.close()


def test_a_layer_that_runs_less_often_than_expected_is_explained():
    """Layers are those of the first sample; for another one, a model may run a layer less often."""
    model, x = Thrice().eval(), images(0, 1, 3, 8, 8)
    problem, stored = Problem(model, x), Cache()
    assert problem.layers["act"]
    graphs = Scope(stored, ("test", "pass"))
    graphs.put(SPATIAL, problem.spatial_at(problem.version()))
    model.times = 2
    runner = problem.runner(Score("logit", torch.tensor([0])), graphs=graphs)
    activation, gradient, _scores, runs = layer_gradient(runner.passes, "act", graphs)
    expected = problem.runner(Score("logit", torch.tensor([0]))).passes.layer_gradient("act")
    assert runs == 2
    assert torch.equal(activation, expected[0])
    assert torch.equal(gradient, expected[1])


def test_a_layer_that_folding_hides_is_recorded_too():
    model = Rows(nn.Sequential(conv_net()[0], nn.BatchNorm2d(6).double(), *conv_net()[1:]).eval())
    events: list[Event] = []
    session = Session(Problem(model, images(0, 1, 3, 8, 8)), events.append, executor="inline", cache=Cache())
    assert session.problem.layers
    assert len(session.problem.logits) == 1
    assert session.problem._tuned.hidden == {"net.0"}
    for target, rows in ((0, 1), (1, 0), (2, 0)):
        model.seen = 0
        session.submit(Request.of("grad_cam", {"layer": "net.0"}, target=target))
        assert model.seen == rows
        result = events[-1].attribution
        expected = attribute(model, images(0, 1, 3, 8, 8), **result.settings)
        assert torch.equal(result.values, expected.values)
    session.close()


@pytest.mark.parametrize("kind", ["plain", "residual"])
def test_a_recorded_pass_has_the_bits_of_a_fresh_one_in_float32_too(kind):
    """In float32, the memory layout of a gradient changes rounding, because it determines the order of sums."""
    net = conv_net() if kind == "plain" else SharedTensors("identity")
    model, x = net.float(), images(0, 1, 3, 8, 8).float()
    layers = ("1", "3") if kind == "plain" else ("first", "second")
    events: list[Event] = []
    session = Session(Problem(model, x), events.append, executor="inline", cache=Cache())
    requests = [("gradient", {}), *[("grad_cam", {"layer": layer}) for layer in layers], ("input_x_gradient", {})]
    for method, params in requests:
        for target in (0, 1):
            session.submit(Request.of(method, params, target=target))
            result = events[-1].attribution
            assert torch.equal(result.values, attribute(model, x, **result.settings).values), (method, params)
    session.close()


class SharedTensors(nn.Module):
    """Layers whose input or output is also used elsewhere, or whose output is their input tensor."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.kind, self.first, self.second = kind, nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.drop, self.act, self.head = nn.Dropout(), nn.ReLU(inplace=True), nn.Linear(4, 4)
        self.keeping = KeepsOutput()
        self.double().eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        if self.kind == "identity":
            y = self.second(self.drop(y)).sin() + y
        elif self.kind == "in place":
            y = y * 1
            y = y + self.second(self.act(y))
        else:
            y = self.second(self.keeping(y)["first"]) + self.keeping.last
        return self.head(y.mean((2, 3)).tanh())


class KeepsOutput(nn.Module):
    """Returns several tensors, and keeps one of them."""

    last = None

    def forward(self, y: torch.Tensor) -> dict[str, torch.Tensor]:
        self.last = y.square()
        return {"first": self.last, "mean": self.last.mean()}


@each(("kind", "layer"), [("identity", "drop"), ("in place", "act"), ("kept", "keeping"), ("in place", "first")])
def test_a_layers_gradient_is_that_of_its_output_even_if_tensors_are_shared(kind, layer):
    events: list[Event] = []
    model, x = SharedTensors(kind), images(0, 1, 3, 8, 8)
    session = Session(Problem(model, x), events.append, executor="inline", cache=Cache())
    for method, params in (("gradient", {}), ("grad_cam", {"layer": layer}), ("layer_cam", {"layer": layer})):
        for target in (0, 1):
            session.submit(Request.of(method, params, target=target))
            result = events[-1].attribution
            assert torch.equal(result.values, attribute(model, x, **result.settings).values), (method, target)
    session.close()


def test_a_pass_too_large_for_the_cache_is_not_recorded_for_each_request():
    events: list[Event] = []
    model = Rows(conv_net())
    session = Session(Problem(model, images(0, 1, 3, 8, 8)), events.append, executor="inline", cache=Cache(17_000))
    assert session.problem.layers
    assert len(session.problem.logits) == 1
    for layer, target, rows in (("net.3", 0, 1), ("net.1", 0, 1), ("net.1", 1, 1), ("net.1", 2, 0), ("net.3", 2, 0)):
        model.seen = 0
        session.submit(Request.of("grad_cam", {"layer": layer}, target=target))
        assert model.seen == rows, (layer, target)
    session.close()


def test_more_samples_compute_only_the_new_ones(rows_for):
    assert rows_for("smoothgrad", n_samples=20) == 20
    assert rows_for("smoothgrad", n_samples=50) == 30
    assert rows_for("smoothgrad", n_samples=50, statistic="variance") == 50
    assert rows_for("smoothgrad", n_samples=36) == 0
    assert rows_for("smoothgrad", n_samples=20, noise_level=0.2) == 20


@pytest.mark.parametrize("quadrature", ["trapezoid", "adaptive"])
def test_more_steps_compute_only_the_new_nodes(rows_for, quadrature):
    settings = {"quadrature": quadrature, "tolerance": 0.0}
    assert [rows_for("integrated_gradients", n_steps=n, **settings) for n in (16, 32, 64, 32)] == [17, 16, 32, 0]


def test_partial_results_of_one_class_are_not_used_for_another(rows_for):
    rows_for("integrated_gradients", 0, n_steps=8)
    assert rows_for("integrated_gradients", 1, n_steps=8) > 0
    assert_equals_fresh(rows_for)
    rows_for("smoothgrad", 0, n_samples=8)
    assert rows_for("smoothgrad", 1, n_samples=16) == 16
    assert_equals_fresh(rows_for)


def test_another_tolerance_uses_the_computed_nodes(rows_for):
    rows_for("integrated_gradients", n_steps=64, tolerance=0.0)
    assert rows_for("integrated_gradients", n_steps=64, tolerance=0.2) == 0
    assert rows_for("integrated_gradients", n_steps=64, tolerance=0.0, baseline="mean") > 0


def test_another_sign_or_channel_rule_takes_no_pass(rows_for):
    rows_for("gradient")
    rows_for.model.seen = 0
    for reduction in (Reduction("signed"), Reduction("positive", "sum"), Reduction("absolute")):
        rows_for.session.reduce(reduction)
        assert rows_for.events[-1].state == "done"
    assert rows_for.model.seen == 0
    assert rows_for.session.cache.info().hits["frame"] == 1, "the first frame was computed again"


def test_a_backward_rule_takes_a_separate_pass(rows_for):
    rows_for("gradient")
    assert rows_for("guided_backprop") == 1
    result = rows_for.events[-1].attribution
    expected = attribute(rows_for.model, images(0, 1, 3, 8, 8), **result.settings)
    assert torch.equal(result.values, expected.values)


def test_no_pass_of_a_model_with_hooks_is_reused(rows_for):
    rows_for.model.net[1].register_forward_hook(lambda *_: None)
    rows_for.model.seen = 0
    rows_for("gradient")
    rows_for.session.cache.info()
    assert rows_for("gradient", 1) == 1


def test_the_cache_stays_within_its_bound_and_is_emptied_by_close():
    events: list[Event] = []
    cache = Cache(60_000)
    session = Session(Problem(conv_net(), images(0, 1, 3, 8, 8)), events.append, executor="inline", cache=cache)
    for n in range(2, 40):
        session.submit(Request.of("smoothgrad", {"n_samples": n}, target=n % 4))
        info = cache.info()
        assert info.bytes <= info.max_bytes
    assert set(info.entries) <= {"map", "chunk", "pass", "frame"}
    assert info.misses["map"] == 38
    session.close()
    assert cache.info().bytes == 0
    assert not cache.info().entries


def test_partial_results_of_a_temporarily_changed_model_are_not_reused(rows_for):
    """Weights change during a computation and are restored: partial results of the changed model must not be reused."""
    model, session = rows_for.model, rows_for.session
    weight = model.net[6].weight
    request = Request.of("smoothgrad", {"n_samples": 30}, target=2)
    expected = attribute(model, images(0, 1, 3, 8, 8), **request.settings)
    session._deliver, deliver = (lambda event: disturb(event)), session._deliver

    def disturb(event: Event) -> None:
        if event.attribution is not None and event.attribution.done == 1:
            weight.data.mul_(2)  # bypasses the version counters: once restored, the model has its former version
        deliver(event)

    session.submit(request)
    assert not torch.allclose(rows_for.events[-1].attribution.values, expected.values)
    session._deliver = deliver
    weight.data.div_(2)
    session.submit(request)
    assert torch.equal(rows_for.events[-1].attribution.values, expected.values)


class Deep(nn.Module):
    """Counts how many of its many layers were started."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.started = nn.Sequential(*[nn.Linear(6, 6) for _ in range(40)]).double(), Shared()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.body:
            self.started.append(1)
            x = torch.tanh(layer(x))
        return x


def test_a_cancelled_pass_ends_before_its_last_layer():
    model = Deep()
    problem = Problem(model, torch.ones(1, 6, dtype=torch.float64))
    score, _ = problem.resolve(Request.of("gradient", {}, target=0))

    def check() -> None:
        if len(model.started) >= 10:
            raise Cancelled

    model.started.clear()
    with pytest.raises(Cancelled):
        problem.runner(score, check).gradient(problem.tensor)
    assert len(model.started) < 40


def test_a_cached_graph_uses_the_check_of_the_current_request(rows_for):
    """Not that of the request that recorded it, which may have ended."""
    rows_for("gradient")
    rows_for.session.stop()
    assert rows_for("gradient", 1) == 0
    assert rows_for.events[-1].state == "done"


class Heavy(Rows):
    """Takes 0.2 seconds for each row."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        time.sleep(0.2 * len(x))
        return super().forward(x)


def test_passes_of_a_slow_model_are_small_and_the_settings_say_so():
    events: list[Event] = []
    for kind, rows in ((Heavy, {1, 2}), (Rows, {None})):
        session = Session(
            Problem(kind(conv_net()), images(0, 1, 3, 8, 8)), events.append, executor="inline", cache=Cache()
        )
        assert len(session.problem.logits) == 1  # the prediction's pass measures the time of a row
        session.submit(Request.of("smoothgrad", {"n_samples": 5}, target=0))
        assert events[-1].attribution.settings["chunk_size"] in rows
        session.close()
