"""Further steps of a lesson: weaknesses of the plain gradient, and how other methods address them."""

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
from saliency_widgets.evaluation.explanation import map_of
from saliency_widgets.evaluation.metrics import sampling_error
from saliency_widgets.evaluation.randomization import randomization
from saliency_widgets.evaluation.saturation import Saturation, saturation
from saliency_widgets.evaluation.similarity import spearman
from saliency_widgets.runtime.runner import Runner
from saliency_widgets.session.frames import coded
from saliency_widgets.widgets.lesson.basics import image, strength
from saliency_widgets.widgets.lesson.board import STRENGTH, Board
from saliency_widgets.widgets.lesson.page import Page, number, percent, two_decimals
from saliency_widgets.widgets.lesson.step import step

NOISES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2)
SEGMENTS = 12
"""The number of segments of the path from the baseline to the image."""
_FINER = 2  # points of the score's curve per segment
_FEWEST, _MOST = 4, 64  # steps of Integrated Gradients per segment
_LAYERS = 8


# ---- noise


@step(
    "Noise",
    "Noise is added to the image, and the gradient is computed again.",
    "Compare how much the image has changed with how much the map has changed.",
    control=NOISE_LEVEL.title,
    control_class="sw-control-noise_level",
    settings={"method": "smoothgrad", "n_samples": 1, "sign": "absolute"},
)
def noise(board: Board, page: Page) -> None:
    """Show the gradients of images with increasing noise, computed as SmoothGrad with one sample."""
    page.set_control(NOISE_LEVEL.title, slider=True, start=2)
    clean = board.map_of(board.gradient)
    without_noise = strength(board, page, "Gradient without noise")
    runner = board.runner()
    for level in NOISES:
        attribution = board.attribution("smoothgrad", noise_level=level, n_samples=1, seed=board.seed)
        seen = board.image_of(noisy(runner, level, board.seed, range(1))[0])
        moved = float(np.abs(seen.astype(float) - board.image).mean())
        correlation = spearman(clean, board.map_of(attribution))
        text = (
            f"On average a pixel's value changes by {moved:.1f} of 255. "
            f"The two maps have a rank correlation of {correlation:.2f}."
        )
        page.shot(
            f"{level:.0%}",
            page.image(f"noisy {level:g}", "The image with noise", lambda seen=seen: seen),
            page.map(f"noise {level:g}", "Its gradient", lambda attribution=attribution: board.strength(attribution)),
            without_noise,
            text=text,
            noise_level=level,
        )


@step(
    "Smoothing",
    "SmoothGrad averages the gradients of many noisy copies: what they have in common stays.",
    "Their differences average out: the more samples, the less noise is left.",
    control=N_SAMPLES.title,
    control_class="sw-control-n_samples",
    settings={"method": "smoothgrad", "sign": "absolute"},
)
def smoothing(board: Board, page: Page) -> None:
    """Show the running mean of SmoothGrad."""
    page.set_control("Samples", slider=True)
    without_noise = strength(board, page, "Gradient without noise")
    counts = [2**k for k in range(board.n_samples.bit_length()) if 2**k < board.n_samples] + [board.n_samples]
    params = {"noise_level": board.noise_level, "n_samples": board.n_samples, "seed": board.seed, "chunk_size": 1}
    means = [attribution for attribution in board.estimates("smoothgrad", **params) if attribution.done in counts]
    last = board.map_of(means[-1])
    for attribution in means:
        correlation, error = spearman(board.map_of(attribution), last), sampling_error(attribution)
        text = f"Noise level {board.noise_level:.0%}. "
        text += f"Rank correlation with the map of all {counts[-1]}: {two_decimals(correlation)}."
        if error == error:
            text += f" Sampling error: {percent(error)} of the size of the values."
        caption = f"Mean of {attribution.done} sample{'s' * (attribution.done != 1)}"
        mean = page.map(
            f"smooth {attribution.done}", caption, lambda attribution=attribution: board.strength(attribution),
            **board.look,
        )  # fmt: skip
        page.shot(
            str(attribution.done),
            without_noise,
            mean,
            text=text,
            n_samples=attribution.done,
            noise_level=board.noise_level,
        )
    page.start = len(page.shots) - 1


# ---- the integration path


def _saturation(board: Board) -> Saturation:
    def make() -> Saturation:
        points = SEGMENTS * _FINER + 1
        *_, last = saturation(board.runner(), baseline=board.baseline, points=points, seed=board.seed)
        return last

    return board.once("saturation", make)


def _path_point(board: Board, at: int) -> Tensor:
    """Return the input at a point of the path from the baseline, shape (1, ...)."""
    runner = board.runner()
    start = board.once("baseline", lambda: runner.baseline(board.baseline, board.seed))
    return runner.inputs if at == SEGMENTS else torch.lerp(start, runner.inputs, at / SEGMENTS)


def _path_image(board: Board, page: Page, at: int) -> list[dict]:
    """Return a panel with a point of the path, if it is an image: a point between two texts has no tokens."""
    if board.scene:
        return []
    caption = f"{at / SEGMENTS:.0%} of the path"
    return [page.image(f"path image {at}", caption, lambda: board.image_of(_path_point(board, at)))]


