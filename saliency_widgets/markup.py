"""HTML made from text: the only place where text is escaped, so that all of it is, and once."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

_WITHOUT_CONTENT = ("br", "img")
_HALF = re.compile("[\ud800-\udfff]")


class Markup(str):
    """Text that is HTML already: only the functions of this module make it."""

    __slots__ = ()


def whole(text: str) -> str:
    """Text that a file can hold: halves of characters (surrogates), as broken file names have, become \ufffd."""
    return _HALF.sub("\ufffd", text)


def escape(text: object) -> Markup:
    """Text as HTML: markup stays as it is, of anything else each character is shown."""
    return text if isinstance(text, Markup) else Markup(html.escape(whole(str(text))))


def joined(parts: Iterable[object], separator: str = "") -> Markup:
    """Several texts one after another, each escaped unless it is markup."""
    return Markup(escape(separator).join(map(escape, parts)))


def element(tag: str, *content: object, **attributes: object) -> Markup:
    """An HTML element.

    Args:
        tag: Its name.
        *content: What it holds: markup, or text, which is escaped.
        **attributes: Its attributes: ``class_`` is ``class``, and ``aria_hidden`` is ``aria-hidden``.
    """
    named = ((name.rstrip("_").replace("_", "-"), escape(value)) for name, value in attributes.items())
    start = "".join([f"<{tag}", *(f' {name}="{value}"' for name, value in named), ">"])
    return Markup(start if tag in _WITHOUT_CONTENT else f"{start}{joined(content)}</{tag}>")
