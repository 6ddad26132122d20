"""Invalid calls: each argument of every public function and method gets some forty wrong values in turn.

A call ends in one of four ways: with one of our error messages, which names the argument; with a result, for the few
values that are valid after all (see ``fitting``); with the traceback of another error; or not at all.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import linecache
import random
import re
import resource
import shutil
import signal
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import torch
from captum.attr import Occlusion, Saliency
from ipywidgets.widgets import widget as registry
from torch import nn
from toys import state_of

import saliency_widgets as sw
from saliency_widgets import render
from saliency_widgets.diagnostics.report import Checkup
from soak.figures import Figures
from soak.fitting import is_valid

FAULTS = RAW, UNBOUNDED, NONSENSE, REFUSED, CHANGED, LEFT, BROKEN = (
    "raw traceback", "unbounded work", "invalid value accepted", "valid call refused", "changed model", "widgets left",
    "broken widget",
)  # fmt: skip
_FRESH = 10  # after one in this many refused calls that changed nothing, the widget's map is compared with a fresh one
_PACKAGE = str(Path(sw.__file__).parent)
_MEMORY = 6 * 2**30  # bytes that a call may allocate
_CPU, _HANG = 10.0, 300.0  # the limits of a call: seconds of CPU time, and of waiting
_CLEAR = (TypeError, ValueError, RuntimeError, OSError, TimeoutError, NotImplementedError)
_NO_MAP = "No map can be computed: "
_NAMED = re.compile(r"^[A-Za-z_][\w. ]*('[^']*')?( of [\w. ']+)?: ")
_ADVICE = re.compile(
    r"\b(Pass|Call|Check|call|Make|Create|Leave|Omit|Choose|Show|Wait|Install|Known|Did you mean|expected|instead)\b"
)


# ---- wrong values


class Hostile:
    """An object whose length, iterator, conversion and even repr raise errors."""

    def __repr__(self) -> str:
        raise ArithmeticError("no repr")

    def __len__(self) -> int:
        raise ArithmeticError("no len")

    def __iter__(self) -> Iterator:
        raise ArithmeticError("no iter")

    def __float__(self) -> float:
        raise ArithmeticError("no float")


def endless() -> Iterator[int]:
    while True:
        yield 0


def raising(*_args: Any) -> Any:
    raise ArithmeticError("never")


def nested(depth: int) -> list:
    """A list that is nested deeper than Python's recursion limit."""
    inner: list = []
    for _ in range(depth):
        inner = [inner]
    return inner


def looped() -> list:
    """A list that contains itself."""
    itself: list = []
    itself.append(itself)
    return itself


@functools.cache
def closed_explorer() -> Any:
    return _closed(sw.explore(net(), image(), method="gradient", target=0))


WRONG: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "True": lambda: True,
    "5": lambda: 5,
    "0": lambda: 0,
    "-1": lambda: -1,
    "10**30": lambda: 10**30,
    "10**5000": lambda: 10**5000,
    "2.5": lambda: 2.5,
    "-0.5": lambda: -0.5,
    "1e300": lambda: 1e300,
    "nan": lambda: float("nan"),
    "inf": lambda: float("inf"),
    "1j": lambda: 1j,
    "''": lambda: "",
    "'x'": lambda: "x",
    "'A'*300": lambda: "A" * 300,
    "NUL": lambda: "a\0b",
    "bytes": lambda: b"x",
    "path": lambda: Path("nowhere/at/all"),
    "[]": list,
    "[None]": lambda: [None],
    "ragged": lambda: [[1.0], [1.0, 2.0]],
    "(1, 2)": lambda: (1, 2),
    "()": tuple,
    "set": lambda: {1},
    "{}": dict,
    "{'a': 1}": lambda: {"a": 1},
    "{1: 'a'}": lambda: {1: "a"},
    "object": object,
    "type": lambda: dict,
    "raises": lambda: raising,
    "module": lambda: nn.Linear(7, 7),
    "objects": lambda: np.array([None, "a"], dtype=object),
    "5 axes": lambda: np.zeros((2, 1, 2, 1, 2)),
    "scalar": lambda: torch.tensor(5.0),
    "sparse": lambda: torch.eye(3).to_sparse(),
    "meta": lambda: torch.zeros(3, device="meta"),
    "NaNs": lambda: torch.full((3,), float("nan")),
    "complex": lambda: torch.zeros(3, dtype=torch.complex64),
    "nested": lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
    "no rows": lambda: np.zeros((0, 3)),
    "no columns": pd.DataFrame,
    "Series": lambda: pd.Series(["a", None]),
    "endless": endless,
    "hostile": Hostile,
    "surrogate": lambda: "\ud800",
    "range": lambda: range(10**9),
    "deep": lambda: nested(10**4),
    "loop": looped,
    "closed": closed_explorer,
}


