"""Positions of activations on the image, checked with pixels that hold their position and by changing patches."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from toys import each, far, images, output_of, runner

import saliency_widgets as sw
from saliency_widgets.runtime.layers.coordinates import Coordinates
from saliency_widgets.runtime.layers.selection import spatial_layers


def numbered(height, width, channels=1):
    """Return an image whose pixel values are the pixels' indices."""
    return torch.arange(float(height * width)).view(1, 1, height, width).repeat(1, channels, 1, 1)


def traced(x, function):
    with Coordinates().begin(x) as coordinates:
        result = function(x)
        return result, coordinates.placed(result), coordinates


def written_in_parts(t):
    half = t.shape[-1] // 2
    result = t.clone()
    result[..., :half], result[..., half:] = t[..., -half:] if half else t[..., :0], t[..., : t.shape[-1] - half]
    return result


def written_at(t, rows):
    result = torch.zeros_like(t)
    result[..., rows, :] = t
    return result


MOVES = {
    "transpose": lambda t: t.transpose(-1, -2),
    "flatten": lambda t: t.reshape(t.shape[0], -1, t.shape[-1]),
    "first to last": lambda t: t.movedim(1, -1).contiguous(),
    "roll": lambda t: t.roll((1, 2), (-1, -2)),
    "flip": lambda t: t.flip(-1),
    "halves": lambda t: torch.cat(t.chunk(2, -1)[::-1], -1),
    "every second": lambda t: t[..., ::2],
    "selected": lambda t: t[..., torch.arange(t.shape[-1] - 1, -1, -1)],
    "windows": lambda t: t.unflatten(-1, (2, -1)).movedim(-2, 1).clone() if t.shape[-1] % 2 == 0 else t,
    "twice": lambda t: torch.stack((t, t), 1)[:, 1],
    "expanded": lambda t: t[:, None].expand(-1, 3, *t.shape[1:]).reshape(t.shape[0], -1, t.shape[-1]),
    "in place": lambda t: t.clone().mul_(1).add_(0),
    "written in parts": lambda t: written_in_parts(t),
    "written at rows": lambda t: written_at(t, torch.arange(t.shape[-2]).flip(0)),
    "copied into": lambda t: t.clone().copy_(t.flip(-1)),
    "gathered": lambda t: t.gather(-1, torch.arange(t.shape[-1]).flip(0).expand(t.shape)),
}


@given(st.lists(st.sampled_from(list(MOVES)), max_size=5))
def test_operations_that_move_pixels_move_their_positions_alike(moves):
    def chain(x):
        for move in moves:
            x = MOVES[move](x)
        return x

    result, positions, _ = traced(numbered(4, 8, 2), chain)
    row, column = positions.real - 0.5, positions.imag - 0.5
    assert torch.equal(row * 8 + column, result)


X = images(0, 1, 3, 24, 36)
KERNEL = torch.ones(5, 3, 6, 6).double()
CUTS = {
    "a convolution": lambda x: F.conv2d(x, torch.ones(5, 3, 6, 6).double(), stride=6),
    "unfold": lambda x: F.unfold(x, 6, stride=6).unflatten(2, (4, 6)),
    "reshaped patches": lambda x: (
        x.view(1, 3, 4, 6, 6, 6).permute(0, 2, 4, 3, 5, 1).reshape(1, 24, -1) @ torch.ones(108, 5).double()
    ).mT.unflatten(2, (4, 6)),
    "pooling": lambda x: F.avg_pool2d(x, 6),
    "a mean over patches": lambda x: x.unflatten(2, (4, 6)).unflatten(4, (6, 6)).mean((3, 5)),
    "pixel_unshuffle": lambda x: F.conv2d(F.pixel_unshuffle(x, 6), torch.ones(2, 108, 1, 1).double()),
    "a convolution after padding": lambda x: F.conv2d(
        F.pad(x, (3, 3, 3, 3)), torch.ones(5, 3, 7, 7).double(), stride=6
    )[..., :4, :6],
    "resized": lambda x: F.interpolate(x, size=(4, 6), mode="bilinear"),
    "upsampled, then pooled": lambda x: F.max_pool2d(F.interpolate(x, scale_factor=2), 12),
}


