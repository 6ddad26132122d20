"""Models with an unusual backward pass: the map is that of the plain model, or an error names the actual cause."""

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


def test_the_gradient_through_a_reentrant_checkpoint_equals_that_of_backward():
    leaf = X.clone().requires_grad_(True)
    Blocks(reentrant)(leaf)[:, 1].sum().backward()
    assert far(sw.attribute(Blocks(reentrant), X, target=1, method="gradient").values, leaf.grad) < 1e-12


@each("layer", [None, "first", "first.0", "second"])
@each("how", CHECKPOINTED, ids=lambda how: how.__name__)
def test_layers_inside_a_reentrant_checkpoint_can_be_explained(how, layer):
    result, expected = (
        sw.attribute(Blocks(run), X, target=1, method="grad_cam", layer=layer) for run in (how, plainly)
    )
    assert result.layer == expected.layer
    assert torch.equal(result.values, expected.values)


def test_dropout_inside_a_reentrant_checkpoint_is_drawn_once():
    first, second = (Blocks(how, drop=0.5) for how in (reentrant, plainly))
    first.first.train(), second.first.train()
    assert torch.equal(*(sw.attribute(model, X, target=1, method="gradient").values for model in (first, second)))


def test_the_check_up_reports_nothing_for_a_checkpoint():
    assert list(sw.checkup(Blocks(reentrant), X)) == []


class UsesAnotherThread(nn.Module):
    """In its forward, lets another thread use a checkpoint and waits for it."""

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


def test_checkpoints_of_other_threads_are_not_affected_and_torch_is_restored():
    SEEN.clear()
    sw.attribute(UsesAnotherThread(), rows(), target=0, method="gradient")
    assert set(SEEN) == {"CheckpointFunctionBackward"}
    assert "apply" not in vars(CheckpointFunction)
    with pytest.raises(ValueError, match="layer"):
        sw.attribute(Blocks(reentrant), X[:, :1], target=1, method="gradient")
    assert "apply" not in vars(CheckpointFunction)


# ---- code that needs .backward(), gradients of weights, or gradients to be enabled


class AccumulatingCheckpoint(torch.autograd.Function):
    """A checkpoint as in other libraries: runs again in its backward, and only allows ``.backward()``."""

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
    """Another common checkpoint: also computes the gradients of its parameters, which must require them."""

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
def test_checkpoints_of_other_libraries_give_the_plain_models_map(how, method):
    model = Blocks(how)
    result, expected = (sw.attribute(one, X, target=1, method=method) for one in (model, Blocks(plainly)))
    assert result.layer == expected.layer
    assert far(result.values, expected.values) < 1e-12
    assert all(weight.grad is None for weight in model.parameters())


class Differentiates(nn.Module):
    """Computes gradients in forward: of the inputs, of the weights, or by ``.backward()``."""

    def __init__(self, how):
        super().__init__()
        torch.manual_seed(1)
        self.how, self.net = how, nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()

    def forward(self, x):
        if self.how == "inputs":  # a force is the gradient of an energy
            energy = self.net(x).pow(2).sum()
            return torch.autograd.grad(energy, x, create_graph=True)[0]
        if self.how == "weights":  # one optimization step
            loss = self.net(x).pow(2).sum()
            steps = torch.autograd.grad(loss, list(self.net.parameters()), create_graph=True)
            named = zip(self.net.named_parameters(), steps, strict=True)
            return functional_call(self.net, {name: weight - 0.1 * step for (name, weight), step in named}, (x,))
        self.net(x).sum().backward(inputs=list(self.net.parameters()))
        return self.net(x)


@pytest.mark.parametrize("how", ["inputs", "weights", "backward"])
def test_a_forward_that_computes_gradients_is_differentiated(how):
    model, x = Differentiates(how), rows(0, 1, 4)
    leaf = x.clone().requires_grad_(True)
    (expected,) = torch.autograd.grad(copy.deepcopy(model)(leaf)[:, 1].sum(), leaf)
    assert far(sw.attribute(model, x, target=1, method="gradient").values, expected) < 1e-12
    target = lambda output: output[:, 1]  # noqa: E731 - with a function, no pass runs before the gradient
    assert far(sw.attribute(model, x, target=target, method="gradient").values, expected) < 1e-12
    assert not any("No map can be computed" in finding.what for finding in sw.checkup(model, x, target=target))
    assert all(weight.grad is None for weight in model.parameters())


