"""Hooks on the layers of a model, which report their outputs or detach them from the preceding computation.

A layer is named by the path of a module ("features.7"), or, for a convolution that is called without a module, by its
number among all convolutions of one run ("conv2d #3").
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_CONVOLUTIONS = (torch.conv2d, torch.conv_transpose2d, torch.convolution)
_TURN = re.compile(r"conv2d #([1-9]\d*)")


def turn_of(layer: str) -> int | None:
    """Return the number in the name of a convolution; None for the path of a module."""
    match = _TURN.fullmatch(layer)
    return int(match[1]) if match else None


class _Convolutions(TorchFunctionMode):
    """A function mode that reports each convolution's result; a tensor returned by the callback replaces it."""

    def __init__(self, shown: Callable[[int, Tensor], Tensor | None]) -> None:
        super().__init__()
        self._shown = shown
        self._turn = 0

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Call the function, and report its result if it is a convolution."""
        result = func(*args, **(kwargs or {}))
        if func not in _CONVOLUTIONS:
            return result
        self._turn += 1
        instead = self._shown(self._turn, result)
        return result if instead is None else instead


def hookable(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules of a copy that accept hooks, with their paths."""
    for path, module in model.named_modules():
        if path and not isinstance(module, torch.jit.ScriptModule):
            yield path, module


@contextlib.contextmanager
def watched(model: nn.Module, seen: Callable[[str, Any], None]) -> Iterator[None]:
    """Report each layer's output as the layer finishes, while the model runs in this block.

    Args:
        model: A copy of the model; the hooks stay on it.
        seen: Called with the layer's name and output. A convolution module is reported twice, with the same tensor.
    """
    for path, module in hookable(model):
        module.register_forward_hook(lambda _module, _inputs, output, path=path: seen(path, output))
    with _Convolutions(lambda turn, output: seen(f"conv2d #{turn}", output)):
        yield


class Tap:
    """A cut in the model at one layer: everything after it depends on a leaf tensor.

    Args:
        model: A copy of the model in which only the inputs require a gradient; the hook stays on it.
        layer: The name of the layer.
        dependent: Whether to cut only runs that depend on the explained input: in an encoder that two inputs share,
            the run of the explained one.
        skipped: The number of runs to count without a cut, because they are known not to be the last.
    """

    def __init__(self, model: nn.Module, layer: str, *, dependent: bool = False, skipped: int = 0) -> None:
        self._layer = layer
        self._dependent = dependent
        self._skipped = skipped
        self._passed = False
        self._outputs: list[Any] = []
        self._mode: Any = contextlib.nullcontext()
        turn = turn_of(layer)
        if turn is None:
            module = model.get_submodule(layer)
            if isinstance(module, torch.jit.ScriptModule):
                raise ValueError(
                    f"layer: {layer!r} is scripted or traced, and can't be hooked. Choose a layer outside of it, "
                    f"or pass the original module, from before torch.jit."
                )
            module.register_forward_hook(lambda _module, _inputs, output: self._cut(output))
        else:
            self._mode = _Convolutions(lambda now, output: self._cut(output) if now == turn else None)

    def __enter__(self) -> Tap:
        self._mode.__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        self._mode.__exit__(*raised)

    @property
    def runs(self) -> int:
        """The number of runs of the layer, including skipped ones."""
        return len(self._outputs)

    @property
    def leaf(self) -> Tensor:
        """The layer's output in its last run.

        Raises:
            ValueError: The layer did not run, returned no tensor, or does not depend on the explained input.
        """
        if self._passed and not self._outputs:
            raise ValueError(
                f"layer: {self._layer!r} does not depend on the explained input. Omit layer=, or pass explain= the "
                f"input that reaches it."
            )
        if not self._outputs or not isinstance(self._outputs[-1], Tensor):
            what = f"returned a {type(self._outputs[-1]).__name__}" if self._outputs else "did not run"
            raise ValueError(f"layer: {self._layer!r} {what}; choose a layer that returns a tensor.")
        return self._outputs[-1]

    def _cut(self, output: Any) -> Any:
        tensor = tensor_in(output)
        if tensor is None:
            self._outputs.append(output)
            return None
        if self._dependent and not tensor.requires_grad:
            self._passed = True
            return None
        if len(self._outputs) < self._skipped:
            self._outputs.append(None)
            return None
        leaf = tensor.detach().requires_grad_(True)
        self._outputs.append(leaf)
        # A clone, so that in-place operations after the layer are allowed.
        return exchanged(output, tensor, leaf.clone())


def tensor_in(output: Any) -> Tensor | None:
    """Return a layer's output if it is a tensor, else the first tensor in a tuple, list or mapping, or None."""
    if isinstance(output, Tensor):
        return output
    items = output.values() if isinstance(output, Mapping) else output if isinstance(output, (tuple, list)) else ()
    return next((item for item in items if isinstance(item, Tensor)), None)


def tensors_in(values: Iterable[Any]) -> Iterator[Tensor]:
    """Yield the tensors among the arguments of an operation, including those in nested tuples and lists."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from tensors_in(value)


def exchanged(output: Any, old: Tensor, new: Tensor) -> Any:
    """Return the output with one tensor replaced."""
    if output is old:
        return new
    if isinstance(output, Mapping):
        changed = {key: new if value is old else value for key, value in output.items()}
        return type(output)(**changed) if hasattr(output, "to_tuple") else changed
    items = [new if item is old else item for item in output]
    return type(output)(*items) if hasattr(output, "_fields") else type(output)(items)
