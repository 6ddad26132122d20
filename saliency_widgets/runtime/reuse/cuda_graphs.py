"""Passes recorded as CUDA graphs: one launch instead of one per operation, which dominates the time of small passes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import replace

import torch
from torch import Tensor

from saliency_widgets.attribution.errors import Cancelled, out_of_memory
from saliency_widgets.attribution.score import scores_in
from saliency_widgets.runtime.autograd import both_finite
from saliency_widgets.runtime.model.isolation import is_training
from saliency_widgets.runtime.passes import Gradient, Passes, never_cancel

_STABLE = 3  # the pass at which a shape is recorded
_MOST = 4  # shapes: each occupies the memory of a pass
_WARM = 3  # passes before recording, in which libraries choose their algorithms
_OFF = 1e-3


class Replay:
    """A recorded forward and backward pass of one shape; the score between them is computed as usual.

    Args:
        run: Computes class scores, shape (N, K), from rows, without reading values on the host.
        rows: Example rows.
    """

    def __init__(self, run: Callable[[Tensor], Tensor], rows: Tensor) -> None:
        self._rows = rows.detach().clone().requires_grad_(True)
        side = torch.cuda.Stream(rows.device)
        side.wait_stream(torch.cuda.current_stream(rows.device))
        with torch.cuda.stream(side):
            for _ in range(_WARM):
                output = run(self._rows)
                torch.autograd.grad(output.sum(), self._rows)
        torch.cuda.current_stream(rows.device).wait_stream(side)
        self._forward, self._backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        # Capture only restricts this thread, because the caller may be training in another cell.
        with torch.cuda.graph(self._forward, stream=side, capture_error_mode="thread_local"):
            self._output = run(self._rows)
        self._cotangent = torch.zeros_like(self._output)
        pool = self._forward.pool()
        with torch.cuda.graph(self._backward, pool=pool, stream=side, capture_error_mode="thread_local"):
            (self._gradient,) = torch.autograd.grad(self._output, self._rows, self._cotangent)

    def __call__(self, rows: Tensor, score: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Return the gradients of the scores, with the shape of the rows, and the scores, shape (N,)."""
        with torch.no_grad():
            self._rows.copy_(rows)
        self._forward.replay()
        output = self._output.detach().requires_grad_(True)
        scores = score(output)
        (cotangent,) = torch.autograd.grad(scores.sum(), output)
        self._cotangent.copy_(cotangent)
        self._backward.replay()
        return self._gradient.clone(), scores.detach().clone()


class Replays:
    """The recorded passes of one version of a model.

    A shape is recorded at its third pass, and the recording is used only if it reproduces the result of that pass.
    Passes that can't be recorded (control flow that depends on values, random numbers) are computed as usual.

    Attributes:
        record: Makes a recording; replaced in tests.
    """

    record: Callable[[Callable[[Tensor], Tensor], Tensor], Callable] = Replay

    def __init__(self) -> None:
        self._seen: Counter[Hashable] = Counter()
        self._made: dict[Hashable, Callable | None] = {}

    def gradient(self, passes: Passes, rows: Tensor, compute: Callable[[], Gradient]) -> Gradient:
        """Return the gradients and scores of some rows.

        Args:
            passes: The passes of these rows.
            rows: The rows.
            compute: Computes the same without a recording.
        """
        key = tuple(rows.shape), rows.dtype, rows.device, passes.precision
        if passes.arguments is not None or passes.inspected or is_training(passes.model):
            return compute()
        made = self._made.get(key)
        if made is not None:
            gradients, scores = made(rows, lambda output: passes.score(output, len(rows)))
            both_finite(scores, gradients)
            return gradients, scores
        result = compute()
        self._seen[key] += 1
        if self._seen[key] == _STABLE and len(self._made) < _MOST:
            self._made[key] = self._proven(passes, rows, result)
        return result

    def _proven(self, passes: Passes, rows: Tensor, expected: tuple[Tensor, Tensor]) -> Callable | None:
        try:
            # A recording always finishes.
            with replace(passes, check=never_cancel).isolated(tuned=True) as model:
                made = self.record(lambda x: scores_in(passes.output(model, x, range(len(x))), len(x)), rows)
                result = made(rows, lambda output: passes.score(output, len(rows)))
        except Exception as error:
            if isinstance(error, Cancelled) or out_of_memory(error):
                raise
            return None
        near = all(_near(a, b) for a, b in zip(result, expected, strict=True))
        return made if near else None


def _near(result: Tensor, expected: Tensor) -> bool:
    size = expected.double().abs().sum()
    return bool((result.double() - expected.double()).abs().sum() <= _OFF * size)
