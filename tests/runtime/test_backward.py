"""Models whose backward pass is special: the map of the plain model, or the true cause why there is none."""

import copy
import threading

import pytest
import torch
from torch import nn
from torch.func import functional_call, stack_module_state
from torch.utils.checkpoint import CheckpointFunction, checkpoint, checkpoint_sequential
from toys import conv_net, each, far, linear, rows

import saliency_widgets as sw

X = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


# ---- checkpoints


class Blocks(nn.Module):
    """Two convolutional blocks, run by ``how``, and a linear head."""

    def __init__(self, how, drop=0.0):
        super().__init__()
        torch.manual_seed(0)
        self.how = how
        self.first = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Dropout(drop))
        self.second = nn.Sequential(nn.Conv2d(6, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU(inplace=True))
        self.last = nn.Conv2d(5, 5, 3)
        self.head = nn.Linear(5, 3)
        self.double().eval()

    def forward(self, x):
        h = self.last(self.how(self, x)).relu()
        return self.head(h.mean((2, 3)))


def plainly(self, x):
    return self.second(self.first(x))


def reentrant(self, x):
    for block in (self.first, self.second):
        x = checkpoint(block, x, use_reentrant=True)
    return x


def by_custom_forward(self, x):
    def make(module):
        return lambda *inputs: (module(*inputs), None)

    for block in (self.first, self.second):
        x, _ = checkpoint(make(block), x, use_reentrant=True, preserve_rng_state=False)
    return x


def sequential(self, x):
    return checkpoint_sequential(nn.Sequential(self.first, self.second), 2, x, use_reentrant=True)


def nested(self, x):
    inner = lambda h: self.second(checkpoint(self.first, h, use_reentrant=True))  # noqa: E731
    return checkpoint(inner, x, use_reentrant=True)


CHECKPOINTED = [reentrant, by_custom_forward, sequential, nested]


@pytest.mark.parametrize("method", ["gradient", "smoothgrad", "guided_backprop", "captum.Saliency"])
@each("how", CHECKPOINTED, ids=lambda how: how.__name__)
def test_a_reentrant_checkpoint_changes_no_bit(how, method):
    results = [sw.attribute(Blocks(run), X, target=1, method=method).values for run in (how, plainly)]
    assert torch.equal(*results)


def test_it_is_what_backward_by_hand_gives():
    leaf = X.clone().requires_grad_(True)
    Blocks(reentrant)(leaf)[:, 1].sum().backward()
    assert far(sw.attribute(Blocks(reentrant), X, target=1, method="gradient").values, leaf.grad) < 1e-12


@each("layer", [None, "first", "first.0", "second"])
@each("how", CHECKPOINTED, ids=lambda how: how.__name__)
def test_layers_inside_a_reentrant_checkpoint_are_seen(how, layer):
    result, expected = (
        sw.attribute(Blocks(run), X, target=1, method="grad_cam", layer=layer) for run in (how, plainly)
    )
    assert result.layer == expected.layer
    assert torch.equal(result.values, expected.values)


def test_dropout_inside_a_reentrant_checkpoint_is_drawn_once():
    first, second = (Blocks(how, drop=0.5) for how in (reentrant, plainly))
    first.first.train(), second.first.train()
    assert torch.equal(*(sw.attribute(model, X, target=1, method="gradient").values for model in (first, second)))


def test_the_checkup_finds_nothing_in_a_checkpoint():
    assert list(sw.checkup(Blocks(reentrant), X)) == []


class Asks(nn.Module):
    """Waits inside its forward until another thread has used a checkpoint."""

    def __init__(self):
        super().__init__()
        self.layer = linear(torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64))
        self.names = []

    def forward(self, x):
        def train():
            leaf = torch.ones(2, requires_grad=True)
            names.append(type(checkpoint(torch.exp, leaf, use_reentrant=True).grad_fn).__name__)

        names = SEEN
        thread = threading.Thread(target=train)
        thread.start()
        thread.join()
        return self.layer(x)


SEEN: list[str] = []


