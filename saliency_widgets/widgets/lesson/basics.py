"""The first steps of a lesson, from an image to its saliency map."""

from __future__ import annotations

from typing import Any

import torch

from saliency_widgets import render
from saliency_widgets.attribution import Reduction
from saliency_widgets.attribution.reduction import CHANNEL, SIGN
from saliency_widgets.render import Quantized
from saliency_widgets.session import frame_of
from saliency_widgets.widgets.lesson.board import Board
from saliency_widgets.widgets.lesson.page import Page, number, percent
from saliency_widgets.widgets.lesson.step import step

_BARS = 5
_WHOLE = (0.0, 100.0)
_UPPER = (100.0, 99.9, 99.5, 99.0, 98.0, 95.0, 90.0)
_USUAL = 99.0
_OPACITIES = tuple(k / 10 for k in range(11))
_SIGNS = {"absolute": "size", "positive": "what raises the score", "negative": "what lowers it", "squared": "square"}


def image(board: Board, page: Page, caption: str = "") -> dict:
    """Return a panel with the model's input."""
    return board.seen(page, caption or f"The {board.problem.kind.noun}")


def strength(board: Board, page: Page, caption: str = "Gradient, strongest channel", **look: object) -> dict:
    """Return a panel with the gradient as the explorer shows it."""
    shown: dict[str, Any] = {**board.look, **look}
    return page.map("gradient max", caption, lambda: board.strength(board.gradient), **shown)


def the_channel(board: Board) -> int:
    """Return the index of the channel that the steps show: the one with the largest sum of absolute gradients."""
    return int(board.gradient.values[0].abs().flatten(1).sum(1).argmax())


@step(
    "Input",
    "This is the model's input: the image after cropping, resizing and scaling, if there is a transform.",
    "All following maps explain exactly these pixels.",
    control="Hold to see the original",
    control_class="sw-hold",
)
def input_(board: Board, page: Page) -> None:
    """Show the image."""
    seen = board.problem.tensor[0]
    channels, height, width = seen.shape
    text = (
        f"{height} × {width} pixels with {channels} value{'s' * (channels != 1)} each. The model's input ranges from "
        f"{number(float(seen.min()))} to {number(float(seen.max()))}."
    )
    page.shot("", image(board, page, "The model's input"), text=text)


@step(
    "Prediction",
    "The model turns the image into a score for each class, and the scores into probabilities.",
    "From here on we explain one number: the score of the marked class.",
    control="Target",
    control_class="sw-control-target",
)
def prediction(board: Board, page: Page) -> None:
    """Show the most probable classes and the target."""
    shares = board.probable()
    panels, text = [image(board, page)], f"The {board.score_name} is {number(board.scored)}."
    target = board.target_class
    if shares is not None:
        top = [int(k) for k in torch.topk(shares, min(_BARS, len(shares))).indices]
        shown = top if target in top or target is None else [*top[:-1], target]
        marked = shown.index(target) if target in shown else -1
        bars = [(board.name_of(k), float(shares[k])) for k in shown]
        panels.append(page.bars("Probability", bars, marked))
        if target is not None:
            text += f" Its probability is {percent(float(shares[target]))}."
    page.shot("", *panels, text=text)


@step(
    "Gradient",
    "Backpropagation computes how fast the score changes with each value of each pixel, for this image.",
    "Red: a larger value raises the score. Blue: a larger value lowers it.",
    control="Sign",
    control_class="sw-control-sign",
    settings={"method": "gradient", "sign": "signed"},
)
def gradient(board: Board, page: Page) -> None:
    """Show the signed gradient of each channel."""
    page.set_control("Channel", start=the_channel(board))
    for which, name in enumerate(board.channels):
        values = board.gradient.values[0, which]
        text = (
            f"From {number(float(values.min()))} to {number(float(values.max()))}. "
            f"{percent(float((values > 0).double().mean()))} of the pixels raise the score, "
            f"{percent(float((values < 0).double().mean()))} lower it."
        )
        page.shot(name, image(board, page), _signed(board, page, which), text=text)


def _signed(board: Board, page: Page, which: int) -> dict:
    caption = f"Gradient, {board.channels[which].lower()}"
    return page.map(f"gradient signed {which}", caption, lambda: board.channel(which, "signed"))


