"""One watched pass of a model: what ran, where the gradient was cut off, what was drawn at random."""

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
"""What was seen -> the module paths it was seen in, in order."""

_DETACHED = (torch.detach, Tensor.detach, Tensor.detach_, Tensor.data.__get__)  # type: ignore[attr-defined]
_ROUNDED = {
    getattr(room, name) for name in ("round", "floor", "ceil", "trunc", "sign") for room in (torch, Tensor)
}  # fmt: skip
_CUTS = {**dict.fromkeys(_DETACHED, "detach"), **dict.fromkeys(_ROUNDED, "rounding")}
_RESHAPED = ("view", "squeeze", "unsqueeze", "reshape", "clamp", "slice", "select", "clone", "alias", "t", "permute")


@dataclass
class Observation:
    """What one pass with gradients showed.

    Attributes:
        smooth: Smooth activations by name, and where.
        relus: How many ReLUs ran.
        cuts: "detach", "no_grad", "inference_mode" and "rounding" of something that depends on the inputs, and where;
            those without which the gradient would be another.
        custom: The names of the caller's own autograd functions on the way to the score.
        random: Where random numbers were drawn by modules in eval mode, if they move the scores.
        scores: The model's scores in their own shape, or None where the target is a function.
        last: The name of the operation that made them, whatever reshaped its result.
        gradient: Of the score, of the inputs' shape.
        norm: The first BatchNorm that ran, and how far its input is from what it has learnt: the median over the
            channels of |mean - running mean| / running deviation, and of variance / running variance.
        slopes: How fast each sample's score changes along its gradient, as a share of what the gradient says, (B,):
            one but for rounding where the backward pass is right. None where that can't be measured.
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
    """Notes what the functions of torch tell; everything goes its way."""

    def __init__(self, seen: Observation, where: Callable[[], tuple[str, bool]]) -> None:
        super().__init__()
        self._seen = seen
        self._where = where
        self._off = False  # a custom autograd function runs without gradients too, and cuts nothing off

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
    """Run the model once on the inputs, with gradients, and note what happens.

    Raises:
        TypeError, ValueError: As :meth:`.Runner.gradient` does.
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
        seen.random.clear()  # drawn, and not used
    for kind in list(seen.cuts):
        if not _matters(runner, kind, seen.gradient):
            del seen.cuts[kind]
    if not (seen.cuts or seen.custom or seen.random):  # which are told of by themselves
        seen.slopes = _slopes(runner, seen.gradient)
    return seen


_STEP, _SMALL = 1e-3, 1e-3  # of the scores' size, and of the inputs' range: what bends them shall be further away
_AGREE, _ROUNDING = 0.05, 300.0


def _slopes(runner: Runner, gradient: Tensor) -> Tensor | None:
    """Central differences of the score along the gradient, of two steps; NaN where they differ or are too small."""
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
    """The caller's own autograd functions in the graph of the scores."""
    names: dict[str, None] = {}
    for node in nodes_of([scores]):
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            names[type(node).__name__.removesuffix("Backward")] = None
    names.pop(RULE_NAME, None)
    return names


class _Healed(TorchFunctionMode):
    """Lets the gradient through where the model's code cuts it off."""

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
    """Whether the gradient would be another without the cuts: what is only looked at, or kept, may be cut off."""
    if kind == "inference_mode":
        return True  # it can't be lifted from here
    try:
        with runner.passes.isolated() as model:
            leaf = runner.inputs.detach().requires_grad_(True)
            with _Healed(kind):
                scores = runner.passes.score_rows(model, leaf, range(runner.batch))
            healed = runner.passes.differentiate(model, scores, leaf)
    except (ValueError, RuntimeError):
        return True  # it can't be told: what was seen is said
    return not torch.allclose(healed, gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max()))


def _last(scores: Tensor) -> str:
    """The operation that made the scores; views and bounds of its result are passed over."""
    node = scores.grad_fn
    while node is not None:
        name = type(node).__name__.rstrip("0123456789").removesuffix("Backward").lower()
        if name not in _RESHAPED or not node.next_functions:
            return name
        node = node.next_functions[0][0]
    return ""


def _follow(model: nn.Module, stack: list[tuple[str, bool]], norms: list) -> None:
    """Keep the path of the module that is running on top of the stack, and what the first BatchNorm is given."""

    def begin(path: str, module: nn.Module, inputs: tuple) -> None:
        stack.append((path, module.training))
        if isinstance(module, _BatchNorm) and inputs and not norms:
            norms.append((path, inputs[0].clone()))

    for path, module in hookable(model):
        module.register_forward_pre_hook(partial(begin, path), prepend=True)
        module.register_forward_hook(lambda *_: stack.pop() and None, always_call=True)


_BEGINNING = 0.01


def _shift(model: nn.Module, path: str, x: Tensor) -> tuple[str, float, float] | None:
    norm: Any = model.get_submodule(path)  # the caller's: a copy's has gone on learning in training mode
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None or x.numel() == x.shape[1]:
        return None
    batches = 0 if norm.num_batches_tracked is None else int(norm.num_batches_tracked)
    remaining = 0.0 if norm.momentum is None else (1 - norm.momentum) ** batches
    # It has learnt nothing yet, or what it began with still weighs; converted weights come with 0 batches.
    if (not bool(mean.any()) and bool((variance == 1).all())) or (batches and remaining > _BEGINNING):
        return None
    with torch.no_grad():
        channels = x.double().transpose(0, 1).flatten(1)
        stable = variance.double() + norm.eps
        far = (channels.mean(1) - mean.double()).abs() / stable.sqrt()
        return path, float(far.median()), float((channels.var(1) / stable).median())
