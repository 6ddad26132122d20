"""Widgets that show HTML; anything that isn't markup is escaped."""

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
    """A trait that holds markup; plain text is escaped."""

    def validate(self, obj: Any, value: Any) -> Markup:
        return escape(super().validate(obj, value))


class RichText(w.HTML):
    """Text on the page, formatted with the functions of :mod:`saliency_widgets.markup`."""

    value = _Escaped().tag(sync=True)  # type: ignore[assignment]


def describe(widget: Any, text: str, hint: str) -> None:
    """Label a control, with a tooltip.

    ipywidgets shows no tooltip for a menu, so it is part of the description.
    """
    widget.description = element("span", text, title=hint)
    widget.description_allow_html = True