def _curve(board: Board, page: Page, at: int) -> dict:
    curve = _saturation(board)
    settled = curve.settled
    mark = (settled, "settled") if settled < 1 else None
    caption = f"{board.score_name[0].upper()}{board.score_name[1:]}"
    points = curve.positions.tolist(), curve.scores.tolist()
    x_label = f"0: baseline, 1: {board.problem.kind.noun}"
    return page.curve(caption, points, at / SEGMENTS, x_label=x_label, y_label=board.scale, mark=mark)


def _risen(board: Board, at: int) -> tuple[float, float]:
    """Return the score at a point, and its change as a share of the total change (NaN without a change)."""
    scores = _saturation(board).scores
    here, change = float(scores[at * _FINER] - scores[0]), float(scores[-1] - scores[0])
    return float(scores[at * _FINER]), here / change if change else float("nan")


@step(
    "Saturation",
    "On the path from the baseline to the image the score changes, and it may saturate long before the end.",
    "Where the curve is flat the gradient is small, although the score depends on what came before.",
    control=BASELINE.title,
    control_class="sw-control-baseline",
    settings={"method": "integrated_gradients"},
)
def saturated(board: Board, page: Page) -> None:
    """Show the score and the size of its gradient along the path."""
    page.set_control("Position on the path", slider=True, start=SEGMENTS)
    curve = _saturation(board)
    begin = f"The baseline is {board.baseline_name}. "
    steepest = float(curve.slopes.max()) or 1.0
    sizes = (curve.slopes / steepest).tolist()
    settled = curve.settled
    if settled != settled:
        end = f"The baseline and the {board.problem.kind.noun} have the same score: there is no change to follow."
    elif settled < 1:
        end = f"From {percent(settled)} of the path on, the score stays within 5% of its final value."
    else:
        end = "The score changes until the end."
    for at in range(SEGMENTS + 1):
        here, risen = _risen(board, at)
        share = "" if risen != risen else f", {percent(risen)} of its change,"
        text = (
            f"{begin}Here the {board.scale} is {number(here)}{share} and the gradient has "
            f"{percent(sizes[at * _FINER])} of its largest size. {end}"
        )
        size = page.curve(
            "Size of the gradient", (curve.positions.tolist(), sizes), at / SEGMENTS,
            x_label=f"0: baseline, 1: {board.problem.kind.noun}", y_label="relative to its largest",
        )  # fmt: skip
        page.shot(f"{at / SEGMENTS:.0%}", *_path_image(board, page, at), _curve(board, page, at), size, text=text)
    page.settings = [{"baseline": board.baseline}] * len(page.shots)


@step(
    "IG's path",
    "Integrated Gradients adds up the gradients along the path, weighted by how far each pixel has to go.",
    "The sum so far should equal the change of the score so far.",
    control=N_STEPS.title,
    control_class="sw-control-n_steps",
    settings={"method": "integrated_gradients", "sign": "absolute"},
)
def path(board: Board, page: Page) -> None:
    """Show the sum up to each point, accumulated from Integrated Gradients over the segments."""
    page.set_control("Position on the path", slider=True, start=SEGMENTS)
    entry, runner = get_method("integrated_gradients"), board.runner()
    total = torch.zeros_like(runner.inputs)
    sums = [total]
    for at, steps in enumerate(_steps(board), 1):
        params = {"n_steps": steps, "baseline": _path_point(board, at - 1), "quadrature": "gauss_legendre"}
        *_, part = entry.run(runner.on(_path_point(board, at)), **entry.check_params(params))
        total = total + part.values
        sums.append(total)
    maps = [board.reduced(values, entry.name) for values in sums]
    signed = board.reduction_of(entry.name).signed
    high = max(float(values.abs().max()) for values in maps)  # one scale for all points, so that the map visibly grows
    for at, (values, partial_sum) in enumerate(zip(maps, sums, strict=True)):
        score, _ = _risen(board, at)
        climbed = score - float(_saturation(board).scores[0])
        added = float(partial_sum.double().sum())
        text = (
            f"Sum so far: {number(added)}. The {board.scale} has changed by {number(climbed)}. "
            f"The difference, {number(added - climbed)}, is the completeness delta."
        )
        colored = page.map(
            f"path {at}", "Sum so far", lambda values=values: coded(values, signed=signed, high=high),
            scale=f"path {SEGMENTS}", **board.look,
        )  # fmt: skip
        page.shot(f"{at / SEGMENTS:.0%}", *_path_image(board, page, at), colored, _curve(board, page, at), text=text)
    page.settings = [{"baseline": board.baseline}] * len(page.shots)


def _steps(board: Board) -> list[int]:
    """Return the number of steps for each segment: about proportional to the score's change, a power of two."""
    scores = _saturation(board).scores.double()
    moved = scores.diff().abs().view(SEGMENTS, _FINER).sum(1)
    shares = (moved / moved.sum().clamp(min=1e-300)).tolist()
    return [min(_MOST, max(_FEWEST, 2 ** round(math.log2(max(_MOST * share, 1.0))))) for share in shares]


