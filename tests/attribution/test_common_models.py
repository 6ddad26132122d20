"""Models with several inputs; wrapped, compiled, scripted and quantized models; models of other libraries."""

import enum
import json
import types
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn.utils import prune
from toys import conv_net, each, far, images, mlp, rows, state_of
from zoo import ORACLES, Kind, at_layer, explain, reason

import saliency_widgets as sw
from saliency_widgets.attribution.numerics.noise import normal_noise

METHODS = sw.methods()


def raw_gradient(scores, *leaves):
    """Compute the gradients of the sum of the scores with autograd alone."""
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    return torch.autograd.grad(scores(*leaves).sum(), leaves)


# ---- several inputs: F = a . W b + |a|^2 for each class's W


class Bilinear(nn.Module):
    """A bilinear form of two inputs, plus the square of the first."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.w = nn.Parameter(torch.randn(3, 4, 5, dtype=torch.float64))

    def forward(self, a, b):
        assert len(a) == len(b)
        return torch.einsum("ni,kij,nj->nk", a, self.w, b) + (a**2).sum(1, keepdim=True)


class OneDict(Bilinear):
    """The same model, called with one dict."""

    def forward(self, batch):
        return super().forward(batch["a"], batch["b"])


A, B = rows(1, 3, 4), rows(2, 3, 5)
TARGET = [2, 0, 1]
FORMS = {
    "tuple": (Bilinear, (A, B)),
    "keywords": (Bilinear, {"b": B, "a": A}),
    "one dict": (OneDict, {"a": A, "b": B}),
    "arrays": (Bilinear, (A.numpy(), B.numpy())),
}


def joint(model, a0, b0):
    """Return exact Integrated Gradients of both inputs from (a0, b0); gradients are linear along the path."""
    w = model.w.detach()[TARGET]
    for_a = torch.einsum("nij,nj->ni", w, (B + b0) / 2) + A + a0
    return (A - a0) * for_a, (B - b0) * torch.einsum("nij,ni->nj", w, (A + a0) / 2)


def run(model, inputs, method="integrated_gradients", **settings):
    sizes = {"n_steps": 4} if method == "integrated_gradients" else {}
    return sw.attribute(model, inputs, method=method, **{"target": TARGET, **sizes, **settings})


@each("form", FORMS)
def test_inputs_explained_together_are_exact(form):
    kind, inputs = FORMS[form]
    model = kind()
    result = run(model, inputs)
    assert dict(result.parts) == {"a": (4,), "b": (5,)}
    for name, expected in zip("ab", joint(model, A * 0, B * 0), strict=True):
        part = result.part(name)
        assert far(part.values, expected) < 1e-13
        assert part.input_shape == expected.shape
        assert part.parts == {}
    plain = Bilinear()(A, B)[range(3), TARGET].detach()
    assert far(result.values.sum(1), plain) < 1e-13  # F(x) - F(0), summed over both inputs
    assert float(result.delta.abs().max()) < 1e-12
    assert far(result.score, plain) < 1e-14


@each("form", FORMS)
def test_baselines_by_name(form):
    kind, inputs = FORMS[form]
    model, a0, b0 = kind(), rows(5, 3, 4), rows(6, 1, 5)
    result = run(model, inputs, baseline={"a": a0, "b": b0})
    for name, expected in zip("ab", joint(model, a0, b0), strict=True):
        assert far(result.part(name).values, expected) < 1e-13
    only_b = run(model, inputs, baseline={"b": b0})
    for name, expected in zip("ab", joint(model, A * 0, b0), strict=True):
        assert far(only_b.part(name).values, expected) < 1e-13
    means = run(model, inputs, baseline="mean")  # the mean of each input
    local = [x.mean(1, keepdim=True).expand_as(x) for x in (A, B)]
    for name, expected in zip("ab", joint(model, *local), strict=True):
        assert far(means.part(name).values, expected) < 1e-13


@each("form", FORMS)
@each("explain_", ["a", ["a"], "b"])
def test_one_input_is_explained_while_the_other_is_held(form, explain_):
    kind, inputs = FORMS[form]
    model = kind()
    result = run(model, inputs, explain=explain_)
    w = model.w.detach()[TARGET]
    expected = {
        "a": A * (torch.einsum("nij,nj->ni", w, B) + A),
        "b": B * torch.einsum("nij,ni->nj", w, A),
    }[explain_[0]]
    assert result.parts == {}
    assert far(result.values, expected) < 1e-13
    assert result.settings["explain"] == explain_
    assert torch.equal(sw.attribute(model, inputs, **result.settings).values, result.values)


@each("explain_", [0, -2, "a", [0]])
def test_inputs_can_be_chosen_by_position(explain_):
    result = run(Bilinear(), (A, B), explain=explain_)
    assert torch.equal(result.values, run(Bilinear(), (A, B), explain="a").values)


@each("explain_", [None, ["a", "b"], ["b", "a"], [1, 0], ("a", 1)])
def test_all_inputs_can_be_named_in_any_order(explain_):
    result = run(Bilinear(), (A, B), explain=explain_)
    assert torch.equal(result.values, run(Bilinear(), (A, B)).values)
    assert list(result.parts) == ["a", "b"]


@pytest.mark.parametrize("method", ["integrated_gradients", "smoothgrad", "expected_gradients"])
@each("explain_", [None, "a", "b"])
def test_held_inputs_stay_with_their_samples_at_every_chunk_size(method, explain_):
    result = [
        sw.attribute(Bilinear(), (A, B), method=method, target=TARGET, explain=explain_, chunk_size=size).values
        for size in (1, 3, 8, 100)
    ]
    for other in result[1:]:
        assert far(other, result[0]) < 1e-13
    alone = [
        sw.attribute(Bilinear(), (A[i : i + 1], B[i : i + 1]), method=method, target=TARGET[i], explain=explain_).values
        for i in range(3)
    ]
    assert far(torch.cat(alone), result[0]) < 1e-12


def test_the_noise_scales_with_the_range_of_each_input():
    class Cubes(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Parameter(torch.ones((), dtype=torch.float64))

        def forward(self, a, b):
            return (a**3).sum(1, keepdim=True) + (b**3).sum(1, keepdim=True)

    wide = (A, 100 * B)
    result = sw.attribute(Cubes(), wide, method="smoothgrad", n_samples=7, score="value")
    z = normal_noise(torch.cat(wide, 1), 0, range(7)).split([4, 5], 2)
    for name, x, noise in zip("ab", wide, z, strict=True):
        s = 0.15 * (x.amax(1) - x.amin(1))[:, None]
        assert far(result.part(name).values, (3 * (x + s * noise) ** 2).mean(0)) < 1e-13


class Words(nn.Module):
    """Takes integer tokens, a boolean mask, some settings, and the float input that is explained."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.head = nn.Embedding(9, 4).double(), nn.Linear(4, 3).double()

    def forward(self, input_ids=None, mask=None, image=None, scale=1.0, mode="mean", extra=None):
        assert input_ids.dtype == torch.int64
        assert mask.dtype == torch.bool
        assert mode == "mean"
        assert extra is None
        read = (self.embed(input_ids) * mask[..., None]).sum(1)
        return self.head(scale * read * image)


