"""Check-ups of the displayed models, while no maps are computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from saliency_widgets.api.checkup import Due, check_up_when_idle
from saliency_widgets.attribution import get_method
from saliency_widgets.diagnostics.report import Finding
from saliency_widgets.session import Problem, Request
from saliency_widgets.widgets.base import messages
from saliency_widgets.widgets.base.lifetime import weakly
from saliency_widgets.widgets.compare.grid import GridView

Displayed = Sequence[tuple[str, Problem, Request]]


class Checkups:
    """The check-ups of the models of a grid.

    Args:
        view: The grid, which shows the findings.
        displayed: Returns the model's name, the problem and the request of each displayed map.

    Attributes:
        idle: The idle task, see :func:`.check_up_when_idle`.
    """

    def __init__(self, view: GridView, displayed: Callable[[], Displayed | None]) -> None:
        self._view, self._displayed = view, displayed
        self._versions: dict[str, tuple] = {}
        self.idle = check_up_when_idle(weakly(self._due), weakly(self._show), passed_over=(TypeError, ValueError))

    def _due(self) -> list[Due]:
        """Return the pending check-ups: displayed models whose current version hasn't been checked."""
        methods, due = tuple(self._methods()), []
        for name, (problem, request) in self._models().items():
            version = problem.version(), methods
            if self._versions.get(name) != version:
                due.append(Due(problem, request, version, name))
        return due

    def _show(self, due: Due, findings: Sequence[Finding]) -> None:
        methods = self._methods()
        relevant = [f for f in findings if not f.methods or any(method in methods for method in f.methods)]
        self._versions[due.name] = due.version
        checkups = {line["name"]: line for line in self._view.checkups}
        checkups[due.name] = {"name": due.name, "findings": messages.findings_of(relevant, methods), "checked": True}
        self._view.set_traits(checkups=[checkups[name] for name in self._models() if name in checkups])

    def _models(self) -> dict[str, tuple[Problem, Request]]:
        """Return the first displayed map of each model."""
        models: dict[str, tuple[Problem, Request]] = {}
        for name, problem, request in self._displayed() or ():
            models.setdefault(name, (problem, request))
        return models

    def _methods(self) -> dict[str, str]:
        """Return the methods of all displayed maps with their titles."""
        names = dict.fromkeys(request.method for _, _, request in self._displayed() or ())
        return {name: get_method(name).title for name in names}
