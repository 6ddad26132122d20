"""The check-up: what in this model will make which method wrong or slow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["wrong", "caution", "slow"]


@dataclass(frozen=True)
class Finding:
    """One thing to know before believing a map of this model.

    Attributes:
        what: What was found, one sentence.
        where: The module paths it is about; empty where it is about the whole model or the input.
        methods: The names of the methods it makes wrong or slow; empty where it concerns all.
        remedy: What to do, one sentence.
        severity: "wrong" (the map is not what it says), "caution" (it may mislead), "slow".
    """

    what: str
    where: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    remedy: str = ""
    severity: Severity = "wrong"
