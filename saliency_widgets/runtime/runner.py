"""The queries of a method, run as passes of the model or read from stored results of earlier passes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from torch import Tensor

from saliency_widgets.attribution.input_parts import InputPart
from saliency_widgets.attribution.kind import NUMBERS, Kind
from saliency_widgets.attribution.query import BY_POSITION, LayerPoint, Rule
from saliency_widgets.runtime.baseline_pool import DrawnBaselines
from saliency_widgets.runtime.batching import chunks
from saliency_widgets.runtime.coupling import by_samples, why_apart
from saliency_widgets.runtime.layers.selection import activation_maps
from saliency_widgets.runtime.memory import Sharing
from saliency_widgets.runtime.passes import Gradient, Passes
from saliency_widgets.runtime.relu_rules import rectified_gradient
from saliency_widgets.runtime.reuse.cuda_graphs import Replays
from saliency_widgets.runtime.reuse.graph_cache import Store, of_inputs, once

T = TypeVar("T")


@dataclass(frozen=True)
class Runner:
    """A model bound to inputs and a score, which implements :class:`~saliency_widgets.attribution.query.Query`.

    Attributes:
        passes: The model bound to inputs and to a score.
        kind: The kind of the inputs; if several are explained together, each part has its own.
        results: Stored results of single passes, for this request of this method: see :meth:`once`.
        graphs: Stored passes of the inputs with their graphs, for any request about them.
        replays: Passes recorded as CUDA graphs.
    """

    passes: Passes
    kind: Kind = NUMBERS
    results: Store | None = None
    graphs: Store | None = None
    replays: Replays | None = None

    @property
    def inputs(self) -> Tensor:
        """The explained tensor, shape (B, ...)."""
        return self.passes.inputs

    @property
    def batch(self) -> int:
        """B, the number of samples."""
        return self.passes.batch

    @property
    def parts(self) -> tuple[InputPart, ...]:
        """The inputs that are explained together; empty if there is only one."""
        return self.passes.parts

    @property
    def precision(self) -> str | None:
        """The numerical precision of passes."""
        return self.passes.precision

    @property
    def plain(self) -> Runner:
        """The same query without tuned weights and layout, for code that inspects layers."""
        return replace(self, passes=self.passes.plain, graphs=None, replays=None)

    def scores(self, rows: Tensor, seed: int = 0) -> Tensor:
        """Return the scores of rows, shape (K * B,); ``seed`` seeds the model's random draws."""
        self.look_at(rows)
        return self.passes.scores(rows, seed)

    def outcomes(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scores of rows and the class scores in the model's output: see :meth:`.Passes.outcomes`."""
        self.look_at(rows)
        return self.passes.outcomes(rows)

    def gradient(self, rows: Tensor, rule: Rule | None = None) -> Gradient:
        """Return the gradient of the score with respect to rows, and the scores, from a recorded pass if available."""
        if rule is not None:
            return rectified_gradient(rule, self.passes.model, lambda: self.gradient(rows))
        if rows is self.inputs:
            recorded = of_inputs(self.passes, self.graphs)
            if recorded is not None:
                return recorded[1].contiguous(), recorded[2]
        self.look_at(rows)
        return self.passes.gradient(rows, None if self.replays is None else self.replays.gradient)

    def at_layer(self, layer: str | None, reshape: Any = BY_POSITION) -> LayerPoint:
        """Return the activation of a layer and its gradient: see :func:`~.selection.activation_maps`."""
        return activation_maps(self.passes, layer, reshape, self.graphs)

    def baseline(self, value: Any, seed: int) -> Tensor:
        """Return the baseline of each sample: see :func:`~saliency_widgets.attribution.kind.baseline_of`.

        Each of several inputs has its own baseline: ``value`` may be a mapping from names, or a tuple in order.
        """
        return self.passes.call.baseline(value, self.inputs, seed, self.kind)

    def baseline_pool(self, value: Any, seed: int) -> DrawnBaselines:
        """Return the pool of baselines that samples are drawn from."""
        return DrawnBaselines(self, self.passes.call, self.kind, value, seed)

    def named_baseline(self, value: Any) -> Any:
        """Return a baseline as settings record it: see :meth:`~.arguments.Arguments.named_baseline`."""
        return self.passes.call.named_baseline(value, self.kind)

    @property
    def baselines(self) -> tuple[str, ...]:
        """The names of the baselines that these inputs accept, the default first."""
        return self.passes.call.baselines(self.kind)

    def noise_scale(self) -> Tensor:
        """Return the range max - min of each sample's inputs, broadcastable to them; several inputs each have one.

        For rows with a background, it is the range of each feature in the background.
        """
        return self.passes.call.spread(self.inputs, self.kind)

    def chunks(self, total: int, size: int | None, first: Sequence[int] = (1, 3)) -> list[range]:
        """Return the evaluations of each pass: see :func:`~.batching.chunks`."""
        rows = self.passes.rows_per_pass(size)
        return chunks(total, rows, self.batch, first, spare=rows // 8 if size is None else 0)

    def once(self, key: Hashable, work: Callable[[], T]) -> T:
        """Return the result of work that a larger setting repeats, computed only once."""
        return once(self.results, key, work)

    def on(self, rows: Tensor) -> Runner:
        """Return the same query for other inputs, shape (K * B, ...)."""
        if not self.passes.joint:
            self.look_at(rows)
        return replace(self, passes=self.passes.on(rows), results=None, graphs=None)

    def look_at(self, copies: Tensor) -> None:
        """Check once whether copies of the one sample may share a pass: see :func:`~.coupling.why_apart`."""
        passes = self.passes
        if passes.sharing.apart is None and len(copies) > passes.batch == 1 and not passes.joint:
            look = replace(passes, memory=copy.copy(passes.memory), sharing=Sharing(""))
            passes.sharing.apart = why_apart(look, copies)

    def by_samples(self, scores: Tensor | None = None) -> tuple[Runner, tuple[str, ...]]:
        """Return the query of independent samples, and notes for the user: see :func:`~.coupling.by_samples`.

        Args:
            scores: The scores of the rows, if known.
        """
        passes, notes = by_samples(self.passes, scores)
        if passes is self.passes:
            return self, notes
        return replace(self, passes=passes, results=None, graphs=None, replays=None), notes


def imprecision(runner: Runner) -> float:
    """Return the relative L1 error of the gradient of the inputs, compared with full precision.

    It is the error of one gradient; in means over many gradients, random errors average out.
    """
    exact = replace(runner.passes, precision="full").gradient(runner.inputs)[0]
    rough = runner.passes.gradient(runner.inputs)[0]
    size = float(exact.double().abs().sum())
    off = float((rough.double() - exact.double()).abs().sum())
    return off / size if size else off
