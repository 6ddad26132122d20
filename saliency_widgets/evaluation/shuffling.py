"""Shuffling: replace a feature's values by those of other rows, and measure the change of the score or the loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from saliency_widgets.attribution.columns import Columns
from saliency_widgets.attribution.numerics.noise import SEED, seeded
from saliency_widgets.attribution.query import CHUNK_SIZE
from saliency_widgets.attribution.score import in_classes
from saliency_widgets.evaluation.explanation import Explanation
from saliency_widgets.evaluation.registry import Running, trust_test
from saliency_widgets.outputs.task import Loss
from saliency_widgets.params import count_param
from saliency_widgets.runtime.batching import chunks
from saliency_widgets.runtime.runner import Runner

DRAWS = count_param(
    "draws", 64, 1, 512, "The number of background rows that replace each feature.", unit="rows", scale="log2"
)
REPEATS = count_param(
    "repeats", 5, 1, 50, "The number of times each feature is permuted over the background.", unit="permutations"
)
_PASS = 4096  # rows per pass without gradients: small networks take milliseconds


@dataclass(frozen=True, eq=False)
class Shuffled(Running):
    """The score of one row with each feature in turn taken from other rows.

    Attributes:
        before: The score of the unchanged row.
        scores: The scores with column c taken from draw k, shape (C, K).
    """

    before: float
    scores: Tensor

    @property
    def contribution(self) -> Tensor:
        """The mean amount by which the row's value raises the score above that with other rows' values, shape (C,)."""
        return self.before - self.scores.double().mean(1)

    @property
    def error(self) -> Tensor:
        """The standard error of the contribution over the draws, shape (C,); NaN for a single draw."""
        count = self.scores.shape[1]
        scores = self.scores.double()
        return scores.std(1) / count**0.5 if count > 1 else torch.full_like(scores[:, 0], float("nan"))


def shuffle(
    runner: Runner, *, draws: int = DRAWS.default, seed: int = 0, chunk_size: int | None = CHUNK_SIZE.default
) -> Iterator[Shuffled]:
    r"""Take one feature at a time from other rows of the data, and measure the change of the score.

    .. math:: c_j = f(x) - \frac1K \sum_k f(x \text{ with } x_j := b^{(k)}_j)

    for rows b of the background, drawn without replacement. One-hot groups are replaced as a whole. For a linear model
    and all rows of the background this is w_j (x_j - mean b_j), the same as Integrated Gradients from the mean and
    Expected Gradients over the background. Correlated features are separated: a row with one person's rent and another
    person's income may be unlike any row that the model was trained on.

    Sources: Breiman, "Random Forests", 2001, applied to one row; Štrumbelj and Kononenko, "Explaining prediction models
    and individual predictions with feature contributions", 2014.

    Args:
        runner: The model and its one row, with a background.
        draws: K, the number of rows to draw; all rows if there are fewer.
        seed: The seed of the draw.
        chunk_size: Rows per pass.

    Yields:
        The scores with more and more draws.

    Raises:
        ValueError: The runner has no background.
    """
    columns, rows = _background(runner)
    generator = seeded(seed, "shuffle")
    drawn = torch.randperm(len(rows), generator=generator, device="cpu")[:draws]
    before = float(runner.once("whole", lambda: runner.scores(runner.inputs))[0])
    masks = _masks(columns).to(runner.inputs.device)[:, None]  # (C, 1, F)
    parts: list[Tensor] = []
    size = runner.passes.rows_per_pass(chunk_size) if chunk_size is not None else _PASS
    for chunk in chunks(len(drawn), size, len(masks), first=(1,)):
        replacements = rows[drawn[chunk.start : chunk.stop].to(rows.device)]

        def work(replacements: Tensor = replacements) -> Tensor:
            variants = torch.where(masks, replacements, runner.inputs)
            return runner.scores(variants.flatten(0, 1)).view(len(masks), -1)

        parts.append(runner.once((seed, chunk.start, chunk.stop), work))
        scores = torch.cat(parts, 1)
        yield Shuffled(before, scores, done=scores.shape[1], total=len(drawn))


@dataclass(frozen=True, eq=False)
class Permutation(Running):
    """The increase of the model's loss on rows with one feature permuted.

    Attributes:
        loss: The measured loss: "cross-entropy", "squared error" or, without labels, "change of the score".
        before: The loss of the unchanged rows; 0 without labels.
        increases: The increase for column c in repeat r, shape (C, R); NaN where not computed yet.
    """

    loss: Loss
    before: float
    increases: Tensor

    @property
    def importance(self) -> Tensor:
        """The mean increase over the repeats so far, shape (C,)."""
        return self.increases.nanmean(1)


def permutation_importance(
    runner: Runner,
    labels: Tensor | None = None,
    loss: Loss = "change of the score",
    *,
    repeats: int = REPEATS.default,
    seed: int = 0,
    orders: Tensor | None = None,
) -> Iterator[Permutation]:
    """Permute one feature at a time over the background, and measure the increase of the loss.

    A feature that the model does not use leaves the loss unchanged. So may a redundant one: of two columns with the
    same information, each alone may seem worthless.

    Without labels there is no loss, and the mean absolute change of the score is reported: it shows which features the
    model uses, not which of them help it.

    Source: Breiman, "Random Forests", 2001; Fisher, Rudin and Dominici, "All Models are Wrong, but Many are Useful",
    2019.

    Args:
        runner: The model and any of its rows, with a background.
        labels: The labels of the background's rows, shape (N,): classes, or values for a squared error.
        loss: The loss to measure.
        repeats: The number of permutations of each feature.
        seed: The seed of the permutations.
        orders: Fixed permutations to use instead, shape (R, N): row i gets the feature of row ``orders[r, i]``.

    Yields:
        The result with one more column each time, and then with further repeats of all columns.

    Raises:
        ValueError: The runner has no background.
    """
    columns, rows = _background(runner)
    if orders is None:
        generator = seeded(seed, "permutations")
        orders = torch.stack([torch.randperm(len(rows), generator=generator, device="cpu") for _ in range(repeats)])
    masks = _masks(columns).to(rows.device)

    def outcomes(key: tuple, inputs: Tensor) -> tuple[Tensor, Tensor]:
        def work() -> tuple[Tensor, Tensor]:
            parts = [runner.outcomes(batch) for batch in inputs.split(_PASS)]
            return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])

        return runner.once(key, work)

    def measured(result: tuple[Tensor, Tensor]) -> float:
        scores, logits = result
        if labels is None:
            return float((scores.double() - whole[0].double()).abs().mean())
        logits = in_classes(logits, binary=False, squashed=runner.passes.score.squashed)
        return _loss(loss, scores, logits, labels)

    whole = outcomes(("background",), rows)
    before = measured(whole)
    increases = torch.full((len(masks), len(orders)), float("nan"), dtype=torch.float64, device="cpu")
    for repeat, order in enumerate(orders):
        other = rows[order.to(rows.device)]
        for column, mask in enumerate(masks):
            moved = outcomes(("permuted", seed, repeat, column), torch.where(mask, other, rows))
            increases[column, repeat] = measured(moved) - before
            done = repeat * len(masks) + column + 1
            yield Permutation(loss, before, increases.clone(), done=done, total=increases.numel())


def _background(runner: Runner) -> tuple[Columns, Tensor]:
    columns, rows = runner.kind.columns, runner.kind.background
    if columns is None or rows is None:
        raise ValueError(
            "background: expected other rows to take values from, got none. Pass training data as background=."
        )
    return columns, rows.to(runner.inputs)


def _masks(columns: Columns) -> Tensor:
    """Return which features belong to each column, as truth values (C, F)."""
    return columns.of == torch.arange(len(columns.names), device=columns.of.device)[:, None]


def _loss(kind: Loss, scores: Tensor, logits: Tensor, labels: Tensor) -> float:
    wide, labels = logits.double(), labels.to(logits.device)
    if kind == "squared error":  # of the explained value
        return float((scores.double() - labels.double()).square().mean())
    if wide.shape[1] == 1:
        return float(F.binary_cross_entropy_with_logits(wide[:, 0], labels.double()))
    if bool((wide >= 0).all()) and torch.allclose(wide.sum(1), torch.ones_like(wide[:, 0]), atol=1e-4):
        return float(F.nll_loss(wide.clamp(min=1e-300).log(), labels.long()))  # probabilities already
    return float(F.cross_entropy(wide, labels.long()))


Shuffles = tuple[Shuffled, Permutation | None]
"""The shuffled row, and the permutation importance over all rows once it has begun."""


@trust_test(
    "shuffle",
    title="Shuffle",
    params=(DRAWS, REPEATS, SEED),
    how_to_read="Diamonds above: how much higher the score is with the row's value than with those of other rows, one "
    "feature at a time. A bar and its diamond should agree (for a slope, in sign and order); if they don't, the "
    "feature acts together with others, or the method misses it. Bars here: permutation importance over all rows of "
    "the background. Replacing a single value can create unrealistic rows.",
    kinds=("table",),
    needs=("background",),
    view="shuffle",
    order=-1,
)
def run(explanation: Explanation, draws: int, repeats: int, seed: int) -> Iterator[Shuffles]:
    """Shuffle the features of the row, then permute those of all rows."""
    shuffled: Shuffled | None = None
    for shuffled in shuffle(explanation.runner("score"), draws=draws, seed=seed):
        yield shuffled, None
    labels, loss = explanation.labels()
    runner = explanation.runner("background")
    for permutation in permutation_importance(runner, labels, loss, repeats=repeats, seed=seed):
        assert shuffled is not None
        yield shuffled, permutation
