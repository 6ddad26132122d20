"""What a method sees of the model: one score per sample, and its gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from saliency_widgets.attribution.baselines import PixelRange, baseline_of
from saliency_widgets.attribution.errors import Cancelled, ModelChanged, model_failure
from saliency_widgets.attribution.isolation import stand_in
from saliency_widgets.attribution.targets import Score


def _never() -> None:
    """The check of a computation that nobody can cancel."""


@dataclass(frozen=True)
class Call:
    """A model bound to inputs and to one score per sample.

    Methods that evaluate many variants of the inputs pass batches of K * B rows: the B samples repeated block by
    block, each row scored as its sample.

    Attributes:
        model: The caller's model. It is run, never changed.
        inputs: What it sees, shape (B, ...), on its device and of its type.
        score: From its output to one number per row.
        pixels: What black and white look like to it; None where the inputs are no pictures.
        check: Raises :class:`Cancelled` when the result is no longer wanted; called before each pass.
    """

    model: nn.Module
    inputs: Tensor
    score: Score
    pixels: PixelRange | None = None
    check: Callable[[], None] = _never

    @property
    def batch(self) -> int:
        """B, the number of samples."""
        return self.inputs.shape[0]

    def rows(self, chunk_size: int | None) -> int:
        """Rows of one pass: as asked, or what suits the device."""
        if chunk_size is not None:
            return chunk_size
        return 8 if self.inputs.device.type == "cpu" else 32

    def on(self, inputs: Tensor) -> Call:
        """The same question about other inputs of shape (K * B, ...)."""
        return replace(self, inputs=inputs, score=self.score.tiled(inputs.shape[0] // self.batch))

    def baseline(self, value: Any, seed: int) -> Tensor:
        """The baseline of each sample: see :func:`~saliency_widgets.attribution.baselines.baseline_of`."""
        return baseline_of(value, self.inputs, self.pixels, seed)

    def scores(self, inputs: Tensor) -> Tensor:
        """The scores of K * B rows, shape (K * B,), without gradients."""
        with self._pass() as model:
            with torch.no_grad():
                scores = self.score(_run(model, inputs), inputs.shape[0])
            return _finite(scores, "score").detach()

    def watch(self, seen: Callable[[str, Any], None]) -> None:
        """Run the model once, without gradients, and show each layer's output as the layer finishes.

        Args:
            seen: Called with the module path and the output.
        """
        with self._pass() as model, torch.no_grad():
            for path, module in model.named_modules():
                if path and not isinstance(module, torch.jit.ScriptModule):
                    module.register_forward_hook(lambda _module, _inputs, output, path=path: seen(path, output))
            _run(model, self.inputs)

    def gradient(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient of the score with respect to the inputs.

        Args:
            inputs: K * B rows, shape (K * B, ...).

        Returns:
            The gradients, of the same shape, and the scores, shape (K * B,).

        Raises:
            ValueError: The model failed, or its score doesn't depend on the inputs or isn't finite.
        """
        with self._pass() as model:
            leaf = inputs.detach().requires_grad_(True)
            scores = self.score(_run(model, leaf), leaf.shape[0])
            return _differentiate(model, scores, leaf), scores.detach()

    def at_layer(self, layer: str) -> tuple[Tensor, Tensor, Tensor]:
        """The activation of a layer for the inputs, and the gradient of the score with respect to it.

        Only the part of the model behind the layer is differentiated. Of a layer that runs several times, the
        last run counts.

        Args:
            layer: The layer's module path.

        Returns:
            Activation and gradient, both of the layer's output shape, and the scores, shape (B,).

        Raises:
            ValueError: The layer doesn't run, gives no tensor, or the score doesn't depend on it.
        """
        outputs: list[Any] = []

        def cut(_module: nn.Module, _inputs: Any, output: Any) -> Any:
            if not isinstance(output, Tensor):
                outputs.append(output)
                return None
            leaf = output.detach().requires_grad_(True)
            outputs.append(leaf)
            return leaf.clone()  # so that an in-place operation behind the layer is allowed

        with self._pass() as model:
            model.get_submodule(layer).register_forward_hook(cut)
            output = _run(model, self.inputs)
            scores = self.score(output, self.batch)
            if not outputs or not isinstance(outputs[-1], Tensor):
                what = f"returned a {type(outputs[-1]).__name__}" if outputs else "did not run"
                raise ValueError(f"layer: {layer!r} {what}; choose a layer that returns one tensor.")
            activation = outputs[-1]
            gradient = _differentiate(model, scores, activation, what=f"layer {layer!r}")
            return activation.detach(), gradient, scores.detach()

    @contextmanager
    def _pass(self) -> Iterator[nn.Module]:
        self.check()
        before = _versions(self.model)
        with stand_in(self.model) as model:
            try:
                yield model
            except ValueError as error:
                if _versions(self.model) != before:
                    raise ModelChanged(
                        "model: its weights changed while the map was computed (is it being trained in another cell?). "
                        "Ask again when it rests."
                    ) from error
                raise


def _versions(model: nn.Module) -> list[int | None]:
    return [None if p.is_inference() else p._version for p in model.parameters()]


def _run(model: nn.Module, inputs: Tensor) -> Any:
    try:
        return model(inputs.clone())  # some models normalise what they are given in place
    except (Cancelled, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise model_failure(model, error, tuple(inputs.shape)) from error


def _differentiate(model: nn.Module, scores: Tensor, leaf: Tensor, what: str = "inputs") -> Tensor:
    _finite(scores, "score")
    gradient = None
    if scores.requires_grad:
        try:
            (gradient,) = torch.autograd.grad(scores.sum(), leaf, allow_unused=True)
        except (Cancelled, torch.OutOfMemoryError):
            raise
        except RuntimeError as error:
            raise model_failure(model, error, tuple(leaf.shape)) from error
    if gradient is None:
        raise ValueError(
            f"model: the score does not depend on the {what}: no gradient reaches it. A constant output, "
            f"no_grad or detach inside forward, or whole-number operations (argmax, round) cut it off."
        )
    return _finite(gradient, "gradient")


def _finite(tensor: Tensor, what: str) -> Tensor:
    if not torch.isfinite(tensor).all():
        raise ValueError(
            f"model: its {what} is NaN or infinite for these inputs. Check the weights and the inputs' scale; "
            f"score='log_probability' is safer than a log of softmax written by hand."
        )
    return tensor
