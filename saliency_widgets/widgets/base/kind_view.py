"""The part of an explorer that depends on the kind of input; each kind's folder has a subclass of :class:`KindView`."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NoReturn, Protocol

import ipywidgets as w

from saliency_widgets.attribution import Attribution, Reduction
from saliency_widgets.diagnostics.report import Finding
from saliency_widgets.inputs import Prepared
from saliency_widgets.session import Event, Problem, Request, Session
from saliency_widgets.widgets.base import messages
from saliency_widgets.widgets.base.heatmap import HeatmapView
from saliency_widgets.widgets.export.static_output import Snapshot
from saliency_widgets.widgets.trust import TrustPanel

_WIDGETS = "saliency_widgets.widgets"


class Explored(Protocol):
    """The interface of an explorer for its parts.

    Attributes:
        problem: The model and the input.
        session: Computes the requests.
        request: The newest request.
        arguments: The caller's arguments that are not in ``problem.options``.
        is_open: Whether the explorer is open.
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
        """Submit a request. Default: the request of the controls."""
        ...

    def refuse(self, error: Exception) -> None:
        """Show why a value can't be used; the map stays."""
        ...

    def status_of(self, event: Event, shown: Event, requested: str, sign: str | None = None) -> dict[str, Any]:
        """Return the status for an event."""
        ...


def view_of(kind: str) -> type[KindView]:
    """Return the view of a kind of input: ``VIEW`` in the module ``view`` of its folder, or else that of images.

    Args:
        kind: The name of the kind.
    """
    folder = f"{_WIDGETS}.{kind}"
    shown = kind if importlib.util.find_spec(folder) is not None else "image"
    return importlib.import_module(f"{_WIDGETS}.{shown}.view").VIEW


@dataclass(frozen=True)
class Setup:
    """The initial settings of an explorer in addition to the problem, see :func:`.explore`.

    Attributes:
        executor: "thread" or "inline".
        panel: The arguments of the panel: method, target, score and more methods.
        params: The parameters of the initial method, and display settings.
        labels: The labels of the background's rows.
    """

    executor: str
    panel: Mapping[str, Any]
    params: dict[str, Any] = field(default_factory=dict)
    labels: Any = None


