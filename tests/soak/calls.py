"""Bad calls: every public function and method, each argument in turn wrong in some forty ways.

A call ends in one of four ways: in a sentence of ours that names the argument; in a result, for the few values that the
table below says are fine for it; in a traceback of somebody else's; or not at all.
"""

from __future__ import annotations

import contextlib
import inspect
import linecache
import re
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from captum.attr import Saliency
from torch import nn

import saliency_widgets as sw
from saliency_widgets.attribution.findings import Checkup

_PACKAGE = str(Path(sw.__file__).parent)
_CPU, _HANG = 10.0, 300.0  # seconds of this process's work, and of waiting, that no call may take
_CLEAR = (TypeError, ValueError, RuntimeError, OSError, TimeoutError, NotImplementedError)
_BROKEN = "There is no map at all: "
_NAMED = re.compile(r"^[A-Za-z_][\w. ]*('[^']*')?( of [\w. ']+)?: ")
_ADVICE = re.compile(r"\b(Pass|Call|call|Make|Leave|Choose|Show|Wait|Install|Known|Did you mean|expected|instead)\b")


# ---- what is wrong


class Hostile:
    """It can't be counted, gone through, converted or even written."""

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
}


# ---- what is called


def net() -> nn.Module:
    """Three channels of 6 by 6 pixels, three classes."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3)).eval()


def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)


def table() -> pd.DataFrame:
    return pd.DataFrame(np.random.default_rng(0).normal(size=(6, 3)), columns=["a", "b", "c"])


class Stage:
    """What is attacked, made when it is first needed, and anew when it was closed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.model, self.linear = folder, net(), nn.Linear(3, 2).eval()
        self._made: dict[str, Any] = {}
        self._makers: dict[str, Callable[[], Any]] = {
            "explorer": lambda: _ready(sw.explore(self.model, image(), method="smoothgrad", n_samples=2, target=0)),
            "rows": lambda: _ready(
                sw.explore(self.linear, table().iloc[[0]], background=table(), method="gradient", target=0)
            ),
            "comparison": lambda: _ready(sw.compare(self.model, image(), methods=["gradient", "smoothgrad"])),
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
        found = self._made.get(name)
        if found is None or (not name.startswith("closed") and getattr(found, "comm", self) is None):
            found = self._made[name] = self._makers[name]()
        return found

    def forget(self, name: str) -> None:
        """What was moved or closed is made anew."""
        made = self._made.pop(name, None)
        if hasattr(made, "close"):
            made.close()

    def close(self) -> None:
        for name in list(self._made):
            self.forget(name)


class Two(nn.Module):
    """A model of two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return self.one(first) + self.other(second)


def _ready(widget: Any) -> Any:
    """A widget with everything computed; what a part of it failed with is raised."""
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
    """Something public.

    Attributes:
        name: For people.
        of: The function itself, on a stage.
        valid: Arguments with which it works.
        more: Names of arguments that its signature leaves open.
        owner: Of a method: whose, on a stage.
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
_LOOK = ("opacity", "clip", "threshold", "blend", "colormap", "diverging", "sign", "channels")
_FEW = {"n_samples": 2, "method": "smoothgrad", "target": 0}
_QUICK_SWEEP = {"progress": False, "steps": 2, "turns": 1, "target": 0}
_MOVING = ("update", "edit", "show", "load_state")
_QUICK = {**_QUICK_SWEEP, "stages": 1, "draws": 1}


def _pictured(**more: Any) -> Callable[[Stage], Mapping[str, Any]]:
    return lambda stage: {"model": stage.model, "inputs": image(), **more}


def _tabled(**more: Any) -> Callable[[Stage], Mapping[str, Any]]:
    return lambda stage: {"model": stage.linear, "inputs": table().iloc[[0]], "background": table(), **more}


def _bound(call: Callable, stage: Stage) -> Callable[[Any], Any]:
    return lambda value: call(stage, value)


def _open(made: Any) -> Any:
    """A widget, waited for and closed."""
    try:
        return _ready(made)
    finally:
        made.close()


def _opened(function: Callable) -> Callable:
    """A function that makes a widget, which is waited for and closed."""

    def call(**given: Any) -> Any:
        return _open(function(**given))

    call.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    return call


def _moved(owner: str, name: str, stage: Stage) -> Callable:
    """A method that moves something; what is computed then is waited for."""
    method = getattr(stage[owner], name)

    def call(**given: Any) -> Any:
        method(**given)
        return _ready(stage[owner])

    call.__signature__ = inspect.signature(method)  # type: ignore[attr-defined]
    return call


def _method(owner: str, name: str, /, *more: str, **valid: Any) -> Called:
    def given(stage: Stage) -> Mapping[str, Any]:
        return {key: value(stage) if callable(value) else value for key, value in valid.items()}

    of = partial(_moved, owner, name) if name in _MOVING else lambda stage: getattr(stage[owner], name)
    return Called(f"{owner}.{name}", of, given, more, owner)


def _file(name: str) -> Callable[[Stage], Path]:
    return lambda stage: stage.folder / name


def every() -> list[Called]:
    """Everything public that takes arguments, and what of closed widgets takes none."""
    given = {"methods": ("gradient",), "progress": False, "steps": 2, "stages": 1, "turns": 1, "draws": 1}
    baseline = {"method": "integrated_gradients", "n_steps": 2, "target": 0}
    ig = ("n_steps", "baseline", "quadrature", "tolerance", "seed", "chunk_size")
    functions = [
        Called("attribute", lambda _: sw.attribute, _pictured(**_FEW), _SMOOTHGRAD),
        Called("attribute (path)", lambda _: sw.attribute, _pictured(**baseline), ig),
        Called("attribute (layer)", lambda _: sw.attribute, _pictured(method="grad_cam", target=0), ("layer",)),
        Called("attribute (rows)", lambda _: sw.attribute, _tabled(method="expected_gradients", n_samples=2, target=0),
               ("n_samples", "baselines", "seed")),
        Called("ablate", lambda _: sw.ablate, _pictured(mask=np.eye(6, dtype=bool), draws=2), _ABOUT),
        Called("checkup", lambda _: sw.checkup, _pictured()),
        Called("evaluate", lambda _: sw.evaluate, _pictured(**given), _ABOUT),
        Called("importance", lambda _: sw.importance, lambda stage: {
            "model": stage.linear, "rows": table(), "method": "gradient", "target": 0, "progress": False, "repeats": 1,
        }, ("transform", "class_names", "device", "fold", "precision")),
        Called("shuffle", lambda _: sw.shuffle, _tabled(draws=2), ("feature_names", *_ABOUT)),
        Called("from_captum", lambda _: sw.from_captum, lambda stage: {"attribution": Saliency(stage.model)}, ("abs",)),
        Called("sweep", lambda _: sw.sweep, _pictured(
            method="smoothgrad", grid={"n_samples": [1, 2]}, progress=False, steps=2, turns=1, target=0,
        ), ("noise_level", "seed")),
        Called("explore", lambda _: _opened(sw.explore), _pictured(**_FEW), (*_SMOOTHGRAD, *_LOOK)),
        Called("explore (rows)", lambda _: _opened(sw.explore), _tabled(method="gradient"), ("top",)),
        Called("compare", lambda _: _opened(sw.compare), _pictured(methods=["gradient", "smoothgrad"]),
               ("n_samples", "noise_level", *_LOOK)),
        Called("lesson", lambda _: _opened(sw.lesson), lambda stage: {
            "model": stage.model, "image": image(), "steps": ["input"], "n_samples": 2}),
        Called("demo", lambda _: sw.demo, lambda _stage: {}),
        Called("load", lambda _: sw.load, lambda stage: {
            "path": _state(stage), "model": stage.model, "inputs": image(),
        }, ("transform", "class_names")),
        Called("Attribution.settings_from_json", lambda _: sw.Attribution.settings_from_json,
               lambda stage: {"text": stage["attribution"].to_json()}, ("target",)),
    ]  # fmt: skip
    inside = {  # of lists and mappings, each thing in them
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
            stage.linear, table().iloc[[0]], background=table(), labels=[value] * 6, method="gradient")),
        "lesson(steps=[...])": lambda stage, value: _open(sw.lesson(stage.model, image(), steps=[value])),
        "explorer.page_size({...})": lambda stage, value: stage["explorer"].page_size({"noise_level": value}),
        "explorer.page_size({[...]})": lambda stage, value: stage["explorer"].page_size({"target": [value]}),
    }  # fmt: skip
    within = [Called(name, partial(_bound, call), lambda _stage: {"value": None}) for name, call in inside.items()]
    page = {"path": _file("page.html")}
    members = [
        _method("explorer", "wait", timeout=60),
        _method("explorer", "update", "method", "target", "score", *_SMOOTHGRAD, *_LOOK),
        _method("explorer", "save_png", path=_file("map.png")),
        _method("explorer", "page_size"),
        _method("explorer", "save_html", **page, progress=False),
        _method("explorer", "save_state", path=_file("state")),
        _method("explorer", "load_state", path=lambda stage: _state(stage)),
        _method("rows", "wait", timeout=60),
        _method("rows", "update", "method", "target", "score"),
        _method("rows", "edit", "a"),
        _method("rows", "save_html", **page),
        _method("rows", "save_state", path=_file("rows")),
        _method("comparison", "wait", timeout=60, progress=False),
        _method("comparison", "show", "methods", "settings"),
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
        _method("sweep", "number_of", place=0, setting=0, metric="similarity"),
        _method("sweep", "told", number=0),
        _method("sweep", "widget_for", explorer=lambda stage: stage["explorer"]),
    ]  # fmt: skip
    return [*functions, *within, *members]


