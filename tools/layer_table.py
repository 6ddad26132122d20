"""Print, for image models of timm and transformers, which layer Grad-CAM uses and whether it is aligned with the image.

One model of each architecture is made with random weights. Then single patches of the image are changed: the cell of
the layer's grid that changes most should be the patch's, or one next to it. Deep networks with random weights blur
this, so a miss is a reason to look closer, not a fault by itself.

    python tools/layer_table.py [timm | transformers] [name ...]
"""

from __future__ import annotations

import gc
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

import saliency_widgets as sw
from saliency_widgets.attribution.score import Score
from saliency_widgets.runtime.layers.hooks import Tap
from saliency_widgets.runtime.layers.selection import Spatial, spatial_layers
from saliency_widgets.runtime.model.isolation import isolated_copy
from saliency_widgets.session.problem import Problem

PATCHES = 6
SMALL = (
    "test_ atto femto pico nano xxs xxt pf tiny _ti _t_ _t0 _s0 n0 _m0 _b0 _050 _035 xs _s12 _12_ 18 10 26 small lite"
)
VARIANTS = (  # models with other tokens, positions or attention than the smallest of their file
    "deit_tiny_distilled_patch16_224 vit_medium_patch16_reg4_gap_256 vit_wee_patch16_reg1_gap_256 "
    "vit_small_patch14_reg4_dinov2 vit_relpos_small_patch16_224 vit_tiny_r_s16_p8_224 vit_base_patch16_siglip_224 "
    "swinv2_cr_tiny_ns_224 botnet26t_256 lambda_resnet26t eca_botnext26ts_256 coatnet_nano_rw_224 resnet18 "
    "maxvit_rmlp_pico_rw_256 vit_srelpos_small_patch16_224 beitv2_base_patch16_224 naflexvit_base_patch16_gap "
    "test_vit2 test_vit3 test_vit4 convformer_s18 caformer_s18"
)
TASKS = "IMAGE_CLASSIFICATION OBJECT_DETECTION SEMANTIC_SEGMENTATION UNIVERSAL_SEGMENTATION DEPTH MASKED_IMAGE"
LAYERS = {"num_hidden_layers": 3, "encoder_layers": 2, "decoder_layers": 2}
Case = tuple[str, Callable[[], tuple[nn.Module, Tensor]]]


def import_torchvision() -> ModuleType:
    """Import torchvision, without its compiled operators (nms, deformable convolutions) if they don't load.

    The wheel on PyPI is built for CUDA. With a CPU build of torch its operators are missing, and the import fails where
    it registers their fake implementations.
    """
    register_fake = torch.library.register_fake

    def register_present(name: Any, *args: Any, **options: Any) -> Callable[..., Any]:
        if isinstance(name, str) and name.startswith("torchvision::"):
            return lambda function: function
        return register_fake(name, *args, **options)

    torch.library.register_fake = register_present
    try:
        import torchvision
    finally:
        torch.library.register_fake = register_fake
    return torchvision


def import_timm() -> ModuleType:
    """Import timm, which registers its models."""
    import_torchvision()
    import timm

    return timm


def import_transformers() -> ModuleType:
    """Import transformers, without its warnings."""
    import_torchvision()
    import transformers

    transformers.utils.logging.set_verbosity_error()
    return transformers


def timm_cases() -> Iterator[Case]:
    """Yield the smallest model of each of timm's files, judging by the names, and some variants."""
    timm = import_timm()
    names = []
    for module in timm.list_modules():
        models = timm.list_models(module=module)
        rank = {name: next((i for i, part in enumerate(SMALL.split()) if part in name), 99) for name in models}
        names += sorted(models, key=lambda name: (rank[name], len(name), name))[:1]
    for name in dict.fromkeys([*names, *VARIANTS.split()]):

        def make(name: str = name) -> tuple[nn.Module, Tensor]:
            model = timm.create_model(name, num_classes=10)
            return model, torch.rand(1, *model.default_cfg.get("input_size", (3, 224, 224))) * 2 - 1

        yield name, make


def transformers_cases() -> Iterator[Case]:
    """Yield each image model of transformers, with its default configuration but few layers."""
    transformers = import_transformers()
    from transformers.models.auto import modeling_auto

    names: dict[str, None] = {}
    for task in (name for name in dir(modeling_auto) if name.endswith("_MAPPING_NAMES") and "ZERO" not in name):
        if any(part in task for part in TASKS.split()):
            for entry in getattr(modeling_auto, task).values():
                names.update(dict.fromkeys(entry if isinstance(entry, (tuple, list)) else [entry]))
    for name in names:

        def make(name: str = name) -> tuple[nn.Module, Tensor]:
            kind = getattr(transformers, name)
            image, problem = image_for(kind.config_class()), None
            for depth in (1, 2, 0):  # few layers; few in its parts too; all, if the number is fixed
                model = kind(shorten(kind.config_class(), depth)).eval()
                try:
                    with torch.no_grad():
                        model(image)
                except Exception as error:
                    problem = error
                else:
                    return model, image
            assert problem is not None
            raise problem

        yield name, make