# ---- calls


def net() -> nn.Module:
    """A model for images of three channels and 6 by 6 pixels, with three classes."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3)).eval()


def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)


def table() -> pd.DataFrame:
    return pd.DataFrame(np.random.default_rng(0).normal(size=(6, 3)), columns=["a", "b", "c"])


WORDS = {"<unk>": 0, "good": 1, "bad": 2, "film": 3}


class Bag(nn.Module):
    """A classifier of texts: the mean of the embeddings of their words, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.head = nn.Embedding(4, 3), nn.Linear(3, 2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.embedding(ids).mean(1))


class Stage:
    """The objects under attack: each is made when it is first needed, and again after it was closed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.model, self.linear, self.bag = folder, net(), nn.Linear(3, 2).eval(), Bag().eval()
        self.moved: set[str] = set()
        self._made: dict[str, Any] = {}
        self._makers: dict[str, Callable[[], Any]] = {
            "explorer": lambda: _ready(sw.explore(self.model, image(), method="smoothgrad", n_samples=2, target=0)),
            "rows": lambda: _ready(
                sw.explore(self.linear, table().iloc[[0]], background=table(), method="gradient", target=0)
            ),
            "text": lambda: _ready(sw.explore(self.bag, "good film", tokenizer=WORDS, method="gradient", target=0)),
            "tokens": lambda: sw.attribute(self.bag, "good film", tokenizer=WORDS, method="gradient", target=0),
            "comparison": lambda: _ready(
                sw.compare(
                    self.model,
                    {"one": image(), "two": image()},
                    methods=["gradient", "smoothgrad"],
                    classes=[0, 1],
                    rows="methods",
                    columns="inputs",
                    n_samples=2,
                )
            ),
            "lesson": lambda: _ready(sw.lesson(self.model, image(), steps=["input"], target=0)),
            "sweep": lambda: sw.sweep(self.model, image(), "smoothgrad", {"n_samples": [1, 2]}, progress=False),
            "attribution": lambda: sw.attribute(self.model, image(), method="gradient", target=0),
            "several": lambda: sw.attribute(Two(), (torch.zeros(1, 3), torch.zeros(1, 3)), method="gradient", target=0),
            "closed explorer": lambda: _closed(sw.explore(self.model, image(), method="gradient", target=0)),
            "closed rows": lambda: _closed(
                sw.explore(self.linear, table().iloc[[0]], background=table(), method="gradient", target=0)
            ),
            "closed comparison": lambda: _closed(sw.compare(self.model, image(), methods=["gradient", "smoothgrad"])),
            "closed lesson": lambda: _closed(sw.lesson(self.model, image(), steps=["input"], target=0)),
        }

    def __getitem__(self, name: str) -> Any:
        result = self._made.get(name)
        if result is None or (not name.startswith("closed") and getattr(result, "comm", self) is None):
            result = self._made[name] = self._makers[name]()
        return result

    def forget(self, name: str) -> None:
        """Close a widget if it is one, and drop it, so that it is made again."""
        self.moved.discard(name)
        made = self._made.pop(name, None)
        if hasattr(made, "close"):
            made.close()

    def renew(self) -> None:
        """Drop everything, and make new models."""
        self.close()
        self.model, self.linear, self.bag = net(), nn.Linear(3, 2).eval(), Bag().eval()

    def close(self) -> None:
        for name in list(self._made):
            self.forget(name)


class Two(nn.Module):
    """A model with two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return self.one(first) + self.other(second)


def _ready(widget: Any) -> Any:
    """Wait until a widget has computed everything; raise the error of a part that failed."""
    if isinstance(widget, sw.Comparison):
        widget.wait(60, progress=False)
        for error in widget.errors.values():
            raise error
    else:
        widget.wait(60)
    return widget


def _closed(widget: Any) -> Any:
    widget.close()
    return widget


