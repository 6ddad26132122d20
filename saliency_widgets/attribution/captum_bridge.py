"""Captum's methods as methods of ours: any object of ``captum.attr``, or one of its classes by name.

Captum hooks models, puts attributes on their modules and changes weights. It never gets the caller's model: it runs on
a stand-in with weights of its own, in a module that gives one score for each row, so that ``target``, ``score`` and
``contrast`` mean what they mean everywhere. It is imported only where a class is asked for by its name.
"""

from __future__ import annotations

import copy
import inspect
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from saliency_widgets.attribution.baselines import BASELINE
from saliency_widgets.attribution.call import Call
from saliency_widgets.attribution.errors import Cancelled, NotFinite, backward_failure, in_backward
from saliency_widgets.attribution.layers import LAYER, RESHAPE, activation_maps
from saliency_widgets.attribution.memory import out_of_memory
from saliency_widgets.attribution.method import Estimate, Method
from saliency_widgets.attribution.noise import SEED
from saliency_widgets.attribution.schedule import CHUNK_SIZE
from saliency_widgets.attribution.taps import turn_of
from saliency_widgets.params import Param, unknown

_MOVES = "Size of the patch that is hidden. It moves by half of itself."
WINDOW = Param("window", default=0.125, low=0.02, high=1.0, minimum=0.0, unit="of each side", help=_MOVES)
_ASKED = ("inputs", "target", "additional_forward_args", "return_convergence_delta")  # what the bridge itself gives
_CHUNKS = ("internal_batch_size", "perturbations_per_eval")
_SAMPLED = ("n_samples", "nt_samples")
_WITH_DELTA = {"baselines", "return_convergence_delta"}


def from_captum(attribution: Any, *, title: str | None = None, **fixed: Any) -> Method:
    """A method of captum's as one of ours: for ``method=``, with sliders for its numeric keyword arguments.

    It runs on a copy of the model, sample by sample. The caller's model and torch's random state are left as they
    were, and so is NumPy's, from which another thread must not draw meanwhile: there is only one of it.

    Args:
        attribution: An object of ``captum.attr`` that was made with the model itself, such as ``Occlusion(model)``,
            ``NoiseTunnel(IntegratedGradients(model))`` or ``LayerGradCam(model, model.layer4)``.
        title: What it is called in the menu.
        **fixed: Further keyword arguments of its ``attribute``, such as ``sliding_window_shapes=(3, 8, 8)``.

    Returns:
        The method. Its values are captum's: of the inputs' shape, or a layer's summed over the channels,
        (B, 1, h, w). ``delta`` is there where captum gives one for each sample and a baseline; ``evaluations`` are the
        rows that captum ran the model on, with gradients or without, per sample.

    Raises:
        TypeError: It is no such object, or has no such argument.
        ValueError: It needs an argument that is missing, or compares the samples of a batch.
    """
    if inspect.isclass(attribution) or not callable(getattr(attribution, "attribute", None)):
        wanted = "captum.attr.DeepLift(model), or the name 'captum.DeepLift'"
        raise TypeError(f"method: expected an object of captum's such as {wanted}; got {attribution!r}.")
    chain = [attribution]
    while (inner := getattr(chain[-1], "attribution_method", None)) is not None:
        chain.append(inner)
    label = "(".join(type(link).__name__ for link in chain) + ")" * (len(chain) - 1)
    models, layers = list(_held(attribution, "forward_func", "model")), list(_held(attribution, "layer"))

    def path(model: nn.Module) -> str | None:
        if any(_whole(held) is not model for held in models):
            raise ValueError(
                f"method: this {label} was made for another model or a function. Make it with the model that is "
                f"explained, without device=, and say by target= and score= what of its output is meant."
            )
        paths = [next((name for name, module in model.named_modules() if module is layer), None) for layer in layers]
        if None in paths:
            raise ValueError(f"method: the layer that this {label} was made for is no part of the model.")
        return paths[0] if paths else None

    def made(scored: nn.Module, copies: dict[int, Any], _: str | None) -> Any:
        return copy.deepcopy(attribution, {**copies, **{id(held): scored for held in models}})

    calls = [link.attribute for link in chain]
    return _Bridge(label, _arguments(calls), _is_layers(type(chain[-1])), made, path, fixed=fixed).method(title)


