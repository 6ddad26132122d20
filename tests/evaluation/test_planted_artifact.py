"""A network that learned a watermark, which accuracy does not show: maps and ablation do."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import saliency_widgets as sw
from saliency_widgets.demos import planted


@pytest.fixture(scope="module")
def result():
    return planted()


def scores(result, image: np.ndarray) -> torch.Tensor:
    return result.model(torch.from_numpy(image).movedim(-1, 0)[None].float() / 255)[0]


def test_the_watermark_alone_changes_the_class(result):
    assert result.class_names[int(scores(result, result.image).argmax())] == "ball"
    assert result.class_names[int(scores(result, result.without).argmax())] == "box"
    differs = (result.image != result.without).any(-1)
    assert not differs[~result.mark].any()


@pytest.mark.parametrize("method", ["integrated_gradients", "gradient", "smoothgrad"])
def test_the_map_is_concentrated_on_the_watermark(result, method):
    shown = sw.attribute(result.model, result.image, method=method, target="ball",
                         class_names=result.class_names).saliency_map()  # fmt: skip
    density = shown[result.mark].mean() / shown.mean()
    assert density > 8, "the watermark covers 2 % of the image"


def test_ablating_the_watermark_flips_the_class_and_the_same_area_elsewhere_does_not(result):
    ablated = sw.ablate(
        result.model, result.image, result.mark, target="ball", class_names=result.class_names, score="probability",
        fill="neighbors", draws=16,
    )  # fmt: skip
    assert ablated.predictions().index[ablated.predictions()["after"].argmax()] == "box"
    assert ablated.before > 0.9
    assert ablated.after < 0.1
    assert float(ablated.elsewhere.min()) > 0.5
    assert ablated.rank == pytest.approx(1 / 17)


@pytest.mark.soak
def test_the_same_seed_gives_the_same_model_and_image(result):
    again = planted()
    assert torch.equal(again.model[0].weight, result.model[0].weight)
    assert np.array_equal(again.image, result.image)
    before = torch.random.get_rng_state()
    planted(1)
    assert torch.equal(torch.random.get_rng_state(), before)