@dataclass(frozen=True)
class Called:
    """A public function or method.

    Attributes:
        name: The name in reports.
        of: Returns the function, using the objects of a stage.
        valid: Returns arguments with which it succeeds.
        more: Names of further arguments that its signature accepts as ``**kwargs``.
        owner: The name of the object on the stage that a method belongs to; empty for functions.
    """

    name: str
    of: Callable[[Stage], Callable]
    valid: Callable[[Stage], Mapping[str, Any]] = lambda _stage: {}
    more: tuple[str, ...] = ()
    owner: str = ""

    def arguments(self, stage: Stage) -> list[str]:
        """The names of its arguments."""
        named = inspect.signature(self.of(stage)).parameters.values()
        open_ended = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        valid = self.valid(stage)
        return [*dict.fromkeys([*(one.name for one in named if one.kind not in open_ended), *valid, *self.more])]


_SMOOTHGRAD = ("n_samples", "noise_level", "seed", "chunk_size", "base", "statistic")
_ABOUT = ("transform", "class_names", "explain", "device", "fold", "precision", "cuda_graphs")
_LOOK = (*(param.name for param in render.DISPLAY), "sign", "channels")
_FEW = {"n_samples": 2, "method": "smoothgrad", "target": 0}
_QUICK_SWEEP = {"progress": False, "steps": 2, "turns": 1, "target": 0}
_MOVING = ("update", "edit", "show", "load_state")
_QUICK = {**_QUICK_SWEEP, "stages": 1, "draws": 1}


def _of_image(**more: Any) -> Callable[[Stage], Mapping[str, Any]]:
    return lambda stage: {"model": stage.model, "inputs": image(), **more}


def _tabled(**more: Any) -> Callable[[Stage], Mapping[str, Any]]:
    return lambda stage: {"model": stage.linear, "inputs": table().iloc[[0]], "background": table(), **more}


def _of_text(**more: Any) -> Callable[[Stage], Mapping[str, Any]]:
    return lambda stage: {"model": stage.bag, "inputs": "good film", "tokenizer": WORDS, **more}


def _bound(call: Callable, stage: Stage) -> Callable[[Any], Any]:
    return lambda value: call(stage, value)


def _owner_in(name: str) -> str:
    return "explorer" if name.startswith("explorer.") else ""


def _valued(value: Any, _stage: Stage) -> Mapping[str, Any]:
    return {"value": value}


def _open(made: Any) -> Any:
    """Wait for a widget and close it; leave anything else as it is."""
    if not hasattr(made, "close"):
        return made
    try:
        return _ready(made)
    finally:
        made.close()


def _opened(function: Callable) -> Callable:
    """Wrap a function that makes a widget: the widget is waited for and closed."""

    def call(**value: Any) -> Any:
        return _open(function(**value))

    call.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    return call


def _windowed(stage: Stage) -> Callable:
    """Wrap ``from_captum``: the method that it makes is run."""

    def call(**value: Any) -> Any:
        return sw.attribute(stage.model, image(), method=sw.from_captum(**value), target=0)

    call.__signature__ = inspect.signature(sw.from_captum)  # type: ignore[attr-defined]
    return call


def _moved(owner: str, name: str, stage: Stage) -> Callable:
    """Wrap a method that changes a widget: what the widget computes then is waited for."""
    method = getattr(stage[owner], name)

    def call(**value: Any) -> Any:
        method(**value)
        stage.moved.add(owner)
        return _ready(stage[owner])

    call.__signature__ = inspect.signature(method)  # type: ignore[attr-defined]
    return call


def _method(owner: str, name: str, /, *more: str, **valid: Any) -> Called:
    def argument(stage: Stage) -> Mapping[str, Any]:
        return {key: value(stage) if callable(value) else value for key, value in valid.items()}

    of = partial(_moved, owner, name) if name in _MOVING else lambda stage: getattr(stage[owner], name)
    return Called(f"{owner}.{name}", of, argument, more, owner)


def _file(name: str) -> Callable[[Stage], Path]:
    return lambda stage: stage.folder / name


