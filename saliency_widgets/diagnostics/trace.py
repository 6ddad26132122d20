"""Observation of one pass of a model: activations, cuts of the gradient, and random draws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from saliency_widgets.attribution.score import is_function, scores_in
from saliency_widgets.runtime.layers.hooks import hookable, tensors_in
from saliency_widgets.runtime.model.isolation import training
from saliency_widgets.runtime.model.rng import draws
from saliency_widgets.runtime.relu_rules import RULE_NAME, SMOOTH, ReLURule
from saliency_widgets.runtime.reuse.graph_cache import nodes_of
from saliency_widgets.runtime.runner import Runner

Places = dict[str, dict[str, None]]
"""Names of observed operations, with the paths of the modules in which each ran, in order."""

_DETACHED = (torch.detach, Tensor.detach, Tensor.detach_, Tensor.data.__get__)  # type: ignore[attr-defined]
_ROUNDED = {
    getattr(room, name) for name in ("round", "floor", "ceil", "trunc", "sign") for room in (torch, Tensor)
}  # fmt: skip
_CUTS = {**dict.fromkeys(_DETACHED, "detach"), **dict.fromkeys(_ROUNDED, "rounding")}
_RESHAPED = ("view", "squeeze", "unsqueeze", "reshape", "clamp", "slice", "select", "clone", "alias", "t", "permute")


@dataclass
class Observation:
    """The observations from one pass with gradients.

    Attributes:
        smooth: Smooth activations by name, with the paths of their modules.
        relus: The number of ReLUs that ran.
        cuts: "detach", "no_grad", "inference_mode" and "rounding" of tensors that depend on the inputs, with the paths
            of their modules; only those that change the gradient.
        custom: The names of the model's custom autograd functions in the graph of the scores.
        random: The modules in eval mode that draw random numbers, if these affect the scores.
        scores: The model's scores in their original shape; None if the target is a function.
        last: The name of the operation that computed the scores, not counting views, copies and clamps.
        gradient: The gradient of the score, in the inputs' shape.
        norm: The path of the first BatchNorm that ran, and the distance of its input from its statistics: medians over
            the channels of |mean - running mean| / running deviation, and of variance / running variance.
        slopes: The slope of each sample's score along its gradient, relative to the gradient's prediction, (B,):
            1 up to rounding if the backward pass is right. NaN, or None for all, if it can't be measured.
    """

    smooth: Places = field(default_factory=dict)
    relus: int = 0
    cuts: Places = field(default_factory=dict)
    custom: dict[str, None] = field(default_factory=dict)
    random: dict[str, None] = field(default_factory=dict)
    scores: Tensor | None = None
    last: str = ""
    gradient: Tensor | None = None
    norm: tuple[str, float, float] | None = None
    slopes: Tensor | None = None


class _Watch(TorchFunctionMode):
    """A mode that records calls of torch functions without changing them."""

    def __init__(self, seen: Observation, where: Callable[[], tuple[str, bool]]) -> None:
        super().__init__()
        self._seen = seen
        self._where = where
        self._off = False  # is_grad_enabled() is also False in custom autograd functions, which cut nothing off

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func is torch._C._set_grad_enabled:
            self._off = not args[0]
        depends = any(tensor.requires_grad for tensor in tensors_in((*args, *kwargs.values())))
        path, training = self._where()
        if depends and func in SMOOTH:
            self._seen.smooth.setdefault(SMOOTH[func], {})[path] = None
        if depends and func in _CUTS:
            self._seen.cuts.setdefault(_CUTS[func], {})[path] = None
        elif depends and torch.is_inference_mode_enabled():
            self._seen.cuts.setdefault("inference_mode", {})[path] = None
        elif depends and self._off:
            self._seen.cuts.setdefault("no_grad", {})[path] = None
        if not training and draws(func, args, kwargs):
            self._seen.random[path] = None
        return func(*args, **kwargs)


def observe(runner: Runner) -> Observation:
    """Run the model on the inputs with gradients, and record what happens.

    Raises:
        TypeError, ValueError: See :meth:`.Runner.gradient`.
    """
    seen = Observation()
    with runner.passes.isolated() as model:
        stack: list[tuple[str, bool]] = [("", training(model))]
        norms: list[tuple[str, Tensor]] = []
        _follow(model, stack, norms)
        leaf = runner.inputs.detach().requires_grad_(True)
        with ReLURule("guided") as rule, _Watch(seen, lambda: stack[-1]):
            output = runner.passes.output(model, leaf, range(runner.batch))
        seen.relus = rule.calls
        seen.norm = next(iter(filter(None, (_shift(runner.passes.model, *norm) for norm in norms[:1]))), None)
        if not is_function(runner.passes.score.target):
            seen.scores = scores_in(output, runner.batch)
            seen.last = _last(seen.scores)
            seen.custom = _custom(seen.scores)
            seen.scores = seen.scores.detach()
    seen.gradient = runner.gradient(runner.inputs)[0]
    if seen.random and torch.equal(runner.scores(runner.inputs), runner.scores(runner.inputs, seed=1)):
        seen.random.clear()  # drawn, but not used
    for kind in list(seen.cuts):
        if not _matters(runner, kind, seen.gradient):
            del seen.cuts[kind]
    if not (seen.cuts or seen.custom or seen.random):  # each of which is reported separately
        seen.slopes = _slopes(runner, seen.gradient)
    return seen


_STEP, _SMALL = 1e-3, 1e-3  # of the scores' size, and of the inputs' range: small, to avoid kinks of the score
_AGREE, _ROUNDING = 0.05, 300.0


def _slopes(runner: Runner, gradient: Tensor) -> Tensor | None:
    """Return central differences along the gradient, relative to it; NaN where two steps differ or are too small."""
    if runner.inputs.dtype not in (torch.float32, torch.float64) or runner.precision not in (None, "full"):
        return None
    shape = (-1, *[1] * (gradient.ndim - 1))
    flat = gradient.flatten(1)

    def share(change: Tensor) -> Tensor:
        step = (change / flat.square().sum(1)).view(shape) * gradient
        return (runner.scores(runner.inputs + step) - runner.scores(runner.inputs - step)) / (2 * change)

    try:
        size = runner.outcomes(runner.inputs)[1].abs().flatten(1).amax(1)
        reach = (_SMALL * runner.noise_scale()).expand_as(gradient).flatten(1).amin(1)  # the largest step of any input
        change = torch.minimum(_STEP * size, reach * flat.square().sum(1) / flat.abs().amax(1))
        far, near = share(change), share(change / 4)
    except (ValueError, RuntimeError):  # the score isn't finite there, or memory ran out
        return None
    measured = (change > _ROUNDING * torch.finfo(size.dtype).eps * size) & ((far - near).abs() < _AGREE)
    return near.where(measured, torch.nan)


def _custom(scores: Tensor) -> dict[str, None]:
    """Return the names of the model's custom autograd functions in the graph of the scores."""
    names: dict[str, None] = {}
    for node in nodes_of([scores]):
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            names[type(node).__name__.removesuffix("Backward")] = None
    names.pop(RULE_NAME, None)
    return names