@step(
    "Absolute",
    "The size of a gradient shows how much a value matters, whether it raises or lowers the score.",
    "So the sign is dropped; other options keep only one sign, or square the values.",
    control="Sign",
    control_class="sw-control-sign",
    settings={"method": "gradient"},
)
def absolute(board: Board, page: Page) -> None:
    """Show one channel with each option for the sign."""
    which = the_channel(board)
    page.set_control(SIGN.title)
    for sign, title in _SIGNS.items():
        name = f"gradient {sign} {which}"
        panel = page.map(name, title.capitalize(), lambda sign=sign: board.channel(which, sign))
        frame = board.channel(which, sign)
        text = f"The {board.channels[which].lower()} channel. Black is 0, the largest is {number(frame.high)}."
        page.shot(sign, _signed(board, page, which), panel, text=text, sign=sign)


@step(
    "Channels",
    "A pixel has one gradient per color channel, but a map shows one number per pixel.",
    "The largest of them is the usual choice; the mean, the sum and the L2 norm are alternatives.",
    control="Channels",
    control_class="sw-control-channels",
    settings={"method": "gradient", "sign": "absolute"},
)
def channels(board: Board, page: Page) -> None:
    """Show the channels and their reductions."""
    page.set_control(CHANNEL.title)
    panels = [
        page.map(f"gradient absolute {k}", name, lambda k=k: board.channel(k, "absolute"))
        for k, name in enumerate(board.channels[:3])
    ]
    for rule in CHANNEL.options():
        frame = _reduced(board, rule)
        panel = page.map(f"gradient {rule}", f"Together: {rule}", lambda frame=frame: frame)
        text = f"{len(board.channels)} maps become one. Its largest value is {number(frame.high)}."
        page.shot(rule, *panels, panel, text=text, channels=rule)


def _reduced(board: Board, rule: str) -> Quantized:
    return frame_of(board.gradient, Reduction(channels=rule))


@step(
    "Normalized",
    "Numbers become colors: the weakest is black, and the strongest is the brightest.",
    "If a few pixels are much stronger than all others, the scale ends at a percentile instead.",
    control="Clip range",
    control_class="sw-control-clip",
    settings={"method": "gradient", "sign": "absolute"},
)
def normalized(board: Board, page: Page) -> None:
    """Show the map with several clip ranges."""
    frame = board.strength(board.gradient)
    page.set_control("Brightest at percentile", slider=True, start=_UPPER.index(_USUAL))
    whole = strength(board, page, "Scale up to the largest", clip=_WHOLE)
    for upper in _UPPER:
        limit = render.clip_limits(frame.codes, frame.signed, (0.0, upper))[1]
        value = frame.high * limit / render.LEVELS
        over = float((frame.codes > limit).mean())
        text = f"The brightest color stands for {number(value)}, and {percent(over)} of the pixels are beyond it."
        if over and value:
            text += f" The largest is {frame.high / value:.1f} times as large."
        ends = "the largest" if upper == _UPPER[0] else f"percentile {upper:g}"
        clipped = strength(board, page, f"Scale up to {ends}", clip=(0.0, upper))
        page.shot(f"{upper:g}", whole, clipped, text=text, clip=(0.0, upper))


@step(
    "Overlay",
    "The map is drawn over the image, to see what is in its strong regions.",
    "Strong pixels affect the score most; the map does not show whether for a good reason.",
    control="Opacity",
    control_class="sw-control-opacity",
    settings={"method": "gradient", "sign": "absolute"},
)
def overlay(board: Board, page: Page) -> None:
    """Show the map over the image with several opacities."""
    frame = board.strength(board.gradient)
    codes = frame.codes.astype(float).ravel()
    codes.sort()
    top = float(codes[-max(1, len(codes) // 10) :].sum() / (codes.sum() or 1.0))
    text = f"The strongest tenth of the pixels holds {percent(top)} of the sum of the map."
    page.set_control("Opacity", slider=True, start=_OPACITIES.index(0.7))
    under = image(board, page)
    for opacity in _OPACITIES:
        laid = strength(board, page, "Map over the image", over=under["image"], opacity=opacity)
        page.shot(f"{opacity:.0%}", under, laid, text=text, opacity=opacity)
