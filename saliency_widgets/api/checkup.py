"""``sw.checkup``: diagnose a model on its inputs."""

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
    """Diagnose which properties of a problem's model make which methods wrong or slow.

    Args:
        problem: The model and the inputs.
        request: The target and score to check.
        check: Called before each pass of the model; raises to cancel the check-up.
    """
    findings = [Finding(note, remedy="Pass the wrapped model.", severity="slow") for note in problem.wrapped]
    try:
        score, _ = problem.resolve(request)
    except (TypeError, ValueError) as error:
        return Checkup([*findings, broken(error)])
    if problem.options.get("precision") == "bfloat16" and problem.tensor.device.type == "cpu":
        what = "precision='bfloat16' is several times slower than float32 on CPUs without bfloat16 instructions."
        findings.append(Finding(what, remedy="Omit precision= on a CPU.", severity="slow"))
    if problem.untuned:
        what = f"It runs without optimizations: {problem.untuned.rstrip('.')}."
        findings.append(Finding(what, remedy="The maps are correct. Try .reshape instead of .view.", severity="slow"))
    return Checkup([*findings, *examine(problem.runner(score, check).plain)])


@dataclass(frozen=True)
class Due:
    """A pending check-up for a worker.

    Attributes:
        problem: The model and the inputs.
        request: The target and score to check.
        version: The version of the model and the inputs.
        name: The model's name, if there are several models.
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
    """Return an idle task that runs pending check-ups; if it is passed weak methods, their object can be collected.

    Args:
        due: Returns the pending check-ups, or None if its object was collected.
        deliver: Called with each check-up and its findings.
        passed_over: Errors that are not delivered, because the maps report them as well.

    Returns:
        A function of one argument: a check, which raises :class:`Cancelled` to end the task.
    """

    def work(check: Callable[[], None]) -> None:
        try:
            todo = list(due() or ())
        except (TypeError, ValueError):
            return  # the changed inputs don't fit the model; the next map reports this
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


@takes_options(
    "transform",
    "class_names",
    "tokenizer",
    "max_new_tokens",
    "sampling_rate",
    "channel_names",
    "time_axis",
    "slices",
    "explain",
    "device",
)
def checkup(
    model: nn.Module,
    inputs: Any,
    *,
    target: Any = None,
    score: str = SCORE.default,
    contrast: Any = None,
    **options: Any,
) -> Checkup:
    """Diagnose which properties of a model make which methods wrong or slow on these inputs.

    Detects training mode, active dropout, activations other than ReLU, a missing spatial layer, a softmax inside the
    model, a cut gradient, inputs unlike the training data, and more. The model is run a few times and is not changed.

    Args:
        model: Any ``torch.nn.Module``.
        inputs: As for :func:`attribute`.
        target: As for :func:`attribute`.
        score: As for :func:`attribute`.
        contrast: As for :func:`attribute`.
        **options: "transform", "class_names", "explain" and "device", as for :func:`attribute`.

    Returns:
        The findings, the most severe first, each with the problem, module paths, affected methods, and a remedy.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An input doesn't fit the model.
    """
    problem = Problem(model, inputs, **options)
    return check_up(problem, Request.of(DEFAULT, {}, target=target, score=score, contrast=contrast))
