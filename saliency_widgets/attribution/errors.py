"""Failures of the caller's model, retold so that they can be mended."""

from __future__ import annotations

from types import TracebackType

from torch import nn


class Cancelled(Exception):  # noqa: N818 - not an error: somebody asked for something newer
    """Raised inside a computation whose result nobody waits for any more."""


class ModelChanged(ValueError):  # noqa: N818 - it names what happened
    """The model's weights changed in the middle of a computation, which failed for it."""


class Unread(ValueError):  # noqa: N818 - it names what happened
    """The score does not depend on what it was to be differentiated by."""


def failing_layer(model: nn.Module, trace: TracebackType | None) -> str | None:
    """The path of the innermost module of ``model`` whose code raised, read off the traceback."""
    paths = {id(module): path for path, module in model.named_modules()}
    found = None
    while trace is not None:
        owner = trace.tb_frame.f_locals.get("self")
        if isinstance(owner, nn.Module) and paths.get(id(owner)):
            found = paths[id(owner)]
        trace = trace.tb_next
    return found


def model_failure(model: nn.Module, error: Exception, shape: tuple[int, ...]) -> ValueError:
    """The model raised: say where, on what, and what it said.

    Args:
        model: The caller's model.
        error: What it raised.
        shape: The shape of the batch it was given.

    Returns:
        The exception to raise ``from error``.
    """
    layer = failing_layer(model, error.__traceback__)
    if "Inference tensors" in str(error):
        return ValueError(
            "model: its weights were made under torch.inference_mode() and can't be differentiated through. Make the "
            "model, or load its weights, outside of inference_mode."
        )
    if layer and isinstance(model.get_submodule(layer), (nn.Embedding, nn.EmbeddingBag)):
        return ValueError(
            f"model: it looks its input up in the embedding {layer!r}, and whole numbers (tokens, categories) can't be "
            f"moved a little. Pass the embeddings instead, if the model takes them, or a module of what follows them; "
            f"or ask sw.attribute for a method that needs no gradient, such as method='captum.FeatureAblation'."
        )
    where = f"in layer {layer!r} ({type(model.get_submodule(layer)).__name__})" if layer else "in its forward"
    if "when training" in str(error):
        hint = "Call model.eval() first."
    else:
        needed = (
            "rows may need transform= (the scaler or encoder that the model was trained with)"
            if len(shape) == 2
            else "a picture may need transform= (resize, crop, normalise)"
        )
        hint = f"Check that `model(inputs)` runs on its own with this shape, type and device; {needed}."
    return ValueError(
        f"model: it raised {type(error).__name__} {where} for an input of shape {shape}: "
        f"{str(error).rstrip('.')}. {hint}"
    )
