"""What the model says when a region is taken away, and when as much is taken away elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from saliency_widgets.attribution.query import CHUNK_SIZE
from saliency_widgets.attribution.score import in_classes, probabilities
from saliency_widgets.evaluation.fills import check_masks, filling, outcomes_of
from saliency_widgets.evaluation.ranking import by_chance
from saliency_widgets.evaluation.running import Running
from saliency_widgets.params import MANY, Param
from saliency_widgets.runtime.runner import Runner

if TYPE_CHECKING:
    import pandas as pd

DRAWS = Param(
    "draws",
    default=8,
    low=0,
    high=256,
    maximum=MANY,
    kind="int",
    continued=True,
    unit="draws",
    help="How many regions of the same size are taken away elsewhere, to compare with.",
)


@dataclass(frozen=True, eq=False, repr=False)
class Ablation(Running):
    """The model's answers with and without a region.

    Attributes:
        mask: What was taken away, shape (H, W) or (F,).
        inputs: What the model saw instead, shape (1, ...).
        before: The explained score of the whole input.
        after: The same without the region.
        logits_before: All class scores, shape (K,).
        logits_after: The same without the region.
        elsewhere: The explained score without as much elsewhere, one for each draw so far.
        done: How many inputs were run.
        total: How many will be.
        class_names: Names of the classes, where they are known.
        image: What the model saw instead, as an image for people, uint8 (H, W, 3); None where it is none.
    """

    mask: Tensor
    inputs: Tensor
    before: float
    after: float
    logits_before: Tensor
    logits_after: Tensor
    elsewhere: Tensor
    done: int
    total: int
    class_names: tuple[str, ...] | None = None
    image: Any = None

    def __repr__(self) -> str:
        """The answer in one line, beside those of the draws elsewhere."""
        moved = self.elsewhere - self.before
        beside = f"; as much elsewhere {moved.min():+.3g} to {moved.max():+.3g}" if len(moved) else ""
        return (
            f"Ablation({self.share:.1%} taken away: {self.before:.4g} to {self.after:.4g}, {self.change:+.3g}{beside})"
        )

    def strongest(self, top: int = 5) -> tuple[list[int], Tensor, Tensor]:
        """The classes that are among the first with or without the region: their numbers, and both probabilities."""
        logits = torch.stack([self.logits_before, self.logits_after]).double().cpu()
        before, after = probabilities(in_classes(logits, self.class_names is not None and len(self.class_names) == 2))
        count = min(top, len(before))
        classes = list(dict.fromkeys([*before.topk(count).indices.tolist(), *after.topk(count).indices.tolist()]))
        return classes, before[classes], after[classes]

    def predictions(self, top: int = 5) -> pd.DataFrame:
        """The strongest classes with and without the region: one row for each that is among the first in either.

        Args:
            top: How many of each.

        Returns:
            Indexed by class name or number: probabilities ``before``, ``after`` and their ``change``.
        """
        import pandas as pd

        classes, before, after = self.strongest(top)
        names = classes if self.class_names is None else [self.class_names[index] for index in classes]
        columns = {"before": before.numpy(), "after": after.numpy()}
        frame = pd.DataFrame(columns, index=pd.Index(names, name="class"))
        return frame.assign(change=frame["after"] - frame["before"])

    @property
    def share(self) -> float:
        """How much was taken away, from 0 to 1."""
        return float(self.mask.double().mean())

    @property
    def change(self) -> float:
        """By how much the score moved."""
        return self.after - self.before

    @property
    def rank(self) -> float:
        """The share of the draws elsewhere that moved the score as far, in the same direction; NaN without any.

        As a permutation test counts: (k + 1) / (n + 1), so that a few draws can't say "never".
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
    """Take a region away, and ask the model again.

    A number alone says little: any hole in an image moves the score. So as much is taken away elsewhere, the same
    region shifted around the edges and mirrored at random, several times.

    Source: Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", 2014 (occlusion).

    Args:
        runner: The model and its one sample.
        mask: True where something is taken away, shape (H, W) of what the model sees, or (F,) of a row.
        fill: What is put there: see :func:`~.fills.filling`.
        draws: How many regions elsewhere.
        seed: Of the fill and the draws.
        chunk_size: Rows of one pass.

    Yields:
        The answer to the region itself, and then with ever more draws elsewhere.

    Raises:
        ValueError: A mask of another size, or an empty one.
    """
    mask = check_masks(runner, mask)[0]
    if not bool(mask.any()):
        raise ValueError("mask: nothing is marked, so there is nothing to take away. Paint a region, or pass top=0.05.")
    draws = 0 if bool(mask.all()) else draws  # everywhere is everywhere
    whole = runner.once("whole", lambda: runner.outcomes(runner.inputs))
    without = filling(runner, fill, seed)
    scores: list[Tensor] = []
    logits: list[Tensor] = []
    inputs: Tensor | None = None
    for chunk in runner.chunks(1 + draws, chunk_size, first=(1, 4)):
        masks = torch.stack([mask if not k else by_chance(mask, k, seed=seed) for k in chunk])
        variants = without(masks)
        inputs = variants[:1] if inputs is None else inputs
        found = outcomes_of(runner, variants, fill)
        scores.append(found[0])
        logits.append(found[1])
        after = torch.cat(scores)
        before, without_it = whole[1][0], logits[0][0]
        if runner.passes.score.squashed:
            pairs = in_classes(torch.stack([before, without_it]), runner.passes.score.binary, squashed=True)
            before, without_it = pairs.unbind(0)
        yield Ablation(
            mask, inputs, float(whole[0][0]), float(after[0]), before, without_it, after[1:], len(after), 1 + draws
        )