def test_other_threads_checkpoint_as_ever_and_torch_is_as_it_was():
    SEEN.clear()
    sw.attribute(Asks(), rows(), target=0, method="gradient")
    assert set(SEEN) == {"CheckpointFunctionBackward"}
    assert "apply" not in vars(CheckpointFunction)
    with pytest.raises(ValueError, match="layer"):
        sw.attribute(Blocks(reentrant), X[:, :1], target=1, method="gradient")
    assert "apply" not in vars(CheckpointFunction)


# ---- what needs .backward(), weights with gradients, or gradients on


class AccumulatingCheckpoint(torch.autograd.Function):
    """As other libraries have it: runs again inside its backward, and takes ``.backward()`` only."""

    @staticmethod
    def forward(ctx, run, x):
        ctx.run = run
        ctx.save_for_backward(x)
        with torch.no_grad():
            return run(x)

    @staticmethod
    def backward(ctx, gradient):
        if not torch.autograd._is_checkpoint_valid():
            raise RuntimeError("Checkpointing is not compatible with .grad(), please use .backward() if possible")
        leaf = ctx.saved_tensors[0].detach().requires_grad_(True)
        with torch.enable_grad():
            output = ctx.run(leaf)
        torch.autograd.backward(output, gradient)
        return None, leaf.grad


class ParameterCheckpoint(torch.autograd.Function):
    """The other common form: asks autograd for the gradients of its parameters too, which must need one."""

    @staticmethod
    def forward(ctx, run, x, *weights):
        ctx.run, ctx.x, ctx.weights = run, x, weights
        with torch.no_grad():
            return run(x)

    @staticmethod
    def backward(ctx, gradient):
        leaf = ctx.x.detach().requires_grad_(True)
        with torch.enable_grad():
            output = ctx.run(leaf.view_as(leaf))
        return None, *torch.autograd.grad(output, [leaf, *ctx.weights], gradient)


def accumulating(self, x):
    return AccumulatingCheckpoint.apply(self.second, AccumulatingCheckpoint.apply(self.first, x))


def with_parameters(self, x):
    for block in (self.first, self.second):
        x = ParameterCheckpoint.apply(block, x, *block.parameters())
    return x


@pytest.mark.parametrize("method", ["gradient", "integrated_gradients", "grad_cam"])
@each("how", [accumulating, with_parameters], ids=lambda how: how.__name__)
def test_checkpoints_of_other_libraries(how, method):
    model = Blocks(how)
    result, expected = (sw.attribute(one, X, target=1, method=method) for one in (model, Blocks(plainly)))
    assert result.layer == expected.layer
    assert far(result.values, expected.values) < 1e-12
    assert all(weight.grad is None for weight in model.parameters())


class Differentiates(nn.Module):
    """Its forward asks autograd for gradients: of the inputs, of the weights, or by ``.backward()``."""

    def __init__(self, how):
        super().__init__()
        torch.manual_seed(1)
        self.how, self.net = how, nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()

    def forward(self, x):
        if self.how == "inputs":  # a force is the gradient of an energy
            energy = self.net(x).pow(2).sum()
            return torch.autograd.grad(energy, x, create_graph=True)[0]
        if self.how == "weights":  # one step of learning inside
            loss = self.net(x).pow(2).sum()
            steps = torch.autograd.grad(loss, list(self.net.parameters()), create_graph=True)
            named = zip(self.net.named_parameters(), steps, strict=True)
            return functional_call(self.net, {name: weight - 0.1 * step for (name, weight), step in named}, (x,))
        self.net(x).sum().backward(inputs=list(self.net.parameters()))
        return self.net(x)


@pytest.mark.parametrize("how", ["inputs", "weights", "backward"])
def test_a_forward_that_differentiates(how):
    model, x = Differentiates(how), rows(0, 1, 4)
    leaf = x.clone().requires_grad_(True)
    (expected,) = torch.autograd.grad(copy.deepcopy(model)(leaf)[:, 1].sum(), leaf)
    assert far(sw.attribute(model, x, target=1, method="gradient").values, expected) < 1e-12
    target = lambda output: output[:, 1]  # noqa: E731 - nothing ran before its gradient
    assert far(sw.attribute(model, x, target=target, method="gradient").values, expected) < 1e-12
    assert not any("no map at all" in finding.what for finding in sw.checkup(model, x, target=target))
    assert all(weight.grad is None for weight in model.parameters())


