"""Layers of class activation maps: the default, named ones, and models in which they are hard to recognize."""

import captum.attr
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from toys import Tally, conv_net, each, far, images, mlp, rows, runner, state_of

import saliency_widgets as sw
from saliency_widgets.runtime.layers.selection import spatial_layers

X = images()


def cam(model, x=X, **settings):
    return sw.attribute(model, x, method="grad_cam", **{"target": 1, **settings})


def by_formula(activations, rest, target=1):
    """Return the sum of the channels, weighted by the mean of their gradients."""
    a = activations.detach().requires_grad_()
    (g,) = torch.autograd.grad(rest(a)[:, target].sum(), a)
    return (g.mean((2, 3), keepdim=True) * a).sum(1, keepdim=True).detach()


def listed(model, x=X):
    """Return the layers that menus show, and their shapes."""
    return {path: layer.shape for path, layer in spatial_layers(runner(model, x).passes).items() if layer.listed}


def test_spatial_layers_are_listed_in_order_with_their_shapes():
    assert list(listed(conv_net()).items()) == [
        ("0", (6, 8, 8)),
        ("1", (6, 8, 8)),
        ("2", (5, 4, 4)),
        ("3", (5, 4, 4)),
        ("4", (5, 2, 2)),
    ]


def test_menus_show_the_outermost_of_several_layers_with_the_same_output():
    block = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True))
    model = nn.Sequential(nn.Sequential(block), nn.Flatten(), nn.LazyLinear(3)).double()
    model(X)
    assert list(listed(model)) == ["0"]
    assert torch.equal(cam(model, layer="0.0.1").values, cam(model, layer="0").values)


def test_layers_that_return_their_input_are_not_listed():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Identity(), nn.Dropout(), nn.Flatten(), nn.Linear(144, 3))
    model.double().eval()
    assert list(listed(model)) == ["0", "1"]
    assert torch.equal(cam(model, layer="3").values, cam(model).values)
    assert cam(model).layer == "1"


def test_the_default_is_the_last_layer_with_more_than_one_cell():
    model = conv_net()
    model[4] = nn.AdaptiveAvgPool2d(1)
    model[6] = nn.Linear(5, 4).double()
    assert cam(model).layer == "3"
    assert cam(model).settings["layer"] == "3"
    assert torch.equal(cam(model).values, cam(model, layer="3").values)


@each("layer", ["0", "1", "2", "3", "4"])
def test_the_map_of_each_layer_equals_the_formula(layer):
    model, i = conv_net(), int(layer) + 1
    with torch.no_grad():
        activations = model[:i](X)
    assert far(cam(model, layer=layer).values, by_formula(activations, model[i:])) < 1e-13


def test_an_in_place_operation_after_the_layer_does_not_change_its_activation():
    """Captum uses the overwritten activation or fails here; the map is that of the layer's output."""

    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(1)
            self.conv, self.head = nn.Conv2d(3, 5, 3).double(), nn.Linear(5, 4).double()

        def forward(self, x):
            y = self.conv(x)
            y += 0.1
            return self.head(F.relu_(y).mean((2, 3)))

    model = InPlace()
    with torch.no_grad():
        activations = model.conv(X)
    expected = by_formula(activations, lambda a: model.head((a + 0.1).relu().mean((2, 3))))
    assert far(cam(model, layer="conv").values, expected) < 1e-13


def test_the_last_run_of_a_shared_layer_is_explained():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(1)
            self.conv, self.head = nn.Conv2d(3, 3, 3, padding=1).double(), nn.Linear(3, 4).double()
            self.again = self.conv

        def forward(self, x):
            return self.head(self.again(self.conv(x).tanh()).tanh().mean((2, 3)))

    model = Shared()
    with torch.no_grad():
        activations = model.conv(model.conv(X).tanh())
    expected = by_formula(activations, lambda a: model.head(a.tanh().mean((2, 3))))
    assert far(cam(model, layer="conv").values, expected) < 1e-13
    assert far(cam(model, layer="again").values, expected) < 1e-13  # the other name of the same layer


def test_a_model_without_any_parameter():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.pool = nn.AvgPool2d(2)

        def forward(self, x):
            return self.pool(x).square().mean((2, 3))

    x = X.float()
    pooled = F.avg_pool2d(x, 2)
    expected = by_formula(pooled, lambda a: a.square().mean((2, 3)))
    assert far(cam(Plain(), x).values, expected) < 1e-6
    assert (
        far(
            sw.attribute(Plain(), x, method="gradient", target=1).values.sum((0, 2, 3))[1:2],
            pooled[:, 1].sum()[None] / 8,
        )
        < 1e-5
    )