def shorten(config: Any, depth: int) -> Any:
    """Reduce the layers of a configuration, down to ``depth`` levels of it, and use no pretrained backbone."""
    for key, value in {**(LAYERS if depth else {}), "num_labels": 6, "use_pretrained_backbone": False}.items():
        if isinstance(getattr(config, key, None), int):
            setattr(config, key, value)
    for part in vars(config).values() if depth > 1 else ():
        if hasattr(part, "to_diff_dict"):
            shorten(part, depth - 1)
    return config


def image_for(config: Any) -> Tensor:
    """A random image of the size in a configuration."""
    parts = (config, getattr(config, "vision_config", None), getattr(config, "backbone_config", None))
    size = next((s for part in parts if (s := getattr(part, "image_size", None))), 224)
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    return torch.rand(1, getattr(config, "num_channels", 3) or 3, min(height, 512), min(width, 512)) * 2 - 1


def score_of(model: nn.Module, image: Tensor) -> Callable[[Any], Tensor]:
    """Return a target: a weighted sum of the first tensor of floats in the output that depends on the image."""
    which = next((k for k, t in enumerate(floats_in(model(image.clone().requires_grad_()))) if t.requires_grad), 0)

    def score(output: Any) -> Tensor:
        scores = list(floats_in(output))[which].flatten(1)
        return scores @ torch.linspace(-1, 1, scores.shape[1], dtype=scores.dtype)

    return score


def floats_in(output: Any) -> Iterator[Tensor]:
    """All tensors of floats in an output."""
    if isinstance(output, Tensor):
        yield from [output] if output.is_floating_point() else []
    elif isinstance(output, (dict, tuple, list)):
        for item in output.values() if isinstance(output, dict) else output:
            yield from floats_in(item)


def output_of(model: nn.Module, path: str, image: Tensor) -> Tensor:
    """The output of a layer for an image."""
    with isolated_copy(model, 0) as copy, torch.no_grad(), Tap(copy, path) as tap:
        copy(image)
    return tap.leaf.detach()


def hits(model: nn.Module, path: str, layer: Spatial, image: Tensor) -> int:
    """How often the cell that changes most is that of the changed patch, or one next to it."""
    at_rest, (height, width), (h, w) = output_of(model, path, image), image.shape[-2:], layer.layout.grid
    generator, count = torch.Generator().manual_seed(0), 0
    for _ in range(PATCHES):
        row, column = (int(torch.randint(n, (), generator=generator)) for n in (h, w))
        rows = slice(row * height // h, max((row + 1) * height // h, row * height // h + 1))
        columns = slice(column * width // w, max((column + 1) * width // w, column * width // w + 1))
        moved = image.clone()
        moved[..., rows, columns] += 0.5 * torch.randn(moved[..., rows, columns].shape, generator=generator).to(image)
        change = layer.layout.read(output_of(model, path, moved) - at_rest)[0]
        change = (change - change.mean((1, 2), keepdim=True)).norm(dim=0)  # random attention changes all cells alike
        peak = divmod(int(change.argmax()), w)
        count += abs(peak[0] - row) <= max(1, h // 14) and abs(peak[1] - column) <= max(1, w // 14)
    return count


def describe(make: Callable[[], tuple[nn.Module, Tensor]]) -> str:
    """The text of a model's row."""
    torch.manual_seed(0)
    try:
        model, image = make()
    except Exception as error:
        return f"not made: {type(error).__name__}: {str(error).strip().splitlines()[0][:90]}"
    model.eval()
    for weight in model.parameters():  # heads that are initialized with zeros would hide everything
        if weight.ndim > 1 and not bool(weight.any()):
            nn.init.normal_(weight, std=0.02)
    try:
        score = score_of(model, image)
        layers = spatial_layers(Problem(model, image).runner(Score("logit", score)).passes)
        result = sw.attribute(model, image, method="grad_cam", target=score)
    except ValueError as error:
        return f"refused: {str(error)[:150]}"
    except Exception as error:
        return f"failed: {type(error).__name__}: {str(error).strip()[:90]}"
    assert result.layer is not None
    layer, module = layers[result.layer], dict(model.named_modules()).get(result.layer)
    kind = "no module's" if module is None else type(module).__name__
    _, height, width = layer.shape
    size = " x ".join(map(str, image.shape[2:]))
    try:  # random weights can reduce the change to less than float32's rounding
        near = hits(model.double(), result.layer, layer, image.double())
    except RuntimeError:  # the model itself converts to float32
        near = hits(model.float(), result.layer, layer, image)
    zero = "" if bool(result.values.any()) else " | zero map"
    return f"{result.layer} ({kind}) | {height} x {width} of {size} | {near}/{PATCHES}{zero}"


def main(arguments: list[str]) -> int:
    """Print a row for each model."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    sources: dict[str, Callable[[], Iterable[Case]]] = {"timm": timm_cases, "transformers": transformers_cases}
    chosen = [name for name in arguments if name in sources] or list(sources)
    only = [name for name in arguments if name not in sources]
    for source in chosen:
        for name, make in sources[source]():
            if not only or name in only:
                print(f"| {source} | {name} | {describe(make)} |", flush=True)
                gc.collect()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