IDS = torch.tensor([[1, 2, 3, 0], [4, 5, 0, 0], [6, 7, 8, 1]])
TEXT = {"input_ids": IDS, "mask": IDS > 0, "image": rows(4, 3, 4), "scale": 2.0, "mode": "mean", "extra": None}


@pytest.mark.parametrize("method", ["gradient", "input_x_gradient", "integrated_gradients", "smoothgrad"])
def test_integers_and_settings_are_held(method):
    model = Words()
    result = sw.attribute(model, TEXT, method=method, target=TARGET)
    with torch.no_grad():
        read = 2 * (model.embed(IDS) * (IDS > 0)[..., None]).sum(1)
        slope = model.head.weight[TARGET] * read  # linear in the image
    x = TEXT["image"]
    expected = {"input_x_gradient": x * slope, "integrated_gradients": x * slope}.get(method, slope)
    assert far(result.values, expected) < 1e-13


def test_a_model_that_writes_to_held_inputs_does_not_change_the_callers():
    class Careless(Words):
        def forward(self, input_ids, mask, image):
            input_ids += 1
            image *= 2
            mask.zero_()
            return super().forward(input_ids % 9, ~mask, image)

    settings = {name: TEXT[name].clone() for name in ("input_ids", "mask", "image")}
    sw.attribute(Careless(), settings, method="integrated_gradients", target=0, n_steps=3)
    for name, value in settings.items():
        assert torch.equal(value, TEXT[name])


