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
from saliency_widgets.inputs import Explain
from saliency_widgets.session.jobs import worker_error
from saliency_widgets.session.problem import Problem
from saliency_widgets.session.request import Request


def check_up(problem: Problem, request: Request, check: Callable[[], None] | None = None) -> Checkup:
    """What in a problem's model will make which method wrong or slow.

    Args:
        problem: The model and the inputs.
        request: Its target and score are looked at.
        check: Called before each pass of the model; raises to end the check-up.
    """
    around = [Finding(note, remedy="Pass the model inside.", severity="slow") for note in problem.wrapped]
    try:
        score, _ = problem.resolve(request)
    except (TypeError, ValueError) as error:
        return Checkup([*around, broken(error)])
    if problem.given.get("precision") == "bfloat16" and problem.tensor.device.type == "cpu":
        what = "precision='bfloat16' is several times slower than float32 on CPUs that have no instructions for it."
        around.append(Finding(what, remedy="Leave precision= out on a CPU.", severity="slow"))
    if problem.untuned:
        what = f"It is computed as it is written: {problem.untuned.rstrip('.')}."
        around.append(Finding(what, remedy="The maps are right. A .reshape for a .view may help.", severity="slow"))
    return Checkup([*around, *examine(problem.runner(score, check).plain)])


@dataclass(frozen=True)
class Due:
    """A check-up that a worker is to make.

    Attributes:
        problem: The model and the inputs.
        request: Its target and score are looked at.
        version: What it is about: of the model and the inputs.
        name: Of the model, where there are several.
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
    """What a worker does while nothing is asked. Between the two calls, their object isn't held if they are weak.

    Args:
        due: The check-ups that are to be made; None where there is nobody for them any more.
        deliver: Called with the findings of each.
        passed_over: Errors of a check-up that is then not delivered, as the maps say the same.

    Returns:
        To be called with a check that raises :class:`Cancelled` to end it.
    """

    def work(check: Callable[[], None]) -> None:
        try:
            todo = list(due() or ())
        except (TypeError, ValueError):
            return  # the inputs were changed into something that doesn't fit: the next map says it
        for one in todo:
            try:
                findings: Sequence[Finding] = check_up(one.problem, one.request, check)
            except Cancelled:
                raise
            except BaseException as caught:
                error = worker_error(caught)
                if isinstance(error, passed_over):
                    continue
                findings = [failed_checkup(error)]
            deliver(one, findings)

    return work


def checkup(
    model: nn.Module,
    inputs: Any,
    *,
    target: Any = None,
    score: str = SCORE.default,
    contrast: Any = None,
    transform: Any = None,
    class_names: Any = None,
    explain: Explain = None,
    device: Any = None,
) -> Checkup:
    """What in this model will make which method wrong or slow on these inputs.

    Training mode, active dropout, activations that are no ReLU, no spatial layer, a softmax inside, a cut gradient,
    inputs unlike the training data, and more. The model is run a few times and left as it was found.

    Args:
        model: Any ``torch.nn.Module``.
        inputs: As for :func:`attribute`.
        target: As for :func:`attribute`.
        score: As for :func:`attribute`.
        contrast: As for :func:`attribute`.
        transform: As for :func:`attribute`.
        class_names: As for :func:`attribute`.
        explain: As for :func:`attribute`.
        device: As for :func:`attribute`.

    Returns:
        The findings, the gravest first: each with what, where (module paths), which methods, and what to do.

    Raises:
        TypeError: An argument of the wrong type.
        ValueError: An input that doesn't fit.
    """
    problem = Problem(
        model, inputs, transform=transform, class_names=class_names, explain=explain, device=device
    )  # fmt: skip
    return check_up(problem, Request.of(DEFAULT, {}, target=target, score=score, contrast=contrast))