def every() -> list[Called]:
    """Return all public functions and methods that take arguments."""
    options = {"methods": ("gradient",), "progress": False, "steps": 2, "stages": 1, "turns": 1, "draws": 1}
    baseline = {"method": "integrated_gradients", "n_steps": 2, "target": 0}
    ig = ("n_steps", "baseline", "quadrature", "tolerance", "seed", "chunk_size")
    functions = [
        Called("attribute", lambda _: sw.attribute, _of_image(**_FEW), _SMOOTHGRAD),
        Called("attribute (path)", lambda _: sw.attribute, _of_image(**baseline), ig),
        Called("attribute (layer)", lambda _: sw.attribute, _of_image(method="grad_cam", target=0), ("layer",)),
        Called("attribute (rows)", lambda _: sw.attribute, _tabled(method="expected_gradients", n_samples=2, target=0),
               ("n_samples", "baselines", "seed")),
        Called("attribute (text)", lambda _: sw.attribute, _of_text(**_FEW), _SMOOTHGRAD),
        Called("ablate", lambda _: sw.ablate, _of_image(mask=np.eye(6, dtype=bool), draws=2), _ABOUT),
        Called("checkup", lambda _: sw.checkup, _of_image()),
        Called("evaluate", lambda _: sw.evaluate, _of_image(**options), _ABOUT),
        Called("importance", lambda _: sw.importance, lambda stage: {
            "model": stage.linear, "rows": table(), "method": "gradient", "target": 0, "progress": False, "repeats": 1,
        }, ("transform", "class_names", "device", "fold", "precision")),
        Called("shuffle", lambda _: sw.shuffle, _tabled(draws=2), ("feature_names", *_ABOUT)),
        Called("from_captum", lambda _: sw.from_captum, lambda stage: {"attribution": Saliency(stage.model)}, ("abs",)),
        Called("attribute(from_captum)", _windowed, lambda stage: {
            "attribution": Occlusion(stage.model), "sliding_window_shapes": (3, 2, 2)},
            ("strides", "baselines", "show_progress", "perturbations_per_eval")),
        Called("sweep", lambda _: sw.sweep, _of_image(
            method="smoothgrad", grid={"n_samples": [1, 2]}, progress=False, steps=2, turns=1, target=0,
        ), ("noise_level", "seed")),
        Called("explore", lambda _: _opened(sw.explore), _of_image(**_FEW), (*_SMOOTHGRAD, *_LOOK)),
        Called("explore (rows)", lambda _: _opened(sw.explore), _tabled(method="gradient"), ("top",)),
        Called("explore (text)", lambda _: _opened(sw.explore), _of_text(**_FEW), (*_LOOK, "per")),
        Called("compare", lambda _: _opened(sw.compare), _of_image(methods=["gradient", "smoothgrad"]),
               ("n_samples", "noise_level", *_LOOK)),
        Called("lesson", lambda _: _opened(sw.lesson), lambda stage: {
            "model": stage.model, "inputs": image(), "steps": ["input"], "n_samples": 2}),
        Called("demo", lambda _: _opened(sw.demo), lambda _stage: {}),
        Called("static_output", lambda _: sw.static_output, lambda _stage: {"on": True}),
        Called("Explorer", lambda _: _opened(sw.Explorer), _of_image(**_FEW)),
        Called("Explorer (rows)", lambda _: _opened(sw.Explorer), _tabled(method="gradient")),
        Called("Comparison", lambda _: _opened(sw.Comparison), _of_image(
            methods=["gradient"], settings=None, classes=None, rows=None, columns=None, score="logit", contrast=None,
            limit=4, params={"opacity": 0.5})),
        Called("Lesson", lambda _: _opened(sw.Lesson), _of_image(steps=["input"])),
        Called("load", lambda _: _opened(sw.load), lambda stage: {
            "path": _state(stage), "model": stage.model, "inputs": image(),
        }, ("transform", "class_names")),
        Called("Attribution.settings_from_json", lambda _: sw.Attribution.settings_from_json,
               lambda stage: {"text": stage["attribution"].to_json()}, ("target",)),
    ]  # fmt: skip
    inside = {  # a wrong value inside a list or mapping
        "attribute(inputs=[...])": lambda stage, value: sw.attribute(stage.model, [value], method="gradient"),
        "attribute(target=[...])": lambda stage, value: sw.attribute(stage.model, image(), target=[value]),
        "attribute(class_names=[...])": lambda stage, value: sw.attribute(
            stage.model, image(), class_names=[value] * 3),
        "attribute(inputs={...})": lambda stage, value: sw.attribute(stage.linear, {"a": value, "b": 1.0, "c": 2.0}),
        "evaluate(methods=[...])": lambda stage, value: sw.evaluate(stage.model, image(), [value], **_QUICK),
        "evaluate(params={...})": lambda stage, value: sw.evaluate(
            stage.model, image(), ["smoothgrad"], params={"n_samples": value}, **_QUICK),
        "sweep(grid={...})": lambda stage, value: sw.sweep(
            stage.model, image(), "smoothgrad", {"n_samples": value}, **_QUICK_SWEEP),
        "sweep(grid={[...]})": lambda stage, value: sw.sweep(
            stage.model, image(), "smoothgrad", {"n_samples": [value]}, **_QUICK_SWEEP),
        "sweep(metrics=[...])": lambda stage, value: sw.sweep(
            stage.model, image(), "smoothgrad", {"n_samples": [1, 2]}, [value], **_QUICK_SWEEP),
        "compare(methods=[...])": lambda stage, value: _open(sw.compare(stage.model, image(), methods=[value])),
        "compare(settings={...})": lambda stage, value: _open(
            sw.compare(stage.model, image(), methods="smoothgrad", settings={"n_samples": value})),
        "compare(settings=[...])": lambda stage, value: _open(
            sw.compare(stage.model, image(), methods="smoothgrad", settings=[value])),
        "compare(classes=[...])": lambda stage, value: _open(
            sw.compare(stage.model, image(), methods="gradient", classes=[value])),
        "compare(model=[...])": lambda stage, value: _open(
            sw.compare([stage.model, value], image(), methods="gradient")),
        "compare(inputs={...})": lambda stage, value: _open(
            sw.compare(stage.model, {"a": image(), "b": value}, methods="gradient")),
        "explore(methods=[...])": lambda stage, value: _open(
            sw.explore(stage.model, image(), method="gradient", methods=[value])),
        "explore(labels=[...])": lambda stage, value: _open(sw.explore(
            stage.linear, table().iloc[[0]], background=table(), labels=[value, 0, 1, 0, 1, 0], method="gradient")),
        "lesson(steps=[...])": lambda stage, value: _open(sw.lesson(stage.model, image(), steps=[value])),
        "explorer.page_size({...})": lambda stage, value: stage["explorer"].page_size({"noise_level": value}),
        "explorer.page_size({[...]})": lambda stage, value: stage["explorer"].page_size({"target": [value]}),
    }  # fmt: skip
    right = {  # valid values inside the same lists and mappings
        "attribute(inputs=[...])": image(), "attribute(target=[...])": 0, "attribute(class_names=[...])": "ant",
        "attribute(inputs={...})": 1.0, "evaluate(methods=[...])": "gradient", "evaluate(params={...})": 2,
        "sweep(grid={...})": [1, 2], "sweep(grid={[...]})": 2, "sweep(metrics=[...])": "similarity",
        "compare(methods=[...])": "gradient", "compare(settings={...})": [1, 2], "compare(settings=[...])": {},
        "compare(classes=[...])": 0, "compare(model=[...])": net(), "compare(inputs={...})": image(),
        "explore(methods=[...])": "smoothgrad", "explore(labels=[...])": 1, "lesson(steps=[...])": "input",
        "explorer.page_size({...})": [0.1], "explorer.page_size({[...]})": 0,
    }  # fmt: skip
    within = [
        Called(name, partial(_bound, call), partial(_valued, right[name]), owner=_owner_in(name))
        for name, call in inside.items()
    ]
    page = {"path": _file("page.html")}
    members = [
        _method("explorer", "wait", timeout=60),
        _method("explorer", "update", "method", "target", "score", *_SMOOTHGRAD, *_LOOK, n_samples=3, opacity=0.5),
        _method("explorer", "save_png", path=_file("map.png")),
        _method("explorer", "page_size"),
        _method("explorer", "save_html", **page, progress=False),
        _method("explorer", "save_state", path=_file("state")),
        _method("explorer", "load_state", path=lambda stage: _state(stage, "explorer")),
        _method("rows", "wait", timeout=60),
        _method("rows", "update", "method", "target", "score"),
        _method("rows", "edit", a=0.5),
        _method("rows", "save_html", **page),
        _method("rows", "save_state", path=_file("rows")),
        _method("rows", "load_state", path=lambda stage: _state(stage, "rows")),
        _method("text", "update", "method", "target", "score", "per"),
        _method("text", "edit", text="bad film"),
        _method("text", "save_html", **page),
        _method("text", "save_state", path=_file("text")),
        _method("tokens", "by_token"),
        _method("tokens", "reduced", reduction=lambda _stage: sw.attribution.Reduction()),
        _method("comparison", "wait", timeout=60, progress=False),
        _method("comparison", "show", "methods", classes=1),
        _method("comparison", "difference", a=lambda stage: _cells(stage)[0], b=lambda stage: _cells(stage)[1]),
        _method("comparison", "save_html", **page, progress=False),
        _method("lesson", "wait", timeout=60),
        _method("lesson", "save_html", **page),
        Called("lesson.step", lambda stage: lambda step: setattr(stage["lesson"], "step", step),
               lambda _stage: {"step": "input"}, (), "lesson"),
        _method("attribution", "saliency_map"),
        _method("several", "part", name="first"),
        _method("sweep", "by"),
        _method("sweep", "map_of", n_samples=1),
        _method("sweep", "number_of", index=0, setting=0, metric="similarity"),
        _method("sweep", "describe", number=0),
        _method("sweep", "widget_for", explorer=lambda stage: stage["explorer"]),
    ]  # fmt: skip
    return [*functions, *within, *members]


