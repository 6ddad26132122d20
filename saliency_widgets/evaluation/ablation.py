"""Ablation: the model's outputs with a region removed, and with equally large regions removed elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from saliency_widgets.attribution.numerics.noise import SEED
from saliency_widgets.attribution.query import CHUNK_SIZE
from saliency_widgets.attribution.score import in_classes, probabilities
from saliency_widgets.evaluation.explanation import Explanation
from saliency_widgets.evaluation.fills import FILL, check_masks, filling, outcomes_of
from saliency_widgets.evaluation.ranking import by_chance
from saliency_widgets.evaluation.registry import Running, trust_test
from saliency_widgets.params import count_param
from saliency_widgets.runtime.runner import Runner

if TYPE_CHECKING:
    import pandas as pd

DRAWS = count_param(
    "draws", 8, 0, 256, "How many regions of the same size to remove elsewhere for comparison.", advanced=True,
    continued=True,
)  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class Ablation(Running):
    """The model's outputs with and without a region.

    Attributes:
        mask: The removed region, shape (H, W) or (F,).
        inputs: The input with the region filled, shape (1, ...).
        before: The explained score of the whole input.
        after: The explained score without the region.
        logits_before: All class scores of the whole input, shape (K,).
        logits_after: All class scores without the region, shape (K,).
        elsewhere: The explained score with a region of the same size removed elsewhere, one for each draw so far.
        class_names: Names of the classes, if known.
        image: The input with the region filled, for display, uint8 (H, W, 3); None if it is not an image.
    """

    mask: Tensor
    inputs: Tensor
    before: float
    after: float
    logits_before: Tensor
    logits_after: Tensor
    elsewhere: Tensor
    class_names: tuple[str, ...] | None = None
    image: Any = None

    def __repr__(self) -> str:
        """Return the result in one line, with the range of the draws elsewhere."""
        moved = self.elsewhere - self.before
        draws = f"; elsewhere {moved.min():+.3g} to {moved.max():+.3g}" if len(moved) else ""
        return f"Ablation({self.share:.1%} removed: {self.before:.4g} to {self.after:.4g}, {self.change:+.3g}{draws})"

    def strongest(self, top: int = 5) -> tuple[list[int], Tensor, Tensor]:
        """Return the top classes with or without the region: their indices and both probabilities of each."""
        logits = torch.stack([self.logits_before, self.logits_after]).double().cpu()
        before, after = probabilities(in_classes(logits, self.class_names is not None and len(self.class_names) == 2))
        count = min(top, len(before))
        classes = list(dict.fromkeys([*before.topk(count).indices.tolist(), *after.topk(count).indices.tolist()]))
        return classes, before[classes], after[classes]

    def predictions(self, top: int = 5) -> pd.DataFrame:
        """Return the top classes with and without the region, one row for each class that is among the top in either.

        Args:
            top: The number of top classes with the region, and of those without it.

        Returns:
            A frame indexed by class name or index, with the probabilities ``before``, ``after`` and their ``change``.
        """
        import pandas as pd

        classes, before, after = self.strongest(top)
        names = classes if self.class_names is None else [self.class_names[index] for index in classes]
        columns = {"before": before.numpy(), "after": after.numpy()}
        frame = pd.DataFrame(columns, index=pd.Index(names, name="class"))
        return frame.assign(change=frame["after"] - frame["before"])

    @property
    def share(self) -> float:
        """The fraction of the input that was removed, from 0 to 1."""
        return float(self.mask.double().mean())

    @property
    def change(self) -> float:
        """The change of the score when the region is removed."""
        return self.after - self.before

    @property
    def rank(self) -> float:
        """The p-value: the fraction of draws elsewhere that changed the score at least as far in the same direction.

        It is computed as in a permutation test, (k + 1) / (n + 1), and so is never zero; NaN without draws.
        """
        if not len(self.elsewhere):
            return float("nan")
        changes = (self.elsewhere.double() - self.before) * (1 if self.change > 0 else -1)
        return (int((changes >= abs(self.change)).sum()) + 1) / (len(changes) + 1)


def ablate(
    runner: Runner,
    mask: Tensor,
    *,
    fill: Any,
    draws: int = DRAWS.default,
    seed: int = 0,
    chunk_size: int | None = CHUNK_SIZE.default,
) -> Iterator[Ablation]:
    """Remove a region and run the model again.

    Any hole in an image changes the score, so a single number is not conclusive. For comparison, the same region,
    mirrored at random and shifted with wrap-around, is removed elsewhere several times.

    Source: Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", 2014 (occlusion).

    Args:
        runner: The model and its one sample.
        mask: True where the input is removed, shape (H, W) of the model's input, or (F,) of a row.
        fill: The replacement for the removed part: see :func:`~.fills.filling`.
        draws: The number of regions removed elsewhere.
        seed: The seed of the fill and the draws.
        chunk_size: Rows per pass.

    Yields:
        The result for the region itself, then refined results with more and more draws elsewhere.

    Raises:
        ValueError: The mask has the wrong size, or is empty.
    """
    mask = check_masks(runner, mask)[0]
    if not bool(mask.any()):
        raise ValueError("mask: it is empty, so there is nothing to remove. Paint a region, or pass top=0.05.")
    draws = 0 if bool(mask.all()) else draws  # a mask of everything can't be moved elsewhere
    whole = runner.once("whole", lambda: runner.outcomes(runner.inputs))
    without = filling(runner, fill, seed)
    scores: list[Tensor] = []
    logits: list[Tensor] = []
    inputs: Tensor | None = None
    for chunk in runner.chunks(1 + draws, chunk_size, first=(1, 4)):
        masks = torch.stack([mask if not k else by_chance(mask, k, seed=seed) for k in chunk])
        variants = without(masks)
        inputs = variants[:1] if inputs is None else inputs
        chunk_scores, chunk_logits = outcomes_of(runner, variants, fill)
        scores.append(chunk_scores)
        logits.append(chunk_logits)
        after = torch.cat(scores)
        before, without_it = whole[1][0], logits[0][0]
        if runner.passes.score.squashed:
            pairs = in_classes(torch.stack([before, without_it]), runner.passes.score.binary, squashed=True)
            before, without_it = pairs.unbind(0)
        yield Ablation(
            mask, inputs, float(whole[0][0]), float(after[0]), before, without_it, after[1:], done=len(after),
            total=1 + draws,
        )  # fmt: skip


@trust_test(
    "ablation",
    title="Ablation",
    params=(FILL, DRAWS, SEED),
    how_to_read="Orange: the score's change without your region. Gray: its change without a region of the same shape, "
    "moved at random. Your region matters if the orange mark is clearly apart from the gray ones. Bars: the "
    "probabilities of the classes with the whole image (gray) and without the region (orange).",
    kinds=("image", "signal"),
    needs=("region",),
    urgent=True,
    view="ablation",
)
def run(explanation: Explanation, fill: Any, draws: int, seed: int) -> Iterator[Ablation]:
    """Remove the marked region, and regions of the same size elsewhere for comparison."""
    assert explanation.region is not None
    for result in ablate(explanation.runner("score"), explanation.region, fill=fill, draws=draws, seed=seed):
        yield replace(result, class_names=explanation.class_names)
