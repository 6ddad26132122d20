"""A finished map to be looked into: each check of it as something to be asked of the examiner."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from torch import Tensor

from saliency_widgets.attribution import Attribution, Call, Reduction, get_method
from saliency_widgets.engine.cache import Cache, Scope
from saliency_widgets.engine.examiner import Check
from saliency_widgets.engine.fingerprint import identity
from saliency_widgets.engine.request import Request
from saliency_widgets.engine.subject import Subject
from saliency_widgets.engine.trust import has_seed, map_of, reduced
from saliency_widgets.evaluation.ablation import DRAWS, Ablation, ablate
from saliency_widgets.evaluation.curves import STEPS, Curves, curves
from saliency_widgets.evaluation.randomisation import STAGES, Randomisation, randomisation
from saliency_widgets.evaluation.ranking import CHANCE, top
from saliency_widgets.evaluation.saturation import Saturation, saturation
from saliency_widgets.evaluation.stability import RADIUS, TURNS, Stability, stability

Asked = Callable[[Callable[[], None]], Iterator[Any]]


@dataclass(frozen=True, eq=False)
class Case:
    """A map, and all that is needed to question it.

    Attributes:
        subject: The model and the input.
        request: What was asked.
        attribution: The finished answer.
        reduction: How it is shown.
        version: Of the model and the input that the answer is about.
        cache: Where single passes are kept.
        owner: Whose they are.
    """

    subject: Subject
    request: Request
    attribution: Attribution
    reduction: Reduction
    version: tuple | None
    cache: Cache
    owner: object

    @cached_property
    def values(self) -> Tensor:
        """The map as it is shown, shape (H, W), or (F,) for rows."""
        return reduced(self.attribution.values, self.reduction, self._size)

    @property
    def _size(self) -> tuple[int, int] | None:
        shape = self.subject.tensor.shape
        return (shape[2], shape[3]) if len(shape) == 4 else None

    def beside(self, other: Case) -> bool:
        """Whether another case is about the same model, input and score, so that their maps compare."""
        mine, others = ((c.version, identity(c.request.target), c.request.score) for c in (self, other))
        return mine == others

    def _call(self, check: Callable[[], None], *key: Hashable) -> Call:
        version = self.subject.version()
        score, _ = self.subject.resolve(self.request, version)
        return self.subject.call(score, check, Scope(self.cache, (self.owner, "check", version, *key)))

    @cached_property
    def _asked(self) -> tuple:
        return (self.request.key, self.reduction)

    def _explain(self, call: Call, seed: int | None = None) -> Tensor:
        return map_of(get_method(self.request.method), dict(self.request.params), self.reduction, call, seed)

    def ablation(self, region: Tensor | float, *, fill: Any, draws: int = DRAWS.default) -> Check:
        """What the model says without a region, see :func:`~saliency_widgets.evaluation.ablation.ablate`.

        Args:
            region: A mask, or the share of the map whose strongest places are meant.
            fill: What is put there.
            draws: How many regions elsewhere.
        """

        def begin(check: Callable[[], None]) -> Iterator[Ablation]:
            mask = region if isinstance(region, Tensor) else top(self.values, region)
            key = (identity(self.request.target), self.request.score)
            yield from ablate(self._call(check, "ablation", key), mask, fill=fill, draws=draws)

        return Check("ablation", begin, urgent=True)

    def curves(
        self,
        *,
        fill: Any,
        steps: int = STEPS.default,
        chance: str = CHANCE.default,
        draws: int = 3,
        others: Mapping[str, Case] | None = None,
    ) -> Check:
        """Deletion and insertion, see :func:`~saliency_widgets.evaluation.curves.curves`."""

        def begin(check: Callable[[], None]) -> Iterator[Curves]:
            call = self._call(check)
            version = self.subject.version()

            def kept(call: Call, key: Hashable) -> Call:
                # Which map, where it came from another one; all class scores are kept, so the target doesn't matter.
                scope = Scope(self.cache, (self.owner, "check", version, "curve", self._asked, identity(fill), key))
                return replace(call, kept=scope)

            yield from curves(
                call, self.values, fill=fill, steps=steps, chance=chance, draws=draws, kept=kept,
                others={name: other.values for name, other in (others or {}).items()},
            )  # fmt: skip

        return Check("curves", begin)

    def randomisation(self, *, stages: int = STAGES.default) -> Check:
        """Whether the map depends on the weights, see :func:`~saliency_widgets.evaluation.randomisation`."""

        def begin(check: Callable[[], None]) -> Iterator[Randomisation]:
            yield from randomisation(self._call(check, "randomisation", self._asked), self._explain, stages=stages)

        return Check("randomisation", begin)

    def saturation(self, *, baseline: Any = None) -> Check:
        """Where on the way to the input the score settles, see :func:`~saliency_widgets.evaluation.saturation`."""

        def begin(check: Callable[[], None]) -> Iterator[Saturation]:
            key = (identity(self.request.target), self.request.score, identity(baseline))
            yield from saturation(self._call(check, "saturation", key), baseline=baseline)

        return Check("saturation", begin)

    def stability(self, *, turns: int = TURNS.default, radius: float = RADIUS.default) -> Check:
        """Whether the map stays, see :func:`~saliency_widgets.evaluation.stability.stability`."""

        def begin(check: Callable[[], None]) -> Iterator[Stability]:
            entry = get_method(self.request.method)
            seed = int(dict(self.request.params).get("seed", 0))
            yield from stability(
                self._call(check), self._explain, seeded_method=has_seed(entry), radius=radius, turns=turns, seed=seed
            )  # fmt: skip

        return Check("stability", begin)
