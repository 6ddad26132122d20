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
from saliency_widgets.attribution.features import PIXELS, Features, runs_of
from saliency_widgets.attribution.reduction import Reduction
from saliency_widgets.attribution.registry import get_method
from saliency_widgets.params import Param, brief, check_switch, check_text, unknown

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, repr=False, eq=False)
class Attribution:
    """An attribution: how much each input contributed to the score.

    Attributes:
        values: Signed attribution of the model's input, shape (B, ...). Class activation maps have the resolution of
            the ``layer``, (B, 1, h, w). Values of captum's methods for layers without a spatial output have the shape
            that captum returns.
        settings: Keyword arguments that repeat it: ``sw.attribute(model, inputs, **settings)``.
        score: The explained score of each sample, shape (B,), if the method computed it; (1,) if rows that influence
            each other are explained together.
        delta: Completeness error sum(values) - (F(x) - F(x')), of the shape of the score, for Integrated Gradients.
        standard_error: The standard error of each value, where samples were averaged.
        agreement: Rank correlation of the maps of two halves of the samples, shape (B,), where samples were averaged.
        map_error: Estimated relative error of the map (L1), shape (B,), for adaptive Integrated Gradients.
        evaluations: Gradients of the model computed per sample.
        layer: The layer that the values belong to, or whose resolution they have; several separated by commas; or None.
        input_shape: The shape of the model's input, (B, ...); if several inputs were explained together, that of the
            image among them.
        notes: Caveats for the user.
        default_sign: The part of the values that the method's paper shows.
        done: Units of work done; below ``total``, this is a running estimate.
        total: Units of work in total.
        unit: The name of these units.
        transformed: Whether the caller passed a transform for the input.
        parts: If several inputs were explained together, their names and the shape of one sample of each. The values
            lie side by side, (B, F); :meth:`part` returns those of one input. Inputs inside lists, tuples, mappings
            and dataclasses are named by their path, "batch.x". The same holds for a layer with several output tensors.
        columns: The columns of the table that the inputs were rows of, or None: see :meth:`by_feature`.
        features: What the values are reduced to: see :meth:`saliency_map` and :meth:`by_token`.
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
    features: Features = PIXELS

    @property
    def method(self) -> str:
        """The method's name."""
        return getattr(self.settings["method"], "name", self.settings["method"])

    @property
    def complete(self) -> bool:
        """Whether all requested work is done."""
        return self.done >= self.total

    def part(self, name: str) -> Attribution:
        """Return the attribution of one of several inputs that were explained together.

        Args:
            name: One of ``parts``, or the path that several share: "xs" for "xs.0" and "xs.1".

        Returns:
            Values and standard error in that input's shape, (B, ...); for several, side by side, (B, F), with their
            own ``parts``. ``delta`` belongs to all inputs together and is left out.

        Raises:
            ValueError: No input has this name, or the values belong to a layer instead of an input.
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
        features = self.features if len(inside) > 1 else self.features.of_input(next(iter(inside)))
        apart = features is not self.features
        return replace(
            self,
            values=values,
            features=features,
            default_sign=features.sign_for(get_method(self.settings["method"])) if apart else self.default_sign,
            standard_error=piece_of(self.standard_error),
            delta=None,
            input_shape=tuple(values.shape),
            parts=inside if len(inside) > 1 else {},
        )

    def by_feature(self) -> pd.DataFrame:
        """Return the attributions of rows of a table by column name, with one-hot groups summed.

        Returns:
            One row for each explained row: ``by_feature().iloc[0].sort_values(key=abs)`` ranks the columns of one.

        Raises:
            ValueError: The inputs were not rows of a table, or the values are not one per feature.
        """
        import pandas as pd

        if self.columns is None:
            raise ValueError("by_feature: the inputs were not rows of a table. Pass a DataFrame, or feature_names=.")
        if self.values.shape != self.input_shape:
            raise ValueError(
                f"by_feature: {self.method} returns values of shape {tuple(self.values.shape)}, not one per feature."
            )
        values = self.columns.summed(self.values.detach().cpu().double()).numpy()
        return pd.DataFrame(values, columns=list(self.columns.names))

    def by_token(
        self, *, sign: str | None = None, channels: str | None = None, sample: int = 0, words: bool = False
    ) -> pd.DataFrame:
        """Return the attributions of a text by token, or by word.

        Args:
            sign: "signed", "absolute", "positive", "negative" or "squared". Default: "signed" if the method's values
                add up to the score, as those of Integrated Gradients, or else "absolute".
            channels: How the values of an embedding become one: "sum", "L2", "mean" or "max". Default: "sum" for
                signed values, "L2" for others.
            sample: The index of the text in the batch.
            words: Whether to add up the tokens of each word, as far as the tokenizer tells words.

        Returns:
            One row for each token or word, with the columns "token" and "attribution". By default, the attributions of
            Integrated Gradients add up to the change of the score.

        Raises:
            ValueError: The inputs were not texts, or the values are not one per number of an embedding.
        """
        import pandas as pd

        if self.features.labels is None:
            raise ValueError("by_token: the inputs were not texts. Pass a text and tokenizer=.")
        sample = Param("sample", 0, low=0, high=len(self.values) - 1, kind="int").check(sample)
        check_switch("words", words)
        values = self.reduced(self._reduction(sign, channels), sample).detach().cpu().double().numpy()
        table = pd.DataFrame({"token": list(self.features.labels[sample]), "attribution": values})
        groups = None if self.features.groups is None else self.features.groups[sample]
        if not words or groups is None:
            return table
        runs = np.asarray(runs_of(groups))
        return table.groupby(runs).agg("sum").reset_index(drop=True)

    def reduced(self, reduction: Reduction, sample: int = 0) -> Tensor:
        """Return one value for each feature of a sample, such as each pixel, shape (H, W), or each token, shape (T,).

        Args:
            reduction: How signs and channels, or the numbers of an embedding, are reduced.
            sample: The index of the sample in the batch.

        Raises:
            TypeError: ``reduction`` is not one.
            ValueError: The values don't belong to the features, or the sample is out of range.
        """
        if not isinstance(reduction, Reduction):
            raise TypeError(f"reduction: expected a Reduction, got a {type(reduction).__name__}.")
        sample = Param("sample", 0, low=0, high=len(self.values) - 1, kind="int").check(sample)
        return self.features.reduce(self.values[sample : sample + 1], reduction, self.input_shape)[0]

    def saliency_map(
        self,
        *,
        sign: str | None = None,
        channels: str | None = None,
        clip: tuple[float, float] | None = None,
        sample: int = 0,
    ) -> np.ndarray:
        """Return the map as it is displayed, before coloring.

        Args:
            sign: "absolute", "positive", "negative", "signed" or "squared"; by default that of the method's paper.
            channels: "max", "mean", "sum" or "L2"; by default "max", and for texts as in :meth:`by_token`.
            clip: The percentiles that become 0 and 1; by default those of the display.
            sample: The index of the sample in the batch.

        Returns:
            One value per feature, shape (H, W), or (T,) for a text, float64 in [0, 1]; for "signed", 0.5 is zero.

        Raises:
            ValueError: An unknown sign or channel rule, a sample out of range, or values that don't form an image.
        """
        sample = Param("sample", 0, low=0, high=len(self.values) - 1, kind="int").check(sample)
        reduction = self._reduction(sign, channels)
        values = self.reduced(reduction, sample).cpu().double().numpy()
        quantized = render.quantize(values.reshape(-1, values.shape[-1]), signed=reduction.signed)
        percentiles = render.check_display({} if clip is None else {"clip": clip})["clip"]
        limits = render.clip_limits(quantized.codes, quantized.signed, percentiles)
        return render.strength(quantized.codes, quantized.signed, limits).reshape(values.shape)

    def _reduction(self, sign: str | None, channels: str | None) -> Reduction:
        return self.features.reduction(self.default_sign if sign is None else sign, channels)

    def to_code(self) -> str:
        """Return Python code that repeats it, with variables for values that can't be written as code."""
        return code_of(self.settings, transformed=self.transformed)

    def to_json(self) -> str:
        """Return the settings as JSON, with ``{"argument": "baseline"}`` for a value that JSON can't hold.

        A tuple, such as the index of a target, is ``{"tuple": [1, 0]}``. :meth:`settings_from_json` reads them.
        """
        return json.dumps({name: _plain(name, value) for name, value in self.settings.items()})

    @staticmethod
    def settings_from_json(text: str, **arguments: Any) -> dict[str, Any]:
        """Return the keyword arguments of ``sw.attribute`` from the output of :meth:`Attribution.to_json`.

        Args:
            text: The JSON.
            **arguments: Values that JSON can't hold, such as tensors and functions, by the names of their settings.

        Raises:
            TypeError: An argument is missing or not needed, or ``text`` is not a string.
            ValueError: The text was not written by :meth:`to_json`.
        """
        try:
            plain = json.loads(check_text("text", text))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"text: expected the output of Attribution.to_json, got other text: {error}.") from error
        if not isinstance(plain, dict):
            raise ValueError(f"text: expected settings by name, got {brief(plain)}. Pass the output of to_json.")
        wanted = {name for name, value in plain.items() if _is_argument(value)}
        if wanted != set(arguments):
            raise TypeError(f"settings: these can't be stored as JSON and must be passed: {sorted(wanted)}; got "
                            f"{sorted(arguments)}.")  # fmt: skip
        return {name: arguments[name] if name in wanted else _read(value) for name, value in plain.items()}

    def __repr__(self) -> str:
        """Return the provenance in one line, without the numbers."""
        settings = ", ".join(f"{name}={written(name, value)}" for name, value in self.settings.items())
        state = "" if self.complete else f", {self.done} of {self.total} {self.unit}"
        return f"Attribution({tuple(self.values.shape)}, {settings}{state})"