def test_a_table_that_all_samples_share_is_passed_unchanged():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(4, 3).double()

        def forward(self, x, table):
            assert table.shape == (7, 3)
            return self.net(x) * table.mean(0)

    model, x, shared = Shared(), rows(0, 2, 4), rows(1, 7, 3)
    result = sw.attribute(model, (x, shared), explain=0, method="integrated_gradients", target=1, n_steps=5)
    assert far(result.values, x * model.net.weight[1].detach() * shared.mean(0)[1]) < 1e-13


def test_nested_mappings_and_lists_of_tensors():
    class Nested(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(4, 3).double()

        def forward(self, x, more):
            return self.net(x * more["scale"]["by"] + more["shifts"][1])

    model, x = Nested(), rows(0, 3, 4)
    by, shift = rows(1, 3, 4), rows(2, 3, 4)
    more = {"scale": {"by": by}, "shifts": [shift * 0, shift]}
    result = sw.attribute(model, {"x": x, "more": more}, explain="x", method="integrated_gradients", target=TARGET)
    assert far(result.values, x * by * model.net.weight[TARGET].detach()) < 1e-13


LONG = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_embeddings_instead_of_tokens(samples):
    """Among several inputs, (1, T, F) and (3, T, F) are batches of sequences, not images."""

    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.rnn, self.head = nn.GRU(4, 5, batch_first=True).double(), nn.Linear(5, 3).double()

        def forward(self, inputs_embeds, attention_mask):
            return self.head(self.rnn(inputs_embeds * attention_mask[..., None])[0][:, -1])

    model, x = Reader(), LONG[:samples]
    mask = torch.ones(samples, 5, dtype=torch.long)
    result = sw.attribute(model, {"inputs_embeds": x, "attention_mask": mask}, method="gradient", target=1)
    (expected,) = raw_gradient(lambda leaf: model(leaf, mask)[:, 1], x)
    assert far(result.values, expected) < 1e-13


BAD = {
    "no such name": ({"explain": "c"}, ValueError, r"explain: 'c' is not known.*'a'"),
    "no such position": ({"explain": 2}, ValueError, r"explain: '2' is not known"),
    "twice": ({"explain": ["a", 0]}, ValueError, r"explain: expected one or more of \['a', 'b'\], each once"),
    "none of them": ({"explain": []}, ValueError, r"explain: expected one or more of"),
    "a baseline of another's shape": (
        {"baseline": {"a": B}},
        ValueError,
        r"baseline: shape \(3, 5\) doesn't broadcast",
    ),
    "black rows": ({"baseline": "black"}, ValueError, r"baseline: 'black' means black pixels"),
    "no part of that name": (None, ValueError, r"part: 'c' is not known"),
}


@each("case", BAD)
def test_invalid_requests_for_several_inputs_are_refused(case):
    settings, error, pattern = BAD[case]
    with pytest.raises(error, match=pattern):
        run(Bilinear(), (A, B)).part("c") if settings is None else run(Bilinear(), (A, B), **settings)


def test_a_baseline_for_an_unknown_input_is_refused():
    with pytest.raises(ValueError, match=r"baseline: .*'c'"):
        run(Bilinear(), (A, B), baseline={"a": A * 0, "c": B * 0})


@each(
    ("inputs", "settings", "pattern"),
    [
        (A, {"explain": "a"}, r"explain: there is only one input"),
        (
            (A, B[:2]),
            {},
            r"inputs: expected the same number of samples in all explained inputs, got \{'a': 3, 'b': 2\}",
        ),
        ((IDS, IDS), {}, r"inputs: no input has a gradient.*inputs_embeds="),
        ((A, IDS), {"explain": 1}, r"explain: 'b' holds torch\.int64, and integers or booleans have no gradient"),
    ],
    ids=range(4),
)
def test_inputs_that_cannot_be_explained(inputs, settings, pattern):
    with pytest.raises(ValueError, match=pattern):
        run(Bilinear(), inputs, **settings)


# ---- wrapped, compiled, scripted, quantized

X = images()


class Lightning(nn.Module):
    """Behaves like a Lightning module: some properties raise, and logging needs a trainer."""

    def __init__(self):
        super().__init__()
        self.net, self._trainer, self._hparams = conv_net(), None, {"lr": 0.1}
        self.logged = []

    @property
    def trainer(self):
        if self._trainer is None:
            raise RuntimeError("Lightning is not attached to a `Trainer`.")
        return self._trainer

    @property
    def hparams(self):
        return self._hparams

    @property
    def current_epoch(self):
        return self.trainer.current_epoch

    def log(self, name, value):
        if self._trainer is None:
            self.logged.append(name)  # Lightning's log only warns in this case

    def training_step(self, batch):
        raise NotImplementedError

    def forward(self, x):
        self.log("mean", x.mean())
        return self.net(x) * (1 + 0 * self.hparams["lr"])


class Inside(nn.Module):
    """A model that contains another one."""

    def __init__(self, net):
        super().__init__()
        self.net, self.head = net, nn.Linear(4, 3).double()
        nn.init.normal_(self.head.weight, generator=torch.Generator().manual_seed(2))
        nn.init.zeros_(self.head.bias)

    def forward(self, x):
        return self.head(self.net(x))


def compiled(net):
    return torch.compile(net, backend="eager")


def compiled_itself(net):
    net.compile(backend="eager")
    return net


def in_parallel(net):
    return nn.DataParallel(net)


def lightning(net):
    model = Lightning()
    model.net = net
    return model


def scripted(net):
    return torch.jit.trace(net, X)


WRAPPERS = {wrap.__name__: wrap for wrap in (compiled, compiled_itself, in_parallel, lightning)}


# Wrappers and changes affect how a model runs, not the methods: one method for each kind of pass suffices.
TYPICAL = ("gradient", "guided_backprop", "integrated_gradients", "grad_cam")


@each("nested", [False, True], ids=["whole", "part"])
@each("wrapper", WRAPPERS)
@pytest.mark.parametrize("method", TYPICAL)
def test_wrappers_do_not_change_the_result(method, wrapper, nested):
    plain = Inside(conv_net()) if nested else conv_net()
    wrapped = Inside(WRAPPERS[wrapper](conv_net())) if nested else WRAPPERS[wrapper](conv_net())
    before = state_of(wrapped)
    expected = explain(Kind(lambda: plain, X, [1, 2]), plain, method)
    result = explain(Kind(lambda: wrapped, X, [1, 2]), wrapped, method)
    assert far(result.values, expected.values) < 1e-12
    assert state_of(wrapped) == before
    if result.layer is not None:
        assert expected.layer is not None
        assert result.layer.endswith(expected.layer.rpartition(".")[2])


class NeedsArgument(nn.Module):
    """A module whose ``__new__`` needs an argument."""

    def __new__(cls, net):
        return super().__new__(cls)

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x)