# ---- other maps


@step(
    "Guided Backprop",
    "Guided Backprop passes only positive gradients back through each ReLU, which gives sharp edges.",
    "A map that explains a class must change with the class, and with what the model has learned.",
    control="Method",
    control_class="sw-control-method",
    settings={"method": "guided_backprop", "sign": "absolute"},
    method="guided_backprop",
)
def guided(board: Board, page: Page) -> None:
    """Show Guided Backprop next to the gradient, for other classes and with random upper layers."""
    page.set_control("Compare with")
    both = {"guided_backprop": "Guided", "gradient": "Gradient"}
    originals = {
        method: page.map(
            f"{method} max", f"{title}: {board.target_name}",
            lambda method=method: board.strength(board.attribution(method)),
        )
        for method, title in both.items()
    }  # fmt: skip
    for other in board.others():
        name, correlations, panels = board.name_of(other), {}, []
        for method, title in both.items():
            attribution = board.attribution(method, target=other)
            correlations[method] = spearman(board.map_of(board.attribution(method)), board.map_of(attribution))
            caption = f"{title}: {name}"
            changed = page.map(
                f"{method} {other}", caption, lambda attribution=attribution: board.strength(attribution)
            )
            panels += [originals[method], changed]
        page.shot(name, *panels, text=_comparison_text(correlations), target=other)
    correlations, panels = {}, []
    for method, title in both.items():
        maps: list[Tensor] = []
        explain = partial(_explained, maps, get_method(method))
        stages = randomization(board.runner(), explain, stages=2, seed=board.seed)
        next(stages)  # the model itself
        correlations[method] = next(stages).halfway
        changed = page.map(
            f"{method} random", f"{title}: random", lambda maps=maps: coded(maps[1], signed=False)
        )  # fmt: skip
        panels += [originals[method], changed]
    page.shot("upper layers random", *panels, text=_comparison_text(correlations))


def _explained(maps: list[Tensor], entry: Any, runner: Runner) -> Tensor:
    maps.append(map_of(entry, {}, STRENGTH, runner))
    return maps[-1]


def _comparison_text(correlations: dict[str, float]) -> str:
    guided, plain = correlations["guided_backprop"], correlations["gradient"]
    text = f"Rank correlation of both maps: Guided Backprop {guided:.3f}, gradient {plain:.3f}."
    if guided != guided or plain != plain:
        return f"{text} For a constant map it is undefined."
    if guided > plain:
        return f"{text} Guided Backprop's map changes less than the gradient's."
    return f"{text} Here the gradient's map does not change more than Guided Backprop's."


@step(
    "Grad-CAM",
    "Grad-CAM weights the channels of one layer by their gradients: where does the layer respond to the class?",
    "The map is as coarse as its layer; deeper layers are coarser and more specific to the class.",
    control="Layer",
    control_class="sw-control-layer",
    settings={"method": "grad_cam", "sign": "positive"},
    method="grad_cam",
)
def layers(board: Board, page: Page) -> None:
    """Show Grad-CAM for layers with different resolutions."""
    page.set_control("Layer", slider=True)
    height, width = board.problem.tensor.shape[-2:]
    under = image(board, page)
    last = board.attribution("grad_cam")
    assert last.layer is not None
    for name in _some_layers(board, last.layer):
        try:
            attribution = last if name == last.layer else board.attribution("grad_cam", layer=name)
        except ValueError:
            continue  # the score doesn't depend on this layer
        h, w = attribution.values.shape[-2:]
        frame = board.layer_frame(attribution, "positive")
        text = f"Layer {name}: {h} × {w} cells, each for {height / h:.3g} × {width / w:.3g} pixels of the image."
        if not frame.high:
            text += " It shows no evidence for the class."
        layer_map = page.map(f"cam {name}", "The layer's map", lambda frame=frame: frame)
        laid = page.map(f"cam {name}", "Over the image", lambda frame=frame: frame, over=under["image"])
        page.shot(name, under, layer_map, laid, text=text, layer=name)
        if name == last.layer:
            page.start = len(page.shots) - 1


def _some_layers(board: Board, last: str) -> list[str]:
    """Return layers up to Grad-CAM's default: the last of each resolution, or a few evenly spaced."""
    sizes = {path: shape[1:] for path, shape in board.problem.layers.items()}
    spatial = board.problem.spatial_at(board.problem.version()) or {}
    modules = dict(board.problem.model.named_modules())
    names = [
        path for path in sizes
        # Padding adds no information, and produces sizes that no layer has.
        if (path not in spatial or spatial[path].default) and not _is_padding(modules.get(path))
    ]  # fmt: skip
    names = names[: names.index(last) + 1] if last in names else [*names, last]
    ends = list({sizes.get(path): path for path in names}.values())
    if len(ends) < _LAYERS // 2:
        ends = [names[round(k)] for k in np.linspace(0, len(names) - 1, min(_LAYERS, len(names)))]
    return sorted(dict.fromkeys([*ends[-_LAYERS:], last]), key=names.index)


def _is_padding(module: Any) -> bool:
    return type(module).__module__ == "torch.nn.modules.padding"