def _state(stage: Stage) -> Path:
    path = stage.folder / "kept"
    if not path.with_suffix(".json").exists():
        stage["explorer"].save_state(path)
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
"""What is called of widgets that are closed, each with arguments that would be right."""


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
            given = dict(arguments.get(name, {}))
            if owner in ("closed lesson", "closed rows"):
                given.pop("progress", None)
            return {key: value(stage) if callable(value) else value for key, value in given.items()}

        return Called(f"{owner}.{name}", of, valid, (), owner)

    return [made(owner, name) for owner, names in CLOSED.items() for name in names]


# ---- how it ends


class Overrun(BaseException):
    """A call took more work than any should."""


@contextlib.contextmanager
def bounded(cpu: float = _CPU, idle: float = _HANG) -> Iterator[None]:
    """Interrupt what takes more seconds of this process's CPU time, or waits for ever."""

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
    """Whether an error is a sentence of ours: of a ``raise`` in the package, about an argument or with advice."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or not isinstance(error, _CLEAR) or isinstance(error, UnicodeError):
        return False
    file, line = trace.tb_frame.f_code.co_filename, trace.tb_lineno
    ours = file.startswith(_PACKAGE) and linecache.getline(file, line).strip().startswith("raise ")
    message = str(error)
    return ours and len(message) < 4000 and bool(_NAMED.match(message) or _ADVICE.search(message))


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
            found = call()
    except Overrun:
        return Outcome("unbounded")
    except Exception as error:
        said = f"{type(error).__name__}: {str(error)[:160]}"
        return Outcome("clear" if is_clear(error) else "raw", said, error)
    broken = [one.what for one in found if one.what.startswith(_BROKEN)] if isinstance(found, Checkup) else []
    if broken and _NAMED.match(broken[0].removeprefix(_BROKEN)):
        return Outcome("clear", broken[0])  # a check-up tells it as what it found
    return Outcome("accepted", type(found).__name__)