def reparametrized(change, attribute="weight"):
    def wrap(net):
        torch.manual_seed(3)
        change(net[2], attribute)
        return net

    return wrap


def with_instance_forward(net):
    """Set forward to a partial of the module, as libraries do that move weights between devices."""

    def forward(module, x):
        return type(module).forward(module, x)

    net.forward = partial(forward, net)
    return net


CHANGED = {
    "weight norm": reparametrized(nn.utils.parametrizations.weight_norm),
    "weight norm by hooks": reparametrized(nn.utils.weight_norm),
    "spectral norm": reparametrized(nn.utils.parametrizations.spectral_norm),
    "spectral norm by hooks": reparametrized(nn.utils.spectral_norm),
    "pruned": reparametrized(partial(prune.random_unstructured, amount=0.3)),
    "a forward on the instance": with_instance_forward,
    "a class with __new__": NeedsArgument,
    "in channels last": lambda net: net.to(memory_format=torch.channels_last),
    "shared memory": lambda net: net.share_memory(),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@each("change", CHANGED)
@pytest.mark.parametrize("method", TYPICAL)
def test_a_changed_model_is_explained_in_its_current_state(method, change):
    model = CHANGED[change](conv_net()).eval()
    case = Kind(lambda: model, X, [1, 2], layer="net.4" if change == "a class with __new__" else "4")
    before = state_of(model)
    result = explain(case, model, method)
    assert state_of(model) == before
    assert far(result.values, ORACLES[method](case, model)) < 1e-11


SCRIPTED = r"(method: .*ReLUs|layer: the layers) of a scripted, traced or exported model.*Pass the original"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@each("make", [torch.jit.script, scripted], ids=["scripted", "traced"])
@pytest.mark.parametrize("method", METHODS)
def test_a_scripted_model_has_gradients_but_no_accessible_relus_or_layers(method, make):
    model = make(conv_net())
    case = Kind(lambda: model, X, [1, 2])
    if {"relu", "layer"} & {*METHODS[method].needs}:
        with pytest.raises(ValueError, match=SCRIPTED):
            explain(case, model, method)
        return
    assert far(explain(case, model, method).values, ORACLES[method](case, conv_net())) < 1e-11


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("method", METHODS)
def test_a_model_with_a_scripted_part(method):
    """Layers outside that part are accessible, but a ReLU rule that misses the ReLUs inside would give a wrong map."""
    torch.manual_seed(4)
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), torch.jit.trace(conv_net(), X)).double()
    case = Kind(lambda: model, X, [1, 2], layer="1")
    if "relu" in METHODS[method].needs:
        with pytest.raises(ValueError, match=SCRIPTED):
            explain(case, model, method)
    else:
        assert far(explain(case, model, method).values, ORACLES[method](case, model)) < 1e-11


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("method", METHODS)
def test_a_quantized_model_is_refused_because_it_has_no_gradient(method):
    if not hasattr(torch.ao, "quantization") or torch.backends.quantized.engine == "none":
        pytest.skip("this torch does not quantize")
    plain = conv_net().float()
    model = torch.ao.quantization.quantize_dynamic(plain, {nn.Linear}, dtype=torch.qint8).eval()
    assert type(model[6]) is not nn.Linear
    x = X.float()
    with torch.no_grad():
        expected = model(x)
    with pytest.raises(ValueError, match=r"model: it is quantized \('6'\).*float model.*captum\.FeatureAblation"):
        explain(Kind(lambda: model, x, [1, 2]), model, method)
    with torch.no_grad():
        assert torch.equal(model(x), expected)


