"""Validation of messages from a page, which can be truncated, outdated or sent by other code."""

from __future__ import annotations

from typing import Any


def whole_number(message: Any, name: str) -> int | None:
    """Return the integer stored under ``name``, or None if there is no integer."""
    value = message.get(name) if isinstance(message, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def clicked_index(event: Any) -> int | None:
    """Return the index of the clicked element of a bqplot mark, or None if the event has no valid index."""
    return whole_number(event.get("data") if isinstance(event, dict) else None, "index")
