"""From a request to attributions: the code path that the widget and ``sw.attribute`` share."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from saliency_widgets.attribution import BASELINE, Attribution, Estimate, Score, get_method
from saliency_widgets.attribution.baselines import BASELINES
from saliency_widgets.attribution.reduction import emptiness
from saliency_widgets.attribution.registry import FLAT, Method
from saliency_widgets.attribution.score import SQUASHED, is_function
from saliency_widgets.runtime.coupling import COUPLED
from saliency_widgets.runtime.model.isolation import BETWEEN_LAYERS, is_training, unlike_in_eval
from saliency_widgets.runtime.model.version import identity
from saliency_widgets.runtime.reuse.graph_cache import SPATIAL
from saliency_widgets.runtime.runner import Runner
from saliency_widgets.session.cache import Cache, Scope
from saliency_widgets.session.problem import Problem
from saliency_widgets.session.request import Request


def compute(
    problem: Problem,
    request: Request,
    check: Callable[[], None] | None = None,
    *,
    version: tuple | None = None,
    cache: Cache | None = None,
    owner: object = None,
) -> Iterator[Attribution]:
    """Compute running estimates for a request; the last one is the result.

    Args:
        problem: The model and the input.
        request: What to compute.
        check: Called before each pass of the model, and inside it; raises to end the computation.
        version: The problem's version, if the caller has it already.
        cache: Caches the results of single passes, to share them with other requests.
        owner: The owner of these cache entries.

    Yields:
        Attributions, each valid on its own.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is out of range, or the model failed; the message says what to do.
    """
    entry = get_method(request.method)
    with neutral_modes():
        score, value = problem.resolve(request, version)
    results = graphs = None
    if cache is not None and version is not None:
        score_key = identity(request.contrast if is_function(score.target) else (score.scale, _classes(score)))
        target = identity(request.target) if is_function(score.target) else None
        results = Scope(cache, (owner, "chunk", version, score_key, target, request.pass_key))
        graphs = Scope(cache, (owner, "pass", version))
        layers = problem.spatial_at(version) if "layer" in entry.needs else None
        if layers is not None:
            graphs.put(SPATIAL, layers)
    settings = {
        **request.settings,
        **problem.options,
        "target": _chosen(score, score.target, request.target),
        "contrast": _chosen(score, score.contrast, request.contrast),
    }
    runner = problem.runner(score, check, results, graphs)
    shape, together = problem.input_shape, problem.parts  # before another text may take its place
    baseline_notes = _name_baseline(runner, entry, settings)
    with neutral_modes():
        runner, coupling_notes = runner.by_samples(value)
        precision_notes = problem.precision_notes(runner)
    if runner.passes.joint:
        if {"layer", "image"} & {*entry.needs} or entry.name.startswith("captum."):
            what = "runs the model itself" if entry.name.startswith("captum.") else "explains single images"
            raise ValueError(
                f"method: {entry.title} {what}. {COUPLED}, so they are explained together. Use "
                f"'gradient' or 'integrated_gradients', or pass one row."
            )
        value = None if value is None else value.sum()[None]
    params = dict(request.params)
    if BASELINE in entry.params and params[BASELINE.name] is None and isinstance(settings[BASELINE.name], str):
        params[BASELINE.name] = settings[BASELINE.name]  # so that errors name it
    estimates = entry.run(runner, **params)
    while True:
        # Not around the yield: the consumer has its own grad mode.
        with neutral_modes():
            estimate = next(estimates, None)
        if estimate is None:
            return
        if estimate.layer is not None and any(param.name == "layer" for param in entry.params):
            settings["layer"] = estimate.layer
        parts = together if estimate.layer is None else {}
        error = estimate.standard_error
        yield Attribution(
            values=problem.shaped(_without_row_axis(runner, estimate, estimate.values.detach())),
            settings=dict(settings),
            score=value if estimate.score is None else estimate.score,
            delta=estimate.delta,
            standard_error=None if error is None else problem.shaped(_without_row_axis(runner, estimate, error)),
            agreement=estimate.agreement,
            map_error=estimate.map_error,
            evaluations=estimate.evaluations,
            layer=estimate.layer,
            input_shape=shape,
            parts=parts if estimate.parts is None else estimate.parts,
            notes=(*precision_notes, *coupling_notes, *baseline_notes, *_notes(problem, runner, entry, estimate)),
            default_sign=runner.kind.features.sign_for(entry),
            done=estimate.done,
            total=estimate.total,
            unit=entry.unit,
            transformed=problem.transformed,
            columns=runner.kind.columns,
            features=runner.kind.features,
        )


def _name_baseline(runner: Runner, entry: Method, settings: dict[str, Any]) -> tuple[str, ...]:
    """Put the default baseline's name into the settings, and return a note if zero could be mistaken for black."""
    if BASELINES in entry.params and settings[BASELINES.name] is None:
        settings[BASELINES.name] = runner.kind.default_pool
    if BASELINE not in entry.params:
        return ()
    requested, settings[BASELINE.name] = settings[BASELINE.name], runner.named_baseline(settings[BASELINE.name])
    kinds = [part.kind for part in runner.parts] or [runner.kind]
    whys = {kind.zero_note: kind.bounded for kind in kinds if kind.zero_note}
    if requested is not None or not whys or settings[BASELINE.name] != "zero":
        return ()
    return (f"The baseline is zero, {min(whys, key=lambda why: whys[why])}.",)  # prefers images of unknown range