def captum_method(name: str) -> Method:
    """A class of ``captum.attr`` by its name, "captum.DeepLift", bound to the model when it runs.

    Raises:
        ImportError: Captum is not installed.
        ValueError: There is no such class, or it needs more than a model and a layer.
    """
    try:
        import captum.attr as found
    except ImportError as error:
        raise ImportError(f"method: {name!r} needs captum: pip install 'saliency-widgets[captum]'") from error
    kinds = {f"captum.{n}": kind for n in found.__all__ if hasattr(kind := getattr(found, n), "attribute")}
    if name not in kinds:
        raise ValueError(unknown("method", name, list(kinds)))
    kind, label = kinds[name], name.removeprefix("captum.")
    needs = [n for n, p in list(inspect.signature(kind.__init__).parameters.items())[1:] if p.default is p.empty]
    if more := [n for n in needs if n not in ("forward_func", "model", "layer")]:
        told = f"Make the object, captum.attr.{label}(...), and pass that."
        raise ValueError(f"method: {name!r} needs {', '.join(more)} too. {told}")

    def made(scored: nn.Module, _: dict[int, Any], layer: str | None) -> Any:
        return kind(scored) if layer is None else kind(scored, scored.get_submodule(f"model.{layer}"))

    return _Bridge(label, _arguments([kind.attribute]), _is_layers(kind), made, chosen="layer" in needs).method()