class Recurrent(nn.Module):
    def __init__(self, rnn):
        super().__init__()
        self.rnn, self.head = rnn.double(), nn.LazyLinear(3, dtype=torch.float64)

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])


RNNS = {
    "RNN": partial(nn.RNN, nonlinearity="relu"),
    "LSTM": nn.LSTM,
    "GRU": nn.GRU,
    "bidirectional": partial(nn.LSTM, bidirectional=True),
    "projected": partial(nn.LSTM, proj_size=2),
}


@each("kind", RNNS)
@pytest.mark.parametrize("method", ["gradient", "input_x_gradient", "integrated_gradients", "smoothgrad"])
def test_dropout_between_recurrent_layers_does_nothing_in_eval_mode(kind, method):
    torch.manual_seed(0)
    x = rows(1, 2, 6, 4)
    model = Recurrent(RNNS[kind](4, 5, num_layers=2, dropout=0.5, batch_first=True))
    model(x)
    model.eval()
    before, case = state_of(model), Kind(lambda: model, x, [0, 2], time=1)
    assert far(explain(case, model, method).values, ORACLES[method](case, model)) < 1e-11
    assert state_of(model) == before
    assert model.rnn.dropout == 0.5
    assert not model.rnn.training


# ---- Hugging Face


@pytest.fixture(scope="module")
def hugging_face():
    transformers = pytest.importorskip("transformers")
    transformers.utils.logging.set_verbosity_error()  # else each processor warns that torchvision is missing
    return transformers


NAMES = ["cat", "dog", "cow", "tabby owl"]
LABELS = {"id2label": dict(enumerate(NAMES)), "label2id": {name: i for i, name in enumerate(NAMES)}}


def vit(transformers):
    torch.manual_seed(0)
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.ViTConfig(image_size=16, patch_size=4, hidden_dropout_prob=0.1, **small, **LABELS)
    model = transformers.ViTForImageClassification(config)
    for parameter in model.parameters():  # the initial parameters are too small for a visible effect
        nn.init.normal_(parameter, std=0.3)
    return model.double().eval()


