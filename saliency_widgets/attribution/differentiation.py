"""One gradient of the scores, and what may be wrong with it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from saliency_widgets.attribution.errors import Cancelled, Unread, model_failure
from saliency_widgets.attribution.memory import out_of_memory


def differentiate(
    model: nn.Module, scores: Tensor, leaf: Tensor, what: str = "inputs", *, keep_graph: bool = False
) -> Tensor:
    """The gradient of the sum of the scores.

    Args:
        model: What gave them.
        scores: Shape (B,).
        leaf: With respect to what.
        what: What that is called.
        keep_graph: Whether the graph is needed again.

    Raises:
        Unread: The scores don't depend on it.
        ValueError: The backward pass failed, or scores or gradient aren't finite.
    """
    finite(scores, "score")
    gradient = None
    if scores.requires_grad:
        try:
            (gradient,) = torch.autograd.grad(scores.sum(), leaf, retain_graph=keep_graph, allow_unused=True)
        except Exception as error:
            if isinstance(error, Cancelled) or out_of_memory(error) or not isinstance(error, RuntimeError):
                raise
            raise model_failure(model, error, tuple(leaf.shape)) from error
    if gradient is None:
        raise Unread(
            f"model: the score does not depend on the {what}: no gradient reaches it. A constant output, "
            f"no_grad or detach inside forward, or whole-number operations (argmax, round) cut it off."
        )
    return finite(gradient, "gradient")


def finite(tensor: Tensor, what: str) -> Tensor:
    """The tensor itself.

    Raises:
        ValueError: It holds NaN or infinite numbers.
    """
    # Anything that isn't finite shows in the sum, which is read much sooner; a finite sum may overflow.
    if not torch.isfinite(tensor.detach().sum()) and not torch.isfinite(tensor).all():
        raise ValueError(
            f"model: its {what} is NaN or infinite for these inputs. Check the weights and the inputs' scale; "
            f"score='log_probability' is safer than a log of softmax written by hand."
        )
    return tensor
