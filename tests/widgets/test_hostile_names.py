"""Names with HTML are shown as text: those of classes, layers, methods, files and columns create no element."""

from __future__ import annotations

import re
from collections import OrderedDict
from html.parser import HTMLParser
from pathlib import Path

import ipywidgets
import numpy as np
import pandas as pd
import pytest
import torch
from captum.attr import Saliency
from ipywidgets.widgets import widget as registry
from torch import nn
from toys import mlp

import saliency_widgets as sw
from saliency_widgets.bridges.captum import from_captum
from saliency_widgets.widgets import Explorer, Lesson
from saliency_widgets.widgets.base.text import RichText

BODIES = [
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    "<svg onload=alert(1)>",
    "<b>bold</b>",
    "<!--x-->",
    "<style>*{display:none}</style>",
]
AROUND = ["{}", "'>{}", '">{}', "</title></script>{}", "&lt;{}"]
NAMES = [around.format(body) for body in BODIES for around in AROUND]
GROUPS = [NAMES[k::6] for k in range(6)]  # of five names with different bodies
TAGS = {"div", "span", "b", "small", "br", "ul", "li", "p", "table", "thead", "tbody", "tr", "th", "td", "figure"}
TAGS |= {"figcaption", "img"}
PAGE_TAGS = {"html", "head", "meta", "title", "link", "style", "body", "div", "h1", "main", "noscript", "p", "script"}
ATTRIBUTES = {"style", "class", "title", "role", "src", "alt", "width", "aria-hidden", "border"}


class Reader(HTMLParser):
    """Parses HTML as a browser does: its elements, and its text by element."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.text: dict[str, str] = {}
        self.strange: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        named = dict(attrs)
        if tag == "img" and not named.get("src", "").startswith("data:image/png;base64,"):
            self.strange.append(f"an image of {named.get('src')!r}")
        self.text["titles"] = self.text.get("titles", "") + named.get("title", "")

    def handle_data(self, data: str) -> None:
        tag = self.tags[-1] if self.tags else ""
        self.text[tag] = self.text.get(tag, "") + data

    def handle_comment(self, data: str) -> None:
        self.strange.append(f"a comment {data!r}")


def read(source: str) -> str:
    """Return the text of a widget's HTML, unescaped once; assert that it has only this package's elements."""
    result = Reader(source)
    assert set(result.tags) <= TAGS, source
    assert result.attributes <= ATTRIBUTES, source
    assert not result.strange, source
    return "".join(result.text.values())


def shown_text() -> str:
    """Return the text of the HTML of all open widgets."""
    widgets = list(registry._instances.values())
    html = [one.value for one in widgets if isinstance(one, (ipywidgets.HTML, ipywidgets.HTMLMath))]
    html += [one.description for one in widgets if getattr(one, "description_allow_html", False)]
    assert html
    return "\n".join(map(read, html))


def check_page(path: Path, *expected: str) -> None:
    """Assert that a saved page has only the expected elements and shows the names as text."""
    result = Reader(path.read_text())
    assert set(result.tags) <= PAGE_TAGS
    assert result.tags.count("script") == 2
    assert not result.strange
    assert result.attributes.isdisjoint({"onerror", "onload"})
    shown = result.text["title"] + result.text["h1"] + result.text["p"]
    assert all(name in shown for name in expected), shown


# The first two groups have each body and each surrounding text at least once.
@pytest.fixture(
    params=[*GROUPS[:2], *(pytest.param(group, marks=pytest.mark.soak) for group in GROUPS[2:])],
    ids=lambda names: names[0],
)
def names(request: pytest.FixtureRequest) -> list[str]:
    return request.param


class Net(nn.Module):
    """A conv net whose layers have these names; it raises an error with the text ``fault``, if any."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers = OrderedDict((name.replace(".", ""), nn.Conv2d(3, 3, 3, padding=1)) for name in names)
        self.layers, self.head = nn.Sequential(layers), nn.Linear(3 * 64, 5)
        self.fault = ""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.fault:
            raise RuntimeError(self.fault)
        return self.head(self.layers(x).relu().flatten(1))


def image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def open_all(trust, fold: int = 0) -> str:
    """Open each test of a trust panel, and return the text shown."""
    trust._fold.selected_index = fold
    texts = []
    for k in range(len(trust.tests)):
        trust._choice.value = k
        texts.append(shown_text())
    return "\n".join(texts)


def test_there_are_thirty_names_with_html() -> None:
    assert len(set(NAMES)) == 30
    assert all(Reader(name).tags or Reader(name).strange for name in NAMES)
    with pytest.raises(AssertionError):
        read(f"<div>{NAMES[0]}</div>")


