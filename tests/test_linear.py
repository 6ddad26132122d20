"""Arguments are read in time linear in their length, or they are refused."""

from __future__ import annotations

import gc
import io
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import ImageFont
from torch import nn
from toys import each

from saliency_widgets import render
from saliency_widgets.inputs import read_class_names, read_table, short_names
from saliency_widgets.inputs.encoder import Encoder
from saliency_widgets.inputs.tracing import _assign_constant
from saliency_widgets.outputs.classification import Classification
from saliency_widgets.outputs.selection import resolve
from saliency_widgets.params import unknown
from saliency_widgets.render.fonts import wrapped
from saliency_widgets.widgets import Explorer

LINEAR = 4.0  # bound on the growth of linear work on a busy machine; that of quadratic work is eight


def growth(work: Callable[[int], Callable[[], Any]], count: int) -> float:
    """Return the CPU time per item for ``8 * count`` items, divided by that for ``count``: each the least of five runs.

    Garbage collection is off, because its time grows with the objects that other tests left.
    """

    def seconds(items: int) -> float:
        run, least = work(items), float("inf")
        for _ in range(5):
            start = time.process_time()
            run()
            least = min(least, time.process_time() - start)
        return least

    gc.collect()
    gc.disable()
    try:
        return seconds(8 * count) / seconds(count) / 8
    finally:
        gc.enable()


def names(count: int) -> list[str]:
    return [f"class {k}, also called {k}" for k in range(count)]


def one_class_each(count: int) -> Callable[[], Any]:
    listed, logits = names(count), torch.zeros(1, 1).expand(count, count)
    task = Classification("logit", tuple(listed))
    return lambda: resolve(task, listed, logits, count)


def wide(count: int) -> Callable[[], Any]:
    frame = pd.DataFrame(np.zeros((2, count)), columns=names(count))
    return lambda: read_table(frame)


def edits(count: int) -> Callable[[], Any]:
    table = read_table(pd.DataFrame(np.zeros((1, count)), columns=names(count)))
    changes = dict.fromkeys(table.names, 1.0)
    return lambda: table.with_values(changes)


class Fitted:
    """A transform that was fitted on columns in another order."""

    def __init__(self, columns: list[str]) -> None:
        self.feature_names_in_ = columns[::-1]

    def transform(self, rows: Any) -> Any:
        return rows


def reordered(count: int) -> Callable[[], Any]:
    columns = names(count)
    return lambda: Encoder(Fitted(columns), [*columns, "another"], named=True)


def constant(count: int) -> Callable[[], Any]:
    """Constant numbers, assigned to their columns by position and by name."""
    of, columns = [k if k % 2 else -1 for k in range(count)], names(count)
    transform = type("Named", (), {"get_feature_names_out": lambda _self: [f"{name}_x" for name in columns]})()
    return lambda: (_assign_constant(of, columns, None), _assign_constant(of, columns, transform))


READ: dict[str, tuple[Callable[[int], Callable[[], Any]], int]] = {
    "class names": (lambda n: partial(read_class_names, names(n)), 20_000),
    "class names by number": (lambda n: partial(read_class_names, dict(enumerate(names(n)))), 20_000),
    "short names": (lambda n: partial(short_names, names(n)), 20_000),
    "an unknown name": (lambda n: partial(unknown, "target", "clas 7", names(n)), 20_000),
    "a class for each row": (one_class_each, 4000),
    "a wide table": (wide, 10_000),
    "many edits": (edits, 100),
    "a transform of many columns": (reordered, 20_000),
    "constant numbers": (constant, 1000),
}


@pytest.mark.soak
@pytest.mark.parametrize("what", READ)
def test_reading_takes_linear_time(what: str) -> None:
    # Other processes slow down single tries; quadratic work fails in every try.
    assert any(growth(*READ[what]) < LINEAR for _ in range(3))


def test_quadratic_work_is_detected() -> None:
    def indices(listed: list[str]) -> list[int]:
        return [listed.index(name) for name in listed]

    assert growth(lambda count: partial(indices, names(count)), 250) > LINEAR


class Counting:
    """A font that counts the characters it measures."""

    def __init__(self) -> None:
        self.font, self.measured = ImageFont.load_default(size=14), 0

    def getlength(self, text: str) -> float:
        self.measured += len(text)
        return self.font.getlength(text)