# ---- ensembles by vmap


class Ensemble(nn.Module):
    """torch's own recipe: the members' weights stacked, run by a skeleton that holds none."""

    def __init__(self, position):
        super().__init__()
        torch.manual_seed(2)
        self.members = nn.ModuleList(
            nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3)) for _ in range(3)
        )
        skeleton = copy.deepcopy(self.members[0]).to("meta").eval()
        if position == "child":
            self.skeleton = skeleton
        else:
            self.held = {"list": [skeleton], "mapping": {0: skeleton}}[position]
        self.double().eval()

    def forward(self, x):
        skeleton = self.skeleton if hasattr(self, "skeleton") else self.held[0]
        run = lambda weights, buffers: functional_call(skeleton, (weights, buffers), (x,))  # noqa: E731
        return torch.vmap(run)(*stack_module_state(list(self.members))).mean(0)


@pytest.mark.parametrize("position", ["list", "mapping", "child"])
def test_a_vmapped_ensemble_is_the_mean_of_its_members(position):
    model, x = Ensemble(position), rows()
    for method in ("gradient", "integrated_gradients"):
        each = [sw.attribute(member, x, target=1, method=method, **FIXED[method]).values for member in model.members]
        result = sw.attribute(model, x, target=1, method=method, **FIXED[method]).values
        assert far(result, torch.stack(each).mean(0)) < 1e-12
    with torch.no_grad():
        model.members[1][0].weight.data.mul_(2)  # noticed, as any change is
    each = [sw.attribute(member, x, target=1, method="gradient").values for member in model.members]
    assert far(sw.attribute(model, x, target=1, method="gradient").values, torch.stack(each).mean(0)) < 1e-12
    with pytest.raises(ValueError, match=r"can't reach the ReLUs inside torch\.func"):
        sw.attribute(model, x, target=1, method="guided_backprop")


FIXED = {"gradient": {}, "integrated_gradients": {"n_steps": 8, "quadrature": "trapezoid"}}


# ---- what has no way back


class Formula(nn.Module):
    def __init__(self, formula):
        super().__init__()
        self.formula, self.layer = formula, nn.Linear(4, 3).double()

    def forward(self, x):
        return self.formula(self.layer(x))


def sigmoid_written_to(y):
    y = y.sigmoid()
    y[:, 1:] *= 2
    return y


def unbound_written_to(y):
    first, *rest = y.unbind(1)
    first *= 2
    return torch.stack([first, *rest], 1)


class Failing(torch.autograd.Function):
    error: Exception = RuntimeError("boom")

    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, gradient):
        raise Failing.error


@pytest.mark.parametrize("method", ["gradient", "integrated_gradients", "captum.Saliency"])
@each(
    ("formula", "said"),
    [
        (sigmoid_written_to, r"forward pass runs, but its backward pass.*output of Sigmoid, of shape .*clone\(\)"),
        (unbound_written_to, r"with gradients enabled.*Unbind.*clone\(\)"),
        (Failing.apply, r"forward pass runs, but its backward pass.*autograd function 'Failing': boom\. Check that"),
    ],
    ids=["saved", "view", "function"],
)
def test_what_fails_on_the_way_back_says_so(formula, said, method):
    model, x = Formula(formula), rows()
    with torch.no_grad():
        assert model(x).shape == (2, 3)
    with pytest.raises(ValueError, match=said) as raised:
        sw.attribute(model, x, target=1, method=method)
    assert "transform=" not in str(raised.value)
    (finding,) = [one for one in sw.checkup(model, x, target=1) if "no map at all" in one.what]
    assert "transform=" not in finding.what


@pytest.mark.parametrize("kind", [KeyError, ValueError, TypeError, NotImplementedError])
def test_an_autograd_function_may_raise_anything(monkeypatch, kind):
    monkeypatch.setattr(Failing, "error", kind("boom"))
    with pytest.raises(ValueError, match=rf"backward pass.*{kind.__name__} in the autograd function 'Failing'"):
        sw.attribute(Formula(Failing.apply), rows(), target=1, method="gradient")