@dataclass(frozen=True)
class _Bridge:
    """What is known of one of captum's methods.

    Attributes:
        label: Its name there.
        arguments: Of its ``attribute``, and of those inside it.
        maps: Whether the values are a layer's.
        make: From the module that captum gets, the copies of the model's modules and the layer to captum's object.
        path: From the model to the path of the layer that the object was made for.
        chosen: Whether the layer is a parameter.
        fixed: Arguments that are no parameters.
    """

    label: str
    arguments: Mapping[str, inspect.Parameter]
    maps: bool
    make: Callable[[nn.Module, dict[int, Any], str | None], Any]
    path: Callable[[nn.Module], str | None] = lambda _model: None
    chosen: bool = False
    fixed: Mapping[str, Any] = field(default_factory=dict)

    def method(self, title: str | None = None) -> Method:
        """The method, with its arguments looked through."""
        known = [name for name in self.arguments if name not in _ASKED]
        for name in set(self.fixed) - set(known):
            raise TypeError(unknown(f"argument of {self.label}", name, known or ["none"]))
        if "Permutation" in self.label:
            told = "shuffles a feature among the samples of a batch, and here each is explained by itself"
            raise ValueError(f"method: {self.label} {told}. Use 'captum.FeatureAblation'.")
        given = {"baselines", "sliding_window_shapes", *self.fixed}
        if missing := [n for n in known if self.arguments[n].default is inspect.Parameter.empty and n not in given]:
            needed = f"{self.label} needs {', '.join(missing)}"
            raise ValueError(f"method: {needed}. Pass from_captum(object, {missing[0]}=...).")
        return Method(
            name=f"captum.{self.label}",
            title=title or f"{self.label} (captum)",
            help=f"{self.label}, as captum computes it, on a copy of the model.",
            params=self._params([name for name in known if name not in self.fixed]),
            run=self._run,
            unit="runs",
            sign="positive" if self.label.endswith("LayerGradCam") else "absolute",
            needs=("layer",) if self.maps else (),
            blank="captum found nothing here that moves the score",
        )

    def _params(self, free: list[str]) -> tuple[Param, ...]:
        found = [LAYER] if self.chosen else []
        found += [param for name, param in (("baselines", BASELINE), ("sliding_window_shapes", WINDOW)) if name in free]
        for name in free:
            default = self.arguments[name].default
            if name not in _CHUNKS and isinstance(default, (int, float)) and not isinstance(default, bool):
                found.append(_slider(name, default, f"captum's {name} of {self.label}.attribute."))
        found += [SEED] if "baselines" in free or set(_SAMPLED) & set(self.arguments) else []
        return (*found, *([CHUNK_SIZE] if set(_CHUNKS) & set(free) else []))

    def _run(self, call: Call, **params: Any) -> Iterator[Estimate]:
        layer, grid = self.path(call.model), ()
        if self.chosen or self.maps:
            known = activation_maps(call, params.pop("layer", layer), RESHAPE.default)
            layer, grid = known.layer, tuple(known.activation.shape[-2:])
            if turn_of(layer) is not None:
                raise ValueError(f"layer: {layer!r} is no module, and captum needs one. Pass layer= a module's path.")
        seed, chunk = params.pop("seed", SEED.default), call.rows(params.pop("chunk_size", None))
        given = {name: chunk for name in _CHUNKS if name in self.arguments} | params | dict(self.fixed)
        if "baseline" in given:
            given["baselines"] = call.baseline(given.pop("baseline"), seed)
        done = [self._explain(call, sample, layer, given, seed) for sample in range(call.batch)]
        deltas = [delta for _, delta, _ in done if delta is not None]
        yield Estimate(
            torch.cat([self._read(call, found, layer, grid) for found, _, _ in done]),
            evaluations=math.ceil(sum(rows for _, _, rows in done) / call.batch),
            delta=torch.cat(deltas) if len(deltas) == call.batch else None,
            layer=layer if self.maps else None,
        )

    def _explain(
        self, call: Call, sample: int, layer: str | None, given: Mapping[str, Any], seed: int
    ) -> tuple[list[Tensor], Tensor | None, int]:
        """What captum says of one sample: tensors, the delta, and how many rows the model was run on."""
        inputs = _split(call, call.inputs[sample : sample + 1].detach().clone())
        arguments = {name: self._of_sample(call, name, value, sample) for name, value in given.items()}
        if "window" in arguments:
            arguments = _patches([tuple(x.shape[1:]) for x in inputs], arguments.pop("window")) | arguments
        with call.lent(sample, seed) as (model, copies, score), _undisturbed(seed):
            for module in model.modules():
                if hasattr(module, "rule"):  # the caller's choice for LRP, which keeps what it sees in it
                    module.rule = copy.copy(module.rule)
            scored = _Scored(model, score)
            # Ours is the error of the sum against F(x) - F(x'); of noisy copies, or without x', captum's is another.
            delta = {*_WITH_DELTA, *_SAMPLED} & set(self.arguments) == _WITH_DELTA
            try:
                attribution = self.make(scored, {**copies, id(call.model): scored}, layer if self.chosen else None)
                delta = delta and attribution.has_convergence_delta() and attribution.multiplies_by_inputs
                arguments |= {"return_convergence_delta": True} if delta else {}
                found = attribution.attribute(_single(inputs), **arguments)
            except Exception as error:
                if isinstance(error, NotFinite):
                    raise ValueError(
                        f"method: the model's {error.what} is NaN or infinite for what captum's {self.label} makes of "
                        f"the inputs (its baseline, its noise, or what it leaves of them). Choose another baseline."
                    ) from error
                if error is scored.failure or isinstance(error, Cancelled) or out_of_memory(error):
                    raise
                if in_backward(error):
                    raise backward_failure(model, error) from error
                raise ValueError(
                    f"method: captum's {self.label} raised {type(error).__name__}: {str(error).strip().rstrip('.')}. "
                    f"Check that it runs on this model by itself; from_captum takes further arguments of its attribute."
                ) from error
        found, missed = found if delta else (found, None)
        values = [item.detach() for item in (found if isinstance(found, (tuple, list)) else [found])]
        missed = None if missed is None or missed.numel() > 1 else missed.detach().reshape(1).to(call.inputs)
        return values, missed, scored.rows

    def _of_sample(self, call: Call, name: str, value: Any, sample: int) -> Any:
        """An argument for one sample, on its device; of several explained inputs, one for each."""
        if isinstance(value, (tuple, list)) and any(isinstance(item, Tensor) for item in value):
            return tuple(self._of_sample(call, name, item, sample) for item in value)
        if not isinstance(value, Tensor):
            return value
        # Where there is no default, captum draws from what it is given, of which it wants several.
        drawn = name == "baselines" and self.arguments[name].default is inspect.Parameter.empty
        own = value.to(call.inputs.device)
        if name not in self.fixed:
            return _single(_split(call, own[sample : sample + 1].repeat(1 + drawn, *[1] * (own.ndim - 1))))
        each = name in ("baselines", "feature_mask") and len(own) == call.batch and not drawn
        return own[sample : sample + 1] if each else own

    def _read(self, call: Call, found: list[Tensor], layer: str | None, grid: tuple[int, ...]) -> Tensor:
        """The values of one sample, (1, ...) like the inputs or (1, 1, h, w)."""
        shapes, told = [tuple(item.shape) for item in found], f"captum's {self.label} gave"
        if not all(bool(torch.isfinite(item).all()) for item in found):
            raise ValueError(f"method: {told} NaN or infinite values. Try another baseline, layer or method.")
        if self.maps:
            other = self.fixed.get("attribute_to_layer_input")  # which may have another size
            if len(found) == 1 and found[0].ndim == 4 and (other or shapes[0][2:] == grid):
                return found[0].sum(1, keepdim=True)
            raise ValueError(
                f"layer: {told} values of shape {_single(shapes)} at {layer!r}; a map needs (N, channels, height, "
                f"width). Choose a layer with such an output; of tokens, 'layer_cam' makes maps."
            )
        if shapes != [tuple(x.shape) for x in _split(call, call.inputs[:1])]:
            leave = "Leave out the arguments that change the shape."
            raise ValueError(f"method: {told} values of shape {_single(shapes)}, which is not the inputs'. {leave}")
        return torch.cat([item.flatten(1) for item in found], 1) if call.parts else found[0]


