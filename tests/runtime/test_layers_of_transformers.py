"""The default layer of class activation maps in Hugging Face's image models, and the patch that each cell belongs to.

``make layers`` prints the same for all architectures of Hugging Face and timm.
"""

import pytest
import torch
from toys import far, output_of

import saliency_widgets as sw
from saliency_widgets.attribution.score import Score
from saliency_widgets.runtime.layers.hooks import tensor_in
from saliency_widgets.runtime.layers.selection import spatial_layers
from saliency_widgets.session.problem import Problem

PLAIN = {"image_size": 32, "patch_size": 8, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
SMALL = {**PLAIN, "num_labels": 5, "intermediate_size": 32}
DETECTOR = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "num_queries": 64,
    "num_labels": 3,
    "use_timm_backbone": False,
    "use_pretrained_backbone": False,
    "backbone": None,
}
# Class, configuration, image size, ending of the default layer's path, grid, number of tokens before the patches.
MODELS = {
    "ViT": ("ViTForImageClassification", SMALL, (32, 32), "1", (4, 4), 1),
    "DeiT, distilled": ("DeiTForImageClassificationWithTeacher", SMALL, (32, 32), "1", (4, 4), 2),
    "DINOv2": ("Dinov2ForImageClassification", SMALL, (32, 32), "2", (4, 4), 1),
    "DINOv2 with registers": (
        "Dinov2WithRegistersForImageClassification",
        {**SMALL, "num_register_tokens": 4},
        (32, 32),
        "2",
        (4, 4),
        5,
    ),
    "BEiT, mean pooling": ("BeitForImageClassification", SMALL, (32, 32), "2", (4, 4), 1),
    "YOLOS": (
        "YolosForObjectDetection",
        {**SMALL, "image_size": [24, 40], "num_detection_tokens": 9},
        (24, 40),
        "1",
        (3, 5),
        1,
    ),
    "CLIP": ("CLIPVisionModelWithProjection", {**SMALL, "projection_dim": 5}, (32, 32), "1", (4, 4), 1),
    "SigLIP": ("SiglipVisionModel", SMALL, (32, 32), "2", (4, 4), 0),
    "Swin": (
        "SwinForImageClassification",
        {"image_size": 32, "patch_size": 2, "embed_dim": 8, "depths": [2, 2], "num_heads": [2, 2], "window_size": 4},
        (32, 32),
        "blocks.1",
        (8, 8),
        0,
    ),
    "PVT": ("PvtV2ForImageClassification", None, (64, 64), None, (2, 2), 0),
    "DETR": ("DetrForObjectDetection", DETECTOR, (64, 64), "encoder.layers.0", (8, 8), 0),
}


@pytest.fixture(scope="module")
def transformers():
    library = pytest.importorskip("transformers")
    library.utils.logging.set_verbosity_error()
    return library


def make_model(transformers, name):
    kind, settings, size, *_ = MODELS[name]
    torch.manual_seed(0)
    if name == "DETR":
        backbone = transformers.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", out_features=["stage2"]
        )
        settings = {**settings, "backbone_config": backbone}
    if name == "PVT":
        settings = {
            "image_size": 64,
            "hidden_sizes": [8, 8, 16, 16],
            "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 1, 2, 2],
            "num_labels": 5,
        }
    kind = getattr(transformers, kind)
    model = kind(kind.config_class(**settings)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():  # the initial weights are so small that no change would be visible
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.2)
    return model, torch.randn(1, 3, *size, dtype=torch.float64)


def score(output):
    """Return one score per image from any output; for detectors, that of one query."""
    values = output.values() if isinstance(output, dict) else output
    scores = next(value for value in values if isinstance(value, torch.Tensor)).flatten(1)
    return scores[:, min(7, scores.shape[1] - 1)]


@pytest.mark.parametrize("name", MODELS)
def test_the_default_layer_is_the_last_block_on_the_grid_that_the_score_depends_on(transformers, name):
    model, x = make_model(transformers, name)
    _, _, _, ending, grid, before = MODELS[name]
    result = sw.attribute(model, x, method="grad_cam", target=score)
    assert ending is None or result.layer.endswith(f".{ending}")
    assert tuple(result.values.shape[2:]) == grid
    assert bool(result.values.any())

    seen = {}
    hook = model.get_submodule(result.layer).register_forward_hook(lambda _m, _i, o: seen.update(a=tensor_in(o)))
    value = score(model(x))
    hook.remove()
    (gradient,) = torch.autograd.grad(value.sum(), seen["a"])
    count = grid[0] * grid[1]
    a, g = (
        t if t.ndim == 4 else t[:, before : before + count].mT.unflatten(2, grid)
        for t in (seen["a"].detach(), gradient)
    )
    assert far(result.values, (g.mean((2, 3), keepdim=True) * a).sum(1, keepdim=True)) < 1e-10


@pytest.mark.parametrize("name", [name for name in MODELS if name not in ("DETR", "PVT")])  # these mix patches
def test_changing_a_patch_changes_its_cell_most(transformers, name):
    model, x = make_model(transformers, name)
    layers = spatial_layers(Problem(model, x).runner(Score("value", score)).passes)
    path = sw.attribute(model, x, method="grad_cam", target=score).layer
    layer, (height, width) = layers[path], x.shape[2:]
    h, w = layer.layout.grid
    unchanged, hits = output_of(model, path, x), 0
    for cell in range(0, h * w, 3):
        row, column = divmod(cell, w)
        changed = x.clone()
        changed[..., row * height // h : (row + 1) * height // h, column * width // w : (column + 1) * width // w] += 1
        change = layer.layout.read(output_of(model, path, changed) - unchanged)[0].norm(dim=0)
        hits += int(change.argmax()) == cell
    assert hits / len(range(0, h * w, 3)) > 0.6  # by chance it would be 1 / 15 or less
