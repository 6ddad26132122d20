"""Messages from a page, looked at before they are used: they may be cut short, outdated, or not ours at all."""

from __future__ import annotations

from typing import Any


def whole_number(message: Any, name: str) -> int | None:
    """The whole number that a message holds under a name; None where it holds none."""
    value = message.get(name) if isinstance(message, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def clicked_index(event: Any) -> int | None:
    """Which element of a bqplot mark was clicked."""
    return whole_number(event.get("data") if isinstance(event, dict) else None, "index")
