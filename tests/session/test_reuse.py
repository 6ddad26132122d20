"""Nothing is computed twice: what each move costs, counted in passes and rows of the model."""

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
def requested():
    """Asks one session, and tells how many rows the model was run on for the answer."""
    model = Rows(conv_net())
    events: list[Event] = []
    session = Session(Problem(model, images(0, 1, 3, 8, 8)), events.append, executor="inline", cache=Cache())
    assert session.problem.layers

    def ask(method: str, target: int = 0, **params: object) -> int:
        model.seen = 0
        session.submit(Request.of(method, params, target=target))
        assert events[-1].error is None
        return model.seen

    ask.session, ask.events, ask.model = session, events, model
    ask("gradient")
    ask("smoothgrad", n_samples=8)  # which looks, once, whether copies may share a pass
    session.cache.forget(session.owner)
    yield ask
    session.close()


def test_another_class_is_a_backward_pass_and_a_seen_one_nothing(requested):
    assert requested("gradient") == 1
    assert requested("gradient", 1) == 0
    assert requested("gradient") == 0
    assert requested("input_x_gradient", 2) == 0


def checked(requested):
    result = requested.events[-1].attribution
    expected = attribute(requested.model, images(0, 1, 3, 8, 8), **result.settings)
    assert torch.equal(result.values, expected.values)


def test_one_pass_serves_all_classes_of_a_layer_and_a_second_all_layers(requested):
    assert requested("grad_cam", layer="net.3") == 1
    for target in (1, 2, 0):
        assert requested("layer_cam", target, layer="net.3") == 0
        checked(requested)
    assert requested("grad_cam", layer="net.1") == 1
    for layer in ("net.0", "net.1", "net.2", "net.3"):
        for target in (0, 1):
            requested("grad_cam", target, layer=layer)
            checked(requested)
            requested.model.seen = 0
            assert requested("layer_cam", target, layer=layer) == 0
            checked(requested)
    assert requested("gradient", 3) == 0


def test_after_a_gradient_a_layer_takes_a_pass_and_the_second_serves_all(requested):
    assert requested("gradient") == 1
    for layer, passes in (("net.0", 1), ("net.1", 1), ("net.2", 0), ("net.3", 0), ("net.0", 0)):
        assert requested("grad_cam", 1, layer=layer) == passes
        checked(requested)
    for target in (1, 2, 3):
        assert requested("gradient", target) == 0
        checked(requested)


class Thrice(nn.Module):
    """One activation after three layers; tells which of them were run with a graph."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList([nn.Conv2d(3, 3, 3, padding=1) for _ in range(3)]).double()
        self.act, self.tally, self.times = nn.Tanh(), Tally(), 3
        self.tally.graded = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers[: self.times]:
            x = self.act(layer(x))
            self.tally.graded.append(x.requires_grad)
        return x.mean((2, 3))


def test_between_two_runs_of_a_layer_there_is_no_graph():
    model, x = Thrice().eval(), images(0, 1, 3, 8, 8)
    events: list[Event] = []
    session = Session(Problem(model, x), events.append, executor="inline", cache=Cache())
    assert session.problem.layers["act"]
    assert len(session.problem.logits) == 1
    for target in (0, 1):
        model.tally.graded.clear()
        session.submit(Request.of("grad_cam", {"layer": "act"}, target=target))
        assert model.tally.graded == ([] if target else [False, False, True])
        result = events[-1].attribution
        assert any("ran 3 times" in note for note in result.notes)
        assert torch.equal(result.values, attribute(model, x, **result.settings).values)
    session.close()


def test_a_layer_that_runs_less_often_for_this_image_is_found_all_the_same():
    """The layers are those of the first sample; a model may do otherwise with another."""
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


@pytest.mark.parametrize("kind", ["plain", "beside itself"])
def test_a_recorded_pass_has_the_bits_of_a_fresh_one_in_float32_too(kind):
    """There the layout of a gradient decides in which order sums are taken."""
    net = conv_net() if kind == "plain" else Around("identity")
    model, x = net.float(), images(0, 1, 3, 8, 8).float()
    layers = ("1", "3") if kind == "plain" else ("first", "second")
    events: list[Event] = []
    session = Session(Problem(model, x), events.append, executor="inline", cache=Cache())
    requested = [("gradient", {}), *[("grad_cam", {"layer": layer}) for layer in layers], ("input_x_gradient", {})]
    for method, params in requested:
        for target in (0, 1):
            session.submit(Request.of(method, params, target=target))
            result = events[-1].attribution
            assert torch.equal(result.values, attribute(model, x, **result.settings).values), (method, params)
    session.close()


class Around(nn.Module):
    """Layers whose output is used around them too, or is the very tensor that they were given."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.kind, self.first, self.second = kind, nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.drop, self.act, self.head = nn.Dropout(), nn.ReLU(inplace=True), nn.Linear(4, 4)
        self.keeping = Keeping()
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


class Keeping(nn.Module):
    """Returns one tensor of several, and keeps it."""

    last = None

    def forward(self, y: torch.Tensor) -> dict[str, torch.Tensor]:
        self.last = y.square()
        return {"first": self.last, "mean": self.last.mean()}


@each(("kind", "layer"), [("identity", "drop"), ("in place", "act"), ("kept", "keeping"), ("in place", "first")])
def test_a_layers_gradient_is_that_of_what_it_returned_whatever_goes_around_it(kind, layer):
    events: list[Event] = []
    model, x = Around(kind), images(0, 1, 3, 8, 8)
    session = Session(Problem(model, x), events.append, executor="inline", cache=Cache())
    for method, requested in (("gradient", {}), ("grad_cam", {"layer": layer}), ("layer_cam", {"layer": layer})):
        for target in (0, 1):
            session.submit(Request.of(method, requested, target=target))
            result = events[-1].attribution
            assert torch.equal(result.values, attribute(model, x, **result.settings).values), (method, target)
    session.close()


