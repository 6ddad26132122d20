"""Differentiation of the scores, and the errors that it may raise."""

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
    """Return the gradient of the sum of the scores.

    Args:
        model: The model that computed the scores.
        scores: The scores, shape (B,).
        leaf: The tensor to differentiate with respect to.
        what: The name of that tensor, for errors.
        keep_graph: Whether to retain the graph for another backward pass.
        by_hand: Whether to call ``.backward()``, for autograd functions that support nothing else; all other tensors
            that require a gradient must then belong to the copy.

    Raises:
        Unread: The scores don't depend on the leaf.
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
            finite(scores, "score")  # if they aren't, this is the cause
            raise backward_failure(model, error) from error
    if gradient is None:
        finite(scores, "score")
        reason = without_gradient(model)
        if reason:
            raise Unread(f"model: {reason}")
        raise Unread(
            f"model: the score does not depend on the {what}: no gradient reaches it. A constant output, "
            f"no_grad or detach inside forward, or non-differentiable operations (argmax, round) block it."
        )
    both_finite(scores, gradient)
    return gradient


def both_finite(scores: Tensor, gradient: Tensor) -> None:
    """Check scores and their gradient with a single read, because each read synchronizes the device.

    Raises:
        NotFinite: One of them holds NaN or infinite numbers. If both do, the error is about the scores.
    """
    # A non-finite element makes the sum of both non-finite; a sum of finite elements may overflow.
    if scores.device == gradient.device and torch.isfinite(scores.detach().sum() + gradient.detach().sum()):
        return
    finite(scores, "score")
    finite(gradient, "gradient")


def finite(tensor: Tensor, what: str) -> Tensor:
    """Check that a tensor is finite, and return it.

    Raises:
        NotFinite: The tensor holds NaN or infinite numbers.
    """
    # A non-finite element makes the sum non-finite, which is much faster to check; a finite sum may overflow.
    if not torch.isfinite(tensor.detach().sum()) and not torch.isfinite(tensor).all():
        raise NotFinite(
            f"model: its {what} is NaN or infinite for these inputs. Check the weights and the inputs' scale; "
            f"score='log_probability' is safer than a log of softmax written by hand.",
            what,
        )
    return tensor
