r"""Backward rules for ReLU and its relatives, applied while a block of code runs, without changing the model.

For y = f(x), where f is a ReLU or one of its piecewise linear relatives, and g_y is the incoming gradient:

.. math:: \text{guided: } g_x = f'(x) \max(g_y, 0) \qquad \text{deconvnet: } g_x = \max(g_y, 0)

f' is 1 for 0 < x < high and 0 beyond a ReLU's upper bound; for x <= 0 it is 0, or the slope of a LeakyReLU, PReLU or
RReLU. At x = 0, this is the derivative of torch.relu, regardless of how the ReLU is written.

A function mode sees every call that torch dispatches on this thread, whether from a module, a function or a tensor
method: nn.ReLU, F.relu, x.relu_(), nn.ReLU6, hardtanh and clamp from zero, leaky_relu, prelu, threshold at zero, and
the maximum with zeros. It can't see a ReLU that is written as arithmetic, x * (x > 0).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from saliency_widgets.attribution.query import Rule
from saliency_widgets.runtime.model.isolation import is_scripted


class _Form(NamedTuple):
    """The input of a form of ReLU, whose slope is 1 between zero and ``high``, and ``negative`` up to zero."""

    x: Tensor
    high: float | Tensor = float("inf")
    negative: float | Tensor = 0.0


class _Rectified(torch.autograd.Function):
    """Autograd function: returns the values, and passes the positive part of the gradient back to ``path``."""

    @staticmethod
    def forward(ctx: Any, path: Tensor, values: Callable[[], Tensor]) -> Tensor:  # noqa: ARG004
        ctx.set_materialize_grads(False)
        return values()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:  # noqa: ARG004
        # A gradient that is undefined, because a later operation has none, must not become zero.
        return None if grads[0] is None else grads[0].clamp(min=0), None


RULE_NAME = _Rectified.__name__


def _argument(args: tuple, kwargs: dict, position: int, name: str, default: Any = None) -> Any:
    return args[position] if len(args) > position else kwargs.get(name, default)


def _is_zero(value: Any) -> bool:
    if isinstance(value, Tensor):
        return not value.requires_grad and not bool(value.any())
    return value is not None and value == 0


# One parser for each form of ReLU; it returns None if the arguments make the call something else.


def _relu(args: tuple, kwargs: dict) -> _Form | None:
    return _Form(_argument(args, kwargs, 0, "input"))


def _relu6(args: tuple, kwargs: dict) -> _Form | None:
    return _Form(_argument(args, kwargs, 0, "input"), high=6.0)


def _hardtanh(args: tuple, kwargs: dict) -> _Form | None:
    low, high = _argument(args, kwargs, 1, "min_val", -1.0), _argument(args, kwargs, 2, "max_val", 1.0)
    return _Form(_argument(args, kwargs, 0, "input"), high=high) if low == 0 else None


def _clamp(args: tuple, kwargs: dict) -> _Form | None:
    low, high = _argument(args, kwargs, 1, "min"), _argument(args, kwargs, 2, "max")
    if not _is_zero(low) or (isinstance(high, Tensor) and high.requires_grad):
        return None
    return _Form(_argument(args, kwargs, 0, "input"), high=float("inf") if high is None else high)


def _clamp_min(args: tuple, kwargs: dict) -> _Form | None:
    return _clamp(args[:2], kwargs)


def _maximum(args: tuple, kwargs: dict) -> _Form | None:
    both = _argument(args, kwargs, 0, "input"), _argument(args, kwargs, 1, "other")
    for x, other in (both, both[::-1]):
        if isinstance(x, Tensor) and isinstance(other, Tensor) and x.requires_grad and _is_zero(other):
            return _Form(x)
    return None


def _threshold(args: tuple, kwargs: dict) -> _Form | None:
    at_zero = _argument(args, kwargs, 1, "threshold") == 0 and _argument(args, kwargs, 2, "value") == 0
    return _relu(args, kwargs) if at_zero else None


def _leaky_relu(args: tuple, kwargs: dict) -> _Form | None:
    return _Form(_argument(args, kwargs, 0, "input"), negative=_argument(args, kwargs, 1, "negative_slope", 0.01))


def _prelu(args: tuple, kwargs: dict) -> _Form | None:
    x, weight = _argument(args, kwargs, 0, "input"), _argument(args, kwargs, 1, "weight")
    return _Form(x, negative=weight.view(-1, *[1] * (x.ndim - 2)) if x.ndim > 1 else weight)


def _rrelu(args: tuple, kwargs: dict) -> _Form | None:
    if _argument(args, kwargs, 3, "training", False):
        return None
    lower, upper = _argument(args, kwargs, 1, "lower", 1 / 8), _argument(args, kwargs, 2, "upper", 1 / 3)
    return _Form(_argument(args, kwargs, 0, "input"), negative=(lower + upper) / 2)


_FORMS: dict[Callable, Callable[[tuple, dict], _Form | None]] = {
    **dict.fromkeys((F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_), _relu),
    F.relu6: _relu6,
    **dict.fromkeys((F.hardtanh, F.hardtanh_), _hardtanh),
    **dict.fromkeys((torch.clamp, torch.clamp_, Tensor.clamp, Tensor.clamp_), _clamp),
    **dict.fromkeys((torch.clip, torch.clip_, Tensor.clip, Tensor.clip_), _clamp),
    **dict.fromkeys((torch.clamp_min, torch.clamp_min_, Tensor.clamp_min, Tensor.clamp_min_), _clamp_min),
    **dict.fromkeys((torch.maximum, torch.max, Tensor.maximum, Tensor.max), _maximum),
    **dict.fromkeys((F.threshold, torch.threshold, torch.threshold_), _threshold),
    **dict.fromkeys((F.leaky_relu, F.leaky_relu_), _leaky_relu),
    **dict.fromkeys((torch.prelu, Tensor.prelu), _prelu),
    **dict.fromkeys((F.rrelu, torch.rrelu, torch.rrelu_), _rrelu),
}

SMOOTH: dict[Callable, str] = {
    getattr(room, form): name
    for name in (
        *("celu", "elu", "gelu", "hardsigmoid", "hardswish", "logsigmoid"),
        *("mish", "selu", "sigmoid", "silu", "softplus", "tanh"),
    )
    for room in (F, torch, Tensor)
    for form in (name, name + "_")
    if hasattr(room, form)
}


class ReLURule(TorchFunctionMode):
    """A function mode in which every ReLU passes back only positive gradients; the forward pass is unchanged.

    Args:
        rule: "guided" or "deconvnet".

    Attributes:
        calls: The number of ReLU calls under the rule.
        smooth: The number of calls of each smooth activation, by name; the rule doesn't change these.
        transformed: Whether a ReLU ran inside torch.func (vmap, grad), where the rule can't be applied.
    """

    def __init__(self, rule: Rule) -> None:
        super().__init__()
        self.rule = rule
        self.calls = 0
        self.smooth: Counter[str] = Counter()
        self.transformed = False

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Apply the rule to forms of ReLU, and call everything else unchanged."""
        kwargs = kwargs or {}
        form = _FORMS[func](args, kwargs) if func in _FORMS and "out" not in kwargs else None
        if form is not None and torch._C._are_functorch_transforms_active():
            self.transformed = True
            return func(*args, **kwargs)
        if form is None or not form.x.requires_grad:
            if func in SMOOTH and _argument(args, kwargs, 0, "input").requires_grad:
                self.smooth[SMOOTH[func]] += 1
            return func(*args, **kwargs)
        self.calls += 1
        x, high, negative = form
        path = torch.where((x > 0) & (x < high), x, negative * x) if self.rule == "guided" else x
        bare = x.detach()
        with torch.no_grad():
            values = func(
                *(bare if arg is x else arg for arg in args),
                **{name: bare if arg is x else arg for name, arg in kwargs.items()},
            )
        # In a closure, because autograd treats a returned argument as a view and then rejects y += r.
        result = _Rectified.apply(path, lambda: values)
        return x.copy_(result) if values is bare else result  # type: ignore[arg-type]


