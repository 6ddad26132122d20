"""Widgets that show HTML and escape all text that is not markup."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ipywidgets as w
import traitlets

from saliency_widgets.markup import Markup, element, escape

if TYPE_CHECKING:
    _Markup = traitlets.Unicode[Markup, Markup]  # rejects the plain text of str.join, which would be escaped again
else:
    _Markup = traitlets.Unicode


class _Escaped(_Markup):
    """A trait that holds markup and escapes plain text."""

    def validate(self, obj: Any, value: Any) -> Markup:
        return escape(super().validate(obj, value))


class RichText(w.HTML):
    """A widget that shows text formatted with the functions of :mod:`saliency_widgets.markup`."""

    value = _Escaped().tag(sync=True)  # type: ignore[assignment]


def describe(widget: Any, text: str, hint: str) -> None:
    """Set a control's label and tooltip.

    The tooltip is part of the label, because ipywidgets shows none for a menu.
    """
    widget.description = element("span", text, title=hint)
    widget.description_allow_html = True
