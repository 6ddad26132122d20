"""Captum's methods as methods of ours: any object of ``captum.attr``, or one of its classes by name.

Captum hooks models, puts attributes on their modules and changes weights. It never gets the caller's model: it runs on
a stand-in with weights of its own, around which a module gives one score for each row, so that ``target``, ``score``
and ``contrast`` mean what they mean everywhere. Captum is imported where a class is asked for by its name.
"""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from saliency_widgets.attribution.baselines import BASELINE
from saliency_widgets.attribution.call import Call
from saliency_widgets.attribution.errors import Cancelled
from saliency_widgets.attribution.layers import LAYER, activation_maps
from saliency_widgets.attribution.memory import out_of_memory
from saliency_widgets.attribution.method import Estimate, Method
from saliency_widgets.attribution.noise import SEED
from saliency_widgets.attribution.schedule import CHUNK_SIZE
from saliency_widgets.attribution.taps import turn_of
from saliency_widgets.params import Param, unknown

WINDOW = Param(
    "window",
    default=0.125,
    low=0.02,
    high=1.0,
    unit="of each side",
    help="Size of the patch that is hidden. It moves by half of itself.",
)
_OURS = ("inputs", "target", "additional_forward_args", "return_convergence_delta")
_CHUNKS = ("internal_batch_size", "perturbations_per_eval")
_SAMPLED = ("n_samples", "nt_samples")
_SAID = ("Setting .*hooks", "Input Tensor .* did not already require gradients")


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
        what = f"the class {attribution.__name__}" if inspect.isclass(attribution) else f"a {_kind(attribution)}"
        raise TypeError(
            f"method: expected an object of captum's such as captum.attr.DeepLift(model), got {what}. "
            f"Make one with the model, or pass a name such as 'captum.DeepLift'."
        )
    chain = [attribution]
    while (inner := getattr(chain[-1], "attribution_method", None)) is not None:
        chain.append(inner)
    label = "(".join(map(_kind, chain)) + ")" * (len(chain) - 1)

    def made(call: Call, scored: nn.Module, copies: dict[int, Any], _layer: str | None) -> Any:
        for model in _held(attribution, "forward_func", "model"):
            if _whole(model) is not call.model:
                raise ValueError(
                    f"method: this {label} was made for another model or a function. Make it with the model that is "
                    f"explained, captum.attr.{_kind(chain[-1])}(model, ...), without device=, and say by target= and "
                    f"score= what of its output is meant."
                )
        if any(id(layer) not in copies for layer in _held(attribution, "layer")):
            raise ValueError(f"method: the layer that this {label} was made for is no part of the model.")
        whole = {id(model): scored for model in _held(attribution, "forward_func", "model")}
        return copy.deepcopy(attribution, copies | whole | {id(call.model): scored})

    def path(model: nn.Module) -> str | None:
        layers = list(_held(attribution, "layer"))
        return next((name for name, module in model.named_modules() if name and layers and module is layers[0]), None)

    return _Bridge(
        label=label,
        arguments=_arguments([link.attribute for link in chain]),
        maps=_is_layers(type(chain[-1])),
        make=made,
        path=path,
        fixed=fixed,
    ).method(title)


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
    kind, own = kinds[name], name.removeprefix("captum.")
    needs = [n for n, p in list(inspect.signature(kind.__init__).parameters.items())[1:] if p.default is p.empty]
    more = [n for n in needs if n not in ("forward_func", "model", "layer")]
    if more:
        raise ValueError(
            f"method: {name!r} needs {', '.join(more)} too. Make the object, captum.attr.{own}(...), and pass that."
        )

    def made(call: Call, scored: nn.Module, copies: dict[int, Any], layer: str | None) -> Any:
        return kind(scored) if layer is None else kind(scored, copies[id(call.model.get_submodule(layer))])

    return _Bridge(
        label=own,
        arguments=_arguments([kind.attribute]),
        maps=_is_layers(kind),
        make=made,
        chosen="layer" in needs,
    ).method()