def _state(stage: Stage, owner: str = "explorer") -> Path:
    path = stage.folder / f"state of {owner}"
    if not path.with_suffix(".json").exists():
        stage[owner].save_state(path)
    return path


def _cells(stage: Stage) -> list[tuple[str, str]]:
    return list(stage["comparison"].attributions)


CLOSED = {
    "closed explorer": ("wait", "update", "pin", "save_png", "page_size", "save_html", "save_state", "stop", "close",
                        "to_code", "cache_info", "controls", "settings", "annotations", "attribution", "load_state"),
    "closed rows": ("wait", "update", "edit", "by_feature", "save_state", "stop", "close", "row", "save_html"),
    "closed comparison": ("wait", "update", "show", "difference", "page_size", "save_html", "go", "stop", "close",
                          "attributions", "errors"),
    "closed lesson": ("wait", "page_size", "save_html", "step", "steps", "stop", "close"),
}  # fmt: skip
"""The members of closed widgets that are used, with valid arguments if they take any."""


def closed_calls() -> list[Called]:
    arguments = {"save_png": {"path": _file("map.png")}, "save_html": {"path": _file("page.html"), "progress": False},
                 "save_state": {"path": _file("state")}, "load_state": {"path": _state}, "edit": {"a": 1.0},
                 "difference": {"a": ("", "Gradient"), "b": ("", "SmoothGrad")}, "update": {}}  # fmt: skip

    def made(owner: str, name: str) -> Called:
        def of(stage: Stage) -> Callable:
            static = inspect.getattr_static(type(stage[owner]), name)
            return (
                (lambda: getattr(stage[owner], name)) if isinstance(static, property) else getattr(stage[owner], name)
            )

        def valid(stage: Stage) -> Mapping[str, Any]:
            settings = dict(arguments.get(name, {}))
            if owner in ("closed lesson", "closed rows"):
                settings.pop("progress", None)
            return {key: value(stage) if callable(value) else value for key, value in settings.items()}

        return Called(f"{owner}.{name}", of, valid, (), owner)

    return [made(owner, name) for owner, names in CLOSED.items() for name in names]


