"""The lesson on a text: its numbers equal closed forms and autograd's, and its colors are those of sw.attribute."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import BertTokenizerFast, GPT2Config, GPT2LMHeadModel

import saliency_widgets as sw
from saliency_widgets import render
from saliency_widgets.widgets.lesson import Lesson, methods, texts

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "##s", "sat", "on", "mat", "good", "bad", ","]
TOKENIZER = BertTokenizerFast(vocab={word: index for index, word in enumerate(WORDS)})
TEXT = "the cats sat, on a good mat"
PIECES = ["[CLS]", "the", "cat", "s", "sat", ",", "on", "a", "good", "mat", "[SEP]"]
IDS = [2, 5, 6, 7, 8, 13, 9, 1, 11, 10, 3]
FOLLOWED = ["the", "cat", "s", "sat", "on", "good", "mat"]  # neither special, as an unknown token is, nor a comma
NAMES = ["ant", "bee", "cow"]
T, E = len(IDS), 5


class Bag(nn.Module):
    """The mean of embeddings and a linear layer, with a function of each number between them."""

    def __init__(self, between: Any = lambda embedded: embedded, size: int = E) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.head, self.between = nn.Embedding(len(WORDS), size), nn.Linear(size, 3), between
        self.double().eval()

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.score(self.embedding(input_ids))

    def score(self, embedded: Tensor) -> Tensor:
        return self.head(self.between(embedded).mean(1))


def made(model: nn.Module, text: Any = TEXT, **arguments: Any) -> Lesson:
    return sw.lesson(model, text, **{"tokenizer": TOKENIZER, "n_samples": 4, **arguments}).wait(timeout=120)


@pytest.fixture(scope="module")
def bag() -> Bag:
    return Bag()


@pytest.fixture(scope="module")
def lesson(bag: Bag) -> Iterator[Lesson]:
    result = made(bag, target="bee", class_names=NAMES)
    yield result
    result.close()


def shots(lesson: Lesson, step: str) -> list[dict[str, Any]]:
    content = lesson.view.content(step)
    assert content["state"] == "ready", content
    return content["shots"]


def shot(lesson: Lesson, step: str, label: str) -> dict[str, Any]:
    (result,) = [one for one in shots(lesson, step) if one["label"] == label]
    return result


def values(lesson: Lesson, name: str) -> np.ndarray:
    (raw,) = [maps[name] for step in lesson.steps if name in (maps := lesson.view.content(step).get("maps", {}))]
    codes = np.frombuffer(raw["codes"], "<u2").reshape(raw["height"], raw["width"])
    return render.dequantize(render.Quantized(codes, raw["low"], raw["high"], raw["signed"]))


def assert_map(shown: np.ndarray, expected: Tensor) -> None:
    """Assert that a map equals the expected values, to half a level of its 16 bits."""
    assert np.abs(shown - expected.detach().numpy()).max() <= float(expected.abs().max()) / 65000


def test_it_has_its_steps_each_with_two_sentences_and_a_control(lesson: Lesson) -> None:
    assert lesson.steps == tuple(texts.STEPS)
    assert lesson.steps[:6] == ("tokens", "prediction", "embedding", "gradient", "sum", "color")
    for step in lesson.view.steps:
        assert len(step["text"]) == 2
        assert all(sentence.endswith((".", "?")) for sentence in step["text"])
        assert not any("image" in sentence or "pixel" in sentence for sentence in step["text"])
        assert step["control"]
        assert step["control_class"].startswith("sw-")
    assert lesson.view.title == "Bag · bee"


def test_the_tokens_have_their_ids_and_special_and_unknown_ones_are_named(lesson: Lesson) -> None:
    scene = lesson.view.scene
    assert (scene["pieces"], scene["ids"]) == (PIECES, IDS)
    assert [piece for piece, out in zip(PIECES, scene["unknown"], strict=True) if out] == ["a"]
    (only,) = shots(lesson, "tokens")
    assert only["panels"] == [{"caption": "The tokens and their ids", "scene": True}]
    assert "11 tokens" in only["text"]
    assert "ids from 0 to 13" in only["text"]
    assert "“cats” is cut into “cat” and “s”" in only["text"]
    assert "“[CLS]” and “[SEP]” are special tokens" in only["text"]
    assert "doesn't know “a” (id 1)" in only["text"]


def test_the_prediction_equals_the_models(lesson: Lesson, bag: Bag) -> None:
    shares = bag(torch.tensor([IDS]))[0].softmax(0)
    bars = shots(lesson, "prediction")[0]["panels"][1]
    shown = {bar["label"]: bar["share"] for bar in bars["bars"]}
    assert shown == pytest.approx(dict(zip(NAMES, shares.tolist(), strict=True)), rel=1e-9)
    assert bars["bars"][bars["chosen"]]["label"] == "bee"


def test_embeddings_gradients_and_sums_of_a_linear_bag_have_a_closed_form(lesson: Lesson, bag: Bag) -> None:
    table, slope = bag.embedding.weight.detach(), bag.head.weight[1].detach() / T
    sums = {piece: float(table[index] @ slope) for piece, index in zip(PIECES, IDS, strict=True)}
    few = sorted(sorted(FOLLOWED, key=lambda piece: -abs(sums[piece]))[:5], key=PIECES.index)
    rows = [IDS[PIECES.index(piece)] for piece in few]
    for step, expected in (("embedding", table[rows]), ("gradient", slope.expand(5, E))):
        assert [one["label"] for one in shots(lesson, step)] == few
        assert_map(values(lesson, step), expected)
        for row, one in enumerate(shots(lesson, step)):
            strip, chart = one["panels"]
            assert strip["rows"] == few
            assert strip["chosen"] == row
            assert chart["vector"]["values"] == pytest.approx(expected[row].tolist(), rel=1e-12)
            assert chart["vector"]["names"] == strip["columns"] == [f"number {k + 1}" for k in range(E)]
    assert [one["label"] for one in shots(lesson, "sum")] == few
    for one in shots(lesson, "sum"):
        product, signed, norm = one["panels"]
        index = IDS[PIECES.index(one["label"])]
        assert product["vector"]["values"] == pytest.approx((table[index] * slope).tolist(), rel=1e-12)
        assert signed["bars"][signed["chosen"]]["label"] == norm["bars"][norm["chosen"]]["label"] == one["label"]
        largest = max(abs(sums[bar["label"]]) for bar in signed["bars"])
        for bar in signed["bars"]:
            assert bar["share"] == pytest.approx(sums[bar["label"]] / largest, rel=1e-9)
        assert [bar["share"] for bar in norm["bars"]] == pytest.approx([1.0] * len(norm["bars"]))
        assert f"add up to {texts.number(sums[one['label']])}; the norm of its gradient is" in one["text"]
        assert f"All sums together are {texts.number(sum(sums.values()))}" in one["text"]


def test_the_lesson_starts_with_the_strongest_token_in_each_step(lesson: Lesson, bag: Bag) -> None:
    table, slope = bag.embedding.weight.detach(), bag.head.weight[1].detach()
    strongest = max(FOLLOWED, key=lambda p: abs(float(table[IDS[PIECES.index(p)]] @ slope)))
    for step in ("embedding", "gradient", "sum"):
        content = lesson.view.content(step)
        assert content["label"] == "Token"
        assert content["shots"][content["start"]]["label"] == strongest


def test_the_gradient_of_a_curved_model_equals_autograds() -> None:
    model = Bag(lambda embedded: (embedded * embedded.cumsum(1)).tanh(), size=40)
    result = made(model, target=2)
    embedded = model.embedding(torch.tensor([IDS])).detach().requires_grad_()
    (slopes,) = torch.autograd.grad(model.score(embedded)[0, 2], embedded)
    product = (slopes * embedded).detach()[0]
    for step, expected in (("embedding", embedded.detach()[0]), ("gradient", slopes[0]), ("sum", product)):
        for one in shots(result, step):
            vector = next(panel["vector"] for panel in one["panels"] if "vector" in panel)
            columns = [int(name.removeprefix("number ")) - 1 for name in vector["names"]]
            assert len(columns) == 16
            token = PIECES.index(one["label"])
            assert vector["values"] == pytest.approx(expected[token, columns].tolist(), rel=1e-9)
    few = [PIECES.index(one["label"]) for one in shots(result, "sum")]
    sizes = product[few].abs().sum(0)
    assert float(sizes[columns].min()) >= float(sizes.sort(descending=True).values[15])
    norms = slopes[0].norm(dim=1)
    bars = shots(result, "sum")[0]["panels"][2]["bars"]
    most = max(float(norms[PIECES.index(bar["label"])]) for bar in bars)
    for bar in bars:
        assert bar["share"] == pytest.approx(float(norms[PIECES.index(bar["label"])]) / most, rel=1e-9)
    result.close()


def test_the_colors_are_those_of_attribute(lesson: Lesson, bag: Bag) -> None:
    expected = sw.attribute(bag, TEXT, tokenizer=TOKENIZER, target=1, method="input_x_gradient").values.sum(-1)
    for one in shots(lesson, "color"):
        (panel,) = one["panels"]
        assert panel["scene"]
        assert panel["display"]["clip"] == [0.0, float(one["label"])]
        assert_map(values(lesson, panel["map"]), expected)
    whole = float(expected.abs().max())
    ends = f"stand for {texts.number(whole)} and {texts.number(-whole)}; no token is stronger"
    assert ends in shots(lesson, "color")[0]["text"]
    median = shot(lesson, "color", "50")["text"]
    assert re.search(r"; 5 tokens of 11 are stronger", median), median


def test_noise_and_smoothing_equal_smoothgrad() -> None:
    model = Bag(lambda embedded: (embedded * embedded.cumsum(1)).tanh())
    result = made(model, target=0, steps=["noise", "smoothing"])
    options = {"tokenizer": TOKENIZER, "target": 0, "method": "smoothgrad"}
    for level, one in zip(texts.NOISES, shots(result, "noise"), strict=True):
        expected = sw.attribute(model, TEXT, noise_level=level, n_samples=1, **options).values.norm(dim=-1)
        assert_map(values(result, one["panels"][1]["map"]), expected)
    expected = sw.attribute(model, TEXT, n_samples=4, chunk_size=1, **options).values.norm(dim=-1)
    assert_map(values(result, shots(result, "smoothing")[-1]["panels"][1]["map"]), expected)
    result.close()


def test_on_a_linear_bag_the_path_is_exact_and_its_sums_add_up_to_the_change_of_the_score(
    lesson: Lesson, bag: Bag
) -> None:
    table, slope = bag.embedding.weight.detach(), bag.head.weight[1].detach() / T
    special = torch.tensor(lesson.view.scene["special"])  # the baseline keeps them
    start = torch.where(special[:, None], table[IDS], table[0])
    whole = (table[IDS] - start) @ slope  # the scale of all maps
    for at, one in enumerate(shots(lesson, "path")):
        colored, curve = one["panels"]
        assert colored["scene"]
        assert colored["scale"] == f"path {methods.SEGMENTS}"
        expected = whole * at / methods.SEGMENTS
        assert np.abs(values(lesson, colored["map"])[0] - expected.numpy()).max() < float(whole.abs().max()) / 65000
        assert curve["curve"]["across"] == "0: baseline, 1: text"
    first, last = (float(bag.score(rows[None])[0, 1]) for rows in (start, table[IDS]))
    curve = shots(lesson, "saturation")[0]["panels"][0]["curve"]
    assert (curve["y"][0], curve["y"][-1]) == pytest.approx((first, last), rel=1e-9)


def test_a_language_model_explains_its_default_position_and_the_title_names_the_target() -> None:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(WORDS), n_embd=16, n_layer=1, n_head=2, n_positions=24)).double()
    model.eval()
    logits = model(**TOKENIZER(TEXT, return_tensors="pt")).logits[0]
    result = made(model, steps=["prediction", "color"])
    top = WORDS[int(logits[-1].argmax())]
    assert result.view.title == f"GPT2LMHeadModel · “{top}” after “[SEP]”"
    shares = logits[-1].softmax(0)
    shown = [bar["share"] for bar in shots(result, "prediction")[0]["panels"][1]["bars"]]
    assert shown == pytest.approx(shares.sort(descending=True).values[:5].tolist(), rel=1e-9)
    result.close()
    result = made(model, target=(4, "mat"))
    assert result.view.title == "GPT2LMHeadModel · “mat” after “sat”"
    bars = shots(result, "prediction")[0]["panels"][1]
    assert bars["bars"][bars["chosen"]]["label"] == "mat"
    assert bars["bars"][bars["chosen"]]["share"] == pytest.approx(float(logits[4].softmax(0)[10]), rel=1e-9)
    colored = values(result, "product")[0]
    assert np.all(colored[5:] == 0), "what follows can't change the score"
    assert colored[:5].any()
    assert result.view.scene["explained"] == 5
    result.close()


def test_a_text_of_one_token_and_a_custom_target(bag: Bag) -> None:
    result = made(bag, [6], target=lambda output: output[:, 0] - output[:, 1])
    assert result.view.title == "Bag · a custom target"
    assert "1 token." in shots(result, "tokens")[0]["text"]
    assert [one["label"] for one in shots(result, "sum")] == ["cat"]
    result.close()


def test_equal_tokens_are_told_apart_and_long_texts_show_the_strongest(bag: Bag) -> None:
    result = made(bag, "cat sat " * 100, steps=["embedding", "sum"])
    labels = [one["label"] for one in shots(result, "sum")]
    assert len({*labels}) == len(labels) == 5
    assert all(re.fullmatch(r"(cat|sat) \(\d+\)", label) for label in labels)
    assert len(shots(result, "sum")[0]["panels"][1]["bars"]) <= 15
    result.close()


def test_try_it_opens_an_explorer_of_the_text_with_the_settings_of_the_step(lesson: Lesson) -> None:
    lesson.view._on_message(lesson.view, {"type": "try", "step": "color", "shot": 3}, [])
    assert lesson.view.status["message"] == ""
    explorer = lesson.explorer
    assert explorer is not None
    assert explorer.kind == "text"
    assert explorer.settings["method"] == "input_x_gradient"
    assert (explorer.controls["sign"], explorer.controls["channels"]) == ("signed", "sum")
    assert explorer.controls["clip"] == (0.0, 90.0)
    lesson.view._on_message(lesson.view, {"type": "try", "step": "gradient", "shot": 0}, [])
    assert lesson.explorer is explorer
    assert (explorer.controls["sign"], explorer.controls["channels"]) == ("absolute", "L2")


def test_each_step_has_a_static_output_and_the_page_has_all_of_them(lesson: Lesson, tmp_path: Any) -> None:
    for name in lesson.steps:
        lesson.step = name
        snapshot = lesson._snapshot()
        assert " ".join(PIECES) in snapshot.lines
        if name == "tokens":
            assert snapshot.draw is None
        else:
            assert snapshot.draw is not None
            assert min(snapshot.draw(1.0).size) > 20
    lesson.step = "tokens"
    saved = lesson.save_html(tmp_path / "lesson.html")
    assert saved.maps == sum(len(lesson.view.content(name).get("maps", {})) for name in lesson.steps)


@pytest.mark.parametrize(
    ("text", "arguments", "error", "message"),
    [
        (TEXT, {"steps": ["overlay"]}, ValueError, r"'overlay' is not known\. .*'tokens', 'prediction', 'embedding'"),
        (TEXT, {"steps": "sum"}, TypeError, r"expected a list such as \['tokens', 'gradient'\]"),
        (TEXT, {"steps": []}, ValueError, "Known: tokens, prediction"),
        (TEXT, {"baseline": "blur"}, ValueError, "baseline: 'blur' isn't defined for texts"),
        (TEXT, {"transform": torch.nn.Identity()}, ValueError, "transform: it doesn't apply to a text"),
        ("", {}, ValueError, "the text is empty"),
        ([TEXT, TEXT], {}, ValueError, "got a batch of 2"),
        ([99], {}, ValueError, "the id 99 .* is out of range"),
    ],
)
def test_an_invalid_argument_is_an_error(
    bag: Bag, text: Any, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        sw.lesson(bag, text, tokenizer=TOKENIZER, **arguments)


@pytest.mark.parametrize(
    ("inputs", "noun"), [(torch.rand(1, 4), "an input"), (torch.rand(1, 1, 8, 8, 8), "a volume")], ids=["row", "volume"]
)
def test_an_input_of_another_kind_is_refused(inputs: Tensor, noun: str) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(inputs[0].numel(), 3))
    with pytest.raises(ValueError, match=f"a lesson requires an image, or a text with tokenizer=, got {noun} of shape"):
        sw.lesson(model, inputs)
