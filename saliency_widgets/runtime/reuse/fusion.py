r"""Compute the same numbers faster: fold a BatchNorm into the convolution before it, and lay out channels last.

Foldable pairs are identified by watching a pass, not by names: the result of a convolution goes into one BatchNorm in
eval mode and nowhere else. For y = g (Wx + b - m) / sqrt(v + e) + h, with the convolution's W and b and the BatchNorm's
statistics m, v, weight g, bias h and eps e:

.. math:: W' = W g / \sqrt{v + e}, \qquad b' = (b - m) g / \sqrt{v + e} + h

so that W'x + b' = y, up to rounding. The folded weights are private copies, so the caller's model is unchanged, and
the tuned weights are used only if they reproduce the model's own scores.
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
# They read a tensor's form, not its values.
_FORM = (Tensor.dim, Tensor.size, Tensor.numel, Tensor.ndimension, Tensor.is_floating_point, Tensor.__len__)
_TYPES = (torch.float32, torch.float64)
# The largest difference of scores, relative to the largest score, that counts as rounding.
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-9}


@dataclass(frozen=True)
class Tuned:
    """The weights and the layout that a copy computes with instead of the caller's.

    Attributes:
        weights: Maps ids of the caller's weights to the weight (so that its id isn't reused) and its replacement.
        biases: The biases of folded convolutions, by path.
        folded: The paths of the folded BatchNorms, which return their input.
        hidden: The paths of modules with a changed output: folded convolutions, and modules that end with them.
        channels_last: Whether images are laid out with channels last.
        changed: The ids of the caller's weights whose replacements have other values.
    """

    weights: dict[int, tuple[nn.Parameter, nn.Parameter]] = field(default_factory=dict)
    biases: dict[str, nn.Parameter] = field(default_factory=dict)
    folded: tuple[str, ...] = ()
    hidden: frozenset[str] = frozenset()
    channels_last: bool = False
    changed: frozenset[int] = frozenset()

    def __bool__(self) -> bool:
        """Return whether anything is tuned."""
        return bool(self.folded) or self.channels_last

    def without_layout(self) -> Tuned:
        """Return the folds without the channels-last layout."""
        folds = {key: (original, nn.Parameter(w.detach().contiguous(), requires_grad=False))
                 for key, (original, w) in self.weights.items() if key in self.changed}  # fmt: skip
        return replace(self, weights=folds, channels_last=False)

    def shows(self, layer: str) -> bool:
        """Return whether a layer's output is the same as in the caller's model; for layer names see :mod:`~.hooks`."""
        return not self.folded or (layer not in self.hidden and " #" not in layer)

    def weight(self, weight: nn.Parameter) -> nn.Parameter | None:
        """Return the replacement of one of the caller's weights, or None."""
        entry = self.weights.get(id(weight))
        return entry[1] if entry is not None and entry[0] is weight else None

    def put_into(self, model_copy: nn.Module) -> None:
        """Put the weights and folded biases into a copy, and let its folded BatchNorms return their input."""
        freeze(model_copy, self.weight)
        if not self.folded:
            return
        modules = dict(model_copy.named_modules())  # faster than get_submodule for each path
        for path, bias in self.biases.items():
            modules[path]._parameters["bias"] = bias
        for path in self.folded:
            modules[path].__dict__["forward"] = _same


def _same(x: Tensor) -> Tensor:
    return x


def agree(scores: Tensor, expected: Tensor) -> bool:
    """Return whether scores are the same up to rounding."""
    if scores.shape != expected.shape or scores.dtype not in TOLERANCE:
        return False
    finite = expected.isfinite()
    if not finite.any():
        return False
    apart = (scores - expected)[finite].abs().max()
    return bool(apart <= TOLERANCE[scores.dtype] * expected[finite].abs().max())


class Observed(TorchFunctionMode):
    """Watches one pass of a copy for layers that can be folded.

    Args:
        model_copy: The copy that runs; the hooks are left on it.
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
        """Count the uses of each tensor, and record convolutions and BatchNorms; calls run unchanged."""
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
            self._uses[id(result)] = 0  # a tensor that had this id before is gone
        return result

    def tuned(self, output: Any, original: nn.Module, *, channels_last: bool) -> Tuned:
        """Return the weights and the layout to compute with.

        Args:
            output: The output of the pass.
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
        """Yield the paths of a convolution and of the BatchNorm that alone uses its result, and that result."""
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
    """Return whether any hooks see the model's layers: folded layers would show them another output."""
    return bool(global_hooks()) or any(
        m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks
        for m in modules_of(model)
    )


def _is_plain(module: nn.Module) -> bool:
    weight = module._parameters.get("weight") if isinstance(module, nn.modules.conv._ConvNd) else None
    return type(weight) is nn.Parameter and weight.dtype in _TYPES and not weight.is_meta


def _is_norm(module: nn.Module) -> bool:
    """Return whether a module only normalizes; a subclass may contain an activation."""
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
