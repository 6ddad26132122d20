"""``sw.evaluate``: all trust tests of some maps, as one table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from saliency_widgets.api.candidates import Candidate, check_score, read_candidates, score_of
from saliency_widgets.api.sweep.arguments import each_of, read_targets
from saliency_widgets.api.trust import one_sample
from saliency_widgets.attribution import Attribution
from saliency_widgets.attribution.numerics.noise import SEED
from saliency_widgets.attribution.reduction import CHANNEL
from saliency_widgets.attribution.registry import DEFAULT
from saliency_widgets.attribution.score import SCORE
from saliency_widgets.evaluation.ablation import DRAWS
from saliency_widgets.evaluation.curves import KINDS, STEPS, curves
from saliency_widgets.evaluation.fills import default_fill, filling, map_shape
from saliency_widgets.evaluation.randomization import STAGES, randomization
from saliency_widgets.evaluation.ranking import CHANCE
from saliency_widgets.evaluation.saturation import saturation
from saliency_widgets.evaluation.similarity import spearman
from saliency_widgets.evaluation.stability import RADIUS, TURNS, stability
from saliency_widgets.markup import element
from saliency_widgets.params import check_mapping, check_switch
from saliency_widgets.runtime.runner import Runner
from saliency_widgets.session.compute import neutral_modes
from saliency_widgets.session.explanation import has_seed, map_of
from saliency_widgets.session.problem import Problem
from saliency_widgets.session.request import Request

_CURVES = tuple(f"{kind}{end}" for kind in KINDS for end in ("", "_chance"))
_WEIGHTS = ("randomized_half", "randomized")
_NOISES = ("noises", "max_sensitivity")
_PATH = ("settled", "slope_left")
_COLUMNS = (*_CURVES, *_WEIGHTS, "seeds", *_NOISES, *_PATH)

_CONSTANT = "the map is the same everywhere, so it can't be ranked."
_ONLY_AN_ARRAY = (
    "it is an array, which can't be recomputed. Pass the method, or the Attribution that sw.attribute returned."
)


class Evaluation(pd.DataFrame):
    """A table of checks: a DataFrame of numbers, printed with the reasons for its NaNs."""

    @property
    def _constructor(self) -> type[Evaluation]:
        return Evaluation

    @property
    def reasons(self) -> dict[Any, dict[str, str]]:
        """Why a cell is NaN: by row, then by column. It is ``attrs["reasons"]``."""
        return self.attrs.get("reasons", {})

    def _why(self) -> list[str]:
        """Return one sentence for each reason, with its rows and columns."""
        rows: dict[tuple[str, str], list[str]] = {}
        for row in self.index:
            cells = self.reasons.get(row, {})
            for reason in dict.fromkeys(cells.values()):
                columns = [column for column, other in cells.items() if other == reason]
                shown = [column for column in columns if column in self.columns]
                what = "map" if {*_COLUMNS} - {*_PATH} <= {*columns} else ", ".join(shown)
                if shown:
                    rows.setdefault((what, reason), []).append(
                        " ".join(map(str, row if isinstance(row, tuple) else [row]))
                    )
        return [f"{', '.join(labels)}: no {what}: {reason}" for (what, reason), labels in rows.items()]

    def __repr__(self) -> str:
        """The table, and the reasons below it."""
        return "\n".join([super().__repr__(), *self._why()])

    def _repr_html_(self) -> str | None:
        table: Any = super()._repr_html_()  # pyright: ignore[reportAttributeAccessIssue] - pandas' stubs leave it out
        why = self._why()
        if not why or table is None:
            return table
        return table + element("ul", *(element("li", sentence) for sentence in why))


@dataclass
class _Row:
    """The numbers of one map, and the reasons for NaNs."""

    numbers: dict[str, float] = field(default_factory=lambda: dict.fromkeys(_COLUMNS, float("nan")))
    reasons: dict[str, str] = field(default_factory=dict)
    values: Tensor | None = None

    def put(self, name: str, number: float, reason: str) -> None:
        """Set a number, and the reason in case it is NaN."""
        self.numbers[name] = number
        self.reasons.pop(name, None)
        if number != number:
            self.reasons[name] = reason

    @contextmanager
    def check(self, *names: str) -> Iterator[None]:
        """Run one check: if it raises, its numbers are NaN, and the error is the reason."""
        try:
            yield
        except Exception as error:  # the other checks go on
            for name in names:
                self.put(name, float("nan"), str(error) or type(error).__name__)


@dataclass(frozen=True)
class _Settings:
    """The settings of the checks, already validated."""

    fill: Any
    steps: int
    chance: str
    draws: int
    stages: int
    turns: int
    radius: float
    seed: int


def evaluate(
    model: nn.Module,
    inputs: Any,
    methods: Iterable[Any] | Mapping[str, Any] | Attribution | Tensor | np.ndarray = (DEFAULT,),
    *,
    params: dict[str, Any] | None = None,
    sign: str | None = None,
    channels: str = CHANNEL.default,
    fill: Any = None,
    steps: int = STEPS.default,
    chance: str = CHANCE.default,
    draws: int = 3,
    stages: int = STAGES.default,
    turns: int = TURNS.default,
    radius: float = RADIUS.default,
    seed: int = SEED.default,
    target: Any = None,
    score: str = SCORE.default,
    contrast: Any = None,
    progress: bool = True,
    **options: Any,
) -> Evaluation:
    """Run all trust tests on the maps of some methods, and on maps of your own, side by side.

    Args:
        model: Any ``torch.nn.Module``; it is not changed.
        inputs: One input, a batch or a list of them, as for :func:`attribute`.
        methods: What to evaluate, one or a list, or a mapping from names of your choice: methods as for
            :func:`attribute`; an :class:`Attribution`, which is recomputed with its settings; or a map as an array or
            tensor. A map has the shape of the input as the model sees it, or (H, W) for an image; for a batch, there is
            one for each input. Without ``sign``, an (H, W) map ranks the pixels directly, the largest first.
        params: Parameters, passed to each method that has them: ``{"n_samples": 20}``.
        sign: How the maps are shown and ranked. Default: each method's default.
        channels: As for :meth:`Attribution.saliency_map`.
        fill: What replaces removed pixels or features: see :func:`ablate`.
        steps: Of the deletion and insertion curves.
        chance: The maps that they are compared with: "moved", the same map elsewhere, or "scattered" pixels.
        draws: How many of those.
        stages: The number of steps in which the weights are randomized.
        turns: The number of other seeds, and of noisy inputs, with which the map is recomputed.
        radius: How far the noise moves the input, as a fraction of its range.
        seed: Of everything that is drawn.
        target: As for :func:`attribute`; for a batch, one for all or a list. Default: what an Attribution explains.
        score: As for :func:`attribute`.
        contrast: As for :func:`attribute`.
        progress: Whether a progress bar is shown.
        **options: "transform", "class_names", "explain", "device", "fold" and "precision", as for :func:`attribute`.

    Returns:
        A DataFrame with one row per method, or for several inputs one row per method and input, with both in the index:
        ``table.groupby("method").mean()`` averages over the inputs. ``deletion`` and ``insertion``: areas under the
        normalized curves, and ``..._chance`` those of chance maps; ``randomized_half`` and ``randomized``: rank
        correlation with the maps of the model with the upper half, or all, of its layers random (high is bad);
        ``seeds`` and ``noises``: the worst rank correlation with maps of other seeds and of slightly noisy inputs, and
        ``max_sensitivity``; ``settled`` and ``slope_left``: where the score levels off on the path to the input, and
        the fraction of the slope left there; ``like <method>``: rank correlations between the methods.

        A check that does not apply is NaN. The reasons are printed below the table, and are in
        ``table.reasons[row][column]``.

    Raises:
        TypeError: An argument has the wrong type, or none of the methods has a parameter.
        ValueError: An argument is out of range, an input doesn't fit, the model failed, or a map has the wrong size,
            holds NaN, or explains another class.
    """
    check_switch("progress", progress)
    candidates = read_candidates(methods, check_mapping("params", params), sign, channels)
    settings = _Settings(
        fill, STEPS.check(steps), CHANCE.check(chance), DRAWS.check(draws), STAGES.check(stages), TURNS.check(turns),
        RADIUS.check(radius), SEED.check(seed),
    )  # fmt: skip
    target, score, contrast = score_of(candidates, target, score, contrast)
    problems = [Problem(model, item, **options) for item in each_of(model, inputs, options)]
    count = len(problems)
    if not problems:
        raise ValueError("inputs: the list is empty. Pass at least one input.")
    fitted = candidates
    for problem in problems:
        one_sample(problem)
        fitted = [
            each.fitted(count, tuple(problem.tensor.shape[1:]), problem.kind.shape_of(problem.tensor))
            for each in candidates
        ]
    rows: dict[tuple[str, int], _Row] = {}
    total = count * (1 + 7 * len(candidates))
    with neutral_modes(), tqdm(total=total, disable=not progress, unit="check") as bar:
        for index, one in enumerate(read_targets(target, count)):
            problem = problems.pop(0)  # frees it, with its copy of the model, after use
            request = Request.of(DEFAULT, {}, target=one, score=score, contrast=contrast)
            resolved, _ = problem.resolve(request)
            for candidate in fitted:
                check_score(candidate, index, request, resolved)
            for name, row in _checked(problem.runner(resolved), fitted, index, settings, bar).items():
                rows[name, index] = row
    return _table(rows, [candidate.name for candidate in candidates], count)


def _table(rows: Mapping[tuple[str, int], _Row], names: list[str], inputs: int) -> Evaluation:
    order = [(name, number) for name in names for number in range(inputs)]
    index = pd.MultiIndex.from_tuples(order, names=["method", "input"])
    labels: list[Any] = order
    if inputs == 1:
        labels, index = names, pd.Index(names, name="method")
    table = Evaluation([rows[key].numbers for key in order], index=index)
    table.attrs["reasons"] = {
        label: rows[key].reasons for label, key in zip(labels, order, strict=True) if rows[key].reasons
    }
    return table


def _checked(runner: Runner, candidates: list[Candidate], index: int, settings: _Settings, bar: Any) -> dict[str, _Row]:
    """Run all checks of all candidates for one input."""
    # A model that fails, and a fill that doesn't fit, are errors of the whole call and not of one check.
    runner.scores(runner.inputs)
    fill = default_fill(runner) if settings.fill is None else settings.fill
    filling(runner, fill, settings.seed)(torch.zeros(map_shape(runner), dtype=torch.bool))
    path = _Row()
    with path.check(*_PATH):
        *_, result = saturation(runner, seed=settings.seed)
        path.put(
            "settled", result.settled, "the baseline has the same score as the input: there is no change to follow."
        )
        slope = "no gradient reaches the input." if bool(result.slopes.isnan().all()) else "the gradient is zero."
        path.put("slope_left", result.slope_left, slope)
    bar.update()
    rows = {candidate.name: _row(runner, candidate, index, fill, settings, bar) for candidate in candidates}
    for row in rows.values():
        for name in _PATH:
            row.put(name, path.numbers[name], path.reasons.get(name, ""))
        for name, other in rows.items():
            _compare(row, other, f"like {name}")
    return rows


def _row(runner: Runner, candidate: Candidate, index: int, fill: Any, settings: _Settings, bar: Any) -> _Row:
    """Run the checks of one map, independently of each other."""
    row, method = _Row(), candidate.method
    bar.set_description(candidate.name)
    with row.check(*_COLUMNS):
        row.values = candidate.map(index, runner)
    if row.values is not None:
        _follow_score(row, row.values, runner, fill, settings)
    bar.update(4)
    if row.values is not None and method is None:
        for name in (*_WEIGHTS, "seeds", *_NOISES):
            row.put(name, float("nan"), _ONLY_AN_ARRAY)
    elif row.values is not None and method is not None:
        explain = partial(map_of, method, candidate.params, candidate.reduction)
        _repeat(row, row.values, runner, has_seed(method), explain, settings)
    bar.update(3)
    return row


def _is_constant(values: Tensor) -> bool:
    return not bool(values.max() > values.min())


def _why_nan(values: Tensor, otherwise: str) -> str:
    """Return why a rank correlation with a map is NaN: the map itself, or what it is compared with."""
    return _CONSTANT if _is_constant(values) else otherwise


def _follow_score(row: _Row, values: Tensor, runner: Runner, fill: Any, settings: _Settings) -> None:
    """Put the deletion and insertion areas."""
    flat = (
        f"the score of the whole input is no higher than with all of it filled (fill={fill!r}), so there is no drop "
        f"to measure. Choose another fill."
    )
    with row.check(*_CURVES):
        *_, both = curves(
            runner, values, fill=fill, steps=settings.steps, chance=settings.chance, draws=settings.draws,
            seed=settings.seed,
        )  # fmt: skip
        for kind in KINDS:
            row.put(kind, both.main[kind].area, flat)
            areas = [drawn.area for drawn in both.chance[kind]]
            mean = float(np.mean(areas)) if areas else float("nan")
            row.put(f"{kind}_chance", mean, flat if areas else "draws=0: there is nothing to compare with.")


def _repeat(
    row: _Row, values: Tensor, runner: Runner, drawn: bool, explain: Callable[..., Tensor], settings: _Settings
) -> None:
    """Recompute the map with random weights, with other seeds, and with a little noise on the input."""
    with row.check(*_WEIGHTS):
        *_, cascade = randomization(runner, explain, stages=settings.stages, seed=settings.seed)
        reason = _why_nan(values, "with random weights the map is the same everywhere, or there is none.")
        row.put("randomized_half", cascade.halfway, reason)
        row.put("randomized", cascade.similarity[-1], reason)
    again = partial(stability, runner, explain, turns=settings.turns, seed=settings.seed)
    with row.check("seeds"):
        results = [*again(seeded_method=True, noisy=False)] if drawn else []
        if results:
            row.put("seeds", results[-1].worst, _why_nan(values, "the map of another seed is the same everywhere."))
        else:
            suffix = " with these settings" if drawn else ""
            row.put("seeds", float("nan"), f"the method draws no random numbers{suffix}.")
    with row.check(*_NOISES):
        *_, result = again(seeded_method=False, radius=settings.radius)
        row.put("noises", result.worst, _why_nan(values, "with a little noise the map is the same everywhere."))
        row.put("max_sensitivity", result.sensitivity, "the map is zero everywhere, so its change has no scale.")


def _compare(row: _Row, other: _Row, name: str) -> None:
    if row.values is None:
        row.put(name, float("nan"), row.reasons["deletion"])
        return
    if other.values is None:
        row.put(name, float("nan"), f"{name.removeprefix('like ')} has no map.")
        return
    row.put(name, spearman(row.values, other.values), _why_nan(row.values, "the other map is the same everywhere."))