def test_frozen_parameters_make_no_difference():
    expected = {m: sw.attribute(conv_net(), X, method=m, target=1).values for m in sw.methods()}
    frozen = conv_net().requires_grad_(False)
    for method, values in expected.items():
        assert torch.equal(sw.attribute(frozen, X, method=method, target=1).values, values)


def test_the_users_hooks_run_and_stay_and_write_to_copies():
    model, seen, tally = conv_net(), [], Tally()

    def count(*_):
        seen.append("forward")
        tally.passes += 1

    model[2].register_forward_hook(count)
    model[2].register_full_backward_hook(lambda *_: seen.append("backward"))
    before = state_of(model)
    expected = captum.attr.LayerGradCam(model, model[2]).attribute(X, target=1, relu_attributions=False).detach()
    seen.clear()
    passes = tally.passes
    assert far(cam(model, layer="2").values, expected) < 1e-12
    assert tally.passes > passes
    assert seen == []
    assert state_of(model) == before


@each(
    ("layer", "error", "message"),
    [
        (
            "6",
            ValueError,
            r"layer: '6' has an output of shape \(2, 4\); a class activation map needs \(N, channels, height, width\)",
        ),
        ("features.3", ValueError, r"layer: 'features\.3' is not known\. Known: '0', '1'"),
        ("", ValueError, r"layer: '' is not known"),
        (3, TypeError, r"layer: expected a module path such as 'features\.7', got 3 \(int\)"),
        (nn.ReLU(), TypeError, r"layer: expected a module path"),
    ],
)
def test_an_unsuitable_layer_is_an_error(layer, error, message):
    with pytest.raises(error, match=message):
        cam(conv_net(), layer=layer)


def test_layers_that_do_not_run_return_no_tensor_or_do_not_affect_the_score_are_errors():
    class UnusualLayers(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = conv_net()
            self.spare = nn.Conv2d(3, 3, 1)
            self.pair = nn.Identity()
            self.side = nn.Identity()

        def forward(self, x):
            self.pair({"x": 1})
            self.side(x * 2)
            return self.net(x)

    for layer, message in {
        "spare": r"layer: 'spare' did not run; choose a layer",
        "pair": r"layer: 'pair' returned a dict; choose a layer",
        "side": r"model: the score does not depend on the layer 'side'",
    }.items():
        with pytest.raises(ValueError, match=message):
            cam(UnusualLayers(), layer=layer)
    assert cam(UnusualLayers()).layer == "net.4"


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("grad_cam", r"layer: no layer of this model has a spatial output.*'integrated_gradients'"),
        ("guided_grad_cam", r"method: Guided Grad-CAM needs images.*'guided_backprop'"),
    ],
)
def test_a_model_without_convolutions_is_an_error_that_suggests_a_method(method, message):
    with pytest.raises(ValueError, match=message):
        sw.attribute(mlp(), rows(), method=method, target=0)


# ---- layers of several inputs, and grids of tokens


def test_a_note_says_which_run_of_a_layer_is_explained():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.head = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 4)
            self.double()

        def forward(self, x):
            return self.head(self.conv(self.conv(x).relu()).mean((2, 3)))

    for method in ("grad_cam", "layer_cam", "guided_grad_cam"):
        result = sw.attribute(Twice(), X, method=method, layer="conv", target=1)
        assert any("'conv' ran 2 times; the map explains its last run" in note for note in result.notes)
    assert not any("ran" in note for note in cam(conv_net().eval()).notes)


