"""``sw.ablate`` and ``sw.evaluate``: is the map to be trusted, asked from Python."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from tqdm.auto import tqdm

from saliency_widgets.attribution import Attribution, Reduction
from saliency_widgets.attribution.baselines import as_numbers
from saliency_widgets.attribution.method import DEFAULT, Method, get_method
from saliency_widgets.attribution.noise import SEED
from saliency_widgets.attribution.reduction import CHANNEL
from saliency_widgets.attribution.targets import SCORE
from saliency_widgets.engine.case import has_seed, map_of, reduced
from saliency_widgets.engine.compute import alone
from saliency_widgets.engine.request import Request
from saliency_widgets.engine.subject import Subject
from saliency_widgets.evaluation.ablation import DRAWS, Ablation
from saliency_widgets.evaluation.ablation import ablate as ablations
from saliency_widgets.evaluation.curves import KINDS, STEPS, curves
from saliency_widgets.evaluation.fills import FILL
from saliency_widgets.evaluation.randomisation import STAGES, randomisation
from saliency_widgets.evaluation.ranking import CHANCE, top
from saliency_widgets.evaluation.saturation import saturation
from saliency_widgets.evaluation.stability import RADIUS, TURNS, agreement, stability
from saliency_widgets.params import unknown

if TYPE_CHECKING:
    import pandas as pd

_LEVELS = ({0, 1}, {0, 255})


def one_sample(subject: Subject) -> None:
    """Look whether there is one sample, as these checks are about one.

    Raises:
        ValueError: There are more, or several inputs that are explained together.
    """
    if len(subject.tensor) != 1:
        raise ValueError(f"inputs: this check is about one input, got a batch of {len(subject.tensor)}. Pass one.")
    if subject.parts:
        raise ValueError(f"explain: this check is about one input. Pass explain= one of {list(subject.parts)}.")


def mask_of(mask: Any, share: float | None, subject: Subject) -> Tensor:
    """A mask in whatever form people have it, as truth values.

    Args:
        mask: An array or tensor of truth values (or of 0 and 1, or 0 and 255), a black and white picture, or an
            attribution of which the top ``share`` is meant.
        share: How much of an attribution.
        subject: What it is a mask of.

    Raises:
        TypeError: It is of no known kind.
        ValueError: Numbers that are no truth values, a share that is missing or out of range, or another size.
    """
    if share is not None and not (isinstance(share, (int, float)) and not isinstance(share, bool) and 0 < share <= 1):
        raise ValueError(f"top: expected a share of the map above 0 and at most 1, such as 0.05; got {share!r}.")
    if isinstance(mask, Attribution):
        if share is None:
            raise ValueError("top: of an attribution, say how much is taken away: top=0.05 is its strongest 5 %.")
        return top(reduced(mask.values, Reduction(mask.default_sign), subject.size), share)
    if share is not None:
        raise ValueError("top: it goes with an attribution; a mask says itself what is taken away.")
    if isinstance(mask, Image.Image):
        mask = np.asarray(mask.convert("L"))
    if not isinstance(mask, Tensor) and not hasattr(mask, "__array__") and not isinstance(mask, (list, tuple)):
        raise TypeError(f"mask: expected an array of truth values or an attribution, got a {type(mask).__name__}.")
    numbers = as_numbers(mask, "mask")
    if numbers.dtype != torch.bool and not any(set(numbers.unique().tolist()) <= levels for levels in _LEVELS):
        raise ValueError(
            "mask: expected truth values, and there are other numbers in it. Say what counts: mask > threshold, or "
            "pass the attribution with top=0.05."
        )
    return numbers.bool()


def ablate(
    model: nn.Module,
    inputs: Any,
    mask: Any,
    *,
    fill: Any = FILL.default,
    top: float | None = None,
    draws: int = DRAWS.default,
    seed: int = SEED.default,
    target: Any = None,
    score: str = SCORE.default,
    contrast: Any = None,
    **given: Any,
) -> Ablation:
    """What the model says without a region, beside what it says without as much elsewhere.

    Args:
        model: Any ``torch.nn.Module``; it is left as it was found.
        inputs: One input, as for :func:`attribute`.
        mask: What is taken away: truth values of shape (H, W) of what the model sees ((F,) for a row), a black and
            white picture, or an :class:`Attribution` with ``top``.
        fill: What is put there: "blur", "mean", "black", "white", "noise", "zero", "neighbours", a tensor, or a
            function from the input to one.
        top: The share of an attribution that is taken away, its strongest places.
        draws: How many regions of the same size and shape are taken away elsewhere.
        seed: Of the draws, and of what is random in the fill.
        target: As for :func:`attribute`.
        score: As for :func:`attribute`.
        contrast: As for :func:`attribute`.
        **given: "transform", "class_names", "explain", "device", "fold" and "precision", as for :func:`attribute`.

    Returns:
        Scores before and after, those of the draws elsewhere, and the picture that the model saw.

    Raises:
        TypeError: An argument of the wrong type.
        ValueError: A mask of another size, an empty one, or an argument out of range.
    """
    subject = Subject(model, inputs, **given)
    one_sample(subject)
    chosen = mask_of(mask, top, subject)
    request = Request.of(DEFAULT, {}, target=target, score=score, contrast=contrast)
    with alone():
        resolved, _ = subject.resolve(request)
        call = subject.call(resolved)
        *_, found = ablations(call, chosen, fill=fill, draws=DRAWS.check(draws), seed=SEED.check(seed))
    names = None if subject.class_names is None else tuple(subject.class_names)
    return replace(found, picture=subject.picture_of(found.inputs), class_names=names)


def evaluate(
    model: nn.Module,
    inputs: Any,
    methods: Iterable[Any] = (DEFAULT,),
    *,
    params: dict[str, Any] | None = None,
    sign: str | None = None,
    channels: str = CHANNEL.default,
    fill: Any = FILL.default,
    steps: int = STEPS.default,
    chance: str = CHANCE.default,
    draws: int = 3,
    stages: int = STAGES.default,
    turns: int = TURNS.default,
    radius: float = RADIUS.default,
    seed: int = SEED.default,
    target: Any = None,
    score: str = SCORE.default,
    contrast: Any = None,
    progress: bool = True,
    **given: Any,
) -> pd.DataFrame:
    """All checks of some methods' maps of one input, side by side.

    Args:
        model: Any ``torch.nn.Module``; it is left as it was found.
        inputs: One input, as for :func:`attribute`.
        methods: Which, as for :func:`attribute`.
        params: Parameters, given to each method that has them: ``{"n_samples": 20}``.
        sign: How the maps are shown and put in order; each method's own choice unless given.
        channels: As for :meth:`Attribution.saliency_map`.
        fill: What is put where something is taken away: see :func:`ablate`.
        steps: Of the deletion and insertion curves.
        chance: What these are compared with: "moved", the same map elsewhere, or "scattered" places.
        draws: How many of those.
        stages: In how many steps the weights are randomised.
        turns: With how many other seeds, and noises, the map is computed again.
        radius: How far those noises move the input, as a part of its range.
        seed: Of everything that is drawn.
        target: As for :func:`attribute`.
        score: As for :func:`attribute`.
        contrast: As for :func:`attribute`.
        progress: Whether a progress bar is shown.
        **given: "transform", "class_names", "explain", "device", "fold" and "precision", as for :func:`attribute`.

    Returns:
        One row a method. ``deletion`` and ``insertion``: areas under the normalised curves, and ``..._chance`` those
        of maps that know nothing; ``randomised_half`` and ``randomised``: rank correlation with the maps of the model
        whose upper half, and all, of its layers are random (high is bad);
        ``seeds`` and ``noises``: the worst rank correlation with maps of other seeds and of hardly changed inputs, and
        ``max_sensitivity``; ``settled`` and ``slope_left``: where on the way to the input the score settles, and what
        is left of the slope there; ``like <method>``: rank correlations between the methods. NaN: it can't be told.

    Raises:
        TypeError: An argument of the wrong type, or a parameter that none of the methods has.
        ValueError: An argument out of range, an input that doesn't fit, or a model that failed.
    """
    import pandas as pd

    entries = [get_method(given) for given in ((methods,) if isinstance(methods, str) else methods)]
    if not entries:
        raise ValueError("methods: there is none to be looked at. Pass methods=['gradient', 'grad_cam'] for example.")
    own = [_own(entry, params or {}, entries) for entry in entries]
    subject = Subject(model, inputs, **given)
    one_sample(subject)
    asked = Request.of(DEFAULT, {}, target=target, score=score, contrast=contrast)
    null, seed = CHANCE.check(chance), SEED.check(seed)
    rows: dict[str, dict[str, float]] = {}
    maps: dict[str, Tensor] = {}
    bar = tqdm(total=7 * len(entries) + 1, disable=not progress, unit="check")
    with bar, alone():
        resolved, _ = subject.resolve(asked)
        call = subject.call(resolved)
        *_, way = saturation(call, seed=seed)
        bar.update()
        for entry, chosen in zip(entries, own, strict=True):
            explain = partial(map_of, entry, chosen, Reduction(sign or entry.sign, channels))
            bar.set_description(entry.title)
            values = maps[entry.name] = explain(call)
            found: dict[str, float] = {}
            *_, both = curves(call, values, fill=fill, steps=STEPS.check(steps), chance=null, draws=draws, seed=seed)
            for kind in KINDS:
                found[kind] = both.own[kind].area
                areas = [drawn.area for drawn in both.chance[kind]]
                found[f"{kind}_chance"] = float(np.mean(areas)) if areas else float("nan")
            bar.update(4)
            *_, cascade = randomisation(call, explain, stages=STAGES.check(stages), seed=seed)
            found["randomised_half"], found["randomised"] = cascade.halfway, cascade.similarity[-1]
            bar.update()
            *_, stays = stability(
                call, explain, seeded_method=has_seed(entry), radius=RADIUS.check(radius), turns=TURNS.check(turns),
                seed=seed,
            )  # fmt: skip
            found["seeds"] = min(stays.seeds, default=float("nan"))
            found["noises"], found["max_sensitivity"] = min(stays.noises), stays.sensitivity
            bar.update(2)
            rows[entry.name] = found | {"settled": way.settled, "slope_left": way.slope_left}
        alike = agreement(maps)
    frame = pd.DataFrame.from_dict(rows, orient="index")
    for place, name in enumerate(maps):
        frame[f"like {name}"] = alike[:, place].numpy()
    frame.index.name = "method"
    return frame


def _own(entry: Method, params: dict[str, Any], entries: list[Method]) -> dict[str, Any]:
    known = sorted({param.name for some in entries for param in some.params})
    for name in params:
        if name not in known:
            raise TypeError(unknown("params", name, known))
    names = {param.name for param in entry.params}
    return entry.check_params({name: value for name, value in params.items() if name in names})
