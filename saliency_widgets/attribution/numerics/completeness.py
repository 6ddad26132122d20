"""The completeness delta in words: how much of the score's change a map leaves out, and why."""

from __future__ import annotations

import torch
from torch import Tensor

from saliency_widgets.attribution.arrays import on_host
from saliency_widgets.attribution.numerics.stopping import percent

_ROUNDING = 64  # units in the last place of the subtracted numbers: a smaller delta is rounding
_COARSE = {"tf32": 2.0**-10, "bfloat16": 2.0**-7}
_JUMPS = (
    "More {unit} will hardly reduce it: most likely the score jumps along the path (rounding, a comparison, "
    "torch.where), or a part of it has no gradient or a surrogate one (detach, no_grad)."
)
_CANCELS = "Values of both signs cancel in the sum: a smaller tolerance= reduces it."
_STEPS = "More {unit} reduce it, unless the score jumps along the path or a part of it has no gradient."


def unaccounted(  # noqa: PLR0913
    values: Tensor,
    delta: Tensor,
    score: Tensor | None,
    tolerance: float,
    *,
    error: Tensor | None = None,
    settled: bool = False,
    precision: str | None = None,
    why: str | None = None,
    unit: str = "steps",
) -> str:
    """Describe a completeness delta above the tolerance.

    The delta is compared with the change of the score, per sample, instead of the magnitude of the values: where large
    values of both signs cancel, the map may have converged while much of the small change is still missing. A delta
    within the rounding error of the scores and the values is ignored, however small the change. A delta that the map's
    error can explain may be twice the tolerance, as that error is accurate to a factor of two; one that it can't
    explain, from a jump of the score or a missing gradient, may not.

    Args:
        values: The values of the map, shape (B, ...).
        delta: Sum of the values minus the change of the score, shape (B,).
        score: The score of the inputs, shape (B,), if available.
        tolerance: The fraction of the score's change that may be missing.
        error: Estimated relative error of the map (L1), shape (B,), which bounds the error of a quadrature.
        settled: Whether the map's error was within the tolerance.
        precision: The model's numerical precision.
        why: The likely cause, if the caller knows it; by default that of too few terms.
        unit: The unit of the terms.

    Returns:
        The missing part in the worst sample, and the likely cause; empty if nothing is missing.
    """
    wide = values.detach().double().flatten(1)
    top = torch.zeros_like(delta) if score is None else score
    exact = torch.zeros_like(delta) if error is None else error
    total, size, *others = on_host(wide.sum(1), wide.abs().sum(1), delta, top, exact)
    missed, top, exact = (other.double() for other in others)
    change, top = total - missed, top.abs()
    grain = max(torch.finfo(values.dtype).eps, _COARSE.get(precision or "", 0.0))
    floor = _ROUNDING * grain * (2 * top + change.abs() + size)
    bound = floor if error is None else 2 * exact * size + floor  # the largest plausible quadrature error
    beyond = missed.abs() > bound
    allowed = tolerance * change.abs() * torch.where(beyond, 1.0, 2.0)
    missing = missed.abs() > torch.maximum(allowed, floor)
    if not bool(missing.any()):
        return ""
    share = torch.where(missing, missed.abs() / change.abs(), 0.0)
    worst = int(share.argmax())
    which = f" of sample {worst}" if len(values) > 1 else ""
    text = (
        f"{percent(float(share[worst]))} of the score's change{which} is unaccounted for: the values sum to "
        f"{float(total[worst]):.4g}, and the score changes by {float(change[worst]):.4g}."
    )
    if why is not None or error is None:
        return f"{text} {_STEPS.format(unit=unit) if why is None else why}"
    if bool((missing & beyond).any()):
        return f"{text} {_JUMPS.format(unit=unit)}"
    return f"{text} {_CANCELS if settled else _STEPS.format(unit=unit)}"
