"""What is wrong with the plain gradient, and what other methods do about it."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saliency_widgets.attribution import get_method
from saliency_widgets.attribution.baselines import BASELINE
from saliency_widgets.attribution.methods.integrated_gradients import N_STEPS
from saliency_widgets.attribution.methods.smoothgrad import N_SAMPLES, NOISE_LEVEL, noisy
from saliency_widgets.evaluation.metrics import sampling_error
from saliency_widgets.evaluation.randomization import randomization
from saliency_widgets.evaluation.saturation import Saturation, saturation
from saliency_widgets.evaluation.similarity import spearman
from saliency_widgets.runtime.runner import Runner
from saliency_widgets.session.explanation import map_of
from saliency_widgets.session.frames import coded
from saliency_widgets.widgets.lesson.basics import image, strength
from saliency_widgets.widgets.lesson.board import STRENGTH, Board, number, percent
from saliency_widgets.widgets.lesson.page import Page, step

NOISES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2)
PLACES = 12
"""Stretches of the way from the baseline to the image; one place more than that is looked at."""
_FINER = 2  # points of the score's curve on each stretch
_FEWEST, _MOST = 4, 64  # steps of Integrated Gradients on one stretch
_LAYERS = 8


# ---- noise


@step(
    "Noise",
    "Noise is added to the image, and the gradient is computed again.",
    "Compare how far the image has changed with how far the map has.",
    control=NOISE_LEVEL.title,
    place="sw-control-noise_level",
    settings={"method": "smoothgrad", "n_samples": 1, "sign": "absolute"},
)
def noise(board: Board, page: Page) -> None:
    """The gradients of images with more and more noise: SmoothGrad of one sample."""
    page.asks(NOISE_LEVEL.title, slider=True, start=2)
    clean = board.map_of(board.gradient)
    own = strength(board, page, "Gradient without noise")
    runner = board.runner()
    for level in NOISES:
        found = board.answer("smoothgrad", noise_level=level, n_samples=1, seed=board.seed)
        seen = board.image_of(noisy(runner, level, board.seed, range(1))[0])
        moved = float(np.abs(seen.astype(float) - board.image).mean())
        alike = spearman(clean, board.map_of(found))
        said = (
            f"On average a pixel's value moves by {moved:.1f} of 255. "
            f"The two maps have a rank correlation of {alike:.2f}."
        )
        page.shot(
            f"{level:.0%}",
            page.image(f"noisy {level:g}", "The image with noise", lambda seen=seen: seen),
            page.map(f"noise {level:g}", "Its gradient", lambda found=found: board.strength(found)),
            own,
            said=said,
            noise_level=level,
        )


@step(
    "Smoothing",
    "SmoothGrad averages the gradients of many noisy copies: what they have in common stays.",
    "What differs between them averages out, and the more samples there are, the less of it is left.",
    control=N_SAMPLES.title,
    place="sw-control-n_samples",
    settings={"method": "smoothgrad", "sign": "absolute"},
)
def smoothing(board: Board, page: Page) -> None:
    """The running mean of SmoothGrad."""
    page.asks("Samples", slider=True)
    own = strength(board, page, "Gradient without noise")
    counts = [2**k for k in range(board.n_samples.bit_length()) if 2**k < board.n_samples] + [board.n_samples]
    asked = {"noise_level": board.noise_level, "n_samples": board.n_samples, "seed": board.seed, "chunk_size": 1}
    means = [found for found in board.estimates("smoothgrad", **asked) if found.done in counts]
    last = board.map_of(means[-1])
    for found in means:
        alike, error = spearman(board.map_of(found), last), sampling_error(found)
        said = f"Noise level {board.noise_level:.0%}. Rank correlation with the map of all {counts[-1]}: {alike:.2f}."
        if error == error:
            said += f" Sampling error: {percent(error)} of the size of the values."
        caption = f"Mean of {found.done} sample{'s' * (found.done != 1)}"
        mean = page.map(f"smooth {found.done}", caption, lambda found=found: board.strength(found))
        page.shot(str(found.done), own, mean, said=said, n_samples=found.done, noise_level=board.noise_level)
    page.start = len(page.shots) - 1


# ---- the way from the baseline


def _way(board: Board) -> Saturation:
    def make() -> Saturation:
        points = PLACES * _FINER + 1
        *_, found = saturation(board.runner(), baseline=board.baseline, points=points, seed=board.seed)
        return found

    return board.once("way", make)


def _place(board: Board, at: int) -> Tensor:
    """The input so far on the way from the baseline, shape (1, C, H, W)."""
    runner = board.runner()
    start = board.once("baseline", lambda: runner.baseline(board.baseline, board.seed))
    return runner.inputs if at == PLACES else torch.lerp(start, runner.inputs, at / PLACES)


def _on_the_way(board: Board, page: Page, at: int) -> dict:
    caption = f"{at / PLACES:.0%} of the way"
    return page.image(f"way {at}", caption, lambda: board.image_of(_place(board, at)))


def _curve(board: Board, page: Page, at: int) -> dict:
    way = _way(board)
    settled = way.settled
    mark = (settled, "settled") if settled < 1 else None
    caption = f"{board.score_name[0].upper()}{board.score_name[1:]}"
    points = way.positions.tolist(), way.scores.tolist()
    across = "0: baseline, 1: image"
    return page.curve(caption, points, at / PLACES, across=across, up=board.scale, mark=mark)


def _risen(board: Board, at: int) -> tuple[float, float]:
    """The score there, and what part of the whole change is behind it; NaN where there is none."""
    scores = _way(board).scores
    here, change = float(scores[at * _FINER] - scores[0]), float(scores[-1] - scores[0])
    return float(scores[at * _FINER]), here / change if change else float("nan")


@step(
    "Saturation",
    "On the way from the baseline to the image the score changes, and it may settle long before the end.",
    "Where the curve is flat the gradient is small, although the score rests on what came before.",
    control=BASELINE.title,
    place="sw-control-baseline",
    settings={"method": "integrated_gradients"},
)
def saturated(board: Board, page: Page) -> None:
    """The score and the size of its gradient on the way."""
    page.asks("Position on the way", slider=True, start=PLACES)
    way = _way(board)
    begin = f"The baseline is {board.baseline_name}. "
    steepest = float(way.slopes.max()) or 1.0
    sizes = (way.slopes / steepest).tolist()
    settled = way.settled
    if settled != settled:
        end = "The baseline scores as the image does, so there is no change to be followed."
    elif settled < 1:
        end = f"From {percent(settled)} of the way on the score stays within 5% of its change."
    else:
        end = "The score moves until the end."
    for at in range(PLACES + 1):
        here, risen = _risen(board, at)
        share = "" if risen != risen else f", {percent(risen)} of its change,"
        said = (
            f"{begin}Here the {board.scale} is {number(here)}{share} and the gradient has "
            f"{percent(sizes[at * _FINER])} of its largest size. {end}"
        )
        size = page.curve(
            "Size of the gradient", (way.positions.tolist(), sizes), at / PLACES,
            across="0: baseline, 1: image", up="part of its largest",
        )  # fmt: skip
        page.shot(f"{at / PLACES:.0%}", _on_the_way(board, page, at), _curve(board, page, at), size, said=said)
    page.settings = [{"baseline": board.baseline}] * len(page.shots)


@step(
    "IG's path",
    "Integrated Gradients adds up the gradients on the whole way, weighed with how far each pixel has to go.",
    "All that has been added up so far should be what the score has changed so far.",
    control=N_STEPS.title,
    place="sw-control-n_steps",
    settings={"method": "integrated_gradients", "sign": "absolute"},
)
def path(board: Board, page: Page) -> None:
    """What has been added up at each place: Integrated Gradients from place to place, which are parts of one sum."""
    page.asks("Position on the way", slider=True, start=PLACES)
    entry, runner = get_method("integrated_gradients"), board.runner()
    total = torch.zeros_like(runner.inputs)
    sums = [total]
    for at, steps in enumerate(_steps(board), 1):
        params = {"n_steps": steps, "baseline": _place(board, at - 1), "quadrature": "gauss_legendre"}
        *_, part = entry.run(runner.on(_place(board, at)), **entry.check_params(params))
        total = total + part.values
        sums.append(total)
    height, width = runner.inputs.shape[-2:]
    maps = [STRENGTH(values, (height, width))[0] for values in sums]
    high = max(float(values.max()) for values in maps)  # one scale, so that the map grows
    for at, (values, found) in enumerate(zip(maps, sums, strict=True)):
        score, _ = _risen(board, at)
        climbed = score - float(_way(board).scores[0])
        added = float(found.double().sum())
        said = (
            f"Added up so far: {number(added)}. The {board.scale} has changed by {number(climbed)}. "
            f"The difference, {number(added - climbed)}, is the completeness delta."
        )
        colored = page.map(
            f"path {at}", "Added up so far", lambda values=values: coded(values, signed=False, high=high),
            scale=f"path {PLACES}",
        )  # fmt: skip
        page.shot(f"{at / PLACES:.0%}", _on_the_way(board, page, at), colored, _curve(board, page, at), said=said)
    page.settings = [{"baseline": board.baseline}] * len(page.shots)


def _steps(board: Board) -> list[int]:
    """So many steps on each stretch: the more, the more the score changes there."""
    scores = _way(board).scores.double()
    moved = scores.diff().abs().view(PLACES, _FINER).sum(1)
    shares = (moved / moved.sum().clamp(min=1e-300)).tolist()
    return [min(_MOST, max(_FEWEST, 2 ** round(math.log2(max(_MOST * share, 1.0))))) for share in shares]


# ---- other maps


@step(
    "Guided Backprop",
    "Guided Backprop lets only positive gradients back through each ReLU, which gives sharp edges.",
    "A map that explains a class must change with the class, and with what the model has learnt.",
    control="Method",
    place="sw-control-method",
    settings={"method": "guided_backprop", "sign": "absolute"},
    method="guided_backprop",
)
def guided(board: Board, page: Page) -> None:
    """Guided Backprop beside the gradient: for other classes, and without what the upper layers have learnt."""
    page.asks("Compare with")
    both = {"guided_backprop": "Guided", "gradient": "Gradient"}
    own = {
        method: page.map(
            f"{method} max", f"{title}: {board.target_name}",
            lambda method=method: board.strength(board.answer(method)),
        )
        for method, title in both.items()
    }  # fmt: skip
    for other in board.others():
        name, alike, panels = board.name_of(other), {}, []
        for method, title in both.items():
            found = board.answer(method, target=other)
            alike[method] = spearman(board.map_of(board.answer(method)), board.map_of(found))
            caption = f"{title}: {name}"
            changed = page.map(f"{method} {other}", caption, lambda found=found: board.strength(found))
            panels += [own[method], changed]
        page.shot(name, *panels, said=_compared(alike), target=other)
    alike, panels = {}, []
    for method, title in both.items():
        maps: list[Tensor] = []
        explain = partial(_explained, maps, get_method(method))
        stages = randomization(board.runner(), explain, stages=2, seed=board.seed)
        next(stages)  # the model itself
        alike[method] = next(stages).halfway
        changed = page.map(
            f"{method} random", f"{title}: random", lambda maps=maps: coded(maps[1], signed=False)
        )  # fmt: skip
        panels += [own[method], changed]
    page.shot("upper layers random", *panels, said=_compared(alike))


def _explained(maps: list[Tensor], entry: Any, runner: Runner) -> Tensor:
    maps.append(map_of(entry, {}, STRENGTH, runner))
    return maps[-1]


def _compared(alike: dict[str, float]) -> str:
    guided, plain = alike["guided_backprop"], alike["gradient"]
    said = f"Rank correlation of both maps: Guided Backprop {guided:.3f}, gradient {plain:.3f}."
    if guided != guided or plain != plain:
        return f"{said} Where a map is the same everywhere, there is none."
    if guided > plain:
        return f"{said} Guided Backprop's map changes less than the gradient's."
    return f"{said} Here the gradient's map doesn't change more than Guided Backprop's."


@step(
    "Grad-CAM",
    "Grad-CAM weighs the channels of one layer with their gradients: where does it see the class?",
    "The map is as coarse as its layer; deeper layers have fewer places and know more of the class.",
    control="Layer",
    place="sw-control-layer",
    settings={"method": "grad_cam", "sign": "positive"},
    method="grad_cam",
)
def layers(board: Board, page: Page) -> None:
    """Grad-CAM of layers with different resolutions."""
    page.asks("Layer", slider=True)
    height, width = board.problem.tensor.shape[-2:]
    under = image(board, page)
    last = board.answer("grad_cam")
    assert last.layer is not None
    for name in _some_layers(board, last.layer):
        try:
            found = last if name == last.layer else board.answer("grad_cam", layer=name)
        except ValueError:
            continue  # the score doesn't depend on it
        h, w = found.values.shape[-2:]
        frame = board.own_size(found, "positive")
        said = f"Layer {name}: {h} × {w} places, each for {height / h:.3g} × {width / w:.3g} pixels of the image."
        if not frame.high:
            said += " It sees nothing that speaks for the class."
        own = page.map(f"cam {name}", "The layer's map", lambda frame=frame: frame)
        laid = page.map(f"cam {name}", "Over the image", lambda frame=frame: frame, over=under["image"])
        page.shot(name, under, own, laid, said=said, layer=name)
        if name == last.layer:
            page.start = len(page.shots) - 1


def _some_layers(board: Board, last: str) -> list[str]:
    """Layers up to the one that Grad-CAM takes: the last of each resolution, or some evenly spread."""
    sizes = {path: shape[1:] for path, shape in board.problem.layers.items()}
    spatial = board.problem.spatial_at(board.problem.version()) or {}
    modules = dict(board.problem.model.named_modules())
    names = [
        path for path in sizes
        # What padding puts around a map has no evidence of its own, and makes sizes that no layer has.
        if (path not in spatial or spatial[path].default) and not _is_padding(modules.get(path))
    ]  # fmt: skip
    names = names[: names.index(last) + 1] if last in names else [*names, last]
    ends = list({sizes.get(path): path for path in names}.values())
    if len(ends) < _LAYERS // 2:
        ends = [names[round(k)] for k in np.linspace(0, len(names) - 1, min(_LAYERS, len(names)))]
    return sorted(dict.fromkeys([*ends[-_LAYERS:], last]), key=names.index)


def _is_padding(module: Any) -> bool:
    return type(module).__module__ == "torch.nn.modules.padding"