@dataclass(frozen=True)
class _Bridge:
    """What is known of one of captum's methods.

    Attributes:
        label: Its name there.
        arguments: Of its ``attribute``, and of those inside it.
        maps: Whether the values are a layer's.
        make: From the call, the model that captum gets, the copied modules and the layer's path to captum's object.
        path: From the model to the path of the layer that the object was made for.
        chosen: Whether the layer is a parameter.
        fixed: Arguments that are no parameters.
    """

    label: str
    arguments: Mapping[str, inspect.Parameter]
    maps: bool
    make: Callable[[Call, nn.Module, dict[int, Any], str | None], Any]
    path: Callable[[nn.Module], str | None] = lambda _model: None
    chosen: bool = False
    fixed: Mapping[str, Any] | None = None

    def method(self, title: str | None = None) -> Method:
        """The method, with its arguments looked through."""
        fixed = dict(self.fixed or {})
        for name in fixed:
            if name in _OURS:
                raise TypeError(f"{name}: captum gets it from what is asked; it can't be fixed for {self.label}.")
            if name not in self.arguments:
                known = [n for n in self.arguments if n not in _OURS]
                raise TypeError(unknown(f"argument of {self.label}", name, known or ["none"]))
        self._refuse(fixed)
        return Method(
            name=f"captum.{self.label}",
            title=title or f"{self.label} (captum)",
            help=f"{self.label}, as captum computes it, on a copy of the model.",
            params=self._params(fixed),
            run=lambda call, **params: self._run(call, fixed, params),
            unit="runs",
            sign="positive" if self.label.endswith("LayerGradCam") else "absolute",
            needs=("layer",) if self.maps else (),
        )

    def _refuse(self, fixed: Mapping[str, Any]) -> None:
        if "Permutation" in self.label:
            raise ValueError(
                f"method: {self.label} shuffles a feature among the samples of a batch, and here each sample is "
                f"explained by itself. Use 'captum.FeatureAblation'."
            )
        given = {*_OURS, "baselines", "sliding_window_shapes", *fixed}
        missing = [n for n, p in self.arguments.items() if p.default is p.empty and n not in given]
        if "inputs" not in self.arguments or missing:
            what = ", ".join(missing) or "something else than tensors"
            raise ValueError(
                f"method: {self.label}.attribute needs {what}. Pass the object through from_captum with its "
                f"arguments: from_captum(captum.attr.{self.label}(...), {missing[0] if missing else 'name'}=...)."
            )

    def _params(self, fixed: Mapping[str, Any]) -> tuple[Param, ...]:
        free = [name for name in self.arguments if name not in fixed]
        found = [LAYER] if self.chosen else []
        found += [BASELINE] if "baselines" in free else []
        found += [WINDOW] if "sliding_window_shapes" in free else []
        numbers = {name: self.arguments[name].default for name in free if name not in _CHUNKS}
        found += [_slider(name, default, self.label) for name, default in numbers.items() if _is_number(default)]
        if {"baselines", *_SAMPLED} & set(self.arguments):
            found.append(SEED)
        return (*found, *([CHUNK_SIZE] if set(_CHUNKS) & set(free) else []))

    def _run(self, call: Call, fixed: Mapping[str, Any], params: dict[str, Any]) -> Iterator[Estimate]:
        layer, grid = self.path(call.model), None
        if self.chosen or self.maps:
            known = activation_maps(call, params.pop("layer", layer), None)
            layer, grid = known.layer, tuple(known.activation.shape[-2:])
            if turn_of(layer) is not None:
                raise ValueError(f"layer: {layer!r} is no module, and captum needs one. Pass layer= a module's path.")
        seed, chunk = params.pop("seed", SEED.default), call.rows(params.pop("chunk_size", None))
        given = {name: chunk for name in _CHUNKS if name in self.arguments} | params
        if "baseline" in given:
            given["baselines"] = call.baseline(given.pop("baseline"), seed)
        given |= fixed
        done = [self._explain(call, sample, layer, given, seed) for sample in range(call.batch)]
        values = torch.cat([self._read(call, found, layer, grid, given) for found, _, _ in done])
        deltas = [delta for _, delta, _ in done if delta is not None]
        yield Estimate(
            values,
            evaluations=-(-sum(rows for _, _, rows in done) // call.batch),
            delta=torch.cat(deltas) if len(deltas) == call.batch else None,
            layer=layer if self.maps else None,
        )

    def _explain(
        self, call: Call, sample: int, layer: str | None, given: Mapping[str, Any], seed: int
    ) -> tuple[list[Tensor], Tensor | None, int]:
        """What captum says of one sample: tensors, the delta, and how many rows the model was run on."""
        inputs = _split(call, call.inputs[sample : sample + 1].detach().clone())
        arguments = {name: self._of_sample(call, name, value, sample) for name, value in given.items()}
        window = arguments.pop("window", None)
        if window is not None:
            shapes = [tuple(x.shape[1:]) for x in inputs]
            sizes = [tuple(max(1, round(side * window)) for side in shape[-2:]) for shape in map(_places, shapes)]
            whole = [shape[: len(shape) - len(size)] for shape, size in zip(shapes, sizes, strict=True)]
            arguments["sliding_window_shapes"] = _single([w + s for w, s in zip(whole, sizes, strict=True)])
            steps = [w + tuple(max(1, n // 2) for n in s) for w, s in zip(whole, sizes, strict=True)]
            arguments = {"strides": _single(steps)} | arguments
        with call.lent(sample, seed) as (model, copies, score), _quiet(), _numpy_seeded(seed):
            scored = _Scored(model, score)
            for module in model.modules():
                if hasattr(module, "rule"):  # the caller's choice for LRP, which keeps what it sees in it
                    module.rule = copy.copy(module.rule)
            attribution = self.make(call, scored, copies, layer if self.chosen else None)
            delta = self._has_delta(attribution)
            try:
                found = attribution.attribute(
                    _single(inputs), **arguments, **({"return_convergence_delta": True} if delta else {})
                )
            except Exception as error:
                if error is scored.failure or isinstance(error, Cancelled) or out_of_memory(error):
                    raise
                raise ValueError(
                    f"method: captum's {self.label} raised {type(error).__name__}: {str(error).strip().rstrip('.')}. "
                    f"Check that it runs on this model by itself; from_captum takes further arguments of its attribute."
                ) from error
        found, missed = found if delta else (found, None)
        values = [item.detach() for item in (found if isinstance(found, (tuple, list)) else [found])]
        missed = missed.detach().reshape(-1).to(call.inputs) if isinstance(missed, Tensor) else None
        return values, missed if missed is not None and len(missed) == 1 else None, scored.rows

    def _of_sample(self, call: Call, name: str, value: Any, sample: int) -> Any:
        """An argument for one sample, on its device; of several explained inputs, one for each."""
        if isinstance(value, (tuple, list)) and any(isinstance(item, Tensor) for item in value):
            return tuple(self._of_sample(call, name, item, sample) for item in value)
        if not isinstance(value, Tensor):
            return value
        value = value.to(call.inputs.device)
        drawn_from = name == "baselines" and self.arguments[name].default is inspect.Parameter.empty
        fixed = name in (self.fixed or {})
        if name in ("baselines", "feature_mask") and len(value) == call.batch and not (drawn_from and fixed):
            value = value[sample : sample + 1]
        if name == "baselines" and not fixed:
            # Where captum wants several to draw from, one twice is that one.
            return _single(_split(call, value.repeat(1 + drawn_from, *[1] * (value.ndim - 1))))
        return value

    def _has_delta(self, attribution: Any) -> bool:
        # Ours is the error of the sum against F(x) - F(x'); of noisy copies, and without x', captum's is another.
        against = "baselines" in self.arguments and not set(_SAMPLED) & set(self.arguments)
        asked = against and "return_convergence_delta" in self.arguments
        return asked and attribution.has_convergence_delta() and getattr(attribution, "multiplies_by_inputs", True)

    def _read(self, call: Call, found: list[Tensor], layer: str | None, grid: Any, given: Mapping[str, Any]) -> Tensor:
        """The values of one sample, (1, ...) like the inputs or (1, 1, h, w)."""
        if not all(bool(torch.isfinite(item).all()) for item in found):
            raise ValueError(
                f"method: captum's {self.label} gave NaN or infinite values. Try another baseline or layer."
            )
        shapes = [tuple(item.shape) for item in found]
        if not self.maps:
            wanted = [tuple(x.shape) for x in _split(call, call.inputs[:1])]
            if shapes != wanted:
                raise ValueError(
                    f"method: captum's {self.label} gave values of shape {_single(shapes)}, and the inputs have "
                    f"{_single(wanted)}. Leave out the arguments that change the shape."
                )
            return torch.cat([item.flatten(1) for item in found], 1) if call.parts else found[0]
        # At the layer's input there is another size.
        if (
            len(found) != 1
            or found[0].ndim != 4
            or not (given.get("attribute_to_layer_input") or shapes[0][2:] == grid)
        ):
            raise ValueError(
                f"layer: captum's {self.label} gave values of shape {_single(shapes)} at {layer!r}; a map needs "
                f"(N, channels, height, width). Choose a layer with such an output; of tokens, 'layer_cam' makes maps."
            )
        return found[0].sum(1, keepdim=True)


class _Scored(nn.Module):
    """The model that captum gets: one score for each row.

    Args:
        model: A stand-in, so that captum finds its modules.
        score: What runs it.

    Attributes:
        rows: How many rows it was run on.
        failure: What it raised, which is told already.
    """

    def __init__(self, model: nn.Module, score: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model = model
        self.rows = 0
        self.failure: Exception | None = None
        self._score = score

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
        own = inspect.signature(attribute).parameters
        named = {n: p for n, p in own.items() if n != "self" and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
        found = named | found
        if len(named) == len(own):
            break
    return found


def _is_number(default: Any) -> bool:
    return isinstance(default, (int, float)) and not isinstance(default, bool)


def _slider(name: str, default: float, label: str) -> Param:
    """Around the default: whole numbers up to ten times, others up to four times."""
    told = f"captum's {name} of {label}.attribute."
    if isinstance(default, int):
        return Param(name, default, low=min(default, 1), high=max(10 * default, 10), kind="int", help=told)
    return Param(name, default, low=min(4 * default, 0.0), high=4 * default if default > 0 else 1.0, help=told)


def _places(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The sides along which a patch moves: all but the channels."""
    return shape[1:] or shape


def _held(attribution: Any, *names: str) -> Iterator[Any]:
    """What an object of captum's, and those inside it, keep under some names."""
    for name, value in vars(attribution).items():
        if name in names:
            yield from value if isinstance(value, (list, tuple)) else [value]
        elif callable(getattr(value, "attribute", None)):
            yield from _held(value, *names)


def _whole(model: Any) -> Any:
    """The module behind its bound forward, ``torch.compile`` and ``DataParallel``."""
    if inspect.ismethod(model) and model.__name__ in ("forward", "__call__"):
        return _whole(model.__self__)
    inner = getattr(model, "_orig_mod", None)
    if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        inner = model.module
    return model if inner is None else _whole(inner)


def _is_layers(kind: type) -> bool:
    return any(base.__name__ == "LayerAttribution" for base in kind.__mro__)


def _kind(thing: Any) -> str:
    return type(thing).__name__


def _split(call: Call, rows: Tensor) -> list[Tensor]:
    return call.arguments.split(rows) if call.arguments is not None else [rows]


def _single(items: list) -> Any:
    return items[0] if len(items) == 1 else tuple(items)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without captum's warnings of what it does to the model, which is a copy, and to the inputs, which are too."""
    with warnings.catch_warnings():
        for said in _SAID:
            warnings.filterwarnings("ignore", said)
        yield


@contextmanager
def _numpy_seeded(seed: int) -> Iterator[None]:
    state = np.random.get_state()  # noqa: NPY002 - captum draws from it
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
