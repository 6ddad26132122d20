"""The result of an attribution, with everything needed to repeat it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from saliency_widgets import render
from saliency_widgets.attribution.columns import Columns
from saliency_widgets.attribution.reduction import CHANNEL, Reduction
from saliency_widgets.params import Param, brief, check_text, unknown

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, repr=False, eq=False)
class Attribution:
    """Which inputs moved the score, and how far.

    Attributes:
        values: Signed attribution, shape (B, ...) as the model sees the inputs; a class activation map keeps its
            layer's resolution, (B, 1, h, w), and names the ``layer``; captum's methods of layers that are no images
            give theirs as captum returns them.
        settings: Keyword arguments that repeat it: ``sw.attribute(model, inputs, **settings)``.
        score: The explained score of each sample, shape (B,), where the method computed it; (1,) where rows that
            influence each other are explained together.
        delta: Completeness error sum(values) - (F(x) - F(x')), of the shape of the score, for Integrated Gradients.
        standard_error: Of each value, where samples were averaged.
        agreement: Rank correlation of the maps of two halves of the samples, shape (B,), where samples were averaged.
        map_error: Estimated error of the map, relative to it (L1), shape (B,), for adaptive Integrated Gradients.
        evaluations: Gradients of the model spent per sample.
        layer: The layer that the values are of, or whose resolution they have; several with commas; or None.
        input_shape: Shape of what the model saw, (B, ...); where several inputs were explained together, of the
            image among them.
        notes: What a reader should know before believing it.
        default_sign: The part of the values the method's paper shows.
        done: Units of work behind it; below ``total`` it is a running estimate.
        total: Units of work in all.
        unit: What these units are.
        transformed: Whether the input went through a transform of the caller's.
        parts: Where several inputs were explained together: their names and the shape of one sample of each. The
            values lie side by side, (B, F); :meth:`part` gives one input's. Inputs inside lists, tuples, mappings and
            dataclasses are named by their path, "batch.x". Likewise of a layer that gives several tensors.
        columns: Of the table that the inputs were rows of, or None: see :meth:`by_feature`.
    """

    values: Tensor
    settings: Mapping[str, Any]
    score: Tensor | None
    delta: Tensor | None
    standard_error: Tensor | None
    evaluations: int
    layer: str | None
    input_shape: tuple[int, ...]
    notes: tuple[str, ...] = ()
    default_sign: str = "absolute"
    done: int = 1
    total: int = 1
    unit: str = "passes"
    transformed: bool = False
    parts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    agreement: Tensor | None = None
    map_error: Tensor | None = None
    columns: Columns | None = None

    @property
    def method(self) -> str:
        """The method's name."""
        return getattr(self.settings["method"], "name", self.settings["method"])

    @property
    def complete(self) -> bool:
        """Whether all the work asked for is in it."""
        return self.done >= self.total

    def part(self, name: str) -> Attribution:
        """The attribution of one of several inputs that were explained together.

        Args:
            name: One of ``parts``, or the beginning that several have in common: "xs" of "xs.0" and "xs.1".

        Returns:
            Values and standard error in that input's shape, (B, ...); of several, side by side, (B, F), with their own
            ``parts``. ``delta`` is of all inputs together and is left out.

        Raises:
            ValueError: There is no such input, or the values are a layer's and belong to no input.
        """
        check_text("name", name)
        if not self.parts and self.layer is not None:
            raise ValueError(f"part: the values are those of layer {self.layer!r}, not of an input.")
        inside = {one: shape for one, shape in self.parts.items() if one == name or one.startswith(f"{name}.")}
        if not inside:
            raise ValueError(unknown("part", name, list(self.parts)) if self.parts else "part: there is one input.")
        sizes = [math.prod(shape) for shape in self.parts.values()]

        def piece_of(tensor: Tensor | None) -> Tensor | None:
            if tensor is None:
                return None
            pieces = dict(zip(self.parts, tensor.split(sizes, 1), strict=True))
            if len(inside) > 1:
                return torch.cat([pieces[one] for one in inside], 1)
            ((one, shape),) = inside.items()
            return pieces[one].reshape(-1, *shape)

        values = piece_of(self.values)
        assert values is not None
        return replace(
            self,
            values=values,
            standard_error=piece_of(self.standard_error),
            delta=None,
            input_shape=tuple(values.shape),
            parts=inside if len(inside) > 1 else {},
        )

    def by_feature(self) -> pd.DataFrame:
        """The attributions of rows of a table, by the names of its columns; one-hot groups are summed.

        Returns:
            One row for each that was explained: ``by_feature().iloc[0].sort_values(key=abs)`` ranks one.

        Raises:
            ValueError: The inputs were no rows of a table.
        """
        import pandas as pd

        if self.columns is None:
            raise ValueError("by_feature: the inputs were no rows of a table. Pass a DataFrame, or feature_names=.")
        if self.values.shape != self.input_shape:
            raise ValueError(
                f"by_feature: {self.method} gives values of shape {tuple(self.values.shape)}, none for each feature."
            )
        values = self.columns.summed(self.values.detach().cpu().double()).numpy()
        return pd.DataFrame(values, columns=list(self.columns.names))

    def saliency_map(
        self,
        *,
        sign: str | None = None,
        channels: str = CHANNEL.default,
        clip: tuple[float, float] | None = None,
        sample: int = 0,
    ) -> np.ndarray:
        """The map as the screen shows it, before color.

        Args:
            sign: "absolute", "positive", "negative", "signed", "squared"; the method's own choice unless given.
            channels: "max", "mean", "sum" or "L2".
            clip: Percentiles that become 0 and 1; the display's default unless given.
            sample: Which sample of the batch.

        Returns:
            Shape (H, W) of the input, float64 in [0, 1]; for "signed", 0.5 is zero.

        Raises:
            ValueError: An unknown sign or channel rule, a sample that isn't there, or values that are no image's.
        """
        sample = Param("sample", 0, low=0, high=len(self.values) - 1, kind="int").check(sample)
        reduction = Reduction(self.default_sign if sign is None else sign, channels)
        if self.values.ndim != 4 or len(self.input_shape) < 3:
            one = (1, *self.values.shape[1:])
            raise ValueError(
                f"values: a map needs shape (B, C, H, W), got {one}, which is no image's. Read "
                f"the numbers from .values, or .part(name).values where several inputs were explained."
            )
        height, width = self.input_shape[-2:]
        values = reduction(self.values[sample : sample + 1], (height, width))[0].cpu().double().numpy()
        quantized = render.quantize(values, signed=reduction.signed)
        percentiles = render.check_display({} if clip is None else {"clip": clip})["clip"]
        limits = render.clip_limits(quantized.codes, quantized.signed, percentiles)
        return render.strength(quantized.codes, quantized.signed, limits)

    def to_code(self) -> str:
        """Python that repeats it; what can't be written down is named as a variable."""
        return code_of(self.settings, transformed=self.transformed)

    def to_json(self) -> str:
        """The settings as JSON; what can't be written down is named: ``{"argument": "baseline"}``.

        A tuple, such as the index of a target, is ``{"tuple": [1, 0]}``. :meth:`settings_from_json` reads them.
        """
        return json.dumps({name: _plain(name, value) for name, value in self.settings.items()})

    @staticmethod
    def settings_from_json(text: str, **arguments: Any) -> dict[str, Any]:
        """Keyword arguments of ``sw.attribute`` from what :meth:`Attribution.to_json` wrote.

        Args:
            text: The JSON.
            **arguments: What could not be written down: tensors, functions, by the names of their settings.

        Raises:
            TypeError: An argument is missing, or one is given that is not asked for; ``text`` is none.
            ValueError: The text is not what :meth:`to_json` wrote.
        """
        try:
            plain = json.loads(check_text("text", text))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"text: expected what Attribution.to_json wrote, got other text: {error}.") from error
        if not isinstance(plain, dict):
            raise ValueError(f"text: expected settings by their names, got {brief(plain)}. Pass what to_json wrote.")
        wanted = {name for name, value in plain.items() if _is_argument(value)}
        if wanted != set(arguments):
            raise TypeError(f"settings: these can't be written down and must be given: {sorted(wanted)}; got "
                            f"{sorted(arguments)}.")  # fmt: skip
        return {name: arguments[name] if name in wanted else _read(value) for name, value in plain.items()}

    def __repr__(self) -> str:
        """Provenance in one line; never the numbers."""
        settings = ", ".join(f"{name}={written(name, value)}" for name, value in self.settings.items())
        state = "" if self.complete else f", {self.done} of {self.total} {self.unit}"
        return f"Attribution({tuple(self.values.shape)}, {settings}{state})"


def code_of(settings: Mapping[str, Any], *, transformed: bool, shown: Mapping[str, Any] | None = None) -> str:
    """The call of ``sw.attribute`` with these settings as Python source.

    Args:
        settings: The settings.
        transformed: Whether the input goes through a transform of the caller's.
        shown: Keyword arguments of :meth:`Attribution.saliency_map`: a line that makes this map is added.
    """
    through = ["transform"] if transformed else []
    needed_arguments = [name for name, value in settings.items() if _is_argument(_plain(name, value))]
    needed = ["model", "inputs", *through, *needed_arguments]
    lines = [
        f"# {', '.join(needed)}: yours",
        "import saliency_widgets as sw",
        "",
        "attribution = sw.attribute(",
        "    model,",
        "    inputs,",
        *(f"    {name}={name}," for name in through),
        *(f"    {name}={written(name, value)}," for name, value in settings.items()),
        ")",
    ]
    if shown is not None:
        arguments = ", ".join(f"{name}={written(name, value)}" for name, value in shown.items())
        lines.append(f"shown = attribution.saliency_map({arguments})  # (H, W) in [0, 1]")
    return "\n".join(lines) + "\n"


def _plain(name: str, value: Any) -> Any:
    """The value, where JSON and Python can write it, or else the name of the argument that brings it."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (tuple, list)):
        items = [_plain(name, item) for item in value]
        if any(map(_is_argument, items)):
            return {"argument": name}
        return {"tuple": items} if isinstance(value, tuple) else items
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        each = {key: _plain(name, item) for key, item in value.items()}
        return {"argument": name} if any(map(_is_argument, each.values())) else {"mapping": each}
    return {"argument": name}


def _is_argument(plain: Any) -> bool:
    """Whether a value can't be written down, and an argument brings it."""
    return isinstance(plain, dict) and "argument" in plain


def _read(plain: Any) -> Any:
    """A value from what :func:`_plain` made of it."""
    if isinstance(plain, dict) and "tuple" in plain:
        return tuple(map(_read, plain["tuple"]))
    if isinstance(plain, dict) and "mapping" in plain:
        return {key: _read(item) for key, item in plain["mapping"].items()}
    return list(map(_read, plain)) if isinstance(plain, list) else plain


def written(name: str, value: Any) -> str:
    """The value as Python source; the name of the argument that brings it, where it can't be written down."""
    plain = _plain(name, value)
    return plain["argument"] if _is_argument(plain) else repr(_read(plain))
