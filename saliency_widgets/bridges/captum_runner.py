"""Run a Captum method sample by sample, on a copy of the model with separate weights, for this package's score.

Captum hooks models, sets attributes on their modules and changes weights, so it never gets the caller's model.
"""

from __future__ import annotations

import copy
import inspect
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from saliency_widgets.attribution.errors import Cancelled, NotFinite, out_of_memory
from saliency_widgets.attribution.numerics.completeness import unaccounted
from saliency_widgets.attribution.numerics.noise import SEED
from saliency_widgets.attribution.registry import Estimate
from saliency_widgets.bridges.captum_objects import patches, single
from saliency_widgets.runtime.errors import backward_failure, in_backward
from saliency_widgets.runtime.layers.hooks import turn_of
from saliency_widgets.runtime.layers.selection import check_layer
from saliency_widgets.runtime.runner import Runner

CHUNKS = ("internal_batch_size", "perturbations_per_eval")
SAMPLED = ("n_samples", "nt_samples")
_BY_SAMPLE = ("baselines", "feature_mask", "layer_baselines", "layer_mask")
_UNSAID = 0.05  # part of the score's change that may be missing without a note
_NO_STEPS = "A part of the score has no gradient (detach, no_grad), or the method has no rule for an operation inside."
_WITH_DELTA = {"baselines", "return_convergence_delta"}