@each("cut", CUTS)
def test_patches_have_the_positions_of_their_centers(cut):
    _, positions, coordinates = traced(X, CUTS[cut])
    rows, columns = 6 * torch.arange(4) + 3.0, 6 * torch.arange(6) + 3.0
    expected = torch.complex(*torch.meshgrid(rows, columns, indexing="ij"))
    # Padding and overlapping windows move the centers by less than a cell.
    assert float((positions.reshape(1, -1, 4, 6)[0, 0] - expected).abs().max()) < (3 if "padding" in cut else 0.1)
    assert coordinates.layout(positions.reshape(1, -1, 4, 6)).grid == (4, 6)


NO_GRID = {
    "a global mean": lambda x: x.mean((2, 3), keepdim=True).expand(-1, -1, 4, 6),
    "pooled to one cell, and resized": lambda x: F.interpolate(F.adaptive_avg_pool2d(x, 1), size=(4, 6)),
    "pixels sorted": lambda x: x.sort(-1).values,
    "mixed by a matrix": lambda x: (x.flatten(2) @ torch.ones(864, 24).double()).unflatten(2, (4, 6)),
    "queries that attend to it": lambda x: F.scaled_dot_product_attention(
        torch.ones(1, 24, 3).double(), x.flatten(2).mT, x.flatten(2).mT
    ).mT.unflatten(2, (4, 6)),
    "columns cut out of the middle": lambda x: torch.cat([x[..., :12], x[..., 24:]], 3),
    "the first rows": lambda x: F.avg_pool2d(x[..., :4, :], 4),
    "the corners": lambda x: F.avg_pool2d(x, 6)[..., ::3, ::5],
    "an attention matrix": lambda x: (x.flatten(2).mT @ x.flatten(2)).softmax(-1)[:, None],
    "a spectrum": lambda x: torch.fft.fft2(x).real,
    "one corner": lambda x: x[..., :12, :18],
    "channels": lambda x: torch.einsum("bchw,bdhw->bcd", x, x)[..., None].expand(-1, -1, -1, 4),
}


@each("operation", NO_GRID)
def test_an_output_that_does_not_cover_the_image_has_no_grid(operation):
    _, positions, coordinates = traced(X, NO_GRID[operation])
    assert positions is None or coordinates.layout(positions) is None


TRANSFORMS = {
    "mirrored": lambda x: F.conv2d(x.flip(3), KERNEL, stride=6),
    "upside down": lambda x: F.conv2d(x.rot90(2, (2, 3)), KERNEL, stride=6),
    "transposed": lambda x: F.conv2d(x.transpose(2, 3), KERNEL, stride=6),
    "wrapped around": lambda x: F.conv2d(F.pad(x, (2, 3, 3, 2), mode="circular"), KERNEL, stride=6)[..., :4, :6],
    "reflected": lambda x: F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), KERNEL, stride=6),
    "repeated": lambda x: F.conv2d(x.repeat_interleave(2, 2).repeat_interleave(2, 3), KERNEL, stride=6)[..., ::2, ::2],
    "folded": lambda x: F.conv2d(F.fold(F.unfold(x, 6, stride=6), (24, 36), 6, stride=6), KERNEL, stride=6),
}


@each("transform", TRANSFORMS)
def test_a_transformed_image_is_mapped_back_to_the_original(transform):
    """The brightest cell of the map is that of the only bright patch."""
    x = torch.zeros(1, 3, 24, 36).double()
    x[..., 6:12, 24:30] = 1
    result, positions, coordinates = traced(x, TRANSFORMS[transform])
    cells = coordinates.layout(positions).read(result)[0].sum(0)
    assert cells.shape == (4, 6)
    assert divmod(int(cells.argmax()), 6) == (1, 4)


def test_padding_around_an_image_is_cropped():
    """The image is padded to a square: the cells in the padding are not part of the map."""
    x = torch.zeros(1, 3, 24, 48).double()
    x[..., 18:24, :] = 1
    result, positions, coordinates = traced(x, lambda x: F.conv2d(F.pad(x, (0, 0, 12, 12)), KERNEL, stride=6))
    cells = coordinates.layout(positions).read(result)[0].sum(0)
    assert cells.shape == (4, 8)
    assert bool((cells[3] > 0).all())
    assert not bool(cells[:3].any())


