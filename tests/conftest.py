"""Fixtures and settings that all tests share."""

from __future__ import annotations

import copy
import os
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import settings
from torch import Tensor, nn

if TYPE_CHECKING:
    from saliency_widgets.demos import Classifier


# Torch's threads spin while they wait: with two, small models run many times slower on a busy machine with few cores.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for processes that tests start: kernels, sweep workers, soak attacks

# Whether an example is correct does not depend on how long it takes.
settings.register_profile("house", deadline=None)
settings.load_profile("house")


@pytest.fixture(scope="session")
def pretrained() -> Classifier:
    """EfficientNet-Lite0 with its ImageNet weights, in float32. Shared: tests must not change it."""
    from saliency_widgets.demos import classifier

    return classifier()


@pytest.fixture(scope="session")
def pretrained64(pretrained: Classifier) -> nn.Module:
    """The same model in float64, in which independent computations agree to many digits."""
    return copy.deepcopy(pretrained.model).double().requires_grad_(False)


@pytest.fixture(scope="session")
def cat() -> Tensor:
    """The cat's face in the sample image "chelsea", normalized for EfficientNet-Lite0.

    Shape (1, 3, 48, 48): small because float64 is slow.
    """
    from saliency_widgets.demos import sample_image

    face = np.array(sample_image("chelsea").crop((60, 20, 300, 260)).resize((48, 48)))
    return (torch.from_numpy(face).movedim(-1, 0).double() - 127)[None] / 128
