"""Captum's methods for ``method=``: any object of ``captum.attr``, or one of its classes by name.

Captum is imported only to look up its classes by name. The methods are run in :mod:`~.captum_runner`.
"""

from __future__ import annotations

import copy
import difflib
import inspect
from typing import Any

from torch import Tensor, nn

from saliency_widgets.attribution.arrays import check_dense
from saliency_widgets.attribution.baselines import BASELINE
from saliency_widgets.attribution.numerics.noise import SEED
from saliency_widgets.attribution.query import CHUNK_SIZE, LAYER
from saliency_widgets.attribution.registry import Method
from saliency_widgets.bridges.captum_objects import (
    WINDOW,
    arguments_of,
    held_by,
    kinds_of,
    slider_of,
    unwrapped_model,
)
from saliency_widgets.bridges.captum_runner import CHUNKS, SAMPLED, CaptumMethod
from saliency_widgets.params import Param, brief, check_switch, check_text, is_truth_value, unknown

_FIXED_HERE = {  # arguments that the bridge itself sets
    "inputs": "The inputs come from sw.attribute.",
    "target": "Pass it to sw.attribute(..., target=).",
    "additional_forward_args": "Pass all the model's inputs to sw.attribute, as a tuple or by name, and explain= some.",
    "return_convergence_delta": "It is computed if Captum supports it: see Attribution.delta.",
}


def from_captum(attribution: Any, *, title: str | None = None, **fixed: Any) -> Method:
    """Convert a Captum object to a method for ``method=``, with sliders for its numeric keyword arguments.

    The method runs on a copy of the model, sample by sample. The caller's model and the random states of torch and
    NumPy are unchanged afterwards. NumPy's state is global, so other threads must not draw from it during a run.

    Args:
        attribution: An object of ``captum.attr`` that was made with the model itself, such as ``Occlusion(model)``,
            ``NoiseTunnel(IntegratedGradients(model))`` or ``LayerGradCam(model, model.layer4)``.
        title: The method's title in the menu. Default: its class names and "(captum)".
        **fixed: Further keyword arguments of its ``attribute``, such as ``sliding_window_shapes=(3, 8, 8)``.

    Returns:
        The method. Its values are Captum's: in the inputs' shape; for a layer of an image, summed over the channels,
        (B, 1, h, w); and for any other layer, as Captum returns them, (B, ...), with several tensors concatenated, of
        which :meth:`.Attribution.part` returns one. Methods that need no gradient of the inputs (ablation, permutation,
        occlusion, Shapley values, Lime, KernelShap, and those of layers) take integers and booleans unchanged.
        ``delta`` is available if Captum computes it for each sample with a baseline; ``evaluations`` is the number of
        rows per sample that Captum ran the model on, with or without gradients.

    Raises:
        TypeError: ``attribution`` is not a Captum object, or its ``attribute`` doesn't take one of ``fixed``.
        ValueError: A required argument of its ``attribute`` is missing.
    """
    if inspect.isclass(attribution) or not callable(getattr(attribution, "attribute", None)):
        wanted = "captum.attr.DeepLift(model), or the name 'captum.DeepLift'"
        raise TypeError(f"method: expected a Captum object such as {wanted}; got {brief(attribution)}.")
    chain = [attribution]
    while (inner := getattr(chain[-1], "attribution_method", None)) is not None:
        chain.append(inner)
    label = "(".join(type(link).__name__ for link in chain) + ")" * (len(chain) - 1)
    models, layers = list(held_by(attribution, "forward_func", "model")), list(held_by(attribution, "layer"))

    def paths(model: nn.Module) -> list[str]:
        if any(unwrapped_model(held) is not model for held in models):
            raise ValueError(
                f"method: this {label} was created for another model or a function. Create it with the explained "
                f"model, without device=, and choose the output with target= and score=."
            )
        names = {id(module): name for name, module in reversed([*model.named_modules()])}
        if any(id(layer) not in names for layer in layers):
            raise ValueError(f"method: the layer that this {label} was created for is not part of the model.")
        return [names[id(layer)] for layer in layers]

    def made(scored: nn.Module, copies: dict[int, Any], _: str | None) -> Any:
        return copy.deepcopy(attribution, {**copies, **{id(held): scored for held in models}})

    method = CaptumMethod(
        label, arguments_of([link.attribute for link in chain]), kinds_of(chain), made, paths, fixed=fixed
    )
    return _method_of(method, title)


def captum_names() -> list[str]:
    """Return the names of the attribution classes in ``captum.attr``; none if Captum is not installed."""
    try:
        import captum.attr as attr
    except ImportError:
        return []
    return [name for name in attr.__all__ if hasattr(getattr(attr, name), "attribute")]


