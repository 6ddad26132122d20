"""Validation of messages from a page, which may be truncated, outdated or foreign."""

from __future__ import annotations

from typing import Any


def whole_number(message: Any, name: str) -> int | None:
    """Return the integer under this name, or None if there is none."""
    value = message.get(name) if isinstance(message, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def clicked_index(event: Any) -> int | None:
    """Return the index of the clicked element of a bqplot mark."""
    return whole_number(event.get("data") if isinstance(event, dict) else None, "index")