@contextlib.contextmanager
def neutral_modes() -> Iterator[None]:
    """Turn off the caller's grad mode and autocast, so that results are the same on the worker and in a cell."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


def _without_row_axis(runner: Runner, estimate: Estimate, values: Tensor) -> Tensor:
    """Remove the axis of jointly explained rows; values at a layer have none."""
    return values[0] if runner.passes.joint and estimate.layer is None else values


def _classes(score: Score) -> tuple:
    """Return the explained and the subtracted classes or indices as a hashable key."""
    both = (score.target, score.contrast)
    return tuple(tuple(_numbers(score.index(chosen))) if isinstance(chosen, Tensor) else None for chosen in both)


def _chosen(score: Score, resolved: Any, request: Any) -> Any:
    """Return classes as numbers and indices as tuples, to repeat the map if the top prediction changes."""
    if not isinstance(resolved, Tensor):
        return request
    numbers = _numbers(score.index(resolved))
    return numbers[0] if len(set(numbers)) == 1 else numbers


def _numbers(chosen: Tensor) -> list[int] | list[tuple[int, ...]]:
    """Return the class or the index of each sample."""
    return chosen.tolist() if chosen.ndim == 1 else [tuple(index) for index in chosen.tolist()]


def _notes(problem: Problem, runner: Runner, entry: Method, estimate: Estimate) -> tuple[str, ...]:
    score = runner.passes.score
    notes = [*problem.prepared.notes, *estimate.notes]
    if score.of_classes:
        notes += problem.output_notes
        if score.squashed and score.scale == "logit":
            notes.append(SQUASHED)
    if runner.passes.sharing.apart:
        notes.append(runner.passes.sharing.apart)
    if problem.memory.limit is not None:
        notes.append(f"Memory ran out: {problem.memory}. The last digits of the results may depend on the batch size.")
    if is_training(problem.model):
        notes.append(_training(problem.model))
    if estimate.done >= estimate.total:
        zero, (empty,) = emptiness(estimate.values, entry.sign)
        notes += [empty] if empty else []
        if zero:
            notes.append(f"The map is zero everywhere: {entry.blank or FLAT}.")
    return tuple(notes)


def _training(model: nn.Module) -> str:
    """Return the note on training mode, naming the layers that behave differently."""
    names = list(unlike_in_eval(model))
    between = BETWEEN_LAYERS in names
    names = [name for name in names if name != BETWEEN_LAYERS]
    if between and not names:
        return f"The model is in training mode; maps are computed without {BETWEEN_LAYERS}, as in eval mode."
    if not names:
        return (
            "The model is in training mode, but has no layer that is known to behave differently in this mode. "
            "Call model.eval(), unless its code depends on training mode."
        )
    listed = " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
    return (
        f"The model is in training mode: because of {listed}, this map differs from the one in eval mode. "
        f"Call model.eval()."
    )
