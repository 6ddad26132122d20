"""Properties of Deconvnet. Its backward rule is checked in test_guided_backprop.py, with that of Guided Backprop."""

import pytest
import torch
from torch import nn
from toys import conv_net, far, images, linear, mlp, rows

import saliency_widgets as sw


def deconvnet(model, x, **settings):
    return sw.attribute(model, x, method="deconvnet", **{"target": 1, **settings})


def test_numeric_example():
    """For 2 relu(x1 - x2) - relu(x2), the gradients 2 and -1 reach the ReLUs; -1 is set to 0, whatever the input."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), linear(torch.tensor([2.0, -1.0]).double())).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, -1.0], [0.0, 1.0]]))
    x = torch.tensor([[3.0, 1.0], [1.0, 3.0], [-1.0, -1.0]], dtype=torch.float64)
    result = deconvnet(model, x, score="value", target=None)
    assert torch.equal(result.values, torch.tensor([[2.0, -2.0]] * 3, dtype=torch.float64))
    assert torch.equal(result.score, torch.tensor([3.0, -3.0, 0.0], dtype=torch.float64))


@pytest.mark.parametrize("net", [mlp, conv_net])
def test_without_max_pooling_every_input_gets_the_same_map(net):
    x = rows(0, 5, 4) if net is mlp else images(0, 5, 3, 8, 8)
    result = deconvnet(net(), x).values
    assert far(result, result[:1].expand_as(result)) < 1e-14
    assert float(result.abs().max()) > 0


def test_with_max_pooling_the_map_depends_on_the_input():
    model = conv_net()
    model[4] = nn.AdaptiveMaxPool2d(2)
    result = deconvnet(model, images()).values
    assert far(result[0], result[1]) > 0.1


def test_a_batch_with_several_targets_equals_its_samples_alone():
    model, x = conv_net(), images(0, 3, 3, 8, 8)
    together = deconvnet(model, x, target=[2, 0, 3])
    for i, target in enumerate([2, 0, 3]):
        alone = deconvnet(model, x[i : i + 1], target=target)
        assert far(together.values[i : i + 1], alone.values) < 1e-13
        assert far(together.score[i : i + 1], alone.score) < 1e-13


def test_smoothgrad_can_average_deconvnet():
    model, x = mlp(), rows()
    result = sw.attribute(model, x, method="smoothgrad", base="deconvnet", n_samples=3, target=1)
    assert far(result.values, deconvnet(model, x).values) < 1e-14  # the map does not depend on the noise


def test_a_model_without_relu_is_refused_with_the_names_of_its_activations():
    model = mlp(activation=nn.GELU)
    with pytest.raises(ValueError, match=r"Deconvnet changes the.*ran none, only gelu \(2 times\).*Use 'gradient'"):
        deconvnet(model, rows())
    with pytest.raises(ValueError, match=r"this model ran none\. Use 'gradient'"):
        deconvnet(linear(torch.ones(4).double()), rows(), score="value", target=None)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_a_scripted_model_is_refused_with_the_reason():
    scripted = torch.jit.trace(mlp(), rows())
    with pytest.raises(ValueError, match=r"Deconvnet can't access the ReLUs of a scripted, traced or exported model"):
        deconvnet(scripted, rows())