@dataclass(frozen=True)
class CaptumMethod:
    """A Captum method: its properties, and how to run it.

    Attributes:
        label: The method's name in Captum.
        arguments: The parameters of its ``attribute`` and of those inside it; ``**kwargs`` if the last one has it.
        kinds: The names of its classes and of their bases.
        make: The function from the module for Captum, the copies of the model's modules and the layer to the object.
        paths: The function from the model to the paths of the layers that the object was made for.
        chosen: Whether the layer is a parameter.
        fixed: Arguments that are not parameters.
    """

    label: str
    arguments: Mapping[str, inspect.Parameter]
    kinds: frozenset[str]
    make: Callable[[nn.Module, dict[int, Any], str | None], Any]
    paths: Callable[[nn.Module], list[str]] = lambda _model: []
    chosen: bool = False
    fixed: Mapping[str, Any] = field(default_factory=dict)

    @property
    def of_layer(self) -> bool:
        """Return whether the values are those of a layer."""
        return "LayerAttribution" in self.kinds

    @property
    def whole_batch(self) -> bool:
        """Return whether the method needs all samples of a batch, which are otherwise explained one by one."""
        return "FeaturePermutation" in self.kinds

    def run(self, runner: Runner, **params: Any) -> Iterator[Estimate]:
        """Run the method, see :class:`~saliency_widgets.attribution.registry.Method`.

        Raises:
            ValueError: The method can't be run for this score, layer or batch, or Captum raised an error.
        """
        if self.label.endswith("LRP") and not _is_an_output(runner):
            raise ValueError(
                f"score: {self.label} can only explain an output of the model, not a difference (contrast=), a "
                f"probability, or the negative of one logit. Use score='logit' without contrast=, or target=1 of two "
                f"names."
            )
        layers = self._layers(runner, params.pop("layer", None))
        self._separate(runner)
        seed, chunk = params.pop("seed", SEED.default), runner.passes.rows_per_pass(params.pop("chunk_size", None))
        arguments = {name: chunk for name in CHUNKS if name in self.arguments} | params | dict(self.fixed)
        if "baseline" in arguments:
            arguments["baselines"] = runner.baseline(arguments.pop("baseline"), seed)
        if self.whole_batch and runner.batch == 1:
            raise ValueError(
                f"inputs: {self.label} shuffles a feature among the samples of a batch, but there is only one. Pass "
                f"several, or use 'captum.FeatureAblation'."
            )
        samples = [slice(0, runner.batch)] if self.whole_batch else [slice(k, k + 1) for k in range(runner.batch)]
        done = [self._explain(runner, some, layers, arguments, seed) for some in samples]
        deltas = [delta for _, delta, _ in done if delta is not None]
        values, parts = self._read(runner, [tensors for tensors, _, _ in done], layers)
        delta = torch.cat(deltas) if len(deltas) == runner.batch else None
        why = None if "n_steps" in self.arguments else _NO_STEPS
        missing = (
            "" if delta is None else unaccounted(values, delta, None, _UNSAID, precision=runner.precision, why=why)
        )
        yield Estimate(
            values,
            evaluations=math.ceil(sum(rows for _, _, rows in done) / runner.batch),
            delta=delta,
            notes=(missing,) if missing else (),
            layer=", ".join(layers) if self.of_layer else None,
            parts=parts,
        )

    def _separate(self, runner: Runner) -> None:
        """Check whether variants of a sample may share a pass; raise ValueError if not and Captum requires it."""
        several = {*CHUNKS, *SAMPLED, "baselines"} & set(self.arguments)
        if runner.batch > 1 or not several:
            return
        runner.look_at(torch.cat([torch.zeros_like(runner.inputs), runner.inputs]))
        if runner.passes.sharing.apart and not set(CHUNKS) & several:
            raise ValueError(
                f"method: {self.label} runs the input together with variants of it in one pass. "
                f"{runner.passes.sharing.apart} Use 'integrated_gradients' or 'smoothgrad', which support this."
            )

    def _layers(self, runner: Runner, layer: str | None) -> list[str]:
        """Return the paths of the layers to explain."""
        if not self.chosen:
            return self.paths(runner.passes.model)
        if layer is None:
            try:
                layer = runner.at_layer(None).layer
            except ValueError as error:
                paths = [path for path, _ in runner.passes.model.named_modules() if path]
                raise ValueError(
                    f"layer: {self.label} explains one layer, and none was chosen. Pass layer= one of {paths}."
                ) from error
        check_layer(runner.passes.model, layer)
        if turn_of(layer) is not None:
            raise ValueError(f"layer: {layer!r} is not a module, which Captum requires. Pass layer= a module's path.")
        return [layer]

    def _explain(
        self, runner: Runner, samples: slice, layers: list[str], settings: Mapping[str, Any], seed: int
    ) -> tuple[list[Tensor], Tensor | None, int]:
        """Return Captum's results for some samples, the delta or None, and the number of rows the model was run on."""
        inputs = runner.passes.split(runner.inputs[samples].detach().clone())
        for name in ("baselines", "feature_mask"):
            fixed = self.fixed.get(name)
            if isinstance(fixed, tuple) and len(fixed) != len(inputs):
                raise ValueError(
                    f"{name}: a tuple must have one item for each explained input, {len(inputs)} here, got "
                    f"{len(fixed)}."
                )
        arguments = {name: self._of_sample(runner, name, value, samples, inputs) for name, value in settings.items()}
        if "window" in arguments:
            arguments = patches([tuple(x.shape[1:]) for x in inputs], arguments.pop("window")) | arguments
        with (
            runner.passes.lend(None if self.whole_batch else samples.start, seed) as (model, copies, score),
            _undisturbed(seed),
        ):
            for module in model.modules():
                if hasattr(module, "rule"):  # set by the caller for LRP, which stores tensors in it
                    module.rule = copy.copy(module.rule)
            scored = _Scored(model, score)
            # delta must be the sum's error against F(x) - F(x'); Captum's differs for noisy copies or without x'.
            delta = {*_WITH_DELTA, *SAMPLED} & set(self.arguments) == _WITH_DELTA
            try:
                layer = layers[0] if self.chosen else None
                attribution = self.make(scored, {**copies, id(runner.passes.model): scored}, layer)
                delta = delta and attribution.has_convergence_delta() and attribution.multiplies_by_inputs
                arguments |= {"return_convergence_delta": True} if delta else {}
                result = attribution.attribute(single(inputs), **arguments)
            except Exception as error:
                if isinstance(error, NotFinite):
                    raise ValueError(
                        f"method: the model's {error.what} is NaN or infinite for inputs modified by Captum's "
                        f"{self.label} (baseline, noise or occlusion). Choose another baseline."
                    ) from error
                if "cannot register a hook on a tensor" in str(error):
                    raise ValueError(
                        f"method: Captum's {self.label} hooks layers that run on inputs which are not explained, and "
                        f"these have no gradient. Omit explain=, so that all inputs are explained together."
                    ) from error
                if error is scored.failure or isinstance(error, Cancelled) or out_of_memory(error):
                    raise
                if in_backward(error):
                    raise backward_failure(model, error) from error
                raise ValueError(
                    f"method: Captum's {self.label} raised {type(error).__name__}: {str(error).strip().rstrip('.')}. "
                    f"Check that it runs on this model directly; from_captum takes further arguments of its attribute."
                ) from error
        result, missed = result if delta else (result, None)
        missed = None if missed is None or missed.numel() > 1 else missed.detach().reshape(1).to(runner.inputs.device)
        return [item.detach() for item in _tensors(result)], missed, scored.rows

    def _of_sample(self, runner: Runner, name: str, value: Any, samples: slice, inputs: Sequence[Tensor]) -> Any:
        """Return an argument for some samples, on their device; with several explained inputs, one for each."""
        if isinstance(value, (tuple, list)) and any(isinstance(item, Tensor) for item in value):
            of_each = [[x] for x in inputs] if len(value) == len(inputs) else [inputs] * len(value)
            return tuple(
                self._of_sample(runner, name, item, samples, x) for item, x in zip(value, of_each, strict=True)
            )
        if not isinstance(value, Tensor):
            return value
        # Without a default, Captum samples from the baselines, and expects more than one.
        drawn = name == "baselines" and self.arguments[name].default is inspect.Parameter.empty
        tensor = value.to(runner.inputs.device)
        if name not in self.fixed:
            return single(runner.passes.split(tensor[samples].repeat(1 + drawn, *[1] * (tensor.ndim - 1))))
        if drawn or name not in _BY_SAMPLE or tensor.ndim == 0:
            return tensor
        like = inputs[0] if len(inputs) == 1 and not name.startswith("layer_") else None
        if len(tensor) == runner.batch and (like is None or tensor.ndim == like.ndim):
            tensor = tensor[samples]
        return tensor if like is None else _expanded(tensor, (1, *like.shape[1:]))

    def _read(
        self, runner: Runner, results: list[list[Tensor]], layers: list[str]
    ) -> tuple[Tensor, dict[str, tuple[int, ...]] | None]:
        """Return the values of the inputs or a layer, and the shapes of the parts if a layer has several tensors."""
        shapes, who = [tuple(item.shape) for item in results[0]], f"Captum's {self.label} returned"
        if not all(bool(torch.isfinite(item).all()) for items in results for item in items):
            raise ValueError(f"method: {who} NaN or infinite values. Try another baseline, layer or method.")
        if not self.of_layer:
            if shapes != [tuple(x.shape) for x in runner.passes.split(runner.inputs[: len(results[0][0])])]:
                leave = "Omit the arguments that change the shape."
                raise ValueError(f"method: {who} values of shape {single(shapes)}, not the inputs' shape. {leave}")
            if runner.passes.arguments is None or not runner.passes.arguments.parts:
                return torch.cat([items[0] for items in results]), None
            return torch.cat([_flat(items) for items in results]), None
        if not shapes:
            raise ValueError(f"layer: {who} no values at {single(layers)!r}.")
        if len(results) > 1 and any(len(item) != 1 for items in results for item in items):
            raise ValueError(
                f"layer: {who} values of shape {single(shapes)} for one sample at {single(layers)!r}, whose first "
                f"dimension is not that of samples. Explain one sample at a time."
            )
        if len(shapes) == 1:
            values = torch.cat([items[0] for items in results])
            return (values.sum(1, keepdim=True) if self._is_map(runner, values, layers[0]) else values), None
        names = layers if len(layers) == len(shapes) else [f"{layers[0]}[{k}]" for k in range(len(shapes))]
        return torch.cat([_flat(items) for items in results]), dict(zip(names, (s[1:] for s in shapes), strict=True))

    def _is_map(self, runner: Runner, values: Tensor, layer: str) -> bool:
        """Return whether a layer's values are channels on the grid of an image, to be shown as one map.

        Raises:
            ValueError: Captum averaged over other dimensions than those of the grid.
        """
        if values.ndim != 4 or runner.passes.size is None:
            return False
        if self.fixed.get("attribute_to_layer_input"):  # which has another size
            return True
        try:
            grid = tuple(runner.at_layer(layer).activation.shape[-2:])
        except (TypeError, ValueError):  # no grid of channels, or the score doesn't depend on it
            return False
        if tuple(values.shape[2:]) != grid and self.label.endswith("LayerGradCam"):
            raise ValueError(
                f"layer: Captum's {self.label} returned values of shape {tuple(values.shape)} at {layer!r}, which has "
                f"its channels after the grid of {grid[0]} x {grid[1]}: Captum uses the wrong dimension as channels. "
                f"Use 'grad_cam'."
            )
        return tuple(values.shape[2:]) == grid