class _Scored(nn.Module):
    """The model that captum gets: a stand-in's modules, and one score for each row.

    Attributes:
        rows: How many it was run on.
        failure: What it raised, which is told already.
    """

    def __init__(self, model: nn.Module, score: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model, self._score, self.rows = model, score, 0
        self.failure: Exception | None = None

    def forward(self, *inputs: Tensor) -> Tensor:
        """The scores, shape (N,)."""
        variants = inputs[0] if len(inputs) == 1 else torch.cat([x.flatten(1) for x in inputs], 1)
        self.rows += len(variants)
        try:
            return self._score(variants)
        except Exception as error:
            self.failure = error
            raise


def _arguments(calls: list[Callable]) -> dict[str, inspect.Parameter]:
    """Of the outer one; and of those inside it to which it hands on what it doesn't know."""
    found: dict[str, inspect.Parameter] = {}
    for attribute in calls:
        own = inspect.signature(attribute).parameters.values()
        found |= {p.name: p for p in own if p.name not in ("self", *found) and p.kind != p.VAR_KEYWORD}
        if all(p.kind != p.VAR_KEYWORD for p in own):
            break
    return found


def _slider(name: str, default: float, told: str) -> Param:
    """Around the default: whole numbers up to ten times it, others up to four. What captum takes is for it to say."""
    if isinstance(default, int):
        low, high = min(default, 1), max(10 * default, 10)
        return Param(name, default, low=low, high=high, maximum=math.inf, kind="int", help=told)
    low, high = min(4 * default, 0.0), 4 * default if default > 0 else 1.0
    return Param(name, default, low=low, high=high, minimum=-math.inf, maximum=math.inf, help=told)


def _patches(shapes: list[tuple[int, ...]], share: float) -> dict[str, Any]:
    """Patches over all channels, a share of each side, in steps of half a patch."""
    sizes = []
    for shape in shapes:
        channels = len(shape) > 1
        sizes.append(shape[:channels] + tuple(max(1, round(side * share)) for side in shape[channels:]))
    steps = [tuple(max(1, n // 2) for n in size) for size in sizes]
    return {"sliding_window_shapes": _single(sizes), "strides": _single(steps)}


def _held(attribution: Any, *names: str) -> Iterator[Any]:
    """What an object of captum's, and those inside it, keep under some names."""
    for name, value in vars(attribution).items():
        if name in names:
            yield from value if isinstance(value, list) else [value]
        elif callable(getattr(value, "attribute", None)):
            yield from _held(value, *names)


def _whole(model: Any) -> Any:
    """The module behind its bound forward, ``torch.compile`` and ``DataParallel``."""
    if inspect.ismethod(model):
        return _whole(model.__self__) if model.__name__ in ("forward", "__call__") else None
    wrapped = isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel))
    inner = model.module if wrapped else getattr(model, "_orig_mod", None)
    return model if inner is None else _whole(inner)


def _is_layers(kind: type) -> bool:
    return "LayerAttribution" in [base.__name__ for base in kind.__mro__]


def _split(call: Call, rows: Tensor) -> list[Tensor]:
    return [rows] if call.arguments is None else call.arguments.split(rows)


def _single(items: list) -> Any:
    return items[0] if len(items) == 1 else tuple(items)


@contextmanager
def _undisturbed(seed: int) -> Iterator[None]:
    """NumPy's random state is put back; no warnings of hooks and gradients, which are the copy's."""
    state = np.random.get_state()  # noqa: NPY002 - captum draws from it
    np.random.seed(seed)  # noqa: NPY002
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Setting .*hooks")
            warnings.filterwarnings("ignore", "Input Tensor .* did not already require gradients")
            yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