# ---- ensembles by vmap


class Ensemble(nn.Module):
    """The recipe in torch's documentation: stacked weights of the members, run by a module without weights."""

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
        model.members[1][0].weight.data.mul_(2)  # the change must be noticed
    each = [sw.attribute(member, x, target=1, method="gradient").values for member in model.members]
    assert far(sw.attribute(model, x, target=1, method="gradient").values, torch.stack(each).mean(0)) < 1e-12
    with pytest.raises(ValueError, match=r"can't reach the ReLUs inside torch\.func"):
        sw.attribute(model, x, target=1, method="guided_backprop")


FIXED = {"gradient": {}, "integrated_gradients": {"n_steps": 8, "quadrature": "trapezoid"}}


# ---- backward passes that fail


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
    ("formula", "message"),
    [
        (sigmoid_written_to, r"forward pass runs, but its backward pass.*output of Sigmoid, of shape .*clone\(\)"),
        (unbound_written_to, r"with gradients enabled.*Unbind.*clone\(\)"),
        (Failing.apply, r"forward pass runs, but its backward pass.*autograd function 'Failing': boom\. Check that"),
    ],
    ids=["saved", "view", "function"],
)
def test_the_error_of_a_failing_backward_pass_names_its_cause(formula, message, method):
    model, x = Formula(formula), rows()
    with torch.no_grad():
        assert model(x).shape == (2, 3)
    with pytest.raises(ValueError, match=message) as raised:
        sw.attribute(model, x, target=1, method=method)
    assert "transform=" not in str(raised.value)
    (finding,) = [one for one in sw.checkup(model, x, target=1) if "No map can be computed" in one.what]
    assert "transform=" not in finding.what


@pytest.mark.parametrize("kind", [KeyError, ValueError, TypeError, NotImplementedError])
def test_any_exception_of_an_autograd_function_is_reported(monkeypatch, kind):
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


def test_passes_smaller_than_an_exported_batch_are_errors():
    with pytest.raises(ValueError, match=r"exported for a batch size of 2, and this pass has 1.*one sample at a time"):
        sw.attribute(exported(conv_net(), X), X[:1], target=1, method="gradient")
    with pytest.raises(ValueError, match=r"this pass has 1.*Captum's methods and checks run .* need a model that"):
        sw.attribute(exported(conv_net(), X), X, target=1, method="captum.FeatureAblation")
    with pytest.raises(ValueError, match=r"exported model.*Pass the original module"):
        sw.attribute(exported(conv_net(), X), X, target=1, method="grad_cam")


def test_an_exported_program_with_a_dynamic_batch_size():
    count = torch.export.Dim("count")
    model = torch.export.export(conv_net(), (X,), dynamic_shapes=({0: count},)).module()
    result, expected = (sw.attribute(one, X, target=1, method="smoothgrad") for one in (model, conv_net()))
    assert far(result.values, expected.values) < 1e-11
    for method in ("guided_backprop", "grad_cam"):
        with pytest.raises(ValueError, match=r"exported model.*Pass the original module"):
            sw.attribute(model, X, target=1, method=method)
    (finding,) = [one for one in sw.checkup(model, X, target=1) if "exported" in one.what]
    assert {"guided_backprop", "grad_cam"} <= {*finding.methods}


def test_an_error_of_one_row_is_not_taken_for_a_fixed_batch_size():
    """A pass of several rows fails because of one row, not because of their number."""

    class FailsForZeros(Formula):
        def forward(self, x):
            if not bool(x.any(1).all()):
                raise ZeroDivisionError("a row of zeros")
            return super().forward(x)

    with pytest.raises(ValueError, match="ZeroDivisionError in its forward"):
        sw.attribute(FailsForZeros(torch.tanh), rows(), target=1, method="integrated_gradients", baseline="zero")


# ---- scores that are not finite at baselines, noisy copies and fills


def positive(*shape):
    return rows(5, *shape).abs() + 0.5