def resnet(transformers):
    torch.manual_seed(0)
    config = transformers.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 8],
        depths=[1, 1],
        layer_type="basic",
        downsample_in_first_stage=True,
        **LABELS,
    )
    model = transformers.ResNetForImageClassification(config).double()
    with torch.no_grad():
        model(images(8, 8, 3, 16, 16))
    return model.eval()


def logits(output):
    return output.logits


def block_tokens(tokens):
    """Drop the class token and arrange the 16 patches in a grid."""
    return tokens[:, 1:].mT.reshape(len(tokens), -1, 4, 4)


PIXELS = images(0, 2, 3, 16, 16)


def first_block_of(model):
    """Return the path of the first of the ViT's two blocks, which differs between versions of the library."""
    (path,) = [
        path for path, module in model.named_modules() if type(module).__name__ == "ViTLayer" and path.endswith("0")
    ]
    return path


@pytest.mark.parametrize("method", METHODS)
def test_hugging_faces_vit(hugging_face, method):
    model = vit(hugging_face)
    case = Kind(
        lambda: model, PIXELS, [1, 3], relu=False, layer=first_block_of(model), grid=block_tokens, scores=logits
    )
    before, why = state_of(model), reason(case, method)
    if why is not None:
        with pytest.raises(ValueError, match=why):
            explain(case, model, method)
    else:
        result = explain(case, model, method)
        assert far(result.values, ORACLES[method](case, model)) < 1e-10
        if result.layer is not None:
            assert result.layer == case.layer
            assert result.values.shape == (2, 1, 4, 4)
    assert state_of(model) == before


@pytest.mark.parametrize("method", TYPICAL)
def test_hugging_faces_resnet(hugging_face, method):
    model, x = resnet(hugging_face), images(0, 2, 3, 32, 32)
    case = Kind(lambda: model, x, [1, 3], layer="resnet.encoder.stages.1", scores=logits)
    before, result = state_of(model), explain(case, model, method)
    assert result.layer in (None, case.layer)
    expected = ORACLES[method](case, model)
    assert bool(expected.any())
    assert far(result.values, expected) < 1e-10
    assert state_of(model) == before


@pytest.mark.parametrize("reshape", ["by position", "tokens", block_tokens], ids=["by position", "by name", "function"])
@pytest.mark.parametrize("method", ["grad_cam", "grad_cam_plus_plus", "layer_cam"])
def test_a_layer_of_the_vit_by_path(hugging_face, method, reshape):
    model = vit(hugging_face)
    case = Kind(lambda: model, PIXELS, [1, 3], layer=first_block_of(model), grid=block_tokens, scores=logits)
    result = explain(case, model, method, layer=case.layer, reshape=reshape)
    assert far(result.values, ORACLES[method](case, model)) < 1e-10
    assert bool(result.values.any())
    norm = next(
        path for path, _ in model.named_modules() if path.startswith(case.layer) and path.endswith("layernorm_after")
    )
    inside = Kind(lambda: model, PIXELS, [1, 3], layer=norm, grid=block_tokens, scores=logits)
    assert (
        far(explain(inside, model, method, layer=norm, reshape=reshape).values, ORACLES[method](inside, model)) < 1e-10
    )


def test_after_the_last_block_the_vits_patches_do_not_affect_the_score(hugging_face):
    """Therefore, the block before it is the default layer."""
    model = vit(hugging_face)
    last = first_block_of(model)[:-1] + "1"
    case = Kind(lambda: model, PIXELS, [1, 3], layer=last, grid=block_tokens, scores=logits)
    assert not bool(at_layer(case, model)[1].any())
    assert not bool(explain(case, model, "grad_cam", layer=last).values.any())


@pytest.mark.parametrize("make", [vit, resnet])
@pytest.mark.parametrize("method", ["gradient", "integrated_gradients", "smoothgrad", "grad_cam"])
def test_hugging_faces_inputs_by_name_and_outputs_as_tuples(hugging_face, make, method):
    model = make(hugging_face)
    expected = explain(Kind(lambda: model, PIXELS, [1, 3]), model, method)
    settings = {**expected.settings, "target": [1, 3]}
    for inputs in ({"pixel_values": PIXELS}, {"pixel_values": PIXELS, "return_dict": False}):
        result = sw.attribute(model, inputs, **settings)
        assert far(result.values, expected.values) < 1e-12
        assert result.layer == expected.layer


