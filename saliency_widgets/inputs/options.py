"""The options that all functions with a model and inputs share: transform, names, device, precision."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from inspect import Parameter
from typing import Any, TypeVar

import torch

from saliency_widgets.inputs.nested import Explain
from saliency_widgets.params import Param, unknown

MAX_NEW_TOKENS = Param("max_new_tokens", default=0, low=0, kind="int")
_REPEATED_BY_NAME = ("transform", "class_names")  # not stored: functions, or read from the model again
_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(frozen=True, eq=False, kw_only=True)
class Options:
    """Options of the functions that take a model and inputs; these entries are inserted into their docstrings.

    Attributes:
        transform: Preprocessing that converts the input to the model's input: a function, torchvision weights, a
            Hugging Face image processor, or a timm data config; for rows of a table, a fitted scikit-learn scaler or
            ColumnTransformer, whose one-hot groups are summed back to their column. With several inputs, it applies to
            the images, or is a mapping from names to transforms.
        class_names: Names of the classes, in order or by index, so that targets can be named; or torchvision weights.
            Default: the model's names (``config.id2label`` and the like). With two names and a single logit z, z is the
            score of class 1, and -z that of class 0; without names, z is target 0.
        tokenizer: The tokenizer of a language model: a Hugging Face tokenizer, a mapping from words to ids, or a
            function from a text to ids. The input is then a text, its ids or what the tokenizer returns, and what is
            explained are the embeddings of its tokens.
        max_new_tokens: For a model that predicts the next token of a text: how many tokens to append, the most probable
            one at each step, so that each can be explained by what precedes it.
        sampling_rate: For signals, the number of samples per second. Without it, time is counted in samples.
        channel_names: For signals, the names of the channels.
        time_axis: For signals, which axis of the input is time: "last" for (C, T), "first" for (T, C), as recurrent
            models take it, or "auto" to see which the model takes. One of these three options makes an array of shape
            (T,), (C, T) or (T, C) a signal; an input of three dimensions is a batch of signals without them.
        slices: Makes an array a volume or a video, and says what its slices follow: "depth", for shape (D, H, W) or
            (C, D, H, W); "axial" for the same, a scan whose planes are then named axial, coronal and sagittal; "time"
            for video of shape (C, T, H, W); or "time first" for (T, C, H, W). An input of five dimensions is a batch
            of volumes without it.
        explain: The inputs to explain, by name, path ("xs.0"), path prefix ("xs") or position, or a list of them.
            Default: all that have a gradient and one row per sample; an explorer shows the first image among them.
            Several inputs are explained together: see :meth:`Attribution.part`. With ``tokenizer=``, the default is the
            text; "input_ids" in a list stands for its embeddings, as in ["pixel_values", "input_ids"] for an image and
            a text together, both of which an explorer shows.
        device: Where to compute, on a private copy of the model. Default: the model's device, without a copy.
        fold: Whether to fold BatchNorms into the preceding convolutions, on a private copy, and to use channels-last
            layout, if the scores stay the same. This is faster; the map is the same except for rounding.
        precision: None uses torch's settings; "full" is float32 throughout; "tf32" (on CUDA devices) and "bfloat16" are
            faster on GPUs and less exact, with the error reported in ``notes`` (bfloat16 is slower on most CPUs).
        cuda_graphs: Whether to record passes on a CUDA device and replay them for repeated shapes, which saves the
            kernel launches that dominate small passes.
        feature_names: The columns' names, for table rows without names.
        background: Other rows of the table, such as the training data, other signals, or a text or a list of texts.
            Rows define the baselines "mean" and "median", scale noise to each column's range, and provide the rows for
            Expected Gradients, the what-if sliders and the shuffle test; signals and texts are baselines of Expected
            Gradients. The tokens of other texts, followed by padding, take the places of those of the explained text;
            the first is the baseline "text".
    """

    transform: Any = None
    class_names: Any = None
    tokenizer: Any = None
    max_new_tokens: int = 0
    sampling_rate: float | None = None
    channel_names: Sequence[str] | None = None
    time_axis: str | None = None
    slices: str | None = None
    explain: Explain = None
    device: torch.device | str | None = None
    fold: bool = True
    precision: str | None = None
    cuda_graphs: bool = False
    feature_names: Sequence[str] | None = None
    background: Any = None

    def __post_init__(self) -> None:
        for name in ("fold", "cuda_graphs"):
            switch = getattr(self, name)
            if not isinstance(switch, bool):
                raise TypeError(f"{name}: expected True or False, got a {type(switch).__name__}.")
        if self.max_new_tokens is not Options.max_new_tokens:
            MAX_NEW_TOKENS.check(self.max_new_tokens)
        if self.max_new_tokens and self.tokenizer is None:
            raise ValueError("max_new_tokens: it continues a text. Pass tokenizer= too, or omit it.")

    def to_repeat(self) -> dict[str, Any]:
        """Return the options that are not defaults, in the form used in settings and stored states."""
        repeated = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name not in _REPEATED_BY_NAME and getattr(self, field.name) is not field.default
        }
        if "device" in repeated:
            repeated["device"] = str(repeated["device"])
        for name in {"feature_names", "channel_names"} & repeated.keys():
            repeated[name] = [*map(str, repeated[name])]
        return repeated


_FIELDS = {field.name: field for field in fields(Options)}
OPTIONS = tuple(_FIELDS)
_ENTRY = re.compile(r"^    (\w+): .*(?:\n {8}.*)*", re.MULTILINE)  # in a docstring
_TEXTS = {entry[1]: entry[0] for entry in _ENTRY.finditer(inspect.cleandoc(Options.__doc__ or ""))}


def split_options(arguments: Mapping[str, Any], names: Sequence[str] = OPTIONS) -> tuple[dict, dict]:
    """Split keyword arguments into options and the rest."""
    options = {name: value for name, value in arguments.items() if name in names}
    return options, {name: value for name, value in arguments.items() if name not in names}


def takes_options(*names: str) -> Callable[[_Function], _Function]:
    """Add options to the signature and the docstring of a function that takes them as its last ``**`` argument.

    If that argument is named ``options``, it takes only options, and any other keyword raises a TypeError with a hint.

    Args:
        names: The options to add. Default: all.
    """
    names = names or OPTIONS

    def decorate(function: _Function) -> _Function:
        signature = inspect.signature(function)
        *before, rest = signature.parameters.values()
        for option in map(_FIELDS.__getitem__, names):
            before.append(
                Parameter(option.name, Parameter.KEYWORD_ONLY, default=option.default, annotation=option.type)
            )
        alone = rest.name == "options"
        call: Any = function
        if alone or not _OF_KINDS.keys() <= set(names):
            call = _strict(function, [parameter.name for parameter in before] if alone else None, names)
        call.__signature__ = signature.replace(parameters=before if alone else [*before, rest])
        text = inspect.cleandoc(function.__doc__ or "")
        last = re.search(rf"^    \*\*{rest.name}: .*(?:\n {{8}}.*)*", text, re.MULTILINE)
        if last is not None:
            entries = [*map(_TEXTS.__getitem__, names), *([] if alone else [last[0]])]
            call.__doc__ = text[: last.start()] + "\n".join(entries) + text[last.end() :]
        return call

    return decorate


def _strict(function: Callable[..., Any], accepted: list[str] | None, options: Sequence[str]) -> Callable[..., Any]:
    """Refuse unknown keywords, and options of kinds of input that the function doesn't take.

    Args:
        function: The function.
        accepted: All keywords; None if it takes others, too.
        options: The options that it takes.
    """

    @functools.wraps(function)
    def call(*args: Any, **keywords: Any) -> Any:
        for name in keywords:
            if name in _OF_KINDS and name not in options:
                called, noun = f"{name}: sw.{function.__name__}", _OF_KINDS[name]
                if "feature_names" in options:
                    raise NotImplementedError(f"{called} takes rows of a table, not {noun}. Use sw.evaluate.")
                raise NotImplementedError(f"{called} doesn't take {noun} yet. Use sw.explore or sw.attribute.")
            if accepted is not None and name not in accepted:
                raise TypeError(unknown("argument", name, accepted))
        return function(*args, **keywords)

    return call


_OF_KINDS = {
    **dict.fromkeys(("tokenizer", "max_new_tokens"), "texts"),
    **dict.fromkeys(("sampling_rate", "channel_names", "time_axis"), "signals"),
    "slices": "volumes and video",
}