@each("quadrature", ["adaptive", "trapezoid", "midpoint"])
@each(
    ("baseline", "message"),
    [
        (None, r"the baseline 'zero'"),
        ("zero", r"the baseline 'zero'"),
        (torch.zeros(4), r"the baseline that was passed \(a Tensor\)"),
        (lambda x: 0 * x, "the baseline that the function returns"),
    ],
)
def test_a_baseline_at_which_the_score_is_not_finite_is_named(baseline, message, quadrature):
    model = Logarithms()
    for settings in ({"baseline": baseline, "quadrature": quadrature},):
        with pytest.raises(ValueError, match=rf"^baseline: the model's score is NaN or infinite at {message}.*another"):
            sw.attribute(model, positive(), target=1, method="integrated_gradients", **settings)
    sw.attribute(model, positive(), target=1, method="integrated_gradients", baseline=torch.ones(4))


class Logarithms(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3).double()

    def forward(self, a, b=None):
        return self.layer(a.log() if b is None else a + b.log())


def test_the_error_names_the_input_whose_baseline_gives_no_finite_score():
    inputs = {"a": positive(), "b": positive()}
    with pytest.raises(ValueError, match=r"^baseline: .* at the baseline of the input 'b', though not for the inputs"):
        sw.attribute(Logarithms(), inputs, target=1, method="integrated_gradients")


def test_the_error_names_the_row_of_the_background_or_baselines():
    background = positive(6, 4)
    background[2, 1] = 0
    with pytest.raises(ValueError, match=r"^baselines: .* at row 2 of the background"):
        sw.attribute(Logarithms(), positive(1, 4), target=1, background=background, method="expected_gradients")
    with pytest.raises(ValueError, match=r"^baselines: .* at number 2 of the baselines"):
        sw.attribute(Logarithms(), positive(1, 4), target=1, baselines=background, method="expected_gradients")


def test_a_gradient_that_is_infinite_at_the_baseline_is_an_error():
    with pytest.raises(ValueError, match=r"^baseline: the model's gradient is NaN or infinite at the baseline 'zero'"):
        sw.attribute(Roots(), positive(), target=1, method="integrated_gradients", baseline="zero")


class Roots(Logarithms):
    def forward(self, a):
        return self.layer(a.sqrt())


def test_the_error_names_noise_or_inputs_outside_the_models_domain():
    with pytest.raises(ValueError, match=r"^noise_level: .* for noisy copies of the inputs.*Lower noise_level"):
        sw.attribute(Logarithms(), positive(), target=1, method="smoothgrad", noise_level=1.0)
    for method in ("gradient", "smoothgrad", "integrated_gradients"):
        with pytest.raises(ValueError, match=r"^model: its score is NaN or infinite for these inputs"):
            sw.attribute(Logarithms(), -positive(), target=1, method=method)
    with pytest.raises(ValueError, match=r"^method: .* modified by Captum's FeatureAblation .*baseline"):
        sw.attribute(Logarithms(), positive(), target=1, method="captum.FeatureAblation")


def test_a_fill_at_which_the_score_is_not_finite_is_named():
    class Bright(nn.Module):
        def forward(self, x):
            return x.log().mean((2, 3))

    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[:2] = True
    with pytest.raises(ValueError, match=r"^fill: the model's score is NaN or infinite after filling with 'zero'"):
        sw.ablate(Bright(), X[:1] + 0.1, mask, fill="zero", target=1)


# ---- quantized


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_quantized_models_are_refused_but_not_float_modules_of_the_quantized_package():
    if torch.backends.quantized.engine == "none":
        pytest.skip("this torch does not quantize")
    model = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(4, 3)), {nn.Linear})
    x = rows().float()
    for one in (model, torch.jit.trace(model, x)):
        with pytest.raises(ValueError, match=r"^model: it is quantized .* float model from before quantization"):
            sw.attribute(one, x, target=1, method="gradient")
    result = sw.attribute(model, x, target=1, method="captum.FeatureAblation", chunk_size=1).values
    score = lambda rows: torch.cat([model(row[None])[:, 1] for row in rows])  # noqa: E731 - row by row, because quantization scales depend on the batch
    expected = torch.stack([score(x) - score(x * (torch.arange(4) != k)) for k in range(4)], 1)
    assert far(result, expected.detach()) < 1e-5

    class Adds(nn.Module):
        """Prepared for quantization, but not quantized."""

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
