"""Failures of the caller's model, reworded as errors that say how to fix them."""

from __future__ import annotations

import re
from types import TracebackType

import torch
from torch import nn

from saliency_widgets.attribution.errors import NeedsGradients
from saliency_widgets.runtime.model.isolation import quantized_layers


def failing_layer(model: nn.Module, trace: TracebackType | None) -> str | None:
    """Return the path of the innermost module of ``model`` whose code raised, from the traceback."""
    paths = {id(module): path for path, module in model.named_modules()}
    path = None
    while trace is not None:
        owner = trace.tb_frame.f_locals.get("self")
        if isinstance(owner, nn.Module) and paths.get(id(owner)):
            path = paths[id(owner)]
        trace = trace.tb_next
    return path


def forward_failure(model: nn.Module, error: Exception, shape: tuple[int, ...]) -> ValueError:
    """Return the error for a failed forward pass, with the layer, the input shape, the cause and a remedy.

    Args:
        model: The caller's model.
        error: The exception that it raised.
        shape: The shape of its input batch.

    Returns:
        The exception to raise ``from error``.
    """
    layer = failing_layer(model, error.__traceback__)
    if layer and isinstance(model.get_submodule(layer), (nn.Embedding, nn.EmbeddingBag)):
        return ValueError(
            f"model: its input is an index into the embedding {layer!r}, and integers (tokens, categories) have no "
            f"gradient. For a text, pass tokenizer=; otherwise pass the embeddings, if the model takes them, or a "
            f"module of the layers after them; or use sw.attribute with a method that needs no gradient, such as "
            f"method='captum.FeatureAblation'."
        )
    where = f"in layer {layer!r} ({type(model.get_submodule(layer)).__name__})" if layer else "in its forward"
    reason = _no_gradient(model, error) or _exported(error, shape)
    if reason:
        return ValueError(f"model: {reason}")
    if _written_in_place(error):
        return ValueError(
            f"model: with gradients enabled, it raised {type(error).__name__} {where}: {cause_of(error)}. It may run "
            f"under torch.no_grad(), but it has no gradient. {_OUT_OF_PLACE}"
        )
    if _UNGRADED.search(str(error)):
        return NeedsGradients(
            f"model: its code computes gradients, which failed {where}: {cause_of(error)}. Check that `model(x)`, with "
            f"x.requires_grad_(), runs on its own; torch.func.grad inside forward works in any mode."
        )
    if "when training" in str(error):
        hint = "Call model.eval() first."
    else:
        needed = (
            "rows may need transform= (the scaler or encoder that the model was trained with)"
            if len(shape) == 2
            else "an image may need transform= (resize, crop, normalize)"
        )
        hint = f"Check that `model(inputs)` runs on its own with this shape, type and device; {needed}."
    return ValueError(
        f"model: it raised {type(error).__name__} {where} for an input of shape {shape}: {cause_of(error)}. {hint}"
    )


def backward_failure(model: nn.Module, error: Exception) -> ValueError:
    """Return the error for a backward pass that failed after a successful forward pass, with the cause and a remedy.

    Args:
        model: The model that ran.
        error: The exception that was raised.

    Returns:
        The exception to raise ``from error``.
    """
    reason = _no_gradient(model, error)
    if reason:
        return ValueError(f"model: {reason}")
    runs = "model: its forward pass runs, but its backward pass, which gradients require, fails:"
    if _written_in_place(error):
        saved = _SAVED.search(str(error))
        what = f"the output of {saved[2]}, of shape {saved[1]}," if saved else f"{cause_of(error)}: a tensor"
        return ValueError(
            f"{runs} {what} is modified in place after autograd saved it for the backward pass. {_OUT_OF_PLACE}"
        )
    function = _function_in(error.__traceback__)
    where = f" in the autograd function {function!r}" if function else ""
    message = f"{runs} it raised {type(error).__name__}{where}: {cause_of(error)}."
    if ".grad()" in str(error) and ".backward()" in str(error):
        return NeedsGradients(f"{message} Switch its checkpointing off, or use torch.utils.checkpoint.")
    hint = "Check that `model(x)[0].sum().backward()`, with x.requires_grad_(), runs on its own."
    return (NeedsGradients if _UNGRADED.search(str(error)) else ValueError)(f"{message} {hint}")


