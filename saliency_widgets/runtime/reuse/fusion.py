r"""The same numbers sooner: a BatchNorm folded into the convolution before it, and channels laid out last.

What can be folded is told by watching a pass, not by names: a convolution's result that goes into one BatchNorm in
eval mode, and nowhere else. For y = g (Wx + b - m) / sqrt(v + e) + h, with the BatchNorm's statistics m, v, its weight
g and bias h:

.. math:: W' = W g / \sqrt{v + e}, \qquad b' = (b - m) g / \sqrt{v + e} + h

so that W'x + b' = y, exactly but for rounding. The folded weights are private copies; the caller's model has no part
in it, and what was tuned is used only where it gives the model's own scores.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from saliency_widgets.runtime.model.isolation import freeze
from saliency_widgets.runtime.model.walker import global_hooks, modules_of

_CONVOLUTIONS = (torch.conv1d, torch.conv2d, torch.conv3d)
_NORMED = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
# They tell of a tensor's form, not of its numbers.
_FORM = (Tensor.dim, Tensor.size, Tensor.numel, Tensor.ndimension, Tensor.is_floating_point, Tensor.__len__)
_TYPES = (torch.float32, torch.float64)
# Of scores, relative to the largest: rounding, and no more.
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-9}


@dataclass(frozen=True)
class Tuned:
    """What a copy computes with, instead of the caller's weights.

    Attributes:
        weights: By the id of the caller's weight, which is held so that no other gets its id.
        biases: Of folded convolutions, by path.
        folded: The paths of the BatchNorms that pass on what they get.
        hidden: The modules whose output is another one now: the folded convolutions, and what ends with them.
        channels_last: Whether images are laid out so.
        changed: Whose numbers are other ones, by the id of the caller's weight.
    """

    weights: dict[int, tuple[nn.Parameter, nn.Parameter]] = field(default_factory=dict)
    biases: dict[str, nn.Parameter] = field(default_factory=dict)
    folded: tuple[str, ...] = ()
    hidden: frozenset[str] = frozenset()
    channels_last: bool = False
    changed: frozenset[int] = frozenset()

    def __bool__(self) -> bool:
        """Whether there is anything to it."""
        return bool(self.folded) or self.channels_last

    def without_layout(self) -> Tuned:
        """The folds alone."""
        folds = {key: (original, nn.Parameter(w.detach().contiguous(), requires_grad=False))
                 for key, (original, w) in self.weights.items() if key in self.changed}  # fmt: skip
        return replace(self, weights=folds, channels_last=False)

    def shows(self, layer: str) -> bool:
        """Whether a place inside the model gives what it gives in the caller's: see :mod:`~.hooks`."""
        return not self.folded or (layer not in self.hidden and " #" not in layer)

    def weight(self, weight: nn.Parameter) -> nn.Parameter | None:
        """What stands for a weight of the caller's, if anything does."""
        entry = self.weights.get(id(weight))
        return entry[1] if entry is not None and entry[0] is weight else None

    def put_into(self, model_copy: nn.Module) -> None:
        """Put the weights and folded biases into a copy, and let its folded BatchNorms pass on what they get."""
        freeze(model_copy, self.weight)
        if not self.folded:
            return
        modules = dict(model_copy.named_modules())  # torch's get_submodule asks much for each
        for path, bias in self.biases.items():
            modules[path]._parameters["bias"] = bias
        for path in self.folded:
            modules[path].__dict__["forward"] = _same


def _same(x: Tensor) -> Tensor:
    return x


def agree(scores: Tensor, expected: Tensor) -> bool:
    """Whether scores are the same but for rounding."""
    if scores.shape != expected.shape or scores.dtype not in TOLERANCE:
        return False
    finite = expected.isfinite()
    if not finite.any():
        return False
    apart = (scores - expected)[finite].abs().max()
    return bool(apart <= TOLERANCE[scores.dtype] * expected[finite].abs().max())