def test_rich_text_escapes_plain_strings() -> None:
    widget = RichText(NAMES[0])
    assert read(widget.value) == NAMES[0]
    widget.value = NAMES[1]
    assert read(widget.value) == NAMES[1]
    widget.close()


@pytest.mark.filterwarnings("ignore")
def test_images(names, tmp_path) -> None:
    model = Net(names).eval()
    entries = [from_captum(type(name, (Saliency,), {})(model)) for name in names]
    explorer = Explorer(model, image(), class_names=names, methods=entries, executor="inline")
    help_lines = ""
    for entry in entries:
        explorer.update(method=entry)
        help_lines += explorer.panel._help.value
    help_lines = read(help_lines)
    assert all(name in help_lines for name in names)
    text = open_all(explorer.trust)
    assert all(name in text for name in names)  # names of methods, in the table of agreement
    explorer.update(method="gradient", score="value")
    assert all(name in shown_text() for name in names)
    explorer.update(method="gradient", score="logit")
    for name in names:
        explorer.save_html(tmp_path / "page.html", title=name, record={"method": ["gradient"]}, progress=False)
        check_page(tmp_path / "page.html", name)
        explorer.kind_view.saving._fold.selected_index = 0
        explorer.kind_view.saving._name.value = str(tmp_path / name.replace("/", "") / "page.html")
        explorer.kind_view.saving._save()
        assert name.replace("/", "") in shown_text()
    for name in names:
        model.fault = name
        explorer.trust._fold.selected_index = None
        explorer.trust._fold.selected_index = 0
        assert name in shown_text()
    explorer.close()
    model.fault = ""
    assert read(sw.checkup(model, image())._repr_html_())


@pytest.mark.filterwarnings("ignore")
def test_tables(names) -> None:
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(12, 5)), columns=names)
    model = mlp(features=5, classes=5)
    explorer = Explorer(model, frame.iloc[0], background=frame, class_names=names, executor="inline")
    text = ""
    for name in names:
        explorer.update(target=name)
        explorer.edit(**{name: 3.0})
        text += shown_text()
        explorer.update(score="value")
        text += shown_text()
        explorer.update(score="logit")
    text += open_all(explorer.trust)
    assert all(text.count(name) > 1 for name in names)
    explorer.close()


@pytest.mark.filterwarnings("ignore")
def test_comparisons(names, tmp_path) -> None:
    model = Net(names).eval()
    inputs = {name: image(k) for k, name in enumerate(names)}
    grid = sw.compare({names[0]: model, names[1]: Net(names).eval()}, inputs, methods="gradient", class_names=names)
    grid.wait(progress=False)
    text = shown_text()
    for position in [one for one in grid._shown if one.models == one.inputs % 2]:
        grid._open_explorer(position)
        text += shown_text()
    assert all(name in text for name in names)
    for name in names:
        grid.save_html(tmp_path / "page.html", title=name, progress=False)
        check_page(tmp_path / "page.html", name)
    grid.close()


@pytest.mark.filterwarnings("ignore")
def test_sweeps(names) -> None:
    model = Net(names).eval()
    layers = [f"layers.{path}" for path, _ in model.layers.named_children()]
    result = sw.sweep(model, image(), "grad_cam", {"layer": layers}, progress=False, metrics=["insertion"], cost="time")
    assert result.widget.children
    text = shown_text()
    assert all(layer in text for layer in layers)
    read(result._repr_html_())


@pytest.mark.filterwarnings("ignore")
def test_lessons(names, tmp_path) -> None:
    lesson = Lesson(Net(names).eval(), image(), target=0, class_names=names, steps=["input"], executor="inline")
    lesson.save_html(tmp_path / "page.html")
    check_page(tmp_path / "page.html", names[0][:20])  # truncated in titles
    for name in names:
        lesson.save_html(tmp_path / "page.html", title=name)
        check_page(tmp_path / "page.html", name)
    lesson.close()


@pytest.mark.filterwarnings("ignore")
def test_evaluations(names) -> None:
    """The HTML of an evaluation in a notebook."""
    model = Net(names).eval()
    entry = from_captum(type(names[0], (Saliency,), {})(model), title=names[1])
    some = {"steps": 2, "stages": 1, "turns": 1, "draws": 1, "progress": False}
    source = sw.evaluate(model, image(), {names[2]: entry, names[3]: "gradient"}, **some)._repr_html_()
    source = re.sub(r"<style scoped>.*?</style>", "", source, flags=re.DOTALL)  # added by pandas
    text = read(source)
    assert names[2] in text
    assert names[3] in text
