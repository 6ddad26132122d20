"""The steps of a lesson, each built by a function that fills a page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from saliency_widgets.widgets.lesson.page import Page


@dataclass(frozen=True)
class Step:
    """One step of a lesson.

    Attributes:
        name: The name in code.
        title: A short title for the strip.
        says: Two sentences of explanation.
        control: The label of the explorer's control for the same setting.
        control_class: The CSS class of that control.
        settings: The explorer's settings for "Try it".
        build: A function that fills the page with the results of a board of its kind of input.
        method: The method whose requirements the model must meet; may be empty.
    """

    name: str
    title: str
    says: tuple[str, str]
    control: str
    control_class: str
    settings: Mapping[str, Any]
    build: Callable[[Any, Page], None]
    method: str = ""


def step(
    title: str,
    *says: str,
    control: str,
    control_class: str,
    settings: Mapping[str, Any] | None = None,
    method: str = "",
) -> Callable[[Callable[[Any, Page], None]], Step]:
    """Return a decorator that turns a function filling a page into a step of the same name."""

    def wrap(build: Callable[[Any, Page], None]) -> Step:
        first, second = says
        return Step(build.__name__, title, (first, second), control, control_class, settings or {}, build, method)

    return wrap
