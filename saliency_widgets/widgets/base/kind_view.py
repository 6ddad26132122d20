"""What an explorer shows of one kind of input: a subclass of :class:`KindView` for each, in the kind's folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NoReturn, Protocol

import ipywidgets as w

from saliency_widgets.attribution import Attribution, Reduction
from saliency_widgets.diagnostics.report import Finding
from saliency_widgets.session import Event, Problem, Request, Session
from saliency_widgets.widgets.base.heatmap import HeatmapView
from saliency_widgets.widgets.export.static_output import Snapshot
from saliency_widgets.widgets.trust import TrustPanel


class Explored(Protocol):
    """What the parts of an explorer see of it.

    Attributes:
        problem: The model and the input.
        session: Computes the requests.
        request: The newest request.
        arguments: The caller's arguments that are not in ``problem.options``.
        is_open: Whether it was not closed.
    """

    problem: Problem
    session: Session
    request: Request
    arguments: dict[str, Any]
    is_open: bool

    @property
    def panel(self) -> Any: ...  # noqa: D102
    @property
    def view(self) -> HeatmapView: ...  # noqa: D102
    @property
    def kind_view(self) -> KindView: ...  # noqa: D102
    @property
    def attribution(self) -> Attribution | None: ...  # noqa: D102
    @property
    def controls(self) -> dict[str, Any]: ...  # noqa: D102
    def wait(self, timeout: float | None = None) -> Attribution: ...  # noqa: D102
    def update(self, /, **settings: Any) -> None: ...  # noqa: D102
    def to_code(self) -> str: ...  # noqa: D102

    def submit(self, request: Request | None = None) -> None:
        """Submit a request, by default that of the controls."""
        ...

    def refuse(self, error: Exception) -> None:
        """Show why the input can't be used; the map stays."""
        ...

    def status_of(self, event: Event, shown: Event, requested: str, sign: str | None = None) -> dict[str, Any]:
        """The status line of an event."""
        ...


@dataclass(frozen=True)
class Setup:
    """What an explorer starts with, besides the problem; see :func:`.explore`.

    Attributes:
        executor: "thread" or "inline".
        panel: Arguments of the panel: method, target, score and more methods.
        params: Parameters of the initial method, and display settings.
        labels: The labels of the background's rows.
    """

    executor: str
    panel: Mapping[str, Any]
    params: dict[str, Any] = field(default_factory=dict)
    labels: Any = None


class KindView:
    """The controls, the drawing and the trust tests of one kind of input.

    Args:
        problem: The model and the input.
        setup: The initial settings, all of which are checked here.

    Attributes:
        panel: The controls.
        view: Shows progress, readings and errors, and the map if there is one.
        trust: The tests of the attribution that is shown.
        reduction: How values are reduced for the tests.
    """

    noun: ClassVar[str] = "an input"
    outdated: ClassVar[str] = ""
    """The note for predictions of another model or input."""
    panel: Any  # of a subclass of Panel
    view: HeatmapView
    trust: TrustPanel

    def __init__(self, problem: Problem, setup: Setup) -> None:
        self.problem, self.setup = problem, setup

    def build(self, explorer: Explored) -> Sequence[w.Widget]:
        """Make the widgets, with :attr:`view` and :attr:`trust`, and return the explorer's children."""
        raise NotImplementedError

    @property
    def reduction(self) -> Reduction:
        """How values are reduced for the trust tests."""
        return Reduction("signed")

    @property
    def settings(self) -> dict[str, Any]:
        """The display settings that :meth:`.Explorer.update` takes, besides those of the panel."""
        return {}

    @property
    def look(self) -> dict[str, Any] | None:
        """How the values are rendered, for the code."""
        return None

    @property
    def drawn(self) -> dict[w.Widget, bytes]:
        """What was drawn over the map, as PNG bytes."""
        return {}

    @property
    def sign(self) -> str | None:
        """How the map's sign is shown; None if there is no choice."""
        return None

    def show(self, event: Event) -> None:
        """Show the values of an event, before its status; called on the worker's thread."""

    def finish(self) -> None:
        """React to a finished map; called after its status is shown."""

    def wait(self, timeout: float | None) -> None:
        """Wait for maps besides that of the controls."""

    def comments(self) -> list[str]:
        """Lines above the code: what it can't say."""
        return []

    def checkup_version(self, version: tuple) -> Any:
        """Return the part of a version that the check-up depends on."""
        return version

    def relevant(self, findings: Sequence[Finding]) -> Sequence[Finding]:
        """Select the findings of the check-up that concern the methods of the menu."""
        return findings

    def snapshot(self, lines: Callable[..., list[str]]) -> Snapshot:
        """Return an image and a text for readers without a kernel.

        Args:
            lines: Returns the texts around the map, with further settings by name.
        """
        raise NotImplementedError

    def snapshot_sources(self) -> Mapping[w.Widget, Sequence[str]]:
        """Return the traits that a snapshot shows, besides those of :attr:`view`."""
        return {}

    @property
    def stored(self) -> Any:
        """What a state holds of the input, besides what the model sees."""
        return None

    def restore(self, stored: Any) -> Callable[[], object]:  # noqa: ARG002
        """Show the input of a state; return what undoes that."""
        return lambda: None

    @classmethod
    def arguments(
        cls,
        state: Mapping[str, Any],
        inputs: Any,
        further: Mapping[str, Any],  # noqa: ARG003
    ) -> tuple[Any, dict[str, Any]]:
        """Return the input of a state, and the arguments of :func:`.explore` besides its controls.

        Args:
            state: The state.
            inputs: What the caller passes instead of the state's; None for those.
            further: The caller's arguments.

        Raises:
            ValueError: An argument is missing that a state can't hold.
        """
        return state["inputs"] if inputs is None else inputs, {}

    def close(self) -> None:
        """End workers besides those of the session and the tests."""

    # ---- what only some kinds have

    @property
    def row(self) -> Any:
        """See :attr:`.Explorer.row`."""
        self._refuse("row", "it is not a row of a table")

    def edit(self, values: Mapping[str, Any]) -> None:  # noqa: ARG002
        """See :meth:`.Explorer.edit`."""
        self._refuse("edit", "only rows of a table have named values. Create a new explorer for another input")

    def pin(self) -> None:
        """See :meth:`.Explorer.pin`."""
        self._refuse("pin", "only maps of images are pinned")

    @property
    def annotations(self) -> Any:
        """See :attr:`.Explorer.annotations`."""
        self._refuse("annotations", "only images are drawn on")

    def save_png(self, path: Any, scale: float | None, caption: str) -> None:  # noqa: ARG002
        """See :meth:`.Explorer.save_png`."""
        self._refuse("save_png", "explorer.save_state(path) stores everything for sw.load")

    def page_size(self, record: Mapping[str, Any] | None) -> Any:  # noqa: ARG002
        """See :meth:`.Explorer.page_size`."""
        self._refuse("page_size", "it can't be saved as a page")

    def save_html(self, path: Any, record: Mapping[str, Any] | None, **options: Any) -> Any:  # noqa: ARG002
        """See :meth:`.Explorer.save_html`."""
        self._refuse("save_html", "explorer.save_state(path) stores everything for sw.load")

    def _refuse(self, name: str, why: str) -> NoReturn:
        raise NotImplementedError(f"{name}: this explorer shows {self.noun}: {why}.")