def without_gradient(model: nn.Module) -> str:
    """Return why a quantized model has no gradient, and a remedy; empty if the model is not quantized."""
    layers = quantized_layers(model)
    if not layers:
        return ""
    some = ", ".join(repr(path) for path in layers[:3] if path) or "all of it"
    return (
        f"it is quantized ({some}{', ...' * (len(layers) > 3)}): it computes with integers, which have no "
        f"gradient. Explain the float model from before quantization, or use a method that needs no gradient, such as "
        f"'captum.FeatureAblation' or 'captum.Occlusion'."
    )


def cause_of(error: BaseException) -> str:
    """Return the message of an error; for an error inside TorchScript, the original message without its traceback."""
    text = str(error).strip()
    if "TorchScript" in text:
        text = text.splitlines()[-1]
    return text.partition(" Hint: enable anomaly detection")[0].rstrip(". ")


_UNGRADED = re.compile("requires?[ _]grad")
_OUT_OF_PLACE = (
    "Look for `y[...] = ...`, `y *= ...`, a method such as `relu_()`, or inplace=True: write it out of place (`y = y * "
    "2`), or put `y = y.clone()` before it."
)
_SAVED = re.compile(r"\[[\w.]+ (\[[\d, ]*\])\], which is output \d+ of (\w+?)(?:Backward\d*)?,")
_BATCH = re.compile(r"(?:size\(\)|shape)\[0\] (?:==|to be equal to) (\d+)")


def _written_in_place(error: Exception) -> bool:
    return isinstance(error, RuntimeError) and any(word in str(error) for word in ("inplace", "in-place"))


def _no_gradient(model: nn.Module, error: Exception) -> str:
    """Return a known reason why the model has no gradient; empty if there is none."""
    if "Inference tensors" in str(error):
        return (
            "its weights were created under torch.inference_mode() and don't support gradients. Create the "
            "model, or load its weights, outside of inference_mode."
        )
    if "derivative for" in str(error) and "not implemented" in str(error):
        return without_gradient(model) or (
            f"one of its operations has no derivative ({cause_of(error)}). Replace that operation, or use a method "
            f"that needs no gradient, such as 'captum.FeatureAblation'."
        )
    return ""


def _exported(error: Exception, shape: tuple[int, ...]) -> str:
    """Return why an exported program rejected the shape of its input; empty if it didn't."""
    if "Guard failed" not in str(error) and "Expected input at" not in str(error):
        return ""
    batch = _BATCH.search(str(error))
    if batch and int(batch[1]) < shape[0]:
        return fixed_batch(int(batch[1]), shape[0], error)
    if batch:
        return (
            f"it was exported for a batch size of {batch[1]}, and this pass has {shape[0]} ({cause_of(error)}). Pass a "
            f"batch of that size. Class activation maps, Captum's methods and checks run one sample at a time and need "
            f"a model that was exported with dynamic_shapes=."
        )
    return (
        f"it was exported for inputs that differ from these, of shape {shape} ({cause_of(error)}). Pass inputs that "
        f"match the export, or export it again with dynamic_shapes=."
    )


def fixed_batch(rows: int, more: int, error: Exception) -> str:
    """Return the message that the model only takes batches of ``rows`` rows."""
    each = "1 row at a time" if rows == 1 else f"batches of {rows} rows"
    return (
        f"its batch size is fixed: it takes {each}, not {more} ({cause_of(error)}). Pass chunk_size=1 to the "
        f"method. For methods without chunk_size, let the model take any number of rows: export it with "
        f"dynamic_shapes=, or write x.shape[0] in place of the number."
    )


def in_backward(error: Exception) -> bool:
    """Return whether autograd raised the error in a backward pass."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_name != "_engine_run_backward":
        trace = trace.tb_next
    return trace is not None


def _function_in(trace: TracebackType | None) -> str:
    """Return the name of the custom autograd function whose backward raised, from the traceback; empty if none did."""
    name = ""
    while trace is not None:
        context = next(iter(trace.tb_frame.f_locals.values()), None)
        if isinstance(context, torch.autograd.function.BackwardCFunction):
            name = type(context).__name__.removesuffix("Backward")
        trace = trace.tb_next
    return name
