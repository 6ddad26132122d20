"""``sw.evaluate``: run all trust tests on several maps, and return one table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
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
from saliency_widgets.attribution.registry import DEFAULT, methods
from saliency_widgets.attribution.score import SCORE
from saliency_widgets.evaluation.curves import DRAWS, STEPS
from saliency_widgets.evaluation.explanation import Explanation
from saliency_widgets.evaluation.fills import filling
from saliency_widgets.evaluation.randomization import STAGES
from saliency_widgets.evaluation.ranking import CHANCE
from saliency_widgets.evaluation.registry import TrustTest, trust_tests
from saliency_widgets.evaluation.similarity import CONSTANT, spearman
from saliency_widgets.evaluation.stability import RADIUS, TURNS
from saliency_widgets.inputs.options import OPTIONS, split_options, takes_options
from saliency_widgets.markup import element
from saliency_widgets.params import check_mapping, check_switch, unknown
from saliency_widgets.runtime.runner import Runner
from saliency_widgets.session.compute import neutral_modes
from saliency_widgets.session.problem import Problem
from saliency_widgets.session.request import Request


def _tests(*, of_map: bool) -> list[TrustTest]:
    """Return the tests with table columns: those of maps, or those of the score alone."""
    return [test for test in trust_tests().values() if test.columns and test.of_map == of_map]


def _names(tests: Iterable[TrustTest]) -> list[str]:
    return [name for test in tests for columns in test.columns for name in columns.numbers]


def _settings(further: dict[str, Any], **values: Any) -> dict[str, Any]:
    """Check the parameters of all tests, including those that :func:`evaluate` doesn't list."""
    elsewhere = {param.name for method in methods().values() for param in method.params}  # these belong in params=
    params = {param.name: param for test in (*_tests(of_map=True), *_tests(of_map=False)) for param in test.params}
    unnamed = [name for name in params if name not in elsewhere]
    for name in further:
        if name not in unnamed:
            raise TypeError(unknown("argument", name, [*dict.fromkeys((*values, *unnamed, *OPTIONS))]))
    return {name: params[name].check(value) for name, value in {**values, **further}.items()}


class Evaluation(pd.DataFrame):
    """A DataFrame of check results, printed with the reasons for its NaNs."""

    @property
    def _constructor(self) -> type[Evaluation]:
        return Evaluation

    @property
    def reasons(self) -> dict[Any, dict[str, str]]:
        """The reasons for NaNs, by row and then by column; stored in ``attrs["reasons"]``."""
        return self.attrs.get("reasons", {})

    def _why(self) -> list[str]:
        """Return one sentence for each reason, naming its rows and columns."""
        rows: dict[tuple[str, str], list[str]] = {}
        for row in self.index:
            cells = self.reasons.get(row, {})
            for reason in dict.fromkeys(cells.values()):
                columns = [column for column, other in cells.items() if other == reason]
                shown = [column for column in columns if column in self.columns]
                what = "map" if {*_names(_tests(of_map=True))} <= {*columns} else ", ".join(shown)
                if shown:
                    rows.setdefault((what, reason), []).append(
                        " ".join(map(str, row if isinstance(row, tuple) else [row]))
                    )
        return [f"{', '.join(labels)}: no {what}: {reason}" for (what, reason), labels in rows.items()]

    def __repr__(self) -> str:
        """Return the table as text, with the reasons below it."""
        return "\n".join([super().__repr__(), *self._why()])

    def _repr_html_(self) -> str | None:
        table: Any = super()._repr_html_()  # pyright: ignore[reportAttributeAccessIssue] - pandas' stubs leave it out
        why = self._why()
        if not why or table is None:
            return table
        return table + element("ul", *(element("li", sentence) for sentence in why))


@dataclass
class _Row:
    """The numbers of one map, and the reasons for those that are NaN."""

    numbers: dict[str, float] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    values: Tensor | None = None

    def put(self, name: str, number: float, reason: str) -> None:
        """Set a number, and the reason if it is NaN."""
        self.numbers[name] = number
        self.reasons.pop(name, None)
        if number != number:
            self.reasons[name] = reason

    @contextmanager
    def check(self, *names: str) -> Iterator[None]:
        """Run one check; if it raises, set its numbers to NaN, with the error as the reason."""
        try:
            yield
        except Exception as error:  # the other checks continue
            for name in names:
                self.put(name, float("nan"), str(error) or type(error).__name__)

    def run(self, test: TrustTest, explanation: Explanation, settings: Mapping[str, Any]) -> None:
        """Run a test and set the numbers of its columns."""
        for columns in test.columns:
            with self.check(*columns.numbers):
                *_, result = (None, *test.begin(explanation, settings, **columns.settings))
                for name, read in columns.numbers.items():
                    with self.check(name):
                        self.put(name, read(result), "it is undefined here.")


