"""The candidates of ``sw.evaluate``: methods, attributions and external maps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from saliency_widgets.api.grid import applicable, check_names, params_of, read_axis
from saliency_widgets.attribution import Attribution, Reduction, Score
from saliency_widgets.attribution.arrays import as_numbers
from saliency_widgets.attribution.features import Features
from saliency_widgets.attribution.reduction import CHANNEL, SIGN, SIGNS
from saliency_widgets.attribution.registry import Method, get_method
from saliency_widgets.attribution.score import SCORE
from saliency_widgets.evaluation.explanation import Explanation, map_of
from saliency_widgets.params import brief
from saliency_widgets.runtime.runner import Runner
from saliency_widgets.session.request import Request


@dataclass(frozen=True, eq=False)
class Candidate:
    """A map to evaluate: computed by a method, or passed as an attribution or array.

    Attributes:
        name: The name of its row in the table.
        method: The method that computes it; None for an array.
        params: The method's parameters.
        sign: Which part of the values the map shows; None for the method's default, and for an array as it is.
        channels: How the channels are combined; None for the usual way.
        values: The values of an attribution or an array; None if they must be computed.
        attribution: The attribution that the values come from, if any.
    """

    name: str
    method: Method | None
    params: dict[str, Any]
    sign: str | None = None
    channels: str | None = None
    values: Tensor | None = None
    attribution: Attribution | None = None

    def _reduction(self, features: Features) -> Reduction:
        if self.method is not None and self.attribution is None:
            return features.reduction_for(self.method, self.sign, self.channels)
        default = "absolute" if self.attribution is None else self.attribution.default_sign
        return features.reduction(default if self.sign is None else self.sign, self.channels)

    def explanation(self, index: int, runner: Runner) -> Explanation:
        """Return the map of one input as displayed, such as (H, W), or (F,) for a row, with the context for its tests.

        Raises:
            ValueError: The method doesn't apply, or its map has the wrong size or holds NaN or infinite values.
        """
        reduction = self._reduction(runner.kind.features)
        values = self._map(index, runner, reduction)
        return Explanation(lambda _shared: runner, values, self.method, self.params, reduction)

    def _map(self, index: int, runner: Runner, reduction: Reduction) -> Tensor:
        shape = runner.kind.shape_of(runner.inputs)
        if self.values is None:
            assert self.method is not None
            result = map_of(self.method, self.params, reduction, runner)
            if tuple(result.shape) != shape:
                raise ValueError(f"its map has shape {tuple(result.shape)}, but the model's input has shape {shape}.")
            if not bool(torch.isfinite(result).all()):
                raise ValueError("its map holds NaN or infinite values: scores or gradients overflow here.")
            return result
        values = self.values[index].to(runner.inputs.device)
        if self.attribution is None and runner.kind.drawn and tuple(values.shape) == shape:
            return values if self.sign is None else SIGNS[self.sign](values)
        return runner.kind.reduce(values[None], reduction, runner.inputs)[0]

    def fitted(self, inputs: int, shape: tuple[int, ...], features: tuple[int, ...]) -> Candidate:
        """Return the candidate with one map per input; for a single input, the leading axis is optional.

        Args:
            inputs: The number of inputs.
            shape: The shape of each input, as the model sees it.
            features: The shape of a map, such as (H, W) for an image.

        Raises:
            ValueError: The values don't fit the inputs, or hold NaN or infinite values.
        """
        if self.values is None:
            return self
        values, what = self.values, f"methods: {brief(self.name)}"
        if self.attribution is not None:
            seen, expected = tuple(self.attribution.input_shape), (inputs, *shape)
            if seen != expected:
                raise ValueError(f"{what} is an attribution of inputs of shape {seen}, but {expected} is evaluated.")
        else:
            fitting = list(dict.fromkeys((shape, features)))
            if inputs == 1 and tuple(values.shape) in fitting:
                values = values[None]
            if tuple(values.shape) not in [(inputs, *each) for each in fitting]:
                axis = (inputs,) if inputs > 1 else ()
                listed = " or ".join(str((*axis, *each)) for each in fitting)
                raise ValueError(
                    f"{what} has shape {tuple(values.shape)}; expected the shape of the model's input, {listed}. If "
                    f"the input is resized or cropped, the map must be, too."
                )
        bad = int((~torch.isfinite(values)).sum())
        if bad:
            raise ValueError(
                f"{what} holds {bad} NaN or infinite values, which can't be ranked. Replace them first, for "
                f"example with numpy.nan_to_num."
            )
        return replace(self, values=values)


def read_candidates(methods: Any, params: Mapping[str, Any], sign: str | None, channels: str | None) -> list[Candidate]:
    """Read the ``methods`` argument into candidates with unique names.

    Args:
        methods: One candidate, a list of them, or a mapping from names to them.
        params: Parameters, passed to each method that has them.
        sign: Which part of the values all maps show; None uses each candidate's default.
        channels: How the channels are combined in all maps; None uses the usual way.

    Raises:
        TypeError: An item is neither a method nor a map, or no method has one of the parameters.
        ValueError: There are no items, or a method is unknown.
    """
    for param, value in ((SIGN, sign), (CHANNEL, channels)):
        if value is not None:
            param.check(value)
    axis = read_axis("methods", methods, _title, single=_is_one, example="['gradient', 'grad_cam']")
    entries = [None if _is_map(value) else get_method(value) for value in axis.values]
    check_names("params", params, params_of(entry for entry in entries if entry is not None))
    return [
        _candidate(name, value, entry, params, sign, channels)
        for name, value, entry in zip(axis.labels, axis.values, entries, strict=True)
    ]


def score_of(candidates: list[Candidate], target: Any, score: str, contrast: Any) -> tuple[Any, str, Any]:
    """Return the target, score and contrast to explain: as passed, or by default those of the first attribution."""
    first = next((each.attribution for each in candidates if each.attribution is not None), None)
    if first is None or target is not None or contrast is not None or score != SCORE.default:
        return target, score, contrast
    return first.settings.get("target"), first.settings.get("score", score), first.settings.get("contrast")


def check_score(candidate: Candidate, index: int, request: Request, score: Score) -> None:
    """Check that an attribution explains the evaluated target and score.

    Raises:
        ValueError: The attribution explains another class or score.
    """
    if candidate.attribution is None:
        return
    settings = candidate.attribution.settings
    explained = [_class(settings.get("target"), index), settings.get("score"), _class(settings.get("contrast"), index)]
    evaluated = [
        int(resolved[0]) if isinstance(resolved, Tensor) else requested
        for resolved, requested in ((score.target, request.target), (score.contrast, request.contrast))
    ]
    evaluated.insert(1, request.score)
    for name, one, other in zip(("target", "score", "contrast"), explained, evaluated, strict=True):
        if one is not other and one != other:
            raise ValueError(
                f"methods: {brief(candidate.name)} explains {name}={brief(one)}, but {name}={brief(other)} is "
                f"evaluated. Pass {name}={brief(one)}, or an attribution with {name}={brief(other)}."
            )


def _class(value: Any, index: int) -> Any:
    value = value[index] if isinstance(value, (list, tuple)) else value
    return int(value) if isinstance(value, Tensor) and value.numel() == 1 else value


def _is_map(value: Any) -> bool:
    return isinstance(value, (Attribution, Tensor)) or hasattr(value, "__array__")


def _is_one(value: Any) -> bool:
    """Return whether a value is one candidate rather than a list of them."""
    return isinstance(value, (str, Method)) or _is_map(value) or callable(getattr(value, "attribute", None))


def _title(value: Any) -> str:
    if not _is_one(value):
        raise TypeError(
            f"methods: expected names of methods, attributions, and maps as arrays or tensors; got a "
            f"{type(value).__name__}. Convert a list of numbers to a map with numpy.asarray."
        )
    if isinstance(value, Attribution):
        return value.method
    return "map" if _is_map(value) else get_method(value).name


def _candidate(
    name: str, value: Any, entry: Method | None, params: Mapping[str, Any], sign: str | None, channels: str | None
) -> Candidate:
    if entry is not None:
        chosen = entry.check_params(applicable(entry, params))
        return Candidate(name, entry, chosen, sign, channels)
    if isinstance(value, Attribution):
        method = get_method(value.settings["method"])
        chosen = method.check_params(applicable(method, value.settings))
        return Candidate(name, method, chosen, sign, channels, value.values.detach(), value)
    values = as_numbers(value, f"methods: {brief(name)}").detach()
    values = values if values.is_floating_point() else values.double()
    return Candidate(name, None, {}, sign, channels, values)
