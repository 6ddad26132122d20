"""From a request to attributions: the one path that the widget and ``sw.attribute`` share."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from saliency_widgets.attribution import BASELINE, Attribution, Estimate, Score, get_method
from saliency_widgets.attribution.baselines import BASELINES, default_pool
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
    """Running estimates of what a request asks for; the last one is the answer.

    Args:
        problem: The model and the input.
        request: The question.
        check: Called before each pass of the model, and inside it; raises to end the computation.
        version: The problem's, where it is known already.
        cache: Where single passes are kept, for what they have in common with other requests.
        owner: Whose they are.

    Yields:
        Attributions, each valid by itself.

    Raises:
        TypeError: An argument of the wrong type.
        ValueError: An argument out of range, or a model that failed; the message says what to do.
    """
    entry = get_method(request.method)
    with alone():
        score, known = problem.resolve(request, version)
    kept = recordings = None
    if cache is not None and version is not None:
        asked = identity(request.contrast if is_function(score.target) else (score.scale, _classes(score)))
        target = identity(request.target) if is_function(score.target) else None
        kept = Scope(cache, (owner, "chunk", version, asked, target, request.pass_key))
        recordings = Scope(cache, (owner, "pass", version))
        layers = problem.spatial_at(version) if "layer" in entry.needs else None
        if layers is not None:
            recordings.put(SPATIAL, layers)
    settings = {
        **request.settings,
        **problem.given,
        "target": _chosen(score.target, request.target),
        "contrast": _chosen(score.contrast, request.contrast),
    }
    runner = problem.runner(score, check, kept, recordings)
    started = _start(runner, entry, settings)
    with alone():
        runner, coupled = runner.by_samples(known)
        exact = problem.how_exact(runner)
    if runner.passes.joint:
        if {"layer", "image"} & {*entry.needs} or entry.name.startswith("captum."):
            what = "runs the model by itself" if entry.name.startswith("captum.") else "is about single images"
            raise ValueError(
                f"method: {entry.title} {what}. {COUPLED}, and are explained together. Use "
                f"'gradient' or 'integrated_gradients', or pass one row."
            )
        known = None if known is None else known.sum()[None]
    params = dict(request.params)
    if BASELINE in entry.params and params[BASELINE.name] is None and isinstance(settings[BASELINE.name], str):
        params[BASELINE.name] = settings[BASELINE.name]  # errors name the one that was taken
    estimates = entry.run(runner, **params)
    while True:
        # Not around the yield: whoever takes the estimate has a grad mode of his own.
        with alone():
            estimate = next(estimates, None)
        if estimate is None:
            return
        if estimate.layer is not None and any(param.name == "layer" for param in entry.params):
            settings["layer"] = estimate.layer
        of_inputs = problem.parts if estimate.layer is None else {}
        error = estimate.standard_error
        yield Attribution(
            values=problem.shaped(_of_rows(runner, estimate, estimate.values.detach())),
            settings=dict(settings),
            score=known if estimate.score is None else estimate.score,
            delta=estimate.delta,
            standard_error=None if error is None else problem.shaped(_of_rows(runner, estimate, error)),
            agreement=estimate.agreement,
            map_error=estimate.map_error,
            evaluations=estimate.evaluations,
            layer=estimate.layer,
            input_shape=problem.input_shape,
            parts=of_inputs if estimate.parts is None else estimate.parts,
            notes=(*exact, *coupled, *started, *_notes(problem, runner, entry, estimate)),
            default_sign=entry.sign,
            done=estimate.done,
            total=estimate.total,
            unit=entry.unit,
            transformed=problem.transformed,
            columns=runner.columns,
        )


def _start(runner: Runner, entry: Method, settings: dict[str, Any]) -> tuple[str, ...]:
    """Name the baseline that was left open, in the settings and, where zero is easily taken for black, in a note."""
    if BASELINES in entry.params and settings[BASELINES.name] is None:
        settings[BASELINES.name] = default_pool(runner.columns)
    if BASELINE not in entry.params:
        return ()
    left, settings[BASELINE.name] = settings[BASELINE.name], runner.named_baseline(settings[BASELINE.name])
    pixels = [part.pixels for part in runner.parts if len(part.shape) == 3] if runner.parts else [runner.pixels]
    is_image = bool(runner.parts and pixels) or runner.inputs.ndim == 4
    if left is not None or not is_image or settings[BASELINE.name] != "zero":
        return ()
    black = all(known is not None for known in pixels)
    why = "which is black where pixels go from 0 to 1" if black else "as nothing tells which numbers are black pixels"
    return (f"The baseline is zero, {why}.",)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Neither the caller's grad mode nor his autocast: the same numbers on the worker's thread and in a cell."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


def _of_rows(runner: Runner, estimate: Estimate, values: Tensor) -> Tensor:
    """Values in the shape in which the rows came; at a layer they have it already."""
    return values[0] if runner.passes.joint and estimate.layer is None else values


def _classes(score: Score) -> tuple:
    """The classes or indices that are explained, as numbers."""
    both = (score.target, score.contrast)
    return tuple(tuple(_numbers(chosen)) if isinstance(chosen, Tensor) else None for chosen in both)


def _chosen(resolved: Any, request: Any) -> Any:
    """Classes as numbers, so that the map can be repeated whatever the top prediction is by then; indices as tuples."""
    if not isinstance(resolved, Tensor):
        return request
    numbers = _numbers(resolved)
    return numbers[0] if len(set(numbers)) == 1 else numbers


def _numbers(chosen: Tensor) -> list[int] | list[tuple[int, ...]]:
    """The class of each sample, or the index."""
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
        notes.append(f"Memory ran out: {problem.memory}. The last bits of the numbers may depend on that.")
    if is_training(problem.model):
        notes.append(_training(problem.model))
    if estimate.done >= estimate.total:
        zero, (empty,) = emptiness(estimate.values, entry.sign)
        notes += [empty] if empty else []
        if zero:
            notes.append(f"The map is zero everywhere: {entry.blank or FLAT}.")
    return tuple(notes)


def _training(model: nn.Module) -> str:
    """The note on training mode, about what is there."""
    names = list(unlike_in_eval(model))
    between = BETWEEN_LAYERS in names
    names = [name for name in names if name != BETWEEN_LAYERS]
    if between and not names:
        return f"The model is in training mode; maps are made without {BETWEEN_LAYERS}, as in eval mode."
    if not names:
        return (
            "The model is in training mode, though no layer of a kind known to behave otherwise is in it. "
            "Call model.eval(), unless its own code asks for training."
        )
    listed = " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
    return (
        f"The model is in training mode: {listed} make{'s' * (len(names) == 1)} this map unlike the one in use. "
        f"Call model.eval()."
    )