def test_a_pass_too_large_to_be_kept_is_not_recorded_at_each_move():
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


def test_more_samples_are_the_new_ones_alone(requested):
    assert requested("smoothgrad", n_samples=20) == 20
    assert requested("smoothgrad", n_samples=50) == 30
    assert requested("smoothgrad", n_samples=50, statistic="variance") == 50
    assert requested("smoothgrad", n_samples=36) == 0
    assert requested("smoothgrad", n_samples=20, noise_level=0.2) == 20


@pytest.mark.parametrize("quadrature", ["trapezoid", "adaptive"])
def test_more_steps_are_the_new_nodes_alone(requested, quadrature):
    settings = {"quadrature": quadrature, "tolerance": 0.0}
    assert [requested("integrated_gradients", n_steps=n, **settings) for n in (16, 32, 64, 32)] == [17, 16, 32, 0]


def test_what_is_known_of_one_class_is_not_continued_for_another(requested):
    requested("integrated_gradients", 0, n_steps=8)
    assert requested("integrated_gradients", 1, n_steps=8) > 0
    checked(requested)
    requested("smoothgrad", 0, n_samples=8)
    assert requested("smoothgrad", 1, n_samples=16) == 16
    checked(requested)


def test_another_tolerance_is_read_off_what_is_known(requested):
    requested("integrated_gradients", n_steps=64, tolerance=0.0)
    assert requested("integrated_gradients", n_steps=64, tolerance=0.2) == 0
    assert requested("integrated_gradients", n_steps=64, tolerance=0.0, baseline="mean") > 0


def test_another_sign_or_channel_rule_runs_nothing(requested):
    requested("gradient")
    requested.model.seen = 0
    for reduction in (Reduction("signed"), Reduction("positive", "sum"), Reduction("absolute")):
        requested.session.reduce(reduction)
        assert requested.events[-1].state == "done"
    assert requested.model.seen == 0
    assert requested.session.cache.info().hits["frame"] == 1, "the first image again"


def test_a_rule_for_the_backward_pass_has_a_pass_of_its_own(requested):
    requested("gradient")
    assert requested("guided_backprop") == 1
    result = requested.events[-1].attribution
    expected = attribute(requested.model, images(0, 1, 3, 8, 8), **result.settings)
    assert torch.equal(result.values, expected.values)


def test_a_model_with_hooks_of_its_own_has_all_its_passes(requested):
    requested.model.net[1].register_forward_hook(lambda *_: None)
    requested.model.seen = 0
    requested("gradient")
    requested.session.cache.info()
    assert requested("gradient", 1) == 1


def test_the_bound_holds_whatever_is_asked_and_all_of_it_goes_with_the_session():
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


def test_passes_of_a_model_that_changed_meanwhile_are_not_kept_for_the_one_it_was(requested):
    """Trained in another cell for a moment, and loaded again: its parts must not come back as the old model's."""
    model, session = requested.model, requested.session
    weight = model.net[6].weight
    request = Request.of("smoothgrad", {"n_samples": 30}, target=2)
    expected = attribute(model, images(0, 1, 3, 8, 8), **request.settings)
    session._deliver, deliver = (lambda event: disturb(event)), session._deliver

    def disturb(event: Event) -> None:
        if event.attribution is not None and event.attribution.done == 1:
            weight.data.mul_(2)  # past the version counters: it will be what it was, in all that can be seen
        deliver(event)

    session.submit(request)
    assert not torch.allclose(requested.events[-1].attribution.values, expected.values)
    session._deliver = deliver
    weight.data.div_(2)
    session.submit(request)
    assert torch.equal(requested.events[-1].attribution.values, expected.values)


class Deep(nn.Module):
    """Many operations; it tells how many were begun."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.begun = nn.Sequential(*[nn.Linear(6, 6) for _ in range(40)]).double(), Shared()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.body:
            self.begun.append(1)
            x = torch.tanh(layer(x))
        return x


def test_a_pass_that_nobody_waits_for_ends_inside():
    model = Deep()
    problem = Problem(model, torch.ones(1, 6, dtype=torch.float64))
    score, _ = problem.resolve(Request.of("gradient", {}, target=0))

    def check() -> None:
        if len(model.begun) >= 10:
            raise Cancelled

    model.begun.clear()
    with pytest.raises(Cancelled):
        problem.runner(score, check).gradient(problem.tensor)
    assert len(model.begun) < 40


def test_a_graph_that_is_kept_asks_whoever_uses_it_now(requested):
    """Not whoever made it, whose question may be over."""
    requested("gradient")
    requested.session.stop()
    assert requested("gradient", 1) == 0
    assert requested.events[-1].state == "done"


class Heavy(Rows):
    """Takes its time for each row."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        time.sleep(0.2 * len(x))
        return super().forward(x)


def test_passes_of_a_slow_model_are_small_and_the_settings_say_so():
    events: list[Event] = []
    for kind, rows in ((Heavy, {1, 2}), (Rows, {None})):
        session = Session(
            Problem(kind(conv_net()), images(0, 1, 3, 8, 8)), events.append, executor="inline", cache=Cache()
        )
        assert len(session.problem.logits) == 1  # the predictions are on the screen: the model was run
        session.submit(Request.of("smoothgrad", {"n_samples": 5}, target=0))
        assert events[-1].attribution.settings["chunk_size"] in rows
        session.close()