def test_positions_that_were_read_do_not_change_with_later_writes():
    x = numbered(4, 8)
    with Coordinates().begin(x) as coordinates:
        t = x.clone()
        t[..., :4], t[..., 4:] = x[..., 4:], x[..., :4]
        swapped, layout = coordinates.of(t), coordinates.layout(coordinates.of(t))
        t[..., :4], t[..., 4:] = x[..., :4], x[..., 4:]
        restored = coordinates.of(t)
        assert coordinates.layout(restored) != layout
    assert torch.equal(swapped.imag - 0.5, (x + 4) % 8)
    assert torch.equal(restored.imag - 0.5, x % 8)


def test_a_branch_with_global_pooling_does_not_affect_other_branches():
    """As in DeepLab: convolutions at several rates and a global mean, concatenated and mixed by a convolution."""

    def pyramid(x):
        branches = [F.conv2d(x, torch.ones(2, 3, 3, 3).double(), padding=rate, dilation=rate) for rate in (1, 2)]
        overall = F.interpolate(F.adaptive_avg_pool2d(x, 1), size=x.shape[2:])
        return F.conv2d(torch.cat([overall, *branches], 1), torch.ones(4, 7, 1, 1).double())

    _, positions, coordinates = traced(X, pyramid)
    layout = coordinates.layout(positions)
    assert (layout.grid, layout.image) == ((24, 36), True)


def test_tokens_of_patches_are_read_in_any_order_among_other_tokens():
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0))

    def tokens(x):
        patches = F.unfold(x, 6, stride=6).mT
        others = torch.zeros(1, 2, patches.shape[2]).double()
        return torch.cat([others, patches[:, order[:10]], others[:, :1], patches[:, order[10:]]], 1)

    result, positions, coordinates = traced(X, tokens)
    layout = coordinates.layout(positions)
    assert layout.grid == (4, 6)
    assert torch.equal(layout.read(result), F.unfold(X, 6, stride=6).unflatten(2, (4, 6)))


# ---- models, compared with how their layers change with a patch


class Encoder(nn.Module):
    """A transformer of patches, with additional tokens before and after them."""

    def __init__(self, before, after, *, sequence_first=False, width=16):
        super().__init__()
        torch.manual_seed(0)
        self.cut = nn.Conv2d(3, width, 8, stride=8)
        self.before, self.after = (nn.Parameter(torch.randn(1, n, width)) for n in (before, after))
        self.blocks = nn.Sequential(
            *[
                nn.TransformerEncoderLayer(width, 2, 2 * width, batch_first=not sequence_first, norm_first=True)
                for _ in range(3)
            ]
        )
        self.sequence_first, self.head = sequence_first, nn.Linear(width, 3)
        self.double().eval()

    def tokens(self, x):
        patches = self.cut(x).flatten(2).mT
        others = [part.expand(len(x), -1, -1) for part in (self.before, self.after)]
        tokens = torch.cat([others[0], patches, others[1]], 1)
        return tokens.transpose(0, 1) if self.sequence_first else tokens

    def forward(self, x):
        tokens = self.blocks(self.tokens(x))
        return self.head((tokens.transpose(0, 1) if self.sequence_first else tokens).mean(1))


@each("sequence_first", [False, True])
@each(("before", "after"), [(0, 0), (1, 0), (2, 0), (5, 0), (0, 1), (1, 9), (12, 12)])
def test_changing_a_patch_changes_its_cell_most(before, after, sequence_first):
    model, x = Encoder(before, after, sequence_first=sequence_first), images(0, 2, 3, 24, 40)
    layers = spatial_layers(runner(model, x).passes)
    assert [layers[path].shape for path in ("blocks.0", "blocks.1", "blocks.2", "blocks")] == [(16, 3, 5)] * 4
    unchanged = output_of(model, "blocks.1", x[:1])
    for row, column in ((0, 0), (0, 4), (1, 2), (2, 1), (2, 4)):
        changed = x[:1].clone()
        changed[..., 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] += 1
        change = layers["blocks.1"].layout.read(output_of(model, "blocks.1", changed) - unchanged)
        assert int(change[0].norm(dim=0).argmax()) == 5 * row + column