RNG = np.random.default_rng(2)
IMAGE = Image.fromarray(RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)).resize((60, 40), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("make", [vit, resnet])
@pytest.mark.parametrize("method", ["gradient", "integrated_gradients", "grad_cam"])
def test_an_image_a_processor_and_a_class_by_name(hugging_face, make, method):
    model = make(hugging_face)
    processor = hugging_face.ViTImageProcessor(size={"height": 16, "width": 16})
    result = sw.attribute(model, IMAGE, transform=processor, method=method, target="dog")
    pixels = processor(images=IMAGE, return_tensors="pt")["pixel_values"].double()
    black = {"baseline": torch.full_like(pixels, -1.0)} if method == "integrated_gradients" else {}
    expected = sw.attribute(model, pixels, method=method, target=1, **black)
    assert result.settings["target"] == 1
    assert far(result.values, expected.values) < 1e-6
    if method == "gradient":
        (raw,) = raw_gradient(lambda leaf: model(leaf).logits[:, 1], pixels)
        assert far(result.values, raw) < 1e-10
    assert result.saliency_map().shape == (16, 16)
    assert json.loads(result.to_json())["target"] == 1
    with pytest.raises(ValueError, match=r"target: 'owls' is not known"):
        sw.attribute(model, IMAGE, transform=processor, method=method, target="owls")


# ---- transforms and configs like those of torchvision and timm


class Preset(nn.Module):
    """A transform like torchvision's: resize, crop, normalize."""

    def forward(self, image):
        pixels = np.asarray(image.resize((24, 16), Image.Resampling.BILINEAR).crop((4, 0, 20, 16)), dtype=np.float32)
        return (torch.from_numpy(pixels).movedim(-1, 0) / 255 - 0.4) / 0.2


@dataclass
class Weights:
    transforms: Any
    meta: dict


class Net_Weights(enum.Enum):  # noqa: N801 - torchvision's naming
    DEFAULT = Weights(Preset, {"categories": NAMES})

    @property
    def transforms(self):
        return self.value.transforms

    @property
    def meta(self):
        return self.value.meta


def test_torchvisions_weights_from_end_to_end():
    model = conv_net()
    result = sw.attribute(model, IMAGE, transform=Net_Weights.DEFAULT, method="gradient", target="owl")
    (expected,) = raw_gradient(lambda leaf: model(leaf)[:, 3], Preset()(IMAGE)[None].double())
    assert result.settings["target"] == 3
    assert far(result.values, expected) < 1e-13
    ig = sw.attribute(model, IMAGE, transform=Net_Weights.DEFAULT, method="integrated_gradients", target="cow")
    with torch.no_grad():
        change = model(Preset()(IMAGE)[None].double()) - model(torch.full((1, 3, 16, 16), -2.0).double())
    assert far(ig.values.flatten(1).sum(1) - ig.delta, change[:, 2]) < 1e-5  # from black, which is -2


def test_timms_config_from_end_to_end():
    model = conv_net()
    model.pretrained_cfg = {
        "input_size": (3, 16, 16),
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "mean": (0.4, 0.4, 0.4),
        "std": (0.2, 0.2, 0.2),
        "label_names": NAMES,
    }
    result = sw.attribute(model, IMAGE, method="gradient", target="dog")
    pixels = Preset()(IMAGE)[None].double()  # the same preprocessing as in the config
    (expected,) = raw_gradient(lambda leaf: model(leaf)[:, 1], pixels)
    assert far(result.values, expected) < 1e-6
    assert any("data config is used" in note for note in result.notes)
    explicit = sw.attribute(model, IMAGE, method="gradient", target=1, transform=model.pretrained_cfg)
    assert torch.equal(explicit.values, result.values)
    assert not any("data config" in note for note in explicit.notes)


def test_a_namespace_with_a_forward_is_refused_as_a_model():
    with pytest.raises(TypeError, match=r"model: expected a torch\.nn\.Module, got a SimpleNamespace"):
        sw.attribute(types.SimpleNamespace(forward=mlp()), rows())
