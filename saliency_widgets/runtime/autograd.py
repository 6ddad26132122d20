"""One gradient of the scores, and what may be wrong with it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from saliency_widgets.attribution.errors import Cancelled, NotFinite, Unread, out_of_memory
from saliency_widgets.runtime.errors import backward_failure, without_gradient


def differentiate(
    model: nn.Module,
    scores: Tensor,
    leaf: Tensor,
    what: str = "inputs",
    *,
    keep_graph: bool = False,
    by_hand: bool = False,
) -> Tensor:
    """The gradient of the sum of the scores.

    Args:
        model: What gave them.
        scores: Shape (B,).
        leaf: With respect to what.
        what: What that is called.
        keep_graph: Whether the graph is needed again.
        by_hand: Whether to call ``.backward()``, for autograd functions that take nothing else; what needs a gradient
            beside the leaf must be the copy's own.

    Raises:
        Unread: The scores don't depend on it.
        ValueError: The backward pass failed, or scores or gradient aren't finite.
    """
    gradient = None
    if scores.requires_grad:
        try:
            if by_hand:
                scores.sum().backward()
                gradient, leaf.grad = leaf.grad, None
            else:
                (gradient,) = torch.autograd.grad(scores.sum(), leaf, retain_graph=keep_graph, allow_unused=True)
        except Exception as error:
            if isinstance(error, Cancelled) or out_of_memory(error) or str(error).startswith("model:"):
                raise
            finite(scores, "score")  # is the cause, where they aren't
            raise backward_failure(model, error) from error
    if gradient is None:
        finite(scores, "score")
        reason = without_gradient(model)
        if reason:
            raise Unread(f"model: {reason}")
        raise Unread(
            f"model: the score does not depend on the {what}: no gradient reaches it. A constant output, "
            f"no_grad or detach inside forward, or whole-number operations (argmax, round) cut it off."
        )
    both_finite(scores, gradient)
    return gradient


def both_finite(scores: Tensor, gradient: Tensor) -> None:
    """Look at scores and their gradient, with one read: on a device, each read waits for all that is under way.

    Raises:
        NotFinite: One of them holds NaN or infinite numbers; the scores, where both do.
    """
    # What isn't finite shows in a sum, also in one of both; a finite one may overflow.
    if scores.device == gradient.device and torch.isfinite(scores.detach().sum() + gradient.detach().sum()):
        return
    finite(scores, "score")
    finite(gradient, "gradient")


def finite(tensor: Tensor, what: str) -> Tensor:
    """The tensor itself.

    Raises:
        NotFinite: It holds NaN or infinite numbers.
    """
    # Anything that isn't finite shows in the sum, which is read much sooner; a finite sum may overflow.
    if not torch.isfinite(tensor.detach().sum()) and not torch.isfinite(tensor).all():
        raise NotFinite(
            f"model: its {what} is NaN or infinite for these inputs. Check the weights and the inputs' scale; "
            f"score='log_probability' is safer than a log of softmax written by hand.",
            what,
        )
    return tensor