def captum_method(name: str) -> Method:
    """Return the method of a class of ``captum.attr`` by name, "captum.DeepLift"; it gets the model when it runs.

    Raises:
        ImportError: Captum is not installed.
        ValueError: The class doesn't exist, or needs more than a model and a layer.
    """
    try:
        import captum.attr as attr
    except ImportError as error:
        raise ImportError(f"method: {brief(name)} needs captum: pip install 'saliency-widgets[captum]'") from error
    kinds = {f"captum.{n}": getattr(attr, n) for n in captum_names()}
    if name not in kinds:
        raise ValueError(unknown("method", name, list(kinds)))
    kind, label = kinds[name], name.removeprefix("captum.")
    needs = [n for n, p in list(inspect.signature(kind.__init__).parameters.items())[1:] if p.default is p.empty]
    if more := [n for n in needs if n not in ("forward_func", "model", "layer")]:
        advice = f"Create the object, captum.attr.{label}(...), and pass it."
        raise ValueError(f"method: {name!r} also needs {', '.join(more)}. {advice}")

    def made(scored: nn.Module, _: dict[int, Any], layer: str | None) -> Any:
        return kind(scored) if layer is None else kind(scored, scored.get_submodule(f"model.{layer}"))

    return _method_of(
        CaptumMethod(label, arguments_of([kind.attribute]), kinds_of([kind]), made, chosen="layer" in needs)
    )


def _method_of(method: CaptumMethod, title: str | None = None) -> Method:
    """Check the fixed arguments of a Captum method, and convert it to a ``Method``."""
    named = [name for name, p in method.arguments.items() if p.kind != p.VAR_KEYWORD and name not in _FIXED_HERE]
    for name in method.fixed:
        if name in _FIXED_HERE:
            raise TypeError(f"{unknown(f'argument of {method.label}', name, named or ['none'])} {_FIXED_HERE[name]}")
        # **kwargs may take any name, for Captum or the caller's functions to check; only likely typos are rejected.
        slip = difflib.get_close_matches(name, named, n=1, cutoff=0.8)
        if name not in named and (slip or not any(p.kind == p.VAR_KEYWORD for p in method.arguments.values())):
            raise TypeError(unknown(f"argument of {method.label}", name, named or ["none"]))
        if name in method.arguments:
            _check_fixed(name, method.fixed[name], method.arguments[name].default)
    provided = {"baselines", "sliding_window_shapes", *method.fixed}
    if missing := [n for n in named if method.arguments[n].default is inspect.Parameter.empty and n not in provided]:
        needed = f"{method.label} needs {', '.join(missing)}"
        raise ValueError(f"method: {needed}. Pass from_captum(object, {missing[0]}=...).")
    return Method(
        name=f"captum.{method.label}",
        title=f"{method.label} (captum)" if title is None else check_text("title", title),
        help=f"{method.label}, computed by Captum on a copy of the model.",
        params=_params_of(method, [name for name in named if name not in method.fixed]),
        run=method.run,
        unit="runs",
        sign="positive" if method.label.endswith("LayerGradCam") else "absolute",
        needs=("layer",) if method.of_layer else (),
        blank="Captum found nothing here that changes the score",
        additive=method.label.removeprefix("Layer") in _ADDITIVE,
        gradients=not method.kinds & {"PerturbationAttribution", "LayerAttribution"} or "NoiseTunnel" in method.kinds,
    )


def _params_of(method: CaptumMethod, free: list[str]) -> tuple[Param, ...]:
    params = [LAYER] if method.chosen else []
    params += [param for name, param in (("baselines", BASELINE), ("sliding_window_shapes", WINDOW)) if name in free]
    for name in free:
        default = method.arguments[name].default
        if name not in CHUNKS and isinstance(default, (int, float)) and not isinstance(default, bool):
            params.append(slider_of(name, default, f"The argument {name} of Captum's {method.label}.attribute."))
    params += [SEED] if "baselines" in free or set(SAMPLED) & set(method.arguments) else []
    return (*params, *([CHUNK_SIZE] if set(CHUNKS) & set(free) else []))


def _check_fixed(name: str, value: Any, default: Any) -> None:
    """Check an argument for Captum, as far as its default value allows.

    Raises:
        TypeError: A switch is neither True nor False, another argument is a boolean, or a tensor is not dense.
    """
    if isinstance(default, bool):
        check_switch(name, value)
    elif is_truth_value(value):
        raise TypeError(f"{name}: Captum's attribute doesn't take a boolean here, got {value}. Omit it.")
    for item in value if isinstance(value, (list, tuple)) else (value,):
        if isinstance(item, Tensor):
            check_dense(item, name)


class _Captum:
    """Captum's implementation of :class:`~saliency_widgets.attribution.registry.Bridge`, for the registry."""

    prefix = "captum."
    names = staticmethod(captum_names)
    by_name = staticmethod(captum_method)
    from_object = staticmethod(from_captum)

    @staticmethod
    def accepts(value: Any) -> bool:
        """Return whether a value has a callable ``attribute``, as all objects of ``captum.attr`` do."""
        return callable(getattr(value, "attribute", None))


_ADDITIVE = (
    "DeepLift", "DeepLiftShap", "FeatureAblation", "GradientShap", "GradientXActivation", "InputXGradient",
    "IntegratedGradients", "KernelShap", "LRP", "Lime", "Occlusion", "ShapleyValueSampling",
)  # fmt: skip
BRIDGE = _Captum()