TITLES: dict[Rule, str] = {"guided": "Guided Backprop", "deconvnet": "Deconvnet"}


def rectified_gradient(
    rule: Rule, model: nn.Module, compute: Callable[[], tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    """Return the gradient of the score with respect to the inputs under a rule, and the scores.

    Args:
        rule: "guided" or "deconvnet".
        model: The model, for the error.
        compute: A function that computes the gradient and the scores.

    Raises:
        ValueError: The model ran no ReLU, or none that the rule can reach (scripted, exported, inside torch.func).
    """
    title = TITLES[rule]
    with ReLURule(rule) as mode:
        values, score = compute()
    # A scripted part may contain ReLUs that the mode didn't see.
    if is_scripted(model):
        raise ValueError(
            f"method: {title} can't access the ReLUs of a scripted, traced or exported model. Pass the original "
            f"module, from before torch.jit or torch.export."
        )
    if mode.transformed:
        raise ValueError(
            f"method: {title} can't reach the ReLUs inside torch.func (vmap, grad). Use 'gradient' or "
            f"'integrated_gradients', or explain one member of the ensemble."
        )
    if mode.calls:
        return values, score
    met = ", ".join(f"{name} ({count} times)" for name, count in mode.smooth.most_common())
    ran = f"none, only {met}, and the rule is not defined for smooth activations" if met else "none"
    raise ValueError(
        f"method: {title} changes the gradient at ReLUs, and this model ran {ran}. Use 'gradient' or "
        f"'integrated_gradients'."
    )