class Siamese(nn.Module):
    """An encoder for both images, and a convolution of the second image only."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Tanh())
        self.other, self.head = nn.Conv2d(3, 6, 3), nn.Linear(6, 4)
        self.double().eval()

    def forward(self, left, right):
        return self.head(
            self.encoder(left).mean((2, 3)) * self.encoder(right).mean((2, 3)) + self.other(right).mean((2, 3))
        )

    def map_by_formula(self, name, left, right):
        parts = {"left": self.encoder(left).detach(), "right": self.encoder(right).detach()}
        a = parts[name].requires_grad_()
        (g,) = torch.autograd.grad(
            self.head(parts["left"].mean((2, 3)) * parts["right"].mean((2, 3)) + self.other(right).mean((2, 3)))[
                :, 1
            ].sum(),
            a,
        )
        return (g.mean((2, 3), keepdim=True) * a).sum(1, keepdim=True).detach()


@pytest.mark.parametrize("name", ["left", "right"])
def test_the_run_of_a_shared_encoder_for_the_explained_input_is_used(name):
    model, value = Siamese(), {"left": images(1, 2, 3, 8, 8), "right": images(2, 2, 3, 8, 8)}
    expected = model.map_by_formula(name, **value)
    result = sw.attribute(model, value, explain=name, method="grad_cam", layer="encoder", target=1)
    assert far(result.values, expected) < 1e-13
    if name == "left":  # the last layer that depends on this input, although another one runs later
        default = sw.attribute(model, value, explain=name, method="grad_cam", target=1)
        assert default.layer == "encoder"
        assert far(default.values, expected) < 1e-13


def test_a_layer_of_another_input_and_two_images_at_once_are_refused():
    model, value = Siamese(), {"left": images(1, 2, 3, 8, 8), "right": images(2, 2, 3, 8, 8)}
    with pytest.raises(ValueError, match=r"layer: 'other' does not depend on the explained input"):
        sw.attribute(model, value, explain="left", method="grad_cam", layer="other", target=1)
    with pytest.raises(ValueError, match=r"explain: a class activation map explains a single.*\['left', 'right'\]"):
        sw.attribute(model, value, method="layer_cam", target=1)


class Patches(nn.Module):
    """A transformer of patches, which need not cover the image, with class tokens and an optional text input."""

    def __init__(self, patch, registers=1):
        super().__init__()
        torch.manual_seed(0)
        self.cut = nn.Conv2d(3, 8, patch, stride=patch)
        self.first = nn.Parameter(torch.randn(1, registers, 8))
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True) for _ in range(3))
        self.texts = nn.ModuleList(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True) for _ in range(2))
        self.head = nn.Linear(8, 3)
        self.double().eval()

    def forward(self, x, text=None):
        tokens = torch.cat([self.first.expand(len(x), -1, -1), self.cut(x).flatten(2).transpose(1, 2)], 1)
        for block in self.blocks:
            tokens = block(tokens)
        read = self.head(tokens[:, 0])
        for block in self.texts if text is not None else ():
            text = block(text)
        return read if text is None else read * text.mean((1, 2))[:, None]


@each(
    ("size", "patch", "registers", "grid"),
    [(30, 7, 1, (4, 4)), (50, 16, 1, (3, 3)), (32, 8, 5, (4, 4)), (33, 8, 2, (4, 4)), ((24, 36), 6, 1, (4, 6))],
)
def test_tokens_are_arranged_in_the_grid_of_patches(size, patch, registers, grid):
    height, width = size if isinstance(size, tuple) else (size, size)
    model, x = Patches(patch, registers), images(0, 2, 3, height, width)
    result = sw.attribute(model, x, method="grad_cam", target=1)
    assert result.layer == "blocks.1"
    assert tuple(result.values.shape) == (2, 1, *grid)
    seen = {}
    hook = model.blocks[1].register_forward_hook(lambda _m, _i, out: seen.update(out=out))
    (g,) = torch.autograd.grad(model(x)[:, 1].sum(), seen["out"]) if model(x) is not None else (None,)
    hook.remove()
    on_grid = [t[:, registers:].detach().transpose(1, 2).unflatten(2, grid) for t in (g, seen["out"])]
    expected = (on_grid[0].mean((2, 3), keepdim=True) * on_grid[1]).sum(1, keepdim=True)
    assert far(result.values, expected) < 1e-12
    named = sw.attribute(model, x, method="grad_cam", target=1, layer="blocks.1")
    assert torch.equal(named.values, result.values)


class Block(nn.Module):
    """Attention whose queries, keys and weights pass through modules, as in many implementations."""

    def __init__(self, fused):
        super().__init__()
        self.fused = fused
        self.qkv, self.out, self.norm = nn.Linear(8, 24), nn.Linear(8, 8), nn.LayerNorm(8)
        self.attn = nn.ModuleDict({"q": nn.Identity(), "k": nn.Identity(), "weights": nn.Dropout(0.1)})

    def forward(self, x):
        q, k, v = self.qkv(self.norm(x)).unflatten(2, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        q, k = self.attn["q"](q), self.attn["k"](k)
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = self.attn["weights"]((q @ k.transpose(2, 3) / 2).softmax(3)) @ v
        return x + self.out(y.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("fused", [True, False])
def test_heads_and_attention_weights_are_not_spatial_layers(fused):
    model = Patches(8)
    model.blocks = nn.ModuleList(Block(fused) for _ in range(3)).double()
    x = images(0, 2, 3, 32, 32)
    result = sw.attribute(model, x, method="grad_cam", target=1)
    assert (result.layer, result.values.shape) == ("blocks.1", (2, 1, 4, 4))
    inner = "blocks.1.attn.k" if fused else "blocks.1.attn.weights"
    assert inner not in spatial_layers(runner(model, x).passes)
    with pytest.raises(
        ValueError, match=rf"layer: '{inner}' has an output of shape .*nearest suitable layer.*reshape="
    ):
        sw.attribute(model, x, method="grad_cam", target=1, layer=inner)


def test_the_output_of_a_convolution_function_is_not_the_default():
    """As in the attention maps of DETR's segmentation head, a function convolves the tokens to keys."""

    class Masks(Patches):
        def forward(self, x):
            tokens = self.cut(x).flatten(2).transpose(1, 2)
            for block in self.blocks:
                tokens = block(tokens)
            keys = F.conv2d(tokens.transpose(1, 2).unflatten(2, (4, 4)), self.head.weight[:, :, None, None])
            return (keys.flatten(2) * self.first.sum()).softmax(2).square().sum(2)

    model = Masks(8).eval()
    assert sw.attribute(model, images(0, 1, 3, 32, 32), method="grad_cam", target=1).layer == "blocks.2"
    assert "conv2d #2" in spatial_layers(runner(model, images(0, 1, 3, 32, 32)).passes)


