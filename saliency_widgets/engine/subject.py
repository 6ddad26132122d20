"""The model and the input that questions are asked about."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from saliency_widgets.attribution import Call, Score
from saliency_widgets.attribution.isolation import device_of, dtype_of
from saliency_widgets.attribution.layers import spatial_layers
from saliency_widgets.attribution.targets import is_function, logits_of, resolve
from saliency_widgets.engine.request import Request
from saliency_widgets.inputs import Prepared, prepare


class Subject:
    """A model, an input prepared for it, and the names of its classes.

    Args:
        model: Any module; it is run and never changed.
        inputs: See :func:`saliency_widgets.inputs.prepare`.
        transform: From the input to what the model takes.
        class_names: Names of the classes in order.
        device: Where to compute; the model's own device unless given. Elsewhere, a private copy is made.

    Raises:
        TypeError: ``model`` is no module, or ``inputs`` are of no known kind.
        ValueError: Inputs or names that don't fit.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Any,
        *,
        transform: Callable | None = None,
        class_names: Sequence[str] | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model: expected a torch.nn.Module, got a {type(model).__name__}.")
        if device is not None and not _same_device(torch.device(device), device_of(model)):
            model = copy.deepcopy(model).to(device)
        self.model = model
        self.prepared: Prepared = prepare(inputs, transform, device=device_of(model), dtype=dtype_of(model))
        self.class_names = None if class_names is None else [str(name) for name in class_names]
        self.transformed = transform is not None
        self._logits: tuple[tuple, Tensor] | None = None

    @property
    def tensor(self) -> Tensor:
        """What the model sees, shape (B, ...)."""
        return self.prepared.tensor

    @property
    def logits(self) -> Tensor:
        """The model's scores of the inputs, shape (B, K); computed anew when the model has changed.

        Raises:
            TypeError: The model's output holds no tensor.
            ValueError: The model failed, or its output has another form.
        """
        version = self.version()
        if self._logits is not None and self._logits[0] == version:
            return self._logits[1]
        found: list[Tensor] = []

        def read(output: Any) -> Tensor:
            found.append(logits_of(output, self.tensor.shape[0]).detach())
            # NaN in any class is an error; a class that is masked out with -inf is none.
            return found[0].nan_to_num(nan=float("nan"), posinf=0.0, neginf=0.0).sum(1)

        self.call(Score("logit", read)).scores(self.tensor)
        if self.class_names is not None and len(self.class_names) != found[0].shape[1]:
            raise ValueError(
                f"class_names: {len(self.class_names)} names were given, and the model scores "
                f"{found[0].shape[1]} classes."
            )
        self._logits = (self.version(), found[0])
        return found[0]

    def call(self, score: Score, check: Callable[[], None] | None = None) -> Call:
        """The model bound to the inputs and to a score."""
        bound = Call(self.model, self.tensor, score, self.prepared.pixels)
        return bound if check is None else Call(self.model, self.tensor, score, self.prepared.pixels, check)

    def resolve(self, request: Request) -> Score:
        """The score that a request asks for."""
        return resolve(
            request.target,
            None if is_function(request.target) else self.logits,
            self.tensor.shape[0],
            score=request.score,
            contrast=request.contrast,
            class_names=self.class_names,
        )

    @cached_property
    def layers(self) -> dict[str, tuple[int, int, int]]:
        """The layers with a spatial output: module path -> (C, h, w)."""
        return spatial_layers(self.call(Score("logit", lambda output: logits_of(output).sum(1))))

    def name_of(self, index: int) -> str:
        """The name of a class, or its number."""
        return f"class {index}" if self.class_names is None else self.class_names[index]

    def version(self) -> tuple:
        """Changes whenever the model's weights, buffers or training flags do."""
        tensors = (*self.model.parameters(), *self.model.buffers())
        return (
            tuple((id(t), t.data_ptr(), None if t.is_inference() else t._version) for t in tensors),
            tuple(module.training for module in self.model.modules()),
        )


def _same_device(asked: torch.device, found: torch.device) -> bool:
    """Whether ``asked``, which may leave out the number ("cuda"), is where the model already is."""
    return asked.type == found.type and asked.index in (None, found.index)
