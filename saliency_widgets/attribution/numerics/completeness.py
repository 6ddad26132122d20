"""What the completeness delta says of a map: how much of the score's change its values leave out, and why."""

from __future__ import annotations

import torch
from torch import Tensor

from saliency_widgets.attribution.arrays import on_host
from saliency_widgets.attribution.numerics.stopping import percent

_ROUNDING = 64  # units in the last place of the numbers that are subtracted: a delta below is rounding
_COARSE = {"tf32": 2.0**-10, "bfloat16": 2.0**-7}
_JUMPS = (
    "More {unit} will hardly bring it down: most likely the score jumps on the way (rounding, a comparison, "
    "torch.where), or a part of it has no gradient or a surrogate one (detach, no_grad)."
)
_CANCELS = "Values of both signs cancel in the sum: a smaller tolerance= brings it down."
_STEPS = "More {unit} bring it down, unless the score jumps on the way or a part of it has no gradient."


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
    """The sentence about a completeness delta above the tolerance.

    It is compared with the change of the score, sample by sample, and not with the size of the values: where large
    values of both signs cancel, the map may be settled while much of the little change is still missing. What is no
    more than rounding of the scores and the values is none, however small the change. What the error of the map can
    explain may be twice the tolerance, as that error is known to a factor of two; what it can't explain, a jump or a
    missing gradient, may not.

    Args:
        values: Of the map, shape (B, ...).
        delta: Sum of the values less the change of the score, shape (B,).
        score: Of the inputs, shape (B,), where it is known.
        tolerance: The part of the score's change that may be missing.
        error: Estimated error of the map, relative to it (L1), shape (B,): it bounds what a quadrature may miss.
        settled: Whether the map was within its own tolerance.
        precision: Of the passes.
        why: The likely cause, where the caller knows; otherwise that of a sum.
        unit: What is summed over.

    Returns:
        How much is missing in the worst sample, and the likely cause; empty where nothing is.
    """
    wide = values.detach().double().flatten(1)
    top = torch.zeros_like(delta) if score is None else score
    exact = torch.zeros_like(delta) if error is None else error
    total, size, *others = on_host(wide.sum(1), wide.abs().sum(1), delta, top, exact)
    missed, top, exact = (other.double() for other in others)
    change, top = total - missed, top.abs()
    grain = max(torch.finfo(values.dtype).eps, _COARSE.get(precision or "", 0.0))
    floor = _ROUNDING * grain * (2 * top + change.abs() + size)
    bound = floor if error is None else 2 * exact * size + floor  # what a quadrature may miss
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