# ---- fixed batch sizes


def exported(model, x):
    return torch.export.export(model, (x,)).module()


class Reshapes(nn.Module):
    def __init__(self, model, count):
        super().__init__()
        self.model, self.count = model, count

    def forward(self, x):
        return self.model(x).view(self.count, 4)


def reshaping(model, x):
    return Reshapes(model, len(x))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@each("batch", [1, 2])
@each("make", [exported, reshaping], ids=lambda make: make.__name__)
@pytest.mark.parametrize("method", ["smoothgrad", "integrated_gradients"])
def test_a_fixed_batch_size_is_named_and_chunk_size_1_works(make, method, batch):
    plain, x = conv_net(), X[:batch]
    model = make(plain, x)
    with pytest.raises(ValueError, match=r"its batch size is fixed: it takes .*, not \d+ \(.*chunk_size=1"):
        sw.attribute(model, x, target=1, method=method)
    result, expected = (sw.attribute(one, x, target=1, method=method, chunk_size=1) for one in (model, plain))
    assert far(result.values, expected.values) < 1e-11
    assert any("batch size is fixed" in finding.what for finding in sw.checkup(model, x, target=1))


def test_inputs_that_are_fewer_than_an_exported_batch():
    with pytest.raises(ValueError, match=r"exported for a batch size of 2, and this pass has 1.*one sample at a time"):
        sw.attribute(exported(conv_net(), X), X[:1], target=1, method="gradient")
    with pytest.raises(ValueError, match=r"this pass has 1.*Captum's methods and checks run .* need a model that"):
        sw.attribute(exported(conv_net(), X), X, target=1, method="captum.FeatureAblation")
    with pytest.raises(ValueError, match=r"exported model.*Pass the original module"):
        sw.attribute(exported(conv_net(), X), X, target=1, method="grad_cam")


def test_an_exported_program_with_any_number_of_rows():
    count = torch.export.Dim("count")
    model = torch.export.export(conv_net(), (X,), dynamic_shapes=({0: count},)).module()
    result, expected = (sw.attribute(one, X, target=1, method="smoothgrad") for one in (model, conv_net()))
    assert far(result.values, expected.values) < 1e-11
    for method in ("guided_backprop", "grad_cam"):
        with pytest.raises(ValueError, match=r"exported model.*Pass the original module"):
            sw.attribute(model, X, target=1, method=method)
    (finding,) = [one for one in sw.checkup(model, X, target=1) if "exported" in one.what]
    assert {"guided_backprop", "grad_cam"} <= {*finding.methods}


def test_a_row_that_fails_is_no_batch_size():
    """Of a larger pass that fails for one of its rows, the batch size isn't to blame."""

    class Refuses(Formula):
        def forward(self, x):
            if not bool(x.any(1).all()):
                raise ZeroDivisionError("a row of zeros")
            return super().forward(x)

    with pytest.raises(ValueError, match="ZeroDivisionError in its forward"):
        sw.attribute(Refuses(torch.tanh), rows(), target=1, method="integrated_gradients", baseline="zero")


# ---- numbers that aren't finite elsewhere than at the inputs


def positive(*shape):
    return rows(5, *shape).abs() + 0.5


@each("quadrature", ["adaptive", "trapezoid", "midpoint"])
@each(
    ("baseline", "said"),
    [
        (None, r"the baseline 'zero'"),
        ("zero", r"the baseline 'zero'"),
        (torch.zeros(4), r"the baseline that was passed \(a Tensor\)"),
        (lambda x: 0 * x, "the baseline that the function returns"),
    ],
)
def test_a_baseline_at_which_the_score_is_not_finite_is_named(baseline, said, quadrature):
    model = Logarithms()
    for settings in ({"baseline": baseline, "quadrature": quadrature},):
        with pytest.raises(ValueError, match=rf"^baseline: the model's score is NaN or infinite at {said}.*another"):
            sw.attribute(model, positive(), target=1, method="integrated_gradients", **settings)
    sw.attribute(model, positive(), target=1, method="integrated_gradients", baseline=torch.ones(4))