@takes_options()
def evaluate(  # noqa: PLR0913
    model: nn.Module,
    inputs: Any,
    methods: Iterable[Any] | Mapping[str, Any] | Attribution | Tensor | np.ndarray = (DEFAULT,),
    *,
    params: dict[str, Any] | None = None,
    sign: str | None = None,
    channels: str | None = None,
    fill: Any = None,
    steps: int = STEPS.default,
    chance: str = CHANCE.default,
    draws: int = DRAWS.default,
    stages: int = STAGES.default,
    turns: int = TURNS.default,
    radius: float = RADIUS.default,
    seed: int = SEED.default,
    target: Any = None,
    score: str = SCORE.default,
    contrast: Any = None,
    progress: bool = True,
    **further: Any,
) -> Evaluation:
    """Run all trust tests on the maps of several methods, and on your own maps, side by side.

    Args:
        model: Any ``torch.nn.Module``; it is not changed.
        inputs: One input, a batch or a list of them, as for :func:`attribute`.
        methods: One item to evaluate, a list, or a mapping from names of your choice. An item is a method as for
            :func:`attribute`; an :class:`Attribution`, which the tests recompute with its settings; or a map as an
            array or tensor. A map has the shape of the input as the model sees it, or (H, W) for an image; for a batch,
            pass one per input. A text's map has shape (T,), a signal's (C, T), a volume's (D, H, W). Without ``sign``,
            such a map ranks the pixels or tokens directly, the largest value first.
        params: Parameters, passed to each method that has them, such as ``{"n_samples": 20}``.
        sign: Which part of the values is shown and ranked. Default: each method's default.
        channels: As for :meth:`Attribution.saliency_map`.
        fill: What replaces removed pixels or features; see :func:`ablate`.
        steps: The number of steps of the deletion and insertion curves.
        chance: The maps to compare the curves with: "moved", the same map elsewhere, or "scattered" pixels.
        draws: The number of these maps.
        stages: The number of steps in which the weights are randomized.
        turns: The number of other seeds, and of noisy inputs, with which the map is recomputed.
        radius: The largest change of each number of the input, as a fraction of the input's range.
        seed: The seed of all random draws.
        target: As for :func:`attribute`; for a batch, one for all or a list. Default: that of the first Attribution.
        score: As for :func:`attribute`.
        contrast: As for :func:`attribute`.
        progress: Whether to show a progress bar.
        **further: The parameters of any further tests.

    Returns:
        A DataFrame with one row per method, or for several inputs one row per method and input, with both in the index,
        so that ``table.groupby("method").mean()`` averages over the inputs. ``deletion`` and ``insertion`` are the
        areas under the normalized curves, and ``..._chance`` those of chance maps; ``randomized_half`` and
        ``randomized`` the rank correlation with the map of the model with the upper half, or all, of its layers
        randomized (high is bad); ``seeds`` and ``noises`` the lowest rank correlation with maps of other seeds and of
        slightly noisy inputs, with ``max_sensitivity``; ``settled`` the point on the path to the input where the score
        levels off; ``slope_left`` the slope at the input relative to the steepest; ``like <method>`` the rank
        correlation with that method's map. Checks that do not apply are NaN; the reasons are printed below the table,
        and available in ``table.reasons[row][column]``.

    Raises:
        TypeError: An argument has the wrong type, or none of the methods has one of the parameters.
        ValueError: An argument is out of range, an input doesn't fit the model, the model failed, or a map has the
            wrong size, holds NaN, or explains another class.
    """
    check_switch("progress", progress)
    candidates = read_candidates(methods, check_mapping("params", params), sign, channels)
    options, further = split_options(further)
    settings = _settings(
        further, fill=fill, steps=steps, chance=chance, draws=draws, stages=stages, turns=turns, radius=radius,
        seed=SEED.check(seed),
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
    total = count * (len(_tests(of_map=False)) + len(candidates) * len(_tests(of_map=True)))
    with neutral_modes(), tqdm(total=total, disable=not progress, unit="check") as bar:
        for index, one in enumerate(read_targets(target, count)):
            problem = problems.pop(0)  # frees the problem and its copy of the model after use
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


def _checked(
    runner: Runner, candidates: list[Candidate], index: int, settings: Mapping[str, Any], bar: Any
) -> dict[str, _Row]:
    """Run all tests of all candidates for one input."""
    # A failing model, or a fill that doesn't fit, is an error of the whole call and not of a single test.
    runner.scores(runner.inputs)
    fill = runner.kind.default_fill if settings["fill"] is None else settings["fill"]
    settings = {**settings, "fill": fill}
    filling(runner, fill, settings["seed"])(torch.zeros(runner.kind.shape_of(runner.inputs), dtype=torch.bool))
    of_score = _Row()
    for test in _tests(of_map=False):
        of_score.run(test, Explanation(lambda _shared: runner, torch.empty(0)), settings)
        bar.update()
    rows, tests = {candidate.name: _Row() for candidate in candidates}, _tests(of_map=True)
    for candidate, row in zip(candidates, rows.values(), strict=True):
        bar.set_description(candidate.name)
        explanation = None
        with row.check(*_names(tests)):
            explanation = candidate.explanation(index, runner)
            row.values = explanation.values
        for test in tests:
            if explanation is not None:
                row.run(test, explanation, settings)
            bar.update()
        row.numbers |= of_score.numbers
        row.reasons |= of_score.reasons
    for row in rows.values():
        for name, other in rows.items():
            _compare(row, other, f"like {name}")
    return rows


def _compare(row: _Row, other: _Row, name: str) -> None:
    if row.values is None:
        row.put(name, float("nan"), next(iter(row.reasons.values())))
        return
    if other.values is None:
        row.put(name, float("nan"), f"{name.removeprefix('like ')} has no map.")
        return
    constant = not bool(row.values.max() > row.values.min())
    reason = CONSTANT if constant else "the other map is the same everywhere."
    row.put(name, spearman(row.values, other.values), reason)