def code_of(settings: Mapping[str, Any], *, transformed: bool, shown: Mapping[str, Any] | None = None) -> str:
    """Return the call of ``sw.attribute`` with these settings as Python source.

    Args:
        settings: The settings.
        transformed: Whether the caller passed a transform for the input.
        shown: Keyword arguments of :meth:`Attribution.saliency_map`, to add a line that computes this map.
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
        lines.append(f"shown = attribution.saliency_map({arguments})  # in [0, 1]")
    return "\n".join(lines) + "\n"


def _plain(name: str, value: Any) -> Any:
    """Return a form of the value that JSON and Python can write, or else the name of an argument to pass it by."""
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
    """Return whether :func:`_plain` replaced a value by the name of an argument."""
    return isinstance(plain, dict) and "argument" in plain


def _read(plain: Any) -> Any:
    """Return the value that :func:`_plain` encoded."""
    if isinstance(plain, dict) and "tuple" in plain:
        return tuple(map(_read, plain["tuple"]))
    if isinstance(plain, dict) and "mapping" in plain:
        return {key: _read(item) for key, item in plain["mapping"].items()}
    return list(map(_read, plain)) if isinstance(plain, list) else plain


def written(name: str, value: Any) -> str:
    """Return the value as Python source, or the name of an argument to pass it by if it can't be written as code."""
    plain = _plain(name, value)
    return plain["argument"] if _is_argument(plain) else repr(_read(plain))
