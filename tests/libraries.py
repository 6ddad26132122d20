"""Libraries of models that the tests run: torchvision, timm and transformers."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch


def import_torchvision() -> ModuleType:
    """Torchvision without its own operators (nms, deformable convolutions) where they don't load.

    The wheel of the package index is built for CUDA; beside a CPU build of torch its operators are missing, and the
    import fails where it describes them.
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
    """Timm, with its models registered."""
    import_torchvision()
    import timm

    return timm


def import_transformers() -> ModuleType:
    """Transformers, without what it says about missing parts."""
    import_torchvision()
    import transformers

    transformers.utils.logging.set_verbosity_error()
    return transformers
