"""The steps of a lesson on a text: its tokens, their embeddings and gradients, one number per token, and colors."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from saliency_widgets import render
from saliency_widgets.attribution import Attribution
from saliency_widgets.attribution.methods.smoothgrad import NOISE_LEVEL, noisy
from saliency_widgets.evaluation.similarity import spearman
from saliency_widgets.render import Quantized
from saliency_widgets.widgets.lesson import basics, methods
from saliency_widgets.widgets.lesson.page import Page, number, percent, two_decimals
from saliency_widgets.widgets.lesson.step import Step, step
from saliency_widgets.widgets.lesson.text_board import TextBoard, strongest

NOISES = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0)
_UPPER = (100.0, 99.0, 95.0, 90.0, 80.0, 70.0, 60.0, 50.0)
_USUAL = 99.0
_BARS = 10
_LISTED = 3  # words in a sentence
_SUM = {"sign": "signed", "channels": "sum"}
_NORM = {"sign": "absolute", "channels": "L2"}


def _range(values: Tensor) -> str:
    return f"from {number(float(values.min()))} to {number(float(values.max()))}"


@step(
    "Tokens",
    "The tokenizer cuts the text into tokens, words or parts of words, and each token has an id.",
    "The model reads these numbers: it never sees a letter.",
    control="The text",
    control_class="sw-tokens",
)
def tokens(board: TextBoard, page: Page) -> None:
    """Show the tokens with their ids."""
    cut, size = board.kind.tokens, board.kind.table.size
    text = f"{_counted(len(cut.pieces[0]), 'token')}."
    if size is not None:
        text += f" The vocabulary has {size:,} tokens, with ids from 0 to {size - 1:,}."
    page.shot("", page.tokens("The tokens and their ids"), text=text + _of_words(board) + _of_special(board))


def _of_words(board: TextBoard) -> str:
    """Return a sentence about words of several tokens."""
    cut = board.kind.tokens
    if cut.words is None:
        return ""
    placed = groupby(zip(cut.words[0], cut.pieces[0], strict=True), key=lambda item: item[0])
    words = [[piece for _, piece in group] for word, group in placed if word >= 0]
    several = [f"“{''.join(word)}” is cut into {_listed(word)}" for word in words if len(word) > 1]
    return f" {'; '.join(several[:_LISTED])}." if several else ""


def _of_special(board: TextBoard) -> str:
    """Return sentences about special and unknown tokens."""
    cut, scene = board.kind.tokens, board.scene
    unknown = [piece for piece, out in zip(cut.pieces[0], scene["unknown"], strict=True) if out]
    special = [
        piece
        for piece, added, out in zip(cut.pieces[0], scene["special"], scene["unknown"], strict=True)
        if added and not out
    ]
    text = ""
    if special:
        one = len({*special}) == 1
        text += f" {_listed(special)} {'is a special token' if one else 'are special tokens'}."
    if unknown:
        text += f" The tokenizer doesn't know {_listed(unknown)} (id {cut.vocabulary['unknown']})."
    return text


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _listed(pieces: list[str]) -> str:
    names = [f"“{piece}”" for piece in dict.fromkeys(pieces)]
    more = len(names) - _LISTED - 1
    if more > 0:
        names = [*names[: _LISTED + 1], f"{more} more"]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


@step(
    "Embedding",
    "The model looks up the id in a table: each token becomes a vector of numbers, its embedding.",
    "An id only names a row, so a score has no gradient by it; it has one by each number of the vector.",
    control="The text",
    control_class="sw-tokens",
)
def embedding(board: TextBoard, page: Page) -> None:
    """Show the embeddings of some tokens, and that of one."""
    size = board.kind.table.size
    table = "the table" if size is None else f"the table's {size:,} rows"
    for token, name in board.each_of_few(page):
        vector, index = board.vectors[token], int(board.kind.tokens.ids[0, token])
        text = (
            f"“{name}” has the id {index}. Row {index} of {table} is its vector: {len(vector)} numbers, "
            f"{_range(vector)}. Shown are {board.shown_numbers}{_why(board)}."
        )
        page.shot(
            name,
            board.strip(page, "embedding", "Embeddings", board.vectors, token),
            board.vector(page, f"Embedding of “{name}”", vector),
            text=text,
        )


def _why(board: TextBoard) -> str:
    return "" if len(board.chosen) == board.vectors.shape[1] else ", those that the score depends on most"


@step(
    "Gradient",
    "Backpropagation computes how fast the score changes with each number of each vector, for this text.",
    "Red: a larger number raises the score. Blue: a larger number lowers it.",
    control="Method",
    control_class="sw-control-method",
    settings={"method": "gradient", **_NORM},
)
def gradient(board: TextBoard, page: Page) -> None:
    """Show the gradient by the embeddings of some tokens, and by that of one."""
    count, size = board.slopes.shape
    for token, name in board.each_of_few(page):
        values = board.slopes[token]
        text = (
            f"The gradient has the shape of the embeddings: {count} × {size} numbers. Those of “{name}” range "
            f"{_range(values)}; {percent(float((values > 0).double().mean()))} are above 0."
        )
        page.shot(
            name,
            board.strip(page, "gradient", "Gradient", board.slopes, token),
            board.vector(page, f"Gradient by “{name}”", values),
            text=text,
        )


@step(
    "Sum",
    "Gradient × embedding, summed over a vector, is one number with a sign per token; the gradient's norm has none.",
    "The sums need not add up to the score; those of Integrated Gradients add up to its change from the baseline.",
    control="Embedding",
    control_class="sw-control-channels",
    settings={"method": "input_x_gradient", **_SUM},
)
def sum_(board: TextBoard, page: Page) -> None:
    """Show the products of one token, and for each token their sum and the norm of the gradient."""
    sums, norms = board.sums, board.map_of(board.gradient)[0]
    rows = strongest(sums.abs(), _BARS)
    rows = rows if set(board.few) <= set(rows) else sorted({*rows, *board.few})
    which = "each token" if len(rows) == len(sums) else f"the {len(rows)} strongest tokens"
    for token, name in board.each_of_few(page):
        row = rows.index(token)
        text = (
            f"The {board.slopes.shape[1]} products of “{name}” add up to {number(float(sums[token]))}; the norm of its "
            f"gradient is {number(float(norms[token]))}. All sums together are {number(float(sums.double().sum()))}, "
            f"the {board.scale} is {number(board.scored)}."
        )
        page.shot(
            name,
            board.vector(page, f"Gradient × embedding of “{name}”", board.product.values[0][token]),
            page.values(f"Sum of {which}", [(board.piece(k), float(sums[k])) for k in rows], row),
            page.values("Norm of the gradient", [(board.piece(k), float(norms[k])) for k in rows], row),
            text=text,
        )


def _colored(board: TextBoard, page: Page, name: str, caption: str, attribution: Attribution, **look: Any) -> dict:
    def make() -> Quantized:
        return board.strength(attribution)

    return page.map(name, caption, make, **board.look, **look)


@step(
    "Color",
    "The numbers become colors: red for tokens that raise the score, blue for those that lower it.",
    "If one token is much stronger than all others, the scale ends at a percentile instead of the largest.",
    control="Clip range",
    control_class="sw-control-clip",
    settings={"method": "input_x_gradient", **_SUM},
)
def color(board: TextBoard, page: Page) -> None:
    """Show the colored text with several clip ranges."""
    page.set_control("Brightest at percentile", slider=True, start=_UPPER.index(_USUAL))
    frame = board.strength(board.product)
    sums = board.sums
    tops = ", ".join(f"“{board.piece(k)}” {number(float(sums[k]))}" for k in board.few)
    for upper in _UPPER:
        limit = render.clip_limits(frame.codes, frame.signed, (0.0, upper))[1]
        value = frame.high * limit / render.ZERO
        over = int((abs(frame.codes.astype(int) - render.ZERO) > limit).sum())
        stronger = f"{_counted(over, 'token')} of {len(sums)} {'is' if over == 1 else 'are'}" if over else "no token is"
        text = f"The deepest colors stand for {number(value)} and {number(-value)}; {stronger} stronger. {tops}."
        panel = _colored(board, page, "product", "Gradient × embedding, summed", board.product, clip=(0.0, upper))
        page.shot(f"{upper:g}", panel, text=text, clip=(0.0, upper))


@step(
    "Noise",
    "Noise is added to each number of each embedding, and the gradient is computed again.",
    "Compare how much the vectors have changed with how much the map has changed.",
    control=NOISE_LEVEL.title,
    control_class="sw-control-noise_level",
    settings={"method": "smoothgrad", "n_samples": 1, **_NORM},
)
def noise(board: TextBoard, page: Page) -> None:
    """Show the norms of gradients with increasing noise, computed as SmoothGrad with one sample."""
    page.set_control(NOISE_LEVEL.title, slider=True, start=2)
    clean, runner = board.map_of(board.gradient), board.runner()
    for level in NOISES:
        attribution = board.attribution("smoothgrad", noise_level=level, n_samples=1, seed=board.seed)
        moved = noisy(runner, level, board.seed, range(1))[0, 0]
        likeness = float(F.cosine_similarity(moved.double(), board.vectors.double(), dim=-1).mean())
        text = (
            f"The noise is {percent(level)} of each number's spread over the vocabulary. The embeddings keep a cosine "
            f"similarity of {likeness:.2f}. "
            f"Rank correlation of the maps: {two_decimals(spearman(clean, board.map_of(attribution)))}."
        )
        page.shot(
            f"{level:.0%}",
            basics.strength(board, page, "Norm of the gradient without noise"),
            _colored(board, page, f"noise {level:g}", "With noise", attribution),
            text=text,
            noise_level=level,
        )


STEPS: dict[str, Step] = {
    entry.name: entry
    for entry in (
        tokens,
        replace(
            basics.prediction,
            says=(
                "The model turns the tokens into a score for each class, and the scores into probabilities.",
                basics.prediction.says[1],
            ),
        ),
        embedding,
        gradient,
        replace(sum_, name="sum"),
        color,
        noise,
        replace(methods.smoothing, settings={"method": "smoothgrad", **_NORM}),
        replace(
            methods.saturated,
            name="saturation",
            says=(
                "On the path from the baseline's embeddings to the text's, the score may saturate long before the end.",
                methods.saturated.says[1],
            ),
        ),
        replace(
            methods.path,
            says=(
                "Integrated Gradients adds up the gradients along the path, weighted by how far each number has to go.",
                methods.path.says[1],
            ),
            settings={"method": "integrated_gradients", **_SUM},
        ),
    )
}
"""The steps for a text by name, in order."""
