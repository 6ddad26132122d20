"""A model's class scores, and a faster computation of the same scores: see :mod:`~.fusion`."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from saliency_widgets.attribution.arrays import check_dense
from saliency_widgets.attribution.errors import Cancelled
from saliency_widgets.attribution.score import scores_in
from saliency_widgets.runtime.passes import Passes
from saliency_widgets.runtime.reuse.fusion import TOLERANCE, Observed, Tuned, agree


@dataclass(frozen=True)
class Survey:
    """The result of :func:`survey`.

    Attributes:
        logits: The class scores of the inputs, shape (B, K), on the host.
        notes: Notes on how the class scores were read from the output.
        squashed: Whether they are probabilities: several that are not negative and sum to 1, or one from a sigmoid.
        tuned: A faster computation of the same scores, or None.
        refused: Why the faster computation, or a part of it, is not used; empty if all of it is.
    """

    logits: Tensor
    notes: tuple[str, ...]
    squashed: bool = False
    tuned: Tuned | None = None
    refused: str = ""


def output_shape(passes: Passes) -> tuple[int, ...]:
    """Return the shape of the scores as the model returns them for the inputs, (B, ...).

    Raises:
        TypeError: The model's output holds no tensor.
        ValueError: The model failed.
    """
    shape: tuple[int, ...] = ()

    def work(rows: range) -> tuple[Tensor]:
        nonlocal shape
        with passes.isolated() as model, torch.no_grad():
            output = passes.output(model, passes.inputs[rows.start : rows.stop], rows)
        scores = scores_in(output, len(rows))
        check_dense(scores, "model", returned=True)
        shape = tuple(scores.shape)
        return (torch.empty(len(rows), device="cpu"),)

    passes.run(work, passes.batch)
    return (passes.batch, *shape[1:])


def token_scores(passes: Passes) -> Tensor:
    """Return the scores (B, T, K) that the model returns for texts, on its device.

    Raises:
        ValueError: The model failed.
    """

    def work(rows: range) -> tuple[Tensor]:
        with passes.isolated() as model, torch.no_grad(), passes.memory.timed(len(rows)):
            return (scores_in(passes.output(model, passes.inputs[rows.start : rows.stop], rows), len(rows)).detach(),)

    return passes.run(work, passes.batch)[0]


def survey(passes: Passes, *, fold: bool) -> Survey:
    """Compute a model's class scores, and look for a faster computation of the same scores.

    Args:
        passes: The model and its inputs.
        fold: Whether BatchNorms may be folded into convolutions, and channels laid out last.

    Raises:
        TypeError: The model's output holds no tensor.
        ValueError: The model failed, or its output has another form.
    """
    notes: tuple[str, ...] = ()
    tuned: Tuned | None = None
    sigmoid = False
    laid = passes.inputs.dtype == torch.float32 and passes.size is not None

    def work(rows: range) -> tuple[Tensor]:
        nonlocal notes, tuned, sigmoid
        with passes.isolated() as model, torch.no_grad():
            if rows.start:
                _, logits, notes = passes.read(model, rows)
            else:
                with Ends() as ends, Observed(model) if fold else nullcontext() as seen:
                    output, logits, notes = passes.read(model, rows)
                sigmoid = ends.in_sigmoid(scores_in(output, len(rows)))
                tuned = None if seen is None else seen.tuned(output, passes.model, channels_last=laid)
            return (logits,)

    logits = passes.run(work, passes.batch)[0]
    squashed = sigmoid if logits.shape[1] == 1 else are_probabilities(logits)
    tuned, refused = _proven(passes, tuned, logits) if tuned else (None, "")
    return Survey(logits, notes, squashed, tuned, refused)


def are_probabilities(scores: Tensor) -> bool:
    """Return whether class scores, shape (B, K, ...), are not negative and sum to 1 over the classes."""
    return bool((scores >= 0).all()) and bool(((scores.double().sum(1) - 1).abs() < _OFF).all())


_OFF = 1e-3
_SIGMOIDS = (torch.sigmoid, torch.sigmoid_, Tensor.sigmoid, Tensor.sigmoid_, F.sigmoid, torch.special.expit)
_SAME = (  # they leave values unchanged, except for clamping them
    Tensor.view, Tensor.reshape, torch.reshape, Tensor.squeeze, torch.squeeze, Tensor.unsqueeze, torch.unsqueeze,
    Tensor.flatten, torch.flatten, Tensor.float, Tensor.double, Tensor.to, Tensor.clone, Tensor.contiguous,
    Tensor.__getitem__, Tensor.clamp, torch.clamp,
)  # fmt: skip


class Ends(TorchFunctionMode):
    """Watches whether a model's output comes from a sigmoid."""

    def __init__(self) -> None:
        super().__init__()
        self._made: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Remember the latest results of sigmoids, also after reshaping."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func in _SIGMOIDS or (func in _SAME and self.in_sigmoid(args[0] if args else kwargs.get("input"))):
            self._made = [*self._made[-1:], result]
        return result

    def in_sigmoid(self, scores: Any) -> bool:
        """Return whether these scores come from a sigmoid."""
        return any(scores is tensor for tensor in self._made)


def _proven(passes: Passes, tuned: Tuned, logits: Tensor) -> tuple[Tuned | None, str]:
    """Return the part of the tuning that reproduces the model's own scores, and why the rest doesn't."""
    if logits.dtype not in TOLERANCE:
        return None, ""  # scores with three digits are too coarse to compare
    rows = range(min(passes.batch, passes.memory.limit or passes.batch))
    again = replace(passes, tuned=tuned)
    try:
        with again.isolated(tuned=True) as model, torch.no_grad():
            scores = again.read(model, rows)[1]
        if agree(scores, logits[: rows.stop]):
            return tuned, ""
        why = "the scores differ"
    except Cancelled:
        raise
    except Exception as error:
        # The code doesn't accept channels laid out last (.view of a convolution's result), or reads a folded layer.
        # Errors of the model itself were already reported by its own pass.
        why = str(error).partition(". Check that")[0].removeprefix("model: ")
    if tuned.channels_last and tuned.folded:
        faster, further = _proven(passes, tuned.without_layout(), logits)
        return faster, further or f"with channels-last layout, {why}"
    how = "channels-last layout" if tuned.channels_last else "BatchNorms folded into convolutions"
    return None, f"with {how}, {why}"
