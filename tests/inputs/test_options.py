"""Options of kinds of input that a function doesn't take are refused with one true sentence."""

import pytest
import torch
from torch import nn

import saliency_widgets as sw

MODEL = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()


@pytest.mark.parametrize("function", [sw.compare, sw.sweep, sw.lesson])
@pytest.mark.parametrize(
    ("option", "value", "noun"),
    [
        ("tokenizer", {"a": 0}, "texts"),
        ("max_new_tokens", 3, "texts"),
        ("sampling_rate", 10, "signals"),
        ("channel_names", ["a"], "signals"),
        ("time_axis", "first", "signals"),
        ("slices", "axial", "volumes and video"),
    ],
)
def test_an_option_of_another_kind_is_refused(function, option, value, noun):
    with pytest.raises(NotImplementedError, match=f"{option}: sw.{function.__name__} doesn't take {noun} yet"):
        function(MODEL, torch.zeros(1, 4), **{option: value})


def test_functions_for_all_kinds_take_their_options():
    with pytest.raises(TypeError, match="tokenizer: expected a Hugging Face tokenizer"):
        sw.attribute(MODEL, "a text", tokenizer=3)