class Observed(TorchFunctionMode):
    """Watches one pass of a copy for what can be folded.

    Args:
        model_copy: What runs; it keeps the hooks.
    """

    def __init__(self, model_copy: nn.Module) -> None:
        super().__init__()
        self._model = model_copy
        self._hooked = has_hooks(model_copy)
        self._uses: Counter[int] = Counter()
        self._made: list[tuple[Tensor, Tensor, Tensor | None]] = []  # result, weight, bias
        self._normed: list[tuple[Tensor, Tensor]] = []  # input, running mean
        self._ends: list[tuple[str, Tensor]] = []
        if not self._hooked:
            for path, module in model_copy.named_modules():
                if path and not isinstance(module, torch.jit.ScriptModule):
                    module.register_forward_hook(lambda _m, _i, out, path=path: self._ended(path, out))

    def _ended(self, path: str, output: Any) -> None:
        self._ends += [(path, tensor) for tensor in _tensors((output,))]

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Count who takes what; everything goes its way."""
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") == "__get__" or func in _FORM:
            return func(*args, **kwargs)
        self._uses.update(id(tensor) for tensor in _tensors((*args, *kwargs.values())))
        if func is F.batch_norm:
            named = dict(zip(_NORMED, args, strict=False)) | kwargs
            if named.get("running_mean") is not None and not named.get("training", False):
                self._normed.append((named["input"], named["running_mean"]))
        result = func(*args, **kwargs)
        if func in _CONVOLUTIONS and len(args) > 2:
            self._made.append((result, *args[1:3]))
            self._uses[id(result)] = 0  # whoever had this id before is gone
        return result

    def tuned(self, output: Any, original: nn.Module, *, channels_last: bool) -> Tuned:
        """What to compute with.

        Args:
            output: What the pass returned.
            original: The caller's model, whose weights the copy shares.
            channels_last: Whether to lay out channels last.
        """
        weights: dict[int, tuple[nn.Parameter, nn.Parameter]] = {}
        biases: dict[str, nn.Parameter] = {}
        folded, hidden = [], set()
        pairs = [] if self._hooked else list(self._pairs(output))
        for conv, norm, result in pairs:
            weight, bias = _fold(*(self._model.get_submodule(path) for path in (conv, norm)))
            original_conv: Any = original.get_submodule(conv)
            weights[id(original_conv.weight)] = original_conv.weight, weight
            biases[conv] = bias
            folded.append(norm)
            hidden |= {path for path, tensor in self._ends if tensor is result and path != norm}
        changed = frozenset(weights)
        if channels_last:
            for weight in original.parameters():
                if weight.ndim == 4 and type(weight) is nn.Parameter:
                    tuned = weights[id(weight)][1] if id(weight) in weights else weight
                    laid = tuned.detach().contiguous(memory_format=torch.channels_last)
                    weights[id(weight)] = weight, nn.Parameter(laid, requires_grad=False)
        for weight in original.parameters():
            if type(weight) is nn.Parameter and id(weight) not in weights:
                weights[id(weight)] = weight, nn.Parameter(weight.detach(), requires_grad=False)
        same = {id(original.get_submodule(path)) for path in hidden}
        hidden = {path for path, module in original.named_modules(remove_duplicate=False) if id(module) in same}
        return Tuned(weights, biases, tuple(folded), frozenset(hidden), channels_last, changed)

    def _pairs(self, output: Any) -> Iterator[tuple[str, str, Tensor]]:
        """The paths of a convolution and of the BatchNorm that alone takes its result; and that result."""
        names = {id(m._parameters["weight"]): p for p, m in self._model.named_modules() if _is_plain(m)}
        norms = {id(m.running_mean): p for p, m in self._model.named_modules() if _is_norm(m)}
        returned = {id(tensor) for tensor in _tensors((output,))}
        taken = {id(x): (norms.get(id(mean)), mean) for x, mean in self._normed}
        for result, weight, bias in self._made:
            norm, mean = taken.get(id(result), (None, None))
            conv = names.get(id(weight))
            once = self._uses[id(result)] == 1 and self._uses[id(weight)] == 1 and self._uses[id(mean)] == 1
            if conv is None or norm is None or not once or id(result) in returned:
                continue
            module: Any = self._model.get_submodule(conv)
            if bias is module._parameters.get("bias") and (bias is None or self._uses[id(bias)] == 1):
                yield conv, norm, result


def has_hooks(model: nn.Module) -> bool:
    """Whether somebody looks into the model: what is folded would show another output there."""
    return bool(global_hooks()) or any(
        m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks
        for m in modules_of(model)
    )


def _is_plain(module: nn.Module) -> bool:
    weight = module._parameters.get("weight") if isinstance(module, nn.modules.conv._ConvNd) else None
    return type(weight) is nn.Parameter and weight.dtype in _TYPES and not weight.is_meta


def _is_norm(module: nn.Module) -> bool:
    """Whether all it does is normalize: a subclass may have an activation inside."""
    if not isinstance(module, _BatchNorm) or type(module).forward is not _BatchNorm.forward:
        return False
    return "forward" not in vars(module) and module.running_mean is not None and module.running_mean.dtype in _TYPES


def _fold(conv: Any, norm: Any) -> tuple[nn.Parameter, nn.Parameter]:
    with torch.no_grad():
        scale = (norm.running_var.double() + norm.eps).rsqrt()
        if norm.weight is not None:
            scale = scale * norm.weight.double()
        shift = -norm.running_mean.double() if conv.bias is None else conv.bias.double() - norm.running_mean.double()
        bias = shift * scale if norm.bias is None else shift * scale + norm.bias.double()
        weight = conv.weight.double() * scale.view(-1, *[1] * (conv.weight.ndim - 1))
    kind = conv.weight.dtype
    return nn.Parameter(weight.to(kind), requires_grad=False), nn.Parameter(bias.to(kind), requires_grad=False)


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, dict):
            yield from _tensors(value.values())
        elif isinstance(value, (tuple, list)):
            yield from _tensors(value)
        elif hasattr(value, "__dict__") and not isinstance(value, (nn.Module, type)):
            yield from (item for item in vars(value).values() if isinstance(item, Tensor))
