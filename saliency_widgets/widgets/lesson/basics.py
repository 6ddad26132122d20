"""From an image to its saliency map, step by step."""

from __future__ import annotations

import torch

from saliency_widgets import render
from saliency_widgets.attribution import Reduction
from saliency_widgets.attribution.reduction import CHANNEL, SIGN
from saliency_widgets.session import Frame, frame_of
from saliency_widgets.widgets.lesson.board import Board, number, percent
from saliency_widgets.widgets.lesson.page import Page, step

_BARS = 5
_WHOLE = (0.0, 100.0)
_UPPER = (100.0, 99.9, 99.5, 99.0, 98.0, 95.0, 90.0)
_USUAL = 99.0
_OPACITIES = tuple(k / 10 for k in range(11))
_SIGNS = {"absolute": "size", "positive": "what raises the score", "negative": "what lowers it", "squared": "square"}


def image(board: Board, page: Page, caption: str = "The image") -> dict:
    """What the model sees, as a panel."""
    return page.image("input", caption, lambda: board.image)


def strength(board: Board, page: Page, caption: str = "Gradient, strongest channel", **look: object) -> dict:
    """The gradient as the explorer shows it, as a panel."""
    return page.map("gradient max", caption, lambda: board.strength(board.gradient), **look)  # type: ignore[arg-type]


def the_channel(board: Board) -> int:
    """The channel that the next steps look at: the one whose gradients are largest in sum."""
    return int(board.gradient.values[0].abs().flatten(1).sum(1).argmax())


@step(
    "Input",
    "This is the image as the model sees it: cropped, resized and scaled, if there is a transform.",
    "All maps that follow are about these pixels, and about nothing else.",
    control="Hold to see the original",
    place="sw-hold",
)
def input_(board: Board, page: Page) -> None:
    """The image."""
    seen = board.problem.tensor[0]
    channels, height, width = seen.shape
    said = (
        f"{height} × {width} pixels with {channels} value{'s' * (channels != 1)} each. The model sees numbers from "
        f"{number(float(seen.min()))} to {number(float(seen.max()))}."
    )
    page.shot("", image(board, page, "What the model sees"), said=said)


@step(
    "Prediction",
    "The model turns the image into a score for each class, and the scores into probabilities.",
    "From here on one number is explained: the score of the marked class.",
    control="Target",
    place="sw-control-target",
)
def prediction(board: Board, page: Page) -> None:
    """The most probable classes, and the target."""
    shares = board.probable()
    panels, said = [image(board, page)], f"The {board.score_name} is {number(board.scored)}."
    if shares is not None:
        top = [int(k) for k in torch.topk(shares, min(_BARS, len(shares))).indices]
        shown = top if board.target in top or not isinstance(board.target, int) else [*top[:-1], board.target]
        marked = shown.index(board.target) if board.target in shown else -1
        bars = [(board.name_of(k), float(shares[k])) for k in shown]
        panels.append(page.bars("Probability", bars, marked))
        if isinstance(board.target, int):
            said += f" Its probability is {percent(float(shares[board.target]))}."
    page.shot("", *panels, said=said)


@step(
    "Gradient",
    "Backpropagation tells how fast the score changes with each value of each pixel, here and now.",
    "Red: a larger value raises the score. Blue: a larger value lowers it.",
    control="Sign",
    place="sw-control-sign",
    settings={"method": "gradient", "sign": "signed"},
)
def gradient(board: Board, page: Page) -> None:
    """The signed gradient of each channel."""
    page.asks("Channel", start=the_channel(board))
    for which, name in enumerate(board.channels):
        values = board.gradient.values[0, which]
        said = (
            f"From {number(float(values.min()))} to {number(float(values.max()))}. "
            f"{percent(float((values > 0).double().mean()))} of the pixels raise the score, "
            f"{percent(float((values < 0).double().mean()))} lower it."
        )
        page.shot(name, image(board, page), _signed(board, page, which), said=said)


def _signed(board: Board, page: Page, which: int) -> dict:
    caption = f"Gradient, {board.channels[which].lower()}"
    return page.map(f"gradient signed {which}", caption, lambda: board.channel(which, "signed"))