class KindView:
    """The controls, the display and the trust tests for one kind of input.

    Args:
        problem: The model and the input.
        setup: The initial settings. The constructor checks all of them.

    Attributes:
        panel: The controls.
        view: The view of progress, readings and errors, and of the map if the input is an image.
        trust: The tests of the displayed attribution.
        reduction: The reduction of the values for the trust tests.
    """

    noun: ClassVar[str] = "an input"
    part_noun: ClassVar[str] = "pixels"
    last_layer: ClassVar[str] = "the last spatial layer"
    """The layer that "auto" stands for, in words."""
    outdated: ClassVar[str] = ""
    """The note shown when the predictions belong to an earlier model or input."""
    panel: Any  # of a subclass of Panel
    view: HeatmapView
    trust: TrustPanel

    def __init__(self, problem: Problem, setup: Setup) -> None:
        self.problem, self.setup = problem, setup

    def build(self, explorer: Explored) -> Sequence[w.Widget]:
        """Create the widgets, among them :attr:`view` and :attr:`trust`, and return the explorer's children."""
        raise NotImplementedError

    @property
    def reduction(self) -> Reduction:
        """The reduction of the values for the trust tests."""
        return Reduction("signed")

    @property
    def settings(self) -> dict[str, Any]:
        """The display settings that :meth:`.Explorer.update` accepts in addition to the panel's settings."""
        return {}

    @property
    def look(self) -> dict[str, Any] | None:
        """The settings that determine how the values are rendered, for the code to copy; None without a map."""
        return None

    @property
    def drawn(self) -> dict[w.Widget, bytes]:
        """The drawings over the map as PNG bytes, by canvas."""
        return {}

    @property
    def sign(self) -> str | None:
        """The selected sign of the map; None if it can't be selected."""
        return None

    def show(self, event: Event) -> None:
        """Show the values of an event; called on the worker's thread, before the status is shown."""

    def frame_of(self, event: Event) -> dict[str, Any] | None:
        """Return the event's frame for the page; None if it has none."""
        return messages.frame_of(event)

    @classmethod
    def still(
        cls,
        prepared: Prepared,  # noqa: ARG003
        request: Request,  # noqa: ARG003
        reduction: Reduction | None = None,  # noqa: ARG003
    ) -> dict[str, Any]:
        """Return the scene of one map without what needs an explorer, as in a cell of a grid; {} for an image.

        Args:
            prepared: The input.
            request: The request of the map.
            reduction: The reduction of the map, which may show only a part of it.
        """
        return {}

    @classmethod
    def still_frame(cls, prepared: Prepared, event: Event) -> dict[str, Any] | None:  # noqa: ARG003
        """Return the event's frame for such a scene; None if it has none."""
        return messages.frame_of(event)

    @classmethod
    def axes(cls, prepared: Prepared) -> dict[str, int]:  # noqa: ARG003
        """Return the number of positions on each axis along which such a scene shows a part; {} if it shows all."""
        return {}

    @classmethod
    def reduced_at(cls, prepared: Prepared, reduction: Reduction, at: Sequence[float] | None) -> Reduction:  # noqa: ARG003
        """Return a reduction to the part at a position.

        Args:
            prepared: The input.
            reduction: The reduction of the values.
            at: The position on each of :meth:`axes`, in [0, 1]; None for the middle.
        """
        return reduction

    def page_scene(self, request: Request) -> dict[str, Any]:
        """Return the scene of one map on a saved page."""
        return self.still(self.problem.prepared, request)

    def finish(self) -> None:
        """Handle a finished map; called after its status is shown."""

    def wait(self, timeout: float | None) -> None:
        """Wait for the maps other than the one that the controls request."""

    def comments(self) -> list[str]:
        """Return comments to put above the code, about settings that it can't express."""
        return []

    def checkup_version(self, version: tuple) -> Any:
        """Return the part of a version that the check-up depends on."""
        return version

    def relevant(self, findings: Sequence[Finding]) -> Sequence[Finding]:
        """Return the findings of the check-up that concern methods in the menu."""
        return findings

    def snapshot(self, lines: Callable[..., list[str]]) -> Snapshot:
        """Return an image and a text to display without a kernel.

        Args:
            lines: Returns the texts around the map; its keyword arguments are display settings to list.
        """
        raise NotImplementedError

    def snapshot_sources(self) -> Mapping[w.Widget, Sequence[str]]:
        """Return the traits that a snapshot depends on, by widget, in addition to those of :attr:`view`."""
        return {}

    @property
    def stored(self) -> Mapping[str, Any]:
        """The fields of a state that hold the input, if the model's input tensor doesn't suffice."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> Callable[[], object]:  # noqa: ARG002
        """Show the input of a state and return a function that undoes it."""
        return lambda: None

    @classmethod
    def arguments(
        cls,
        state: Mapping[str, Any],
        inputs: Any,
        further: Mapping[str, Any],  # noqa: ARG003
    ) -> tuple[Any, dict[str, Any]]:
        """Return the input of a state, and arguments of :func:`.explore` other than the controls.

        Args:
            state: The state.
            inputs: The caller's inputs, which replace those of the state; None to use those of the state.
            further: The caller's other arguments.

        Raises:
            ValueError: An argument that a state can't store is missing.
        """
        return state["inputs"] if inputs is None else inputs, {}

    def close(self) -> None:
        """End the workers other than those of the session and the tests."""

    # ---- features of only some kinds

    @property
    def row(self) -> Any:
        """See :attr:`.Explorer.row`."""
        self._refuse("row", "only explorers of a table have a row")

    def edit(self, values: Mapping[str, Any]) -> None:  # noqa: ARG002
        """See :meth:`.Explorer.edit`."""
        self._refuse("edit", "only rows of a table and texts can be edited. Create a new explorer for another input")

    def pin(self) -> None:
        """See :meth:`.Explorer.pin`."""
        self._refuse("pin", "only maps of images can be pinned")

    @property
    def annotations(self) -> Any:
        """See :attr:`.Explorer.annotations`."""
        self._refuse("annotations", "drawing is supported only for images")

    def save_png(self, path: Any, scale: float | None, caption: str) -> None:  # noqa: ARG002
        """See :meth:`.Explorer.save_png`."""
        self._refuse(
            "save_png", "it can't be saved as an image. explorer.save_state(path) stores everything for sw.load"
        )

    def page_size(self, record: Mapping[str, Any] | None) -> Any:  # noqa: ARG002
        """See :meth:`.Explorer.page_size`."""
        self._refuse("page_size", "it can't be saved as a page")

    def save_html(self, path: Any, record: Mapping[str, Any] | None, **options: Any) -> Any:  # noqa: ARG002
        """See :meth:`.Explorer.save_html`."""
        self._refuse(
            "save_html", "it can't be saved as a page. explorer.save_state(path) stores everything for sw.load"
        )

    def _refuse(self, name: str, why: str) -> NoReturn:
        raise NotImplementedError(f"{name}: this explorer shows {self.noun}: {why}.")
