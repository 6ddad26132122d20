"""The check-up: each finding for a minimal model with the fault, and no finding for the same model without it."""

import copy
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from toys import conv_net, images, mlp, rows, state_of

import saliency_widgets as sw
from saliency_widgets.attribution.reduction import unseen
from saliency_widgets.diagnostics.report import Checkup, Finding
from saliency_widgets.runtime.model.isolation import unlike_in_eval

X = images(0, 1, 3, 8, 8)
ROWS = rows(0, 2, 4)
RELU = ("deconvnet", "guided_backprop", "guided_grad_cam")
LAYER = ("grad_cam", "grad_cam_plus_plus", "guided_grad_cam", "layer_cam")
GENERATOR = np.random.default_rng(0)  # a global generator that the package does not seed
CHUNKED = {"integrated_gradients", "smoothgrad", "expected_gradients", "blur_ig"}


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    """Hide a GPU: with one, there is an additional finding for a model on the CPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


class Wrapped(nn.Module):
    """A healthy convolutional network, with functions applied to its input and output."""

    def __init__(self, before=lambda x: x, after=lambda y: y):
        super().__init__()
        self.net, self.before, self.after = conv_net(), before, after
        self.eval()

    def forward(self, x):
        return self.after(self.net(self.before(x)))


def findings_of(model, x=X, **settings):
    """Return the findings, except those on zero gradients and maps, which are right for some small random networks."""
    return [f for f in sw.checkup(model, x, **settings) if "exactly zero" not in f.what]


def only_finding(model, x=X, **settings):
    (finding,) = findings_of(model, x, **settings)
    assert finding.remedy.endswith(".")
    assert finding.what.endswith(".")
    return finding


@pytest.mark.parametrize("model", [conv_net(), Wrapped()])
def test_a_healthy_net_has_no_finding(model):
    assert findings_of(model) == []


@pytest.mark.parametrize(
    "image", ["chelsea", *(pytest.param(name, marks=pytest.mark.soak) for name in ("rocket", "coffee", "astronaut"))]
)
def test_the_pretrained_model_has_no_finding_in_eval_mode(pretrained, image):
    from saliency_widgets.demos import sample_image as load

    result = sw.checkup(pretrained.model, load(image), transform=pretrained.transform)
    assert list(result) == []
    assert "No problems found" in repr(result)
    assert "No problems found" in result._repr_html_()


def test_the_pretrained_model_left_in_training_mode(pretrained):
    from saliency_widgets.demos import sample_image as load

    model = copy.deepcopy(pretrained.model).train()
    before = state_of(model)
    result = sw.checkup(model, load("chelsea"), transform=pretrained.transform)
    assert state_of(model) == before
    named = dict(model.named_modules())
    (dropout,) = [f for f in result if "Dropout" in f.what]
    (norm,) = [f for f in result if "BatchNorm is in training mode" in f.what]
    assert {type(named[path]) for path in dropout.where} == {nn.Dropout}
    assert set(norm.where) == {path for path, m in named.items() if isinstance(m, nn.BatchNorm2d)}
    for finding in (dropout, norm):
        assert (finding.methods, finding.severity, finding.remedy) == ((), "wrong", "Call model.eval().")


@pytest.mark.soak
def test_pixels_that_were_not_normalized(pretrained):
    """Raw bytes are far from the training data; the same image through the transform is not, as tested above."""
    from saliency_widgets.demos import sample_image as load

    raw = torch.from_numpy(np.array(load("chelsea").resize((112, 112)))).movedim(-1, 0).float()
    (finding,) = [f for f in sw.checkup(pretrained.model, raw) if "far from the training data" in f.what]
    assert finding.where == ("_bn0",)
    assert "transform=" in finding.remedy
    assert finding.severity == "wrong"
    training = sw.checkup(copy.deepcopy(pretrained.model).train(), raw)
    assert finding.what in [f.what for f in training], "the statistics from before this pass count"


def normalized(batches, momentum=0.1):
    """Return a network whose BatchNorm was trained on that many batches of images in [0, 1]."""
    model = nn.Sequential(nn.BatchNorm2d(3, momentum=momentum), *conv_net()).double().train()
    for seed in range(batches):
        model(images(seed, 4, 3, 8, 8))
    return model.eval()


def test_inputs_unlike_the_training_data_are_reported_if_the_batchnorm_is_trained():
    message = "far from the training data"
    trained = normalized(100)
    assert findings_of(trained) == []
    for x in (X * 255, X + 10, X / 255):
        (finding,) = [f for f in findings_of(trained, x) if message in f.what]
        assert finding.where == ("0",)
    # After few batches, the running statistics do not describe the training data yet.
    for batches in (0, 1, 10):
        assert not [f for f in findings_of(normalized(batches), X / 255) if message in f.what]
    assert findings_of(normalized(3, momentum=None)) == []


def test_a_model_on_the_cpu_is_slow_if_there_is_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    finding = only_finding(conv_net())
    assert (finding.severity, finding.remedy) == ("slow", "Pass device='cuda'.")


def test_training_mode_of_single_modules():
    model = nn.Sequential(conv_net(), nn.Dropout(0.5)).eval()
    assert findings_of(model) == []
    model[1].train()
    result = findings_of(model)
    assert [(f.what.partition(":")[0], f.where) for f in result if "Dropout" in f.what] == [
        ("Dropout is active", ("1",))
    ]
    model[1].p = 0.0
    assert findings_of(model) == []
    harmless = only_finding(conv_net().train())
    assert harmless.severity == "caution"
    assert harmless.what.startswith("The model is in training mode")


def test_layers_that_training_mode_changes_are_named():
    attention = nn.MultiheadAttention(4, 2, dropout=0.1, batch_first=True)
    for layer, message in (
        (nn.RReLU(), "RReLU"),
        (nn.InstanceNorm2d(3, track_running_stats=True), "InstanceNorm with running statistics"),
        (attention, "dropout of attention weights"),
        (nn.Dropout(0.5), "dropout"),
        (nn.BatchNorm2d(3), "BatchNorm"),
    ):
        assert unlike_in_eval(nn.Sequential(layer).train()) == {message: ("0",)}
        assert unlike_in_eval(nn.Sequential(layer).eval()) == {}
    assert unlike_in_eval(nn.Sequential(nn.Dropout(0.0), nn.RReLU(0.1, 0.1), nn.InstanceNorm2d(3)).train()) == {}


@pytest.mark.parametrize(
    ("layers", "names", "absent"),
    [
        ([], (), ("dropout", "BatchNorm")),
        ([nn.Dropout(0.5)], ("because of dropout,",), ("BatchNorm",)),
        ([nn.BatchNorm1d(4)], ("because of BatchNorm,",), ("dropout",)),
        ([nn.Dropout(0.5), nn.BatchNorm1d(4)], ("because of dropout and BatchNorm,",), ()),
    ],
)
def test_the_note_on_training_mode_names_the_layers_that_the_model_has(layers, names, absent):
    model = nn.Sequential(nn.Linear(4, 4), *layers, nn.Linear(4, 2)).double().train()
    (note,) = sw.attribute(model, rows(0, 3, 4), method="gradient", target=0).notes
    assert "training mode" in note
    assert all(name in note for name in names)
    assert not any(name in note for name in absent)
    assert sw.attribute(model.eval(), rows(0, 3, 4), method="gradient", target=0).notes == ()


def model_without_positive_evidence():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    nn.init.constant_(model[4].weight, -1.0)
    return model.double().eval()


def test_maps_without_positive_evidence_have_a_note_and_a_finding():
    model = model_without_positive_evidence()
    result = sw.attribute(model, X, target=1, method="grad_cam")
    assert float(result.values.max()) <= 0
    assert float(result.saliency_map().max()) == 0
    (note,) = result.notes
    assert "negative or zero" in note
    assert "sign='signed'" in note
    (finding,) = [f for f in sw.checkup(model, X, target=1) if "activation maps" in f.what]
    assert {"grad_cam", "guided_grad_cam"} <= set(finding.methods)
    assert (finding.severity, finding.where) == ("caution", ("1",))
    nn.init.constant_(model[4].weight, 1.0)
    assert sw.attribute(model, X, target=1, method="grad_cam").notes == ()
    assert not [f for f in sw.checkup(model, X, target=1) if "activation maps" in f.what]


def test_the_note_on_a_map_of_zeros_gives_the_reason_for_its_method():
    model = model_without_positive_evidence()
    notes = sw.attribute(model, X, target=1, method="guided_grad_cam").notes
    assert any("Grad-CAM: Every value is negative" in note for note in notes)
    assert any("zero everywhere: no edge" in note for note in notes)
    line = nn.Linear(4, 1).double().eval()
    (note,) = sw.attribute(line, rows(), method="smoothgrad", statistic="variance", n_samples=3, score="value").notes
    assert "for the variance, all the same" in note
    (note,) = sw.attribute(line, 0 * rows(), method="input_x_gradient", score="value").notes
    assert "the gradient is zero wherever the input is not" in note
    notes = sw.attribute(line, rows(), baseline=rows(), score="value").notes
    assert any("the input equals the baseline" in note for note in notes)
    assert not any("ReLU" in note for note in notes)
    signs = torch.tensor([[1.0, 2.0], [-1.0, 0.0], [0.0, 0.0], [-1.0, 1.0]])
    assert "of sample 1 is negative" in unseen(signs, "positive")
    assert "of sample 0 is positive" in unseen(signs, "negative")
    assert unseen(signs, "absolute") == unseen(signs, "signed") == ""
    assert "squares are zero" in unseen(torch.full((1, 3), 1e-30), "squared")


def test_a_batchnorm_without_statistics_couples_the_rows_even_in_eval_mode():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), *conv_net(channels=4))
    result = findings_of(model.double().eval())
    assert [f.where for f in result if "no running statistics" in f.what] == [("1",)]
    coupled = next(f for f in result if "Other rows in the batch change the score of the input" in f.what)
    assert set(coupled.methods) == CHUNKED


def test_rows_that_influence_each_other_in_the_models_code():
    finding = only_finding(Wrapped(after=lambda y: y - y.mean(0)))
    assert "copies of the input run one at a time" in finding.what
    assert set(finding.methods) == CHUNKED
    finding = findings_of(Wrapped(after=lambda y: y - y.mean(0).detach()))[0]
    assert "The rows of a batch influence each other" in finding.what
    assert set(finding.methods) == CHUNKED
    assert "chunk_size=1" in finding.remedy


def test_a_model_of_a_fixed_batch_size():
    finding = only_finding(Wrapped(before=lambda x: x.view(1, 3, 8, 8)))
    assert "runs on 1 rows and fails on 2" in finding.what
    assert set(finding.methods) == CHUNKED
    result = sw.attribute(Wrapped(before=lambda x: x.view(1, 3, 8, 8)), X, n_steps=4, target=0, chunk_size=1)
    assert result.complete, "the remedy works"


@pytest.mark.parametrize(
    ("activation", "name"),
    [(nn.GELU, "gelu"), (nn.SiLU, "silu"), (nn.Tanh, "tanh"), (nn.ELU, "elu"), (nn.Mish, "mish")],
)
def test_activations_without_a_relu_rule_are_named_with_their_layers(activation, name):
    finding = only_finding(conv_net(activation=activation))
    assert finding.methods == RELU
    assert finding.where == ("1", "3")
    assert f"No ReLU ran, but {name} (2 layers)" in finding.what
    for method in RELU:
        with pytest.raises(ValueError, match=name):
            sw.attribute(conv_net(activation=activation), X, method=method, target=0)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU])
def test_activations_with_a_relu_rule_are_no_finding(activation):
    assert findings_of(conv_net(activation=activation)) == []


def test_activations_of_both_kinds_are_a_caution():
    model = conv_net()
    model[3] = nn.SiLU()
    finding = only_finding(model)
    assert (finding.where, finding.methods, finding.severity) == (("3",), RELU, "caution")
    assert "silu (1 layer)" in finding.what


def test_functional_smooth_activations_are_reported_for_the_module_that_calls_them():
    finding = only_finding(Wrapped(before=torch.tanh))
    assert finding.where == ("the model itself",)


def test_recurrent_layers_have_gates():
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.head = nn.LSTM(4, 8, batch_first=True), nn.Linear(8, 3)

        def forward(self, x):
            return self.head(self.lstm(x)[0][:, -1])

    result = findings_of(Last().double().eval(), rows(0, 2, 5, 4))
    (gates,) = [f for f in result if "the gates" in f.what]
    assert gates.where == ("lstm",)
    assert gates.methods == RELU
    assert any("spatial" in f.what and f.methods == LAYER for f in result)


def test_no_spatial_layer():
    finding = only_finding(mlp().eval(), ROWS)
    assert finding.methods == LAYER
    assert "no class activation maps" in finding.what


@pytest.mark.parametrize(
    ("last", "message", "squashed"),
    [
        (nn.Softmax(1), "probabilities (they sum to 1): softmax", []),
        (nn.LogSoftmax(1), "log-probabilities: log_softmax", []),
        (nn.Sigmoid(), "a sigmoid", ["wrong"]),
        (nn.Sequential(nn.Linear(4, 1).double(), nn.Sigmoid()), "a sigmoid", []),
    ],
)
def test_outputs_that_are_no_logits(last, message, squashed):
    """score="probability" would apply a softmax to several sigmoids; the other outputs are used unchanged."""
    model = nn.Sequential(*conv_net(), last).eval()
    result = [f for f in findings_of(model) if "outputs are" in f.what]
    assert len(result) == 1
    assert message in result[0].what
    assert result[0].severity == "caution"
    assert [f.severity for f in findings_of(model, score="probability") if "outputs are" in f.what] == squashed
    assert not [f for f in findings_of(model, score="value", target=0) if "outputs are" in f.what]


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_logits_are_not_taken_for_probabilities(scale):
    for seed in range(20):
        assert not [
            f for f in findings_of(nn.Sequential(conv_net(seed), nn.Softplus()), X * scale) if "outputs are" in f.what
        ]


def test_gradients_that_are_blocked_inside_forward():
    def detached(x):
        return x + x.mean((1, 2, 3), keepdim=True).detach()

    def unseen(x):
        with torch.no_grad():
            mean = x.mean((1, 2, 3), keepdim=True)
        return x + mean

    def inferred(x):
        with torch.inference_mode():
            mean = torch.cat([x.mean((1, 2, 3), keepdim=True)])
        return x + mean.clone()

    for before, message in ((detached, "detach()"), (unseen, "no_grad"), (inferred, "inference_mode")):
        finding = only_finding(Wrapped(before))
        assert finding.what.startswith(message)
        assert finding.where == ("the model itself",)

    # What does not depend on the inputs may be detached.
    class Scaled(Wrapped):
        def forward(self, x):
            return super().forward(x) * self.net[6].weight.detach().mean()

    assert findings_of(Scaled()) == []


def test_blocked_gradients_that_change_nothing_are_no_finding():
    """Examples are logging, and the maximum that a stable softmax subtracts."""

    class Logs(Wrapped):
        def forward(self, x):
            self.stored = x.detach()
            with torch.no_grad():
                self.norm = x.norm() * 2
            self.rounded = x.round()
            y = super().forward(x)
            return (y - y.amax(1, keepdim=True).detach()).log_softmax(1) + 3

    assert [f for f in findings_of(Logs()) if "inside forward" in f.what] == []


def test_rounding_inside_forward_is_reported():
    finding = only_finding(Wrapped(before=lambda x: x + (4 * x).round() / 4))
    assert finding.what.startswith("Rounding inside forward blocks the gradient")


def test_sigmoids_that_are_reshaped_or_clamped_are_detected():
    for after in (
        lambda y: torch.sigmoid(y).view(len(y), -1),
        lambda y: torch.sigmoid(y).clamp(1e-6, 1 - 1e-6),
        lambda y: torch.sigmoid(y)[:, :2],
        lambda y: torch.sigmoid(y).unsqueeze(2).squeeze(2),
    ):
        assert [f for f in findings_of(Wrapped(after=after)) if "a sigmoid" in f.what]
    assert not [f for f in findings_of(Wrapped(after=lambda y: 5 * torch.sigmoid(y))) if "a sigmoid" in f.what]


def test_scores_that_do_not_repeat_are_the_only_finding():
    finding = only_finding(Wrapped(before=lambda x: x * (1 + float(GENERATOR.random()))))
    assert "gives different scores" in finding.what
    assert finding.methods == ()


class OwnReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, g):
        return g * (ctx.saved_tensors[0] > 0)


def test_custom_autograd_functions_are_named():
    finding = only_finding(Wrapped(before=OwnReLU.apply))
    assert "(OwnReLU)" in finding.what
    assert finding.methods == RELU


def test_a_custom_backward_does_not_block_the_gradient():
    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, g):
            return g * 2

    assert not [f for f in findings_of(Wrapped(before=Twice.apply)) if "blocks the gradient" in f.what]


@pytest.mark.parametrize(
    "cut",
    [lambda x: x.detach(), lambda x: x.round(), torch.no_grad()(lambda x: x + 1)],
    ids=["detach", "round", "no_grad"],
)
def test_a_gradient_that_is_blocked_completely(cut):
    result = sw.checkup(Wrapped(before=cut), X)
    assert any("no gradient reaches it" in f.what or "zero everywhere" in f.what for f in result)
    assert result[0].severity == "wrong"


def test_inputs_whose_gradient_is_exactly_zero():
    model = mlp()
    with torch.no_grad():
        model[0].weight[:, [1, 3]] = 0
    (finding,) = [f for f in sw.checkup(model, ROWS) if "exactly zero" in f.what]
    assert "2 of 4 inputs is exactly zero: number 1, 3" in finding.what
    (cropped,) = [f for f in sw.checkup(Wrapped(before=lambda x: x[..., :4, :]), X) if "exactly zero" in f.what]
    assert "50%" in cropped.what


def test_random_numbers_in_eval_mode():
    class Careless(nn.Module):
        def __init__(self, training):
            super().__init__()
            self.net, self.always = conv_net(), training

        def forward(self, x):
            return self.net(F.dropout(x, 0.1, training=self.always or self.training))

    assert only_finding(Careless(True).eval()).where == ("the model itself",)
    assert findings_of(Careless(False).eval()) == []
    noisy = nn.Sequential(Wrapped(before=lambda x: x + 0.1 * torch.randn_like(x))).eval()
    assert only_finding(noisy).where == ("0",)


def test_random_numbers_that_are_not_used_are_no_finding():
    assert findings_of(Wrapped(before=lambda x: x + 0 * torch.rand_like(x))) == []


def test_a_failure_for_perturbed_inputs_is_no_fixed_batch_size():
    model = Wrapped(before=lambda x: (x - X.min() + 0.01).log())
    assert not [f for f in findings_of(model) if "batch size" in f.what]


def test_a_target_for_a_fixed_number_of_rows_is_reported_with_its_message():
    result = sw.checkup(conv_net().double().eval(), torch.cat([X[:1]] * 2), target=lambda out: out[:2, 0])
    assert [f for f in result if "on 2 rows but not on 4: target: the function must return one number per" in f.what]
    assert not [f for f in result if "batch size is fixed" in f.what]


def test_weak_coupling_of_rows_is_detected_and_rounding_is_not():
    for after in (lambda y: 1000 + y - 0.9 * y.mean(0), lambda y: y + 0.01 * (y - y.mean(0)) * len(y)):
        assert [f for f in findings_of(Wrapped(after=after)) if "Other rows in the batch" in f.what]
    for scale in (1e-3, 1.0, 1e3):
        assert findings_of(Wrapped(after=lambda y, s=scale: s * y).float(), X.float()) == []


def test_negative_numbers_are_no_raw_bytes():
    for x in (X * 2000 - 1000, X * 1000, -80 * X):
        assert not [f for f in findings_of(conv_net(), x) if "raw bytes" in f.what]


def test_autocast_inside_forward_is_half_precision():
    class Mixed(Wrapped):
        def forward(self, x):
            with torch.autocast("cpu", torch.bfloat16):
                return super().forward(x)

    assert "switches to bfloat16" in only_finding(Mixed().float(), X.float()).what


def test_models_whose_layers_are_hidden():
    net = conv_net().float()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted = torch.jit.script(net)
    result = [f for f in findings_of(scripted, X.float()) if "scripted" in f.what]
    assert [set(f.methods) for f in result] == [{*RELU, *LAYER}]
    finding = only_finding(torch.compile(net, backend="eager"), X.float())
    assert "torch.compile" in finding.what
    assert finding.severity == "slow"
    finding = only_finding(nn.DataParallel(net), X.float())
    assert "DataParallel" in finding.what


def test_quantized_models_have_no_gradient():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = torch.ao.quantization.quantize_dynamic(mlp().float(), {nn.Linear})
        result = sw.checkup(model, ROWS.float())
    (finding,) = [f for f in result if "is quantized" in f.what and f.where]
    assert finding.where == ("0", "2", "4")


def test_half_precision():
    assert "bfloat16" in only_finding(conv_net().bfloat16(), X.bfloat16()).what


def test_integers_that_are_indices_of_an_embedding():
    model = nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(20, 3))
    (finding,) = sw.checkup(model, torch.tensor([[1, 2, 3, 4, 5]]))
    assert "embedding '0'" in finding.what
    with pytest.raises(ValueError, match=r"embedding '0'.*embeddings"):
        sw.attribute(model, torch.tensor([[1, 2, 3, 4, 5]]))


def test_raw_bytes_are_reported_without_a_batchnorm():
    finding = only_finding(conv_net(), X * 255)
    assert "as raw bytes do" in finding.what


def test_a_model_that_fails_is_one_finding():
    (finding,) = sw.checkup(conv_net(channels=5), X)
    assert finding.what.startswith("No map can be computed: it raised RuntimeError in layer '0' (Conv2d)")


def test_the_model_and_the_inputs_are_unchanged():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.3), *conv_net()).double().train()
    x = X.clone().requires_grad_()
    before = state_of(model)
    sw.checkup(model, x)
    assert state_of(model) == before
    assert x.grad is None
    assert all(p.requires_grad for p in model.parameters())


def test_several_inputs_and_functions_as_targets():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.table = conv_net(), mlp()

        def forward(self, image, table):
            return {"scores": self.net(image)[:, :3] + self.table(table)}

    model = Two().eval()
    inputs = {"image": images(0, 2, 3, 8, 8), "table": ROWS}
    assert findings_of(model, inputs) == []
    assert findings_of(model, inputs, explain="image", target=lambda out: out["scores"][:, 0]) == []


def test_findings_are_sorted_by_severity_and_formatted():
    grave, slow = Finding("Bad.", ("a", "b", "c", "d", "e"), ("gradient",), "Mend."), Finding("Slow.", severity="slow")
    result = Checkup([slow, grave])
    assert list(result) == [grave, slow]
    assert result[0] is grave
    assert result[:1] == [grave]
    message = "wrong: Bad. In a, b, c, d and 1 more. [gradient] What to do: Mend."
    assert repr(result).splitlines()[0] == message
    assert "<td" in result._repr_html_()
    assert "&lt;" in Checkup([Finding("<b>.")])._repr_html_()


def test_rows_that_are_parts_of_one_sample_are_a_caution():
    class Graph(nn.Module):
        """Each node becomes the mean of itself and the node at the other end of its edge."""

        def __init__(self):
            super().__init__()
            self.net = mlp()

        def forward(self, x, edges):
            around = x.clone()
            around[edges[1]] = (x[edges[0]] + x[edges[1]]) / 2
            return self.net(around)

    requested = {"x": (rows(0, 4, 4), torch.tensor([[0, 1, 2], [1, 2, 3]])), "explain": 0}
    for target, message in (
        (1, "The sum of their scores"),
        (None, "The sum of"),
        (lambda out: out[0, 1], "the number"),
    ):
        result = [f for f in findings_of(Graph(), target=target, **requested) if "rows influence each other" in f.what]
        assert [f.severity for f in result] == ["caution"]
        assert message in result[0].what
    (finding,) = findings_of(Graph().eval(), target=lambda out: out[:, 1], **requested)
    assert finding.what.startswith("No map can be computed: target: the function returns a score for each of the 4")
    healthy = findings_of(mlp().eval(), rows(0, 4, 4), target=1)
    assert not [f for f in healthy if "influence each other" in f.what]