@step(
    "Absolute",
    "How much a value matters is the size of its gradient, whether it raises the score or lowers it.",
    "So the sign is dropped; other choices keep one side only, or square the numbers.",
    control="Sign",
    place="sw-control-sign",
    settings={"method": "gradient"},
)
def absolute(board: Board, page: Page) -> None:
    """One channel with each of the signs."""
    which = the_channel(board)
    page.asks(SIGN.title)
    for sign, told in _SIGNS.items():
        name = f"gradient {sign} {which}"
        found = page.map(name, f"{told.capitalize()}", lambda sign=sign: board.channel(which, sign))
        frame = board.channel(which, sign)
        said = f"The {board.channels[which].lower()} channel. Black is 0, the largest is {number(frame.high)}."
        page.shot(sign, _signed(board, page, which), found, said=said, sign=sign)


@step(
    "Channels",
    "A pixel has one gradient for each color channel, but a map shows one number for each pixel.",
    "The largest of them is the usual choice; the mean, the sum and the L2 norm are others.",
    control="Channels",
    place="sw-control-channels",
    settings={"method": "gradient", "sign": "absolute"},
)
def channels(board: Board, page: Page) -> None:
    """The channels beside what becomes of them."""
    page.asks(CHANNEL.title)
    most = [
        page.map(f"gradient absolute {k}", name, lambda k=k: board.channel(k, "absolute"))
        for k, name in enumerate(board.channels[:3])
    ]
    for rule in CHANNEL.options():
        frame = _reduced(board, rule)
        found = page.map(f"gradient {rule}", f"Together: {rule}", lambda frame=frame: frame)
        said = f"{len(board.channels)} maps become one. The largest number in it is {number(frame.high)}."
        page.shot(rule, *most, found, said=said, channels=rule)


def _reduced(board: Board, rule: str) -> Frame:
    return frame_of(board.gradient, Reduction(channels=rule))


@step(
    "Normalized",
    "Numbers become colors: the weakest is black, and the strongest is the brightest.",
    "Where a few pixels are far stronger than all others, the scale ends at a percentile instead.",
    control="Clip range",
    place="sw-control-clip",
    settings={"method": "gradient", "sign": "absolute"},
)
def normalized(board: Board, page: Page) -> None:
    """The map under several clip ranges."""
    frame = board.strength(board.gradient)
    page.asks("Brightest at percentile", slider=True, start=_UPPER.index(_USUAL))
    whole = strength(board, page, "Scale up to the largest", clip=_WHOLE)
    for upper in _UPPER:
        limit = render.clip_limits(frame.codes, frame.signed, (0.0, upper))[1]
        value = frame.high * limit / render.LEVELS
        over = float((frame.codes > limit).mean())
        said = f"The brightest color stands for {number(value)}, and {percent(over)} of the pixels are beyond it."
        if over and value:
            said += f" The largest is {frame.high / value:.1f} times as large."
        ends = "the largest" if upper == _UPPER[0] else f"percentile {upper:g}"
        clipped = strength(board, page, f"Scale up to {ends}", clip=(0.0, upper))
        page.shot(f"{upper:g}", whole, clipped, said=said, clip=(0.0, upper))


@step(
    "Overlay",
    "The map is laid over the image, to see what lies where it is strong.",
    "What is strong moves the score most; whether for a good reason, the map does not say.",
    control="Opacity",
    place="sw-control-opacity",
    settings={"method": "gradient", "sign": "absolute"},
)
def overlay(board: Board, page: Page) -> None:
    """The map over the image, with several opacities."""
    frame = board.strength(board.gradient)
    codes = frame.codes.astype(float).ravel()
    codes.sort()
    top = float(codes[-max(1, len(codes) // 10) :].sum() / (codes.sum() or 1.0))
    said = f"The strongest tenth of the pixels holds {percent(top)} of the sum of the map."
    page.asks("Opacity", slider=True, start=_OPACITIES.index(0.7))
    under = image(board, page)
    for opacity in _OPACITIES:
        laid = strength(board, page, "Map over the image", over=under["image"], opacity=opacity)
        page.shot(f"{opacity:.0%}", under, laid, said=said, opacity=opacity)
