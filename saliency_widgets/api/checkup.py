"""``sw.checkup``: the check-up of a model on given inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from saliency_widgets.attribution.errors import Cancelled
from saliency_widgets.attribution.registry import DEFAULT
from saliency_widgets.attribution.score import SCORE
from saliency_widgets.diagnostics.checkup import broken, examine
from saliency_widgets.diagnostics.report import Checkup, Finding, failed_checkup
from saliency_widgets.inputs.options import takes_options
from saliency_widgets.session.problem import Problem
from saliency_widgets.session.request import Request
from saliency_widgets.session.worker import worker_error


def check_up(problem: Problem, request: Request, check: Callable[[], None] | None = None) -> Checkup:
    """Diagnose what in a problem's model makes which methods wrong or slow.

    Args:
        problem: The model and the inputs.
        request: The target and score to check.
        check: Called before each pass of the model; raises to end the check-up.
    """
    findings = [Finding(note, remedy="Pass the model inside.", severity="slow") for note in problem.wrapped]
    try:
        score, _ = problem.resolve(request)
    except (TypeError, ValueError) as error:
        return Checkup([*findings, broken(error)])
    if problem.options.get("precision") == "bfloat16" and problem.tensor.device.type == "cpu":
        what = "precision='bfloat16' is several times slower than float32 on CPUs without bfloat16 instructions."
        findings.append(Finding(what, remedy="Leave precision= out on a CPU.", severity="slow"))
    if problem.untuned:
        what = f"It runs without optimizations: {problem.untuned.rstrip('.')}."
        findings.append(Finding(what, remedy="The maps are right. A .reshape for a .view may help.", severity="slow"))
    return Checkup([*findings, *examine(problem.runner(score, check).plain)])


@dataclass(frozen=True)
class Due:
    """A pending check-up for a worker.

    Attributes:
        problem: The model and the inputs.
        request: The target and score to check.
        version: The version of the model and the inputs.
        name: The model's name, if there are several.
    """

    problem: Problem
    request: Request
    version: Any
    name: str = ""


def check_up_when_idle(
    due: Callable[[], Iterable[Due] | None],
    deliver: Callable[[Due, Sequence[Finding]], None],
    *,
    passed_over: tuple[type[Exception], ...] = (),
) -> Callable[[Callable[[], None]], None]:
    """Return idle work that makes pending check-ups. With weak methods as arguments, their object can be collected.

    Args:
        due: Returns the pending check-ups, or None if their object is gone.
        deliver: Called with the findings of each.
        passed_over: Errors that are not delivered, because the maps report them too.

    Returns:
        A function that takes a check, which raises :class:`Cancelled` to end it.
    """

    def work(check: Callable[[], None]) -> None:
        try:
            todo = list(due() or ())
        except (TypeError, ValueError):
            return  # the changed inputs don't fit: the next map reports it
        for pending in todo:
            try:
                findings: Sequence[Finding] = check_up(pending.problem, pending.request, check)
            except Cancelled:
                raise
            except BaseException as caught:
                error = worker_error(caught)
                if isinstance(error, passed_over):
                    continue
                findings = [failed_checkup(error)]
            deliver(pending, findings)

    return work


@takes_options("transform", "class_names", "explain", "device")
def checkup(
    model: nn.Module,
    inputs: Any,
    *,
    target: Any = None,
    score: str = SCORE.default,
    contrast: Any = None,
    **options: Any,
) -> Checkup:
    """Diagnose what in this model makes which methods wrong or slow on these inputs.

    Finds training mode, active dropout, activations other than ReLU, a missing spatial layer, a softmax inside, a cut
    gradient, inputs unlike the training data, and more. The model is run a few times and not changed.

    Args:
        model: Any ``torch.nn.Module``.
        inputs: As for :func:`attribute`.
        target: As for :func:`attribute`.
        score: As for :func:`attribute`.
        contrast: As for :func:`attribute`.
        **options: "transform", "class_names", "explain" and "device", as for :func:`attribute`.

    Returns:
        The findings, the most severe first: each with what, where (module paths), which methods, and what to do.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An input doesn't fit.
    """
    problem = Problem(model, inputs, **options)
    return check_up(problem, Request.of(DEFAULT, {}, target=target, score=score, contrast=contrast))