# ---- outcomes


class Overrun(BaseException):
    """A call exceeded its time limit."""


@contextlib.contextmanager
def bounded(cpu: float = _CPU, idle: float = _HANG) -> Iterator[None]:
    """Raise :class:`Overrun` after ``cpu`` seconds of this process's CPU time, or after ``idle`` seconds."""

    def end(_signal: int, _frame: Any) -> None:
        raise Overrun

    timers = ((signal.SIGPROF, signal.ITIMER_PROF, cpu), (signal.SIGALRM, signal.ITIMER_REAL, idle))
    old = [signal.signal(number, end) for number, _, _ in timers]
    try:
        for _, timer, seconds in timers:
            signal.setitimer(timer, seconds)
        yield
    finally:
        for (number, timer, _), handler in zip(timers, old, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)


def is_clear(error: BaseException) -> bool:
    """Whether an error is one of our messages: raised in the package, about an argument or with advice."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or not isinstance(error, _CLEAR) or isinstance(error, UnicodeError):
        return False
    file, line = trace.tb_frame.f_code.co_filename, trace.tb_lineno
    ours = file.startswith(_PACKAGE) and linecache.getline(file, line).strip().startswith("raise ")
    message = _text(error)
    return ours and len(message) < 4000 and _is_helpful(message)


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as other:  # the message contains an object whose repr raises
        return f"an error that can't be written: {other}"


def _is_helpful(message: str) -> bool:
    """Whether a message names the argument, or says what to do."""
    return bool(_NAMED.match(message) or _ADVICE.search(message))


@dataclass
class Outcome:
    """How a call ended: "clear", "accepted", "raw" or "unbounded"."""

    kind: str
    detail: str = ""
    error: BaseException | None = field(default=None, repr=False)


def outcome(call: Callable[[], Any]) -> Outcome:
    try:
        with bounded(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = call()
    except Overrun:
        return Outcome("unbounded")
    except Exception as error:
        detail = f"{type(error).__name__}: {_text(error)[:160]}"
        return Outcome("clear" if is_clear(error) else "raw", detail, error)
    broken = [one.what for one in result if one.what.startswith(_NO_MAP)] if isinstance(result, Checkup) else []
    if broken and _is_helpful(broken[0].removeprefix(_NO_MAP)):
        return Outcome("clear", broken[0])  # a check-up reports the refusal as a finding
    return Outcome("accepted", type(result).__name__)


# ---- the attack


@dataclass(frozen=True)
class Case:
    """A call with one error: a wrong argument, or, if it has no argument, a closed widget."""

    called: Called
    argument: str = ""
    wrong: str = ""

    def __str__(self) -> str:
        return f"{self.called.name}({self.argument}={self.wrong})" if self.argument else f"{self.called.name}()"


def cases(stage: Stage) -> list[Case]:
    """Return all cases: each argument of each public call with each wrong value, and the calls of closed widgets."""
    result = [Case(called, name, wrong) for called in every() for name in called.arguments(stage) for wrong in WRONG]
    return [*result, *map(Case, closed_calls())]


def attack(seed: int, seconds: float) -> Figures:
    """Make all invalid calls, in an order that depends on the seed, until all are done or the time is over.

    Before that, without counting the time, make the valid calls once, except ``UNTRIED``. This triggers lazy imports.
    """
    figures = Figures()
    figures.expect_none_of(*FAULTS)
    sw.explore(net(), image(), method="gradient").close()  # makes the widgets that are made once and stay
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        work = Path(folder) / "work"
        work.mkdir()
        stack.enter_context(contextlib.chdir(work))
        stack.enter_context(_limited_memory())
        stage = Stage(Path(folder))
        stack.callback(stage.close)
        left = cases(stage)
        figures.counts["of all calls"] = len(left)
        random.Random(seed).shuffle(left)
        trial = Trial(figures, stage, work, f"seed {seed}")
        for called in {case.called.name: case.called for case in left if case.argument}.values():
            if called.name not in UNTRIED:
                trial.try_valid(called)
        until = time.monotonic() + seconds
        for case in left:
            if time.monotonic() > until:
                break
            trial.make(case)
    closed_explorer.cache_clear()
    return figures


@contextlib.contextmanager
def _limited_memory() -> Iterator[None]:
    """Limit the memory of this process, so that excessive requests fail instead of affecting other processes."""
    old = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + _MEMORY, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, old)


@dataclass
class Trial:
    """Makes calls, and checks their side effects.

    Attributes:
        figures: Where calls and faults are counted.
        stage: The objects that are called.
        work: The working directory, which is emptied after each call.
        origin: What reproduces an example: the seed.
    """

    figures: Figures
    stage: Stage
    work: Path
    origin: str
    _calls: int = 0

    def make(self, case: Case) -> None:
        ended = self._ended(case, {case.argument: WRONG[case.wrong]()} if case.argument else {})
        self.figures.counts["calls"] += 1
        self.figures.counts[ended.kind] += 1
        if ended.kind == "raw":
            self._fault(RAW, case, ended.detail)
        elif ended.kind == "unbounded":
            self._fault(UNBOUNDED, case, f"more than {_CPU:.0f} s of work or {_HANG:.0f} s of waiting")
        elif ended.kind == "accepted" and not self._is_valid(case):
            self._fault(NONSENSE, case, ended.detail)

    def try_valid(self, called: Called) -> None:
        """Check that a valid call succeeds; otherwise its refusals would mean nothing."""
        ended = self._ended(Case(called), {})
        if ended.kind != "accepted" and called.name not in UNAVAILABLE:
            self._fault(REFUSED, Case(called), f"{ended.kind}: {ended.detail}")

    def _is_valid(self, case: Case) -> bool:
        if not case.argument:
            return case.called.name.partition(".")[2] in READ_WHEN_CLOSED
        of = case.called.of(self.stage)
        defaults = [*map(inspect.signature, (of, sw.attribute, sw.explore))]  # arguments may be passed on to these
        named = [one.parameters[case.argument].default for one in defaults if case.argument in one.parameters]
        valid = case.called.valid(self.stage)
        named += [valid[case.argument]] if case.argument in valid else []
        return is_valid(case.called.name, case.argument, case.wrong, WRONG[case.wrong](), named)

    def _ended(self, case: Case, wrong: Mapping[str, Any]) -> Outcome:
        """Make a call, and check its side effects."""
        called = case.called
        options = {**called.valid(self.stage), **wrong}
        call = called.of(self.stage)
        models, settings, widgets = self._models(), self._settings(called.owner), set(registry._instances)
        ended = outcome(lambda: call(**options))
        if self._models() != models:
            self._fault(CHANGED, case, ended.detail)
            self.stage.renew()
        elif called.owner in RECOVERY:
            self._check_owner(case, ended, settings)
        elif not called.owner and (left := set(registry._instances) - widgets):
            self._fault(LEFT, case, f"{len(left)} after {ended.kind}")
            for name in left & set(registry._instances):
                with contextlib.suppress(Exception):  # it may be incomplete
                    registry._instances[name].close()
        for path in self.work.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return ended

    def _models(self) -> list[dict[str, Any]]:
        return [state_of(self.stage.model), state_of(self.stage.linear)]

    def _settings(self, owner: str) -> str:
        return repr(self.stage[owner].settings) if owner in ("explorer", "rows") else ""

    def _check_owner(self, case: Case, ended: Outcome, settings: str) -> None:
        """Check that a refused call changed nothing, and that after a failed change the next valid one works."""
        owner, stage = case.called.owner, self.stage
        self._calls += 1
        moved, refused = owner in stage.moved, ended.kind != "accepted"
        try:
            if refused and not moved and self._settings(owner) != settings:
                self._fault(BROKEN, case, f"the call was refused, but changed a setting: {ended.detail}")
            if refused and (moved or self._calls % _FRESH == 0):
                self._compare(case)
        except Exception as error:
            self._fault(BROKEN, case, f"after {ended.detail}: {type(error).__name__}: {str(error)[:160]}")
            stage.moved.add(owner)
        if moved or not refused or owner in stage.moved:
            stage.forget(owner)

    def _compare(self, case: Case) -> None:
        """Check that a widget shows the same map as a fresh computation, after a valid change if it was changed."""
        owner = case.called.owner
        widget = self.stage[owner]
        if owner in self.stage.moved:
            RECOVERY[owner](widget)
        _ready(widget)
        self.figures.counts["compared"] += 1
        if owner not in ("explorer", "rows"):
            return
        if not torch.equal(widget.wait(60).values, sw.attribute(**widget.settings).values):
            self._fault(BROKEN, case, "the map differs from a fresh computation's")

    def _fault(self, name: str, case: Case, detail: str) -> None:
        self.figures.fault(name, f"{self.origin}: {case}: {detail}")


_RIGHT = {"method": "gradient", "target": 0, "score": "logit"}


def _mend_rows(rows: Any) -> None:
    rows.edit(a=0.5)
    rows.update(**_RIGHT)


RECOVERY: dict[str, Callable[[Any], None]] = {
    "explorer": lambda explorer: explorer.update(**_RIGHT),
    "rows": _mend_rows,
    "comparison": lambda comparison: comparison.show(classes=0),
    "lesson": lambda lesson: setattr(lesson, "step", "input"),
}
"""A valid change of each widget that is changed."""
UNTRIED = {"demo"}
"""What is not called with valid arguments here, as it takes long: it imports scikit-learn and trains a network."""
UNAVAILABLE = {"rows.save_html"}
"""What refuses all arguments."""
READ_WHEN_CLOSED = {
    "stop", "close", "to_code", "cache_info", "controls", "settings", "annotations", "attribution", "row",
    "attributions", "errors", "step", "steps",
}  # fmt: skip
"""What may be done with a closed widget: read its state, and close it again."""