@each("text", ["b", "ab ", "a" * 500 + " ", "ij\n", "猫"])
def test_each_letter_of_a_caption_is_measured_a_few_times(text: str) -> None:
    measured = []
    for letters in (2000, 16_000):
        font = Counting()
        wrapped(text * (letters // len(text)), font, 320)
        measured.append(font.measured / letters)
    assert measured[1] < 1.5 * measured[0]
    assert measured[1] < 60


# ---- refused arguments


def image(**words: str) -> None:
    quantized = render.quantize(np.arange(64.0).reshape(8, 8), signed=False)
    look = {"lut": render.lut("hot"), "opacity": 0.5, "clip": (0.0, 99.0), "threshold": 0.0, "blend": "by value"}
    render.overlay_png(io.BytesIO(), np.zeros((8, 8, 3), np.uint8), quantized, **look, **words)


@each("caption", ["b" * 4001, "b" * 10**6, "\n" * 101, "a\u2028" * 200])
def test_captions_that_are_too_long_are_refused(caption: str) -> None:
    with pytest.raises(
        ValueError, match=r"caption: expected at most 4000 characters and 100 lines, got \d+ characters"
    ):
        image(caption=caption)


def test_captions_and_titles_of_the_largest_length_are_drawn() -> None:
    image(caption="b" * 4000, title="c" * 10**6)
    image(caption="b\n" * 100)


@each(
    "value",
    [
        torch.arange(10**6),
        torch.tensor(3),
        np.array(3),
        np.zeros((4, 2)),
        iter(["a", "b", "c", "d"]),
        [None, "a"],
        ["a", torch.tensor(1.0)],
        [["a"], ["b"]],
        {0: None},
        pd.DataFrame({"a": ["b"]}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_invalid_class_names_are_refused(value: Any) -> None:
    with pytest.raises(TypeError, match=r"class_names: expected (the names in order|strings)"):
        read_class_names(value)


def test_an_open_file_of_class_names_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("ant\nbee\n")
    with path.open() as file, pytest.raises(TypeError, match="class_names: expected the names in order, as a list"):
        read_class_names(file)  # its lines end with line breaks
    assert read_class_names(path.read_text().split()) == ["ant", "bee"]


def test_class_indices_with_gaps_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match=r"the classes 0 to 1000000000000, each once; \[1, 2, 3, 4, 5\] have no name"):
        read_class_names({0: "a", 10**12: "b"})


def test_errors_quote_only_a_part_of_long_values() -> None:
    assert len(unknown("target", "a" * 10**6, ["b" * 10**6] * 10**3)) < 2000
    assert "Did you mean 'class 7, also called 7'" in unknown("target", "CLASS 7, also called 7", names(10**4))


def test_very_many_classes_are_selected_by_typing_without_a_list_of_options() -> None:
    count = 30_001
    explorer = Explorer(
        nn.Sequential(nn.Flatten(), nn.Linear(12, count)).eval(), np.zeros((2, 2, 3), np.uint8), method="gradient",
        class_names=names(count), target=0, executor="inline",
    )  # fmt: skip
    assert explorer.panel._search.widget.options == ()
    explorer.panel._search.widget.value = "class 29999, also called 29999 (29999)"
    assert explorer.wait().settings["target"] == 29999
    explorer.panel._search.widget.value = "class 30000, also"
    assert explorer.wait().settings["target"] == 30000
    explorer.close()


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"noise_level": [k / 10**5 for k in range(10**5)]}, "100,000 maps exceed"),
        ({"n_samples": range(10**30)}, "n_samples: expected at most 1000000"),
        ({"noise_level": [k / 10**3 for k in range(1000)], "n_samples": range(1, 1001)}, "1,000,000 maps exceed"),
    ],
)
def test_a_record_that_is_too_large_for_a_page_is_refused_before_it_is_computed(record: dict, message: str) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2)).eval()
    explorer = Explorer(model, np.zeros((2, 2, 3), np.uint8), method="smoothgrad", n_samples=1, executor="inline")
    with pytest.raises(ValueError, match=f"record: {message}"):
        explorer.page_size(record)
    explorer.close()


def test_the_changed_values_of_a_wide_row_are_counted() -> None:
    frame = pd.DataFrame(np.zeros((1, 30)), columns=[f"f{k}" for k in range(30)])
    explorer = Explorer(nn.Linear(30, 2), frame, method="gradient", executor="inline")
    explorer.edit(**dict.fromkeys(frame.columns, 1.0))
    assert len(explorer.kind_view.what_if.changed) == 30
    assert "f19 0 → 1; and 10 more." in explorer.kind_view.what_if._said.value
    explorer.close()
