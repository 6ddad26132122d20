"""A model's scores, and what gives the same scores sooner: see :mod:`~.tuning`."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from saliency_widgets.attribution.call import Call
from saliency_widgets.attribution.errors import Cancelled
from saliency_widgets.attribution.tuning import Observed, Tuned, agree


def survey(call: Call, *, fold: bool) -> tuple[Tensor, tuple[str, ...], Tuned | None]:
    """The class scores of the inputs, shape (B, K); what to know of how they were found; and what gives them sooner.

    Args:
        call: The model and its inputs.
        fold: Whether BatchNorms may be folded into convolutions, and channels laid out last.

    Raises:
        TypeError: The model's output holds no tensor.
        ValueError: The model failed, or its output has another form.
    """
    if not fold:
        return *call.logits(), None
    notes: tuple[str, ...] = ()
    tuned: Tuned | None = None
    laid = call.inputs.dtype == torch.float32 and call.size is not None

    def work(rows: range) -> tuple[Tensor]:
        nonlocal notes, tuned
        with call.standing_in() as model, torch.no_grad():
            if rows.start:
                _, logits, notes = call.read(model, rows)
            else:
                with Observed(model) as seen:
                    output, logits, notes = call.read(model, rows)
                tuned = seen.tuned(output, call.model, channels_last=laid)
            return (logits,)

    logits = call.memory.run(work, call.batch)[0]
    return logits, notes, _proven(call, tuned, logits) if tuned else None


def _proven(call: Call, tuned: Tuned, logits: Tensor) -> Tuned | None:
    """What was tuned, if it gives the model's own scores."""
    rows = range(min(call.batch, call.memory.limit or call.batch))
    again = replace(call, tuned=tuned)
    found: Tensor | None = None
    try:
        with again.standing_in(tuned=True) as model, torch.no_grad():
            found = again.read(model, rows)[1]
    except Cancelled:
        raise
    except Exception:
        # Code that doesn't take channels laid out last (.view of what came from a convolution), or sees the fold: what
        # is wrong with the model itself was told by its own pass. It is then computed as it is written.
        found = None
    if found is not None and agree(found, logits[: rows.stop]):
        return tuned
    if not tuned.channels_last or not tuned.folded:
        return None
    return _proven(call, tuned.without_layout(), logits)
