"""HTML from text. Text is escaped only here, so that all of it is escaped exactly once."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

_WITHOUT_CONTENT = ("br", "img")
_HALF = re.compile("[\ud800-\udfff]")


class Markup(str):
    """Text that is already HTML; only the functions of this module create it."""

    __slots__ = ()


def whole(text: str) -> str:
    """Return text that can be encoded, with lone surrogates, as in broken file names, replaced by \ufffd."""
    return _HALF.sub("\ufffd", text)


def escape(text: object) -> Markup:
    """Return text as HTML: markup unchanged, everything else escaped."""
    return text if isinstance(text, Markup) else Markup(html.escape(whole(str(text))))


def joined(parts: Iterable[object], separator: str = "") -> Markup:
    """Join several texts, each escaped unless it is markup."""
    return Markup(escape(separator).join(map(escape, parts)))


def element(tag: str, *content: object, **attributes: object) -> Markup:
    """Return an HTML element.

    Args:
        tag: The element's name.
        *content: The element's content: markup, or text, which is escaped.
        **attributes: The element's attributes: ``class_`` is ``class``, and ``aria_hidden`` is ``aria-hidden``.
    """
    named = ((name.rstrip("_").replace("_", "-"), escape(value)) for name, value in attributes.items())
    start = "".join([f"<{tag}", *(f' {name}="{value}"' for name, value in named), ">"])
    return Markup(start if tag in _WITHOUT_CONTENT else f"{start}{joined(content)}</{tag}>")