@pytest.mark.parametrize(("before", "after"), [(2, 0), (5, 0), (1, 9)])
def test_the_map_of_blocks_of_tokens_equals_the_formula(before, after):
    model, x = Encoder(before, after), images(0, 2, 3, 24, 40)
    for layer, count in (("blocks.1", 2), ("blocks", 3)):
        tokens = model.blocks[:count](model.tokens(x)).detach().requires_grad_()
        (gradient,) = torch.autograd.grad(model.head(model.blocks[count:](tokens).mean(1))[:, 1].sum(), tokens)
        a, g = (t[:, before : before + 15].mT.unflatten(2, (3, 5)) for t in (tokens.detach(), gradient))
        expected = (g.mean((2, 3), keepdim=True) * a).sum(1, keepdim=True)
        assert far(sw.attribute(model, x, method="grad_cam", target=1, layer=layer).values, expected) < 1e-12
    assert torch.equal(
        sw.attribute(model, x, method="grad_cam", target=1).values,
        sw.attribute(model, x, method="grad_cam", target=1, layer="blocks").values,
    )


def test_a_fixed_pooling_grid_is_not_taken_for_a_grid_with_channels_last():
    """For an image of 24 x 36 pixels, 4 channels of 6 x 6 cells have the shape of a 4 x 6 grid with 6 channels."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(6), nn.Flatten(), nn.Linear(144, 3)).double()
    result = sw.attribute(model, X, method="grad_cam", target=1)
    a = model[:2](X).detach().requires_grad_()
    (g,) = torch.autograd.grad(model[2:](a)[:, 1].sum(), a)
    assert result.values.shape == (1, 1, 6, 6)
    assert far(result.values, (g.mean((2, 3), keepdim=True) * a).sum(1, keepdim=True).detach()) < 1e-13


def test_channels_last_are_recognized_in_a_grid_of_the_same_size():
    class ChannelsLast(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.cut, self.blocks = (
                nn.Conv2d(3, 4, 6, stride=6),
                nn.ModuleList([nn.Sequential(nn.LayerNorm(4), nn.Tanh())]),
            )
            self.head = nn.Linear(4, 3)
            self.double()

        def forward(self, x):
            x = self.cut(x).movedim(1, -1)
            for block in self.blocks:
                x = block(x)
            return self.head(x.square().mean((1, 2)))

    model, x = ChannelsLast(), images(0, 2, 3, 24, 24)
    a = model.blocks[0](model.cut(x).movedim(1, -1)).detach().requires_grad_()
    (g,) = torch.autograd.grad(model.head(a.square().mean((1, 2)))[:, 1].sum(), a)
    expected = (g.mean((1, 2), keepdim=True) * a).sum(-1)[:, None].detach()
    result = sw.attribute(model, x, method="grad_cam", target=1)
    assert result.layer == "blocks.0"
    assert far(result.values, expected) < 1e-13


class Windows(nn.Module):
    """Attention inside shifted windows, as in Swin transformers, with the channels last."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.cut, self.head = nn.Conv2d(3, 8, 4, stride=4), nn.Linear(8, 3)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.window, self.mlp = nn.Identity(), nn.Sequential(nn.Linear(8, 8), nn.GELU())
        self.blocks = nn.ModuleList([nn.Sequential(nn.LayerNorm(8), nn.Identity())])
        self.double().eval()

    def forward(self, x):
        x = self.cut(x).movedim(1, -1)  # (B, 8, 8, C)
        shifted = x.roll((-1, -1), (1, 2)).unflatten(1, (2, 4)).unflatten(3, (2, 4))
        windows = self.window(shifted.transpose(2, 3).flatten(0, 2).flatten(1, 2))  # (4 B, 16, C)
        mixed = self.attention(windows, windows, windows)[0].view(len(x), 2, 2, 4, 4, 8).transpose(2, 3)
        x = mixed.reshape(len(x), 8, 8, 8).roll((1, 1), (1, 2)) + x
        return self.head(self.mlp(self.blocks[0](x)).mean((1, 2)))


