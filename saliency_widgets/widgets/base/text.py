"""Widgets that show HTML: whatever isn't markup is escaped on its way into them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ipywidgets as w
import traitlets

from saliency_widgets.markup import Markup, element, escape

if TYPE_CHECKING:
    _Markup = traitlets.Unicode[Markup, Markup]  # lines that are joined by str.join would be escaped twice
else:
    _Markup = traitlets.Unicode


class _Escaped(_Markup):
    """A trait that holds markup: plain text becomes it."""

    def validate(self, obj: Any, value: Any) -> Markup:
        return escape(super().validate(obj, value))


class RichText(w.HTML):
    """Text on the page, which the functions of :mod:`saliency_widgets.markup` make bold, colored or a table."""

    value = _Escaped().tag(sync=True)  # type: ignore[assignment]


def describe(widget: Any, text: str, hint: str) -> None:
    """Put a text beside a control, with a hint for the mouse.

    Of a menu, ipywidgets shows no tooltip: it is a part of the description.
    """
    widget.description = element("span", text, title=hint)
    widget.description_allow_html = True
