"""Fixtures that several rooms' tests share."""

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


# Threads that wait for each other spin: on a busy machine of few cores small models run many times slower with two.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # in the processes that tests start: kernels, workers of sweeps, attacks

# How long an example takes says nothing about whether it is right.
settings.register_profile("house", deadline=None)
settings.load_profile("house")


@pytest.fixture(scope="session")
def pretrained() -> Classifier:
    """EfficientNet-Lite0 with its ImageNet weights, float32. Not to be changed."""
    from saliency_widgets.demos import classifier

    return classifier()


@pytest.fixture(scope="session")
def pretrained64(pretrained: Classifier) -> nn.Module:
    """The same in float64, where two ways of computing agree to many digits."""
    return copy.deepcopy(pretrained.model).double().requires_grad_(False)


@pytest.fixture(scope="session")
def cat() -> Tensor:
    """The face of chelsea, the cat, as EfficientNet-Lite0 sees it; (1, 3, 48, 48), small because float64 is slow."""
    from saliency_widgets.demos import sample_image

    face = np.array(sample_image("chelsea").crop((60, 20, 300, 260)).resize((48, 48)))
    return (torch.from_numpy(face).movedim(-1, 0).double() - 127)[None] / 128
