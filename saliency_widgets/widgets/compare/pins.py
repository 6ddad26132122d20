"""Maps pinned in an explorer, shown side by side with the explorer's display settings."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Hashable

import ipywidgets as w

from saliency_widgets.attribution import Reduction, get_method
from saliency_widgets.attribution.reduction import CHANNEL, SIGN
from saliency_widgets.attribution.score import SCORE
from saliency_widgets.session import Request, Session
from saliency_widgets.widgets.base.display import DisplaySettings
from saliency_widgets.widgets.compare.maps import Maps, Wanted

_HOW = "Keep this map to compare it with other settings, methods and classes."


class Pins:
    """The pinned maps of one explorer.

    Args:
        session: The explorer's session, whose finished maps are reused.
        display: The explorer's display settings.
        executor: "thread" or "inline".
        pinned: Called when the user clicks the button that pins the displayed map.
        wanted: Called with the request and the reduction of a pinned map that the user clicks.

    Attributes:
        widget: The buttons, and the grid once a map is pinned.
    """

    def __init__(
        self,
        session: Session,
        display: DisplaySettings,
        *,
        executor: str,
        pinned: Callable[[], None],
        wanted: Callable[[Request, Reduction], None],
    ) -> None:
        self._session, self._display, self._executor, self._wanted = session, display, executor, wanted
        self._pinning = threading.RLock()
        self._pins: dict[str, Wanted] = {}
        self._keys: dict[str, tuple] = {}  # name -> model version, request and reduction of each map
        self._numbers = itertools.count(1)
        self._maps: Maps | None = None
        self._pin = w.Button(description="Pin this map", tooltip=_HOW)
        self._last = w.Button(description="Unpin the last", layout={"display": "none"})
        self._clear = w.Button(description="Unpin all", layout={"display": "none"})
        self._pin.on_click(lambda _button: pinned())
        self._last.on_click(lambda _button: self.unpin())
        self._clear.on_click(lambda _button: self.clear())
        row = w.HBox([self._pin, self._last, self._clear], layout={"flex_flow": "row wrap"})
        self.widget = w.VBox([row], layout={"flex": "1 1 100%", "overflow": "visible"})
        self.widget.add_class("sw-pins")

    def __len__(self) -> int:
        return len(self._pins)

    @property
    def requests(self) -> list[Request]:
        """The pinned requests, oldest first."""
        return [want.request for want in self._pins.values()]

    def pin(self, request: Request, reduction: Reduction) -> None:
        """Append a map to the pinned maps."""
        with self._pinning:
            self._add(request, reduction)

    def _add(self, request: Request, reduction: Reduction) -> None:
        problem = self._session.problem
        key = (problem.version(), request.key, reduction)
        if key in self._keys.values():  # already pinned; after training, the same request gives a different map
            return
        first = f"{next(self._numbers)} {get_method(request.method).title}"
        name = " · ".join(
            [first, problem.name_of(request.target, request.score, short=True), *describe_settings(request, reduction)]
        )
        squared = SIGN.title.lower() + " squared" if reduction.sign == "squared" else ""
        folded = "" if reduction.channels == CHANNEL.default else f"{CHANNEL.title.lower()} {reduction.channels}"
        scale = "" if request.score == SCORE.default else request.score
        group = " · ".join(filter(None, [get_method(request.method).title, scale, squared, folded]))
        want = Wanted(problem, request, name, group, owner=self._session.owner, reduction=reduction)
        self._keys[name] = key
        self._pins[name] = want
        self._show()

    def unpin(self) -> None:
        """Remove the map that was pinned last."""
        with self._pinning:
            if self._pins:
                name, _ = self._pins.popitem()
                self._keys.pop(name, None)
                self._show()
                if self._maps is not None:
                    self._maps.forget([name])

    def clear(self) -> None:
        """Remove all pinned maps."""
        while self._pins:
            self.unpin()

    def wait(self, timeout: float | None = None) -> None:
        """Wait until every pinned map is finished, failed or stopped.

        Raises:
            TimeoutError: The maps were not finished in time.
        """
        if self._maps is not None:
            self._maps.wait(timeout)

    def close(self) -> None:
        """End the computation."""
        if self._maps is not None:
            self._maps.close()

    def _show(self) -> None:
        if self._maps is None:
            self._maps = Maps(self._display, executor=self._executor, on_open=self._open, check_up=False)
            self._maps.view.layout.width = "100%"
            self.widget.children = [*self.widget.children, self._maps.view]
        shown = None if self._pins else "none"
        for part in (self._last, self._clear, self._maps.view):
            part.layout.display = shown
        self._maps.show([""], list(self._pins), self._pins, again=False)  # finished maps stay as they are

    def _open(self, name: Hashable) -> None:
        want = self._pins.get(str(name))
        if want is not None and want.reduction is not None:
            self._wanted(want.request, want.reduction)


def describe_settings(request: Request, reduction: Reduction) -> list[str]:
    """Describe the settings of a request that differ from the method's defaults."""
    entry = get_method(request.method)
    params = dict(request.params)
    texts = [
        param.describe(params[param.name])
        for param in entry.params
        if not param.advanced and params.get(param.name) is not param.default and params[param.name] != param.default
    ]
    if request.score != SCORE.default:
        texts.append(request.score.replace("_", " "))
    if reduction.sign != entry.sign:
        texts.append(reduction.sign)
    if reduction.channels != CHANNEL.default:
        texts.append(f"channels {reduction.channels}")
    return texts
