"""Shared options: which functions take them, their documentation, and the hint for an unknown name."""

import inspect
from dataclasses import fields

import pytest
import torch

import saliency_widgets as sw
from saliency_widgets.inputs.options import Options, split_options, takes_options

ALL = {field.name for field in fields(Options)}
SHAPED = {"sampling_rate", "channel_names", "time_axis", "slices"}
MODEL = torch.nn.Linear(4, 3)
TAKEN = {
    sw.attribute: ALL,
    sw.explore: ALL,
    sw.sweep: ALL - {"cuda_graphs"},
    sw.compare: ALL - {"cuda_graphs", "feature_names", "background"},
    sw.evaluate: ALL,
    sw.ablate: ALL,
    sw.shuffle: ALL - {"cuda_graphs", "explain", "tokenizer", "max_new_tokens", *SHAPED},
    sw.importance: ALL - {"cuda_graphs", "explain", "tokenizer", "max_new_tokens", *SHAPED},
    sw.checkup: {"transform", "class_names", "tokenizer", "max_new_tokens", "explain", "device", *SHAPED},
    sw.lesson: {"transform", "class_names", "tokenizer", "max_new_tokens", "device"},
}


@pytest.mark.parametrize("function", TAKEN, ids=lambda function: function.__name__)
def test_signature_and_documentation_name_the_options(function):
    parameters = inspect.signature(function).parameters
    assert TAKEN[function] == ALL & set(parameters)
    documented = inspect.getdoc(function) or ""
    for name in TAKEN[function] - {"background"}:
        assert parameters[name].default is getattr(Options(), name)
        assert documented.count(f"\n    {name}: ") == 1, name
    assert "**options" not in documented


@pytest.mark.parametrize(
    "call",
    [
        lambda **options: sw.ablate(MODEL, torch.rand(1, 4), torch.tensor([True, False, False, False]), **options),
        lambda **options: sw.checkup(MODEL, torch.rand(1, 4), **options),
        lambda **options: sw.evaluate(MODEL, torch.rand(1, 4), progress=False, **options),
        lambda **options: sw.lesson(MODEL, torch.rand(1, 4), **options),
        lambda **options: sw.shuffle(MODEL, torch.rand(4), torch.rand(9, 4), **options),
        lambda **options: sw.importance(MODEL, torch.rand(9, 4), progress=False, **options),
    ],
)
def test_an_unknown_option_is_refused_with_a_hint(call):
    with pytest.raises(TypeError, match=r"argument: 'transfrom' is not known\. Did you mean 'transform'"):
        call(transfrom=None)


OF_KINDS = {
    "tokenizer": ({"a": 0}, "texts"),
    "max_new_tokens": (3, "texts"),
    "sampling_rate": (10, "signals"),
    "channel_names": (["a"], "signals"),
    "time_axis": ("first", "signals"),
    "slices": ("axial", "volumes and video"),
}


@pytest.mark.parametrize(
    ("function", "option"),
    [(one, name) for one in (sw.compare, sw.lesson) for name in OF_KINDS if name not in TAKEN[one]],
)
def test_an_option_of_another_kind_is_refused(function, option):
    value, noun = OF_KINDS[option]
    with pytest.raises(NotImplementedError, match=f"{option}: sw.{function.__name__} doesn't take {noun} yet"):
        function(MODEL, torch.zeros(1, 4), **{option: value})


@pytest.mark.parametrize("call", [sw.importance, lambda *inputs, **options: sw.shuffle(*inputs, inputs[1], **options)])
def test_functions_of_tables_refuse_options_of_other_kinds(call):
    with pytest.raises(NotImplementedError, match=r"^sampling_rate: sw\.\w+ takes rows of a table, not signals\. Use"):
        call(MODEL, torch.zeros(2, 4), sampling_rate=10)


def test_functions_for_all_kinds_take_their_options():
    with pytest.raises(TypeError, match="tokenizer: expected a Hugging Face tokenizer"):
        sw.attribute(MODEL, "a text", tokenizer=3)


def test_other_arguments_are_passed_on():
    @takes_options("device")
    def function(model, *, target=None, **params):
        """Do something.

        Args:
            model: It.
            target: What.
            **params: The rest,
                in two lines.

        Returns:
            All.
        """
        return split_options(params, ("device",))

    assert [*inspect.signature(function).parameters] == ["model", "target", "device", "params"]
    assert (function.__doc__ or "").index("device: Where") < (function.__doc__ or "").index(
        "**params: The rest,\n        in two lines."
    )
    assert function(1, device="cpu", n_steps=3, fold=False) == ({"device": "cpu"}, {"n_steps": 3, "fold": False})
