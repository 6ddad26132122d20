"""The lessons by kind of input: their steps, and the board that computes them."""

from __future__ import annotations

from dataclasses import replace

from saliency_widgets.session import Problem
from saliency_widgets.widgets.lesson import basics, methods, texts
from saliency_widgets.widgets.lesson.board import Board
from saliency_widgets.widgets.lesson.step import Step
from saliency_widgets.widgets.lesson.text_board import TextBoard

STEPS: dict[str, Step] = {
    entry.name: entry
    for entry in (
        replace(basics.input_, name="input"),
        basics.prediction,
        basics.gradient,
        basics.absolute,
        basics.channels,
        basics.normalized,
        basics.overlay,
        methods.noise,
        methods.smoothing,
        replace(methods.saturated, name="saturation"),
        methods.path,
        replace(methods.guided, name="guided_backprop"),
        replace(methods.layers, name="grad_cam"),
    )
}
"""The steps for an image by name, in order."""

_LESSONS = {"image": (Board, STEPS), "text": (TextBoard, texts.STEPS)}


def lesson_for(problem: Problem) -> tuple[type[Board], dict[str, Step]]:
    """Return the board and all steps for a kind of input.

    Raises:
        ValueError: There is no lesson for it.
    """
    kind = problem.kind
    if kind.name not in _LESSONS:
        noun, shape = kind.noun, tuple(problem.tensor.shape)
        article = "an" if noun[0] in "aeiou" else "a"
        raise ValueError(
            f"inputs: a lesson requires an image, or a text with tokenizer=, got {article} {noun} of shape {shape}. "
            f"Use sw.explore."
        )
    return _LESSONS[kind.name]