def test_shifted_windows_are_mapped_back_to_the_grid():
    model, x = Windows(), images(0, 2, 3, 32, 32)
    layers = spatial_layers(runner(model, x).passes)
    assert layers["blocks.0"].shape == (8, 8, 8)
    assert "window" not in layers
    with pytest.raises(ValueError, match=r"layer: 'window' has an output of shape .*reshape="):
        sw.attribute(model, x, method="grad_cam", target=1, layer="window")
    unchanged = output_of(model, "blocks.0", x[:1])
    for row, column in ((0, 0), (3, 4), (7, 7)):
        changed = x[:1].clone()
        changed[..., 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 1
        change = layers["blocks.0"].layout.read(output_of(model, "blocks.0", changed) - unchanged)
        assert int(change[0].norm(dim=0).argmax()) == 8 * row + column


class Sorted(nn.Module):
    """Sorts its tokens by a score that depends on the image."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.cut, self.head = nn.Conv2d(3, 8, 8, stride=8), nn.Linear(8, 3)
        self.blocks = nn.ModuleList([nn.TransformerEncoderLayer(8, 2, 16, batch_first=True) for _ in range(2)])
        self.double().eval()

    def tokens(self, x):
        tokens = self.cut(x).flatten(2).mT
        self.order = tokens[..., 0].argsort(1)
        return tokens.gather(1, self.order[..., None].expand_as(tokens))

    def forward(self, x):
        tokens = self.tokens(x)
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(tokens.square().mean(1))


def test_tokens_in_a_different_order_per_image_need_one_image_at_a_time():
    model, x = Sorted(), images(0, 2, 3, 32, 32)
    with pytest.raises(ValueError, match=r"layer: the tokens of 'blocks.1' are in a different order for each image"):
        sw.attribute(model, x, method="grad_cam", target=1)
    for image in x[:, None]:
        result = sw.attribute(model, image, method="grad_cam", target=1)
        tokens = model.blocks[1](model.blocks[0](model.tokens(image))).detach().requires_grad_()
        (g,) = torch.autograd.grad(model.head(tokens.square().mean(1))[:, 1].sum(), tokens)
        cam = (g.mean(1, keepdim=True) * tokens).sum(2).detach()
        expected = torch.zeros_like(cam).scatter(1, model.order, cam).view(1, 1, 4, 4)
        assert far(result.values, expected) < 1e-12


class Single(nn.Module):
    """Single-head attention, whose weights go through a module."""

    def __init__(self):
        super().__init__()
        self.qkv, self.drop = nn.Linear(8, 24), nn.Dropout()

    def forward(self, x):
        q, k, v = self.qkv(x)[:, None].chunk(3, -1)
        return x + (self.drop((q @ k.mT).softmax(-1)) @ v)[:, 0]


class Attributes(nn.Module):
    """Blocks that are attributes, not list items, and later blocks that the score does not depend on."""

    def __init__(self, unread=0):
        super().__init__()
        torch.manual_seed(0)
        self.cut, self.head = nn.Conv2d(3, 8, 8, stride=8), nn.Linear(8, 3)
        self.block1, self.block2 = Single(), Single()
        self.unread = nn.ModuleList([Single() for _ in range(unread)])
        self.double().eval()

    def forward(self, x):
        tokens = self.block2(self.block1(self.cut(x).flatten(2).mT))
        scores = self.head(tokens.square().mean(1))
        for block in self.unread:
            tokens = block(tokens)
        return {"logits": scores, "rest": tokens}


@pytest.mark.parametrize("unread", [0, 6])
def test_the_default_layer_is_the_last_block_that_the_score_depends_on(unread):
    model, x = Attributes(unread), images(0, 1, 3, 32, 32)
    assert sw.attribute(model, x, method="grad_cam", target=1).layer == "block2"
    with pytest.raises(ValueError, match=r"layer: 'block2.drop' has .*nearest suitable layer is 'block2'"):
        sw.attribute(model, x, method="grad_cam", target=1, layer="block2.drop")


def test_a_head_inside_vmap_hides_no_other_layer():
    class Ensemble(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.lin = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)
            self.double()

        def forward(self, x):
            return torch.vmap(self.lin)(self.conv(x).relu().mean((2, 3)))

    assert sw.attribute(Ensemble(), X, method="grad_cam", target=1).layer == "conv"


def test_a_note_says_that_later_convolutions_have_no_position():
    class Spectral(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.first, self.second, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 3)
            self.double()

        def forward(self, x):
            return self.head(self.second(torch.fft.fft2(self.first(x)).real).relu().mean((2, 3)))

    result = sw.attribute(Spectral(), X, method="grad_cam", target=1)
    assert result.layer == "first"
    assert any(note.startswith("Convolutions after the layer 'first' can't be assigned") for note in result.notes)


class Decoder(nn.Module):
    """A detector: learned queries attend to the encoder's tokens; by default as many queries as patches."""

    def __init__(self, queries=16):
        super().__init__()
        torch.manual_seed(0)
        self.cut, self.queries = nn.Conv2d(3, 8, 8, stride=8), nn.Parameter(torch.randn(1, queries, 8))
        self.encoder = nn.ModuleList([nn.TransformerEncoderLayer(8, 2, 16, batch_first=True) for _ in range(2)])
        self.decoder = nn.ModuleList([nn.TransformerDecoderLayer(8, 2, 16, batch_first=True) for _ in range(2)])
        self.head = nn.Linear(8, 3)
        self.double().eval()

    def forward(self, x):
        tokens = self.cut(x).flatten(2).mT
        for block in self.encoder:
            tokens = block(tokens)
        queries = self.queries.expand(len(x), -1, -1)
        for block in self.decoder:
            queries = block(queries, tokens)
        return self.head(queries)[:, 2]


@pytest.mark.parametrize("queries", [16, 100])
def test_the_queries_of_a_decoder_have_no_position(queries):
    model, x = Decoder(queries), images(0, 2, 3, 32, 32)
    result = sw.attribute(model, x, method="grad_cam", target=1)
    assert (result.layer, tuple(result.values.shape)) == ("encoder.1", (2, 1, 4, 4))
    for layer in ("decoder.0", "decoder.1", "decoder.1.linear2"):
        with pytest.raises(
            ValueError, match=rf"layer: '{layer}' .*The nearest suitable layer is 'encoder\.1.*reshape="
        ):
            sw.attribute(model, x, method="grad_cam", target=1, layer=layer)
        with pytest.raises(ValueError, match=rf"reshape: '{layer}' "):
            sw.attribute(model, x, method="grad_cam", target=1, layer=layer, reshape="tokens")


def test_a_model_that_reads_only_a_crop_has_no_default_layer():
    class Crop(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3).double(), nn.Linear(4, 3).double()

        def forward(self, x):
            return self.head(self.conv(x[..., :12, :12]).mean((2, 3)))

    with pytest.raises(ValueError, match="layer: no layer of this model has a spatial output"):
        sw.attribute(Crop(), images(0, 1, 3, 32, 32), method="grad_cam", target=1)
    shown = sw.attribute(
        Crop(), images(0, 1, 3, 32, 32), method="grad_cam", target=1, layer="conv", reshape="channels first"
    )
    assert shown.values.shape == (1, 1, 10, 10)


def test_the_first_convolution_defines_the_grid_of_an_input_that_is_not_an_image():
    class Spectrogram(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.pool, self.head = nn.Conv2d(1, 4, 3, padding=1), nn.MaxPool2d(2), nn.Linear(4, 3)
            self.double()

        def forward(self, x):
            return self.head(self.pool(self.conv(x.view(-1, 1, 8, 12).cumsum(3))).mean((2, 3)))

    result = sw.attribute(Spectrogram(), images(0, 2, 1, 1, 96)[:, 0, 0], method="grad_cam", target=1)
    assert (result.layer, result.values.shape[2:]) == ("pool", (4, 6))


def test_no_dispatch_mode_stays_active_when_a_pass_fails():
    class Fails(nn.Module):
        def forward(self, x):
            raise RuntimeError("no")

    with pytest.raises(ValueError, match="no"):
        spatial_layers(runner(Fails(), X).passes)
    assert torch._C._len_torch_dispatch_stack() == 0
    assert math.isfinite(float(traced(X, lambda x: x)[1].real.sum()))
