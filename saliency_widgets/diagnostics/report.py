"""Findings of the check-up, and how they are printed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, overload

from saliency_widgets.markup import Markup, element

Severity = Literal["wrong", "caution", "slow"]


@dataclass(frozen=True)
class Finding:
    """A problem that affects the maps of this model.

    Attributes:
        what: A description of the problem, in one sentence.
        where: The paths of the affected modules; empty if it concerns the whole model or the input.
        methods: The names of the methods that it makes wrong or slow; empty if it concerns all.
        remedy: The recommended action, in one sentence.
        severity: "wrong" (a map is incorrect or can't be computed), "caution" (a map may mislead), "slow".
    """

    what: str
    where: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    remedy: str = ""
    severity: Severity = "wrong"

    def __str__(self) -> str:
        concerned = f" [{', '.join(self.methods)}]" if self.methods else ""
        return f"{self.severity}: {self.what}{_in(self.where)}{concerned} What to do: {self.remedy}"


class Checkup(Sequence[Finding]):
    """A sequence of findings, the most severe first, printed one per line."""

    def __init__(self, findings: Iterable[Finding]) -> None:
        grave = ("wrong", "caution", "slow")
        self._findings = sorted(findings, key=lambda finding: grave.index(finding.severity))

    @overload
    def __getitem__(self, index: int) -> Finding: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Finding]: ...
    def __getitem__(self, index: int | slice) -> Finding | Sequence[Finding]:
        return self._findings[index]

    def __len__(self) -> int:
        return len(self._findings)

    def __repr__(self) -> str:
        return "\n".join(map(str, self._findings)) or "No problems found."

    def _repr_html_(self) -> str:
        if not self._findings:
            return element("p", repr(self))

        def row(kind: str, cells: Iterable[str]) -> Markup:
            style = "text-align:left;vertical-align:top"
            return element("tr", *(element(kind, cell, style=style) for cell in cells))

        said = [(f.severity, f.what, _listed(f.where), ", ".join(f.methods) or "all", f.remedy) for f in self._findings]
        head = row("th", ("", "what", "where", "methods", "what to do"))
        return element("table", head, *(row("td", cells) for cells in said))


def _in(where: Sequence[str]) -> str:
    return f" In {_listed(where)}." if where else ""


def _listed(where: Sequence[str], most: int = 4) -> str:
    return ", ".join(where[:most]) + (f" and {len(where) - most} more" if len(where) > most else "")


def failed_checkup(error: Exception) -> Finding:
    """Return the finding that the check-up itself failed, which is not the model's fault."""
    what = f"The check-up failed: {type(error).__name__}: {error}."
    return Finding(what, remedy="Please report it.", severity="caution")