def test_the_output_of_a_segmentation_model_is_not_the_default_layer():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 1)).double()
    assert cam(model).layer == "1"
    assert cam(model, layer="2").values.shape == (2, 1, 8, 8)


def test_patches_that_are_separate_rows_are_not_spatial_without_reshape():
    class PatchesAsRows(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.head = nn.Conv2d(3, 5, 3, padding=1), nn.Linear(5, 4)
            self.double()

        def forward(self, x):
            cut = x.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
            return self.head(self.conv(cut).relu().mean((2, 3))).view(len(x), -1, 4).mean(1)

    def assembled(out):
        return out.unflatten(0, (2, 2, 2)).permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)

    model = PatchesAsRows()
    with pytest.raises(ValueError, match="layer: no layer of this model has a spatial output"):
        cam(model)
    with pytest.raises(ValueError, match=r"layer: 'conv' has an output of shape \(8, 5, 4, 4\).*reshape="):
        cam(model, layer="conv")
    result = cam(model, layer="conv", reshape=assembled)
    a = assembled(model.conv(X.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)))
    expected = by_formula(a, lambda whole: model.head(whole.relu().mean((2, 3))))
    assert far(result.values, expected) < 1e-13


@each(
    ("reshape", "message"),
    [
        (lambda out: out.undefined, "it raised AttributeError"),
        (lambda out: out.long(), "got torch.int64 of shape"),
        (lambda out: out[..., :0], r"got torch.float64 of shape \(2, 5, 4, 0\)"),
        (lambda out: out * float("nan"), "got NaN or infinite numbers"),
        (lambda out: out[0], r"got torch.float64 of shape \(5, 4, 4\)"),
        (lambda out: "no", "got a str"),
    ],
)
def test_an_invalid_result_of_the_reshape_function_is_an_error(reshape, message):
    with pytest.raises(ValueError, match=rf"reshape: the function must turn the output of '3', of shape .*{message}"):
        cam(conv_net(), layer="3", reshape=reshape)


def test_tokens_of_a_text_are_not_spatial():
    model = Patches(8)
    settings = {"x": images(0, 1, 3, 32, 32), "text": rows(0, 1, 20, 8)}
    assert sw.attribute(model, settings, explain="x", method="grad_cam", target=1).layer == "blocks.1"
    with pytest.raises(ValueError, match="does not depend on the explained input"):
        sw.attribute(model, settings, explain="x", method="grad_cam", target=1, layer="texts.1")


def test_channels_before_tokens_are_recognized():
    class Transposed(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.cut, self.head = nn.Conv2d(3, 22, 2, stride=2), nn.Linear(22, 3)
            self.seen, self.mix = nn.Identity(), nn.Identity()
            self.double().eval()

        def forward(self, x):
            tokens = self.seen(self.cut(x).flatten(2).transpose(1, 2))
            return self.head(self.mix(tokens.transpose(1, 2)).mean(2))  # (B, 22, 16): channels before tokens

    model = Transposed()
    by_function = cam(model, layer="mix", reshape=lambda out: out.unflatten(2, (4, 4)))
    assert by_function.values.shape == (2, 1, 4, 4)
    assert torch.equal(cam(model, layer="mix").values, by_function.values)
    assert cam(model).layer == "cut"