class Logarithms(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3).double()

    def forward(self, a, b=None):
        return self.layer(a.log() if b is None else a + b.log())


def test_the_input_whose_baseline_it_is():
    inputs = {"a": positive(), "b": positive()}
    with pytest.raises(ValueError, match=r"^baseline: .* at the baseline of the input 'b', though not for the inputs"):
        sw.attribute(Logarithms(), inputs, target=1, method="integrated_gradients")


def test_the_row_of_the_background_and_the_one_of_a_stack():
    background = positive(6, 4)
    background[2, 1] = 0
    with pytest.raises(ValueError, match=r"^baselines: .* at row 2 of the background"):
        sw.attribute(Logarithms(), positive(1, 4), target=1, background=background, method="expected_gradients")
    with pytest.raises(ValueError, match=r"^baselines: .* at number 2 of the baselines"):
        sw.attribute(Logarithms(), positive(1, 4), target=1, baselines=background, method="expected_gradients")


def test_a_gradient_that_is_infinite_at_the_baseline():
    with pytest.raises(ValueError, match=r"^baseline: the model's gradient is NaN or infinite at the baseline 'zero'"):
        sw.attribute(Roots(), positive(), target=1, method="integrated_gradients", baseline="zero")


class Roots(Logarithms):
    def forward(self, a):
        return self.layer(a.sqrt())


def test_noise_that_leaves_the_domain_and_inputs_that_do():
    with pytest.raises(ValueError, match=r"^noise_level: .* for noisy copies of the inputs.*Lower noise_level"):
        sw.attribute(Logarithms(), positive(), target=1, method="smoothgrad", noise_level=1.0)
    for method in ("gradient", "smoothgrad", "integrated_gradients"):
        with pytest.raises(ValueError, match=r"^model: its score is NaN or infinite for these inputs"):
            sw.attribute(Logarithms(), -positive(), target=1, method=method)
    with pytest.raises(ValueError, match=r"^method: .* modified by Captum's FeatureAblation .*baseline"):
        sw.attribute(Logarithms(), positive(), target=1, method="captum.FeatureAblation")


def test_a_fill_at_which_the_score_is_not_finite():
    class Bright(nn.Module):
        def forward(self, x):
            return x.log().mean((2, 3))

    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[:2] = True
    with pytest.raises(ValueError, match=r"^fill: the model's score is NaN or infinite after filling with 'zero'"):
        sw.ablate(Bright(), X[:1] + 0.1, mask, fill="zero", target=1)


# ---- quantized


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_quantized_models_say_so_and_float_parts_of_that_name_do_not():
    if torch.backends.quantized.engine == "none":
        pytest.skip("this torch does not quantize")
    model = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(4, 3)), {nn.Linear})
    x = rows().float()
    for one in (model, torch.jit.trace(model, x)):
        with pytest.raises(ValueError, match=r"^model: it is quantized .* float model from before quantization"):
            sw.attribute(one, x, target=1, method="gradient")
    result = sw.attribute(model, x, target=1, method="captum.FeatureAblation", chunk_size=1).values
    score = lambda rows: torch.cat([model(row[None])[:, 1] for row in rows])  # noqa: E731 - scales are of each batch
    taken = torch.stack([score(x) - score(x * (torch.arange(4) != k)) for k in range(4)], 1)
    assert far(result, taken.detach()) < 1e-5

    class Adds(nn.Module):
        """Ready to be quantized, and not quantized."""

        def __init__(self):
            super().__init__()
            self.add, self.layer = torch.ao.nn.quantized.FloatFunctional(), nn.Linear(4, 3)

        def forward(self, x):
            return self.layer(self.add.add(x, x))

    floats = Adds().eval()
    assert not any("quantized" in finding.what for finding in sw.checkup(floats, x))
    assert (
        far(sw.attribute(floats, x, target=1, method="gradient").values, 2 * floats.layer.weight[[1, 1]].detach())
        < 1e-6
    )