class _Scored(nn.Module):
    """The model passed to Captum: it has the modules of a copy, and returns one score per row.

    Attributes:
        rows: The number of rows it was run on.
        failure: The error that it raised, which is re-raised unchanged.
    """

    def __init__(self, model: nn.Module, score: Callable[[Sequence[Tensor]], Tensor]) -> None:
        super().__init__()
        self.model, self._score, self.rows = model, score, 0
        self.failure: Exception | None = None

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the scores, shape (N,)."""
        self.rows += len(inputs[0])
        try:
            return self._score(inputs)
        except Exception as error:
            self.failure = error
            raise


def _is_an_output(runner: Runner) -> bool:
    """Return whether the score is one of the model's outputs, and not computed from them."""
    score = runner.passes.score
    if not isinstance(score.target, Tensor):
        return True  # a function of the outputs can't be checked
    if score.contrast is not None or score.scale in ("probability", "log_probability"):
        return False
    negative = score.binary and score.of_classes and bool((score.target == 0).any())
    return not negative or runner.passes.logits()[0].shape[1] > 1


def _tensors(output: Any) -> list[Tensor]:
    """Return the tensors in Captum's result, with the tuples of several layers flattened."""
    return [output] if isinstance(output, Tensor) else [tensor for item in output for tensor in _tensors(item)]


def _flat(items: list[Tensor]) -> Tensor:
    return torch.cat([item.reshape(len(item), -1) for item in items], 1)


def _expanded(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Expand a mask or baseline to a sample's shape: Captum takes fewer dimensions only with one variant per pass."""
    try:
        return tensor.expand(shape).contiguous()
    except RuntimeError:  # another shape, for which Captum raises the error
        return tensor


@contextmanager
def _undisturbed(seed: int) -> Iterator[None]:
    """Seed NumPy and restore its random state; ignore warnings about hooks and gradients, which concern the copy."""
    state = np.random.get_state()  # noqa: NPY002 - captum draws from it
    np.random.seed(seed)  # noqa: NPY002
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Setting .*hooks")
            warnings.filterwarnings("ignore", "Input Tensor .* did not already require gradients")
            yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