class _Healed(TorchFunctionMode):
    """A mode that lets the gradient through one kind of cut in the model's code."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self._kind = kind

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if self._kind == "no_grad" and func is torch._C._set_grad_enabled and not args[0]:
            return None
        if _CUTS.get(func) == self._kind and isinstance(args[0], Tensor) and args[0].requires_grad:
            return args[0]
        return func(*args, **(kwargs or {}))


def _matters(runner: Runner, kind: str, gradient: Tensor) -> bool:
    """Return whether the cuts change the gradient; a tensor that is only inspected or stored may be detached."""
    if kind == "inference_mode":
        return True  # it can't be disabled from here
    try:
        with runner.passes.isolated() as model:
            leaf = runner.inputs.detach().requires_grad_(True)
            with _Healed(kind):
                scores = runner.passes.score_rows(model, leaf, range(runner.batch))
            healed = runner.passes.differentiate(model, scores, leaf)
    except (ValueError, RuntimeError):
        return True  # undecided, so the cut is reported
    return not torch.allclose(healed, gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max()))


def _last(scores: Tensor) -> str:
    """Return the name of the operation that computed the scores, skipping views, copies and clamps."""
    node = scores.grad_fn
    while node is not None:
        name = type(node).__name__.rstrip("0123456789").removesuffix("Backward").lower()
        if name not in _RESHAPED or not node.next_functions:
            return name
        node = node.next_functions[0][0]
    return ""


def _follow(model: nn.Module, stack: list[tuple[str, bool]], norms: list) -> None:
    """Hook a model to keep the running module on top of the stack, and to record the first BatchNorm's input."""

    def begin(path: str, module: nn.Module, inputs: tuple) -> None:
        stack.append((path, module.training))
        if isinstance(module, _BatchNorm) and inputs and not norms:
            norms.append((path, inputs[0].clone()))

    for path, module in hookable(model):
        module.register_forward_pre_hook(partial(begin, path), prepend=True)
        module.register_forward_hook(lambda *_: stack.pop() and None, always_call=True)


_BEGINNING = 0.01


def _shift(model: nn.Module, path: str, x: Tensor) -> tuple[str, float, float] | None:
    norm: Any = model.get_submodule(path)  # of the caller's model: in training mode, the copy's statistics have changed
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None or x.numel() == x.shape[1]:
        return None
    batches = 0 if norm.num_batches_tracked is None else int(norm.num_batches_tracked)
    remaining = 0.0 if norm.momentum is None else (1 - norm.momentum) ** batches
    # Skip untrained statistics, or those still influenced by their initial values; converted weights have 0 batches.
    if (not bool(mean.any()) and bool((variance == 1).all())) or (batches and remaining > _BEGINNING):
        return None
    with torch.no_grad():
        channels = x.double().transpose(0, 1).flatten(1)
        stable = variance.double() + norm.eps
        far = (channels.mean(1) - mean.double()).abs() / stable.sqrt()
        return path, float(far.median()), float((channels.var(1) / stable).median())
