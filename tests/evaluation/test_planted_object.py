"""A planted nodule: maps lie on it rather than on a vessel that is as bright, and the prediction turns without it."""

import pytest
import torch

import saliency_widgets as sw
from saliency_widgets.attribution import Reduction
from saliency_widgets.demos.volume import scans
from saliency_widgets.evaluation.ranking import top

CLEAR, NODULE = 0, 1


@pytest.fixture(scope="module")
def planted():
    return scans()


@pytest.fixture(scope="module")
def box(planted):
    """The box around the nodule."""
    first, last = planted.nodule.nonzero().amin(0), planted.nodule.nonzero().amax(0) + 1
    mask = torch.zeros_like(planted.nodule)
    mask[tuple(slice(a, b) for a, b in zip(first.tolist(), last.tolist(), strict=True))] = True
    return mask


def test_the_network_reads_the_scans(planted):
    assert int(planted.model(planted.scan[None, None]).argmax()) == NODULE
    assert int(planted.model(planted.without[None, None]).argmax()) == CLEAR
    assert not bool((planted.nodule & planted.vessel).any())


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("input_x_gradient", {}),
        ("integrated_gradients", {}),
        ("integrated_gradients", {"baseline": "blur"}),
        ("guided_backprop", {}),
    ],
)
def test_maps_lie_on_the_nodule(planted, method, settings):
    result = sw.attribute(planted.model, planted.scan, slices="axial", method=method, target=NODULE, **settings)
    values = result.reduced(Reduction("positive"))
    # The nodule is a 150th of the scan: a map that is spread evenly has a share of 0.007.
    assert float(planted.nodule.double().mean()) < 0.01
    assert float(values[planted.nodule].sum() / values.sum()) > 0.3
    assert float(values[planted.nodule].sum()) > 4 * float(values[planted.vessel].sum())
    assert float(planted.nodule[top(values, 0.003)].double().mean()) > 0.5


@pytest.mark.parametrize("fill", ["blur", "zero", "mean", "noise"])
def test_the_prediction_turns_without_the_nodule(planted, box, fill):
    settings = {"slices": "axial", "target": NODULE, "fill": fill, "draws": 0}
    result = sw.ablate(planted.model, planted.scan, box, **settings)
    assert int(result.logits_before.argmax()) == NODULE
    assert int(result.logits_after.argmax()) == CLEAR


def test_a_layers_map_is_near_the_nodule(planted):
    result = sw.attribute(planted.model, planted.scan, slices="axial", method="layer_cam", target=NODULE)
    peak = torch.stack(torch.unravel_index(result.reduced(Reduction("positive")).argmax(), planted.scan.shape))
    # A unit of the last layer sees 17 voxels, and needn't have its evidence in the middle of them.
    distances = (planted.nodule.nonzero() - peak).abs().amax(1)
    assert int(distances.min()) <= 8


def test_the_demo_opens_an_explorer_on_the_nodule():
    explorer = sw.demo("volume", executor="inline")
    assert explorer.kind == "volume"
    assert explorer.controls["target"] == NODULE
    assert explorer.view.scene["planes"] == ["Axial", "Coronal", "Sagittal"]
    explorer.close()


def test_the_map_deletes_the_score_faster_than_chance(planted):
    """With the default fill: a scan without anything must not look like a nodule."""
    quick = {"steps": 20, "stages": 1, "turns": 1, "draws": 1, "progress": False}
    table = sw.evaluate(planted.model, planted.scan, ["integrated_gradients"], target=NODULE, slices="axial", **quick)
    (row,) = table.itertuples()
    assert row.deletion < 0.5 * row.deletion_chance
    assert row.insertion > 0.5
