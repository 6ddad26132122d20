"""The panel under the map: closed it does nothing, open it looks into the map that is shown."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from typing import ClassVar

import ipywidgets as w
import torch

from saliency_widgets.markup import element, escape
from saliency_widgets.session.examiner import Check, CheckEvent, Examiner
from saliency_widgets.session.explanation import Case
from saliency_widgets.widgets.base.charts import alarm
from saliency_widgets.widgets.base.heatmap import HeatmapView
from saliency_widgets.widgets.base.lifetime import weakly
from saliency_widgets.widgets.base.messages import words_of
from saliency_widgets.widgets.base.text import RichText
from saliency_widgets.widgets.trust.ablation import AblationSection
from saliency_widgets.widgets.trust.curves import CurvesSection
from saliency_widgets.widgets.trust.randomization import RandomizationSection
from saliency_widgets.widgets.trust.saturation import SaturationSection
from saliency_widgets.widgets.trust.section import Section
from saliency_widgets.widgets.trust.stability import StabilitySection

_REMEMBERED = 6  # maps of other methods that are compared


class TrustPanel:
    """Tests of what is shown, one at a time.

    Args:
        view: Where the answer is shown.
        busy: Whether a map is being computed: then only what somebody waits for goes on.
        executor: "thread" or "inline".

    Attributes:
        widget: What is seen: folded at first.
        kinds: The tests, in order.
        says: What is said above them.
    """

    kinds: ClassVar[Sequence[type[Section]]] = ()
    says: ClassVar[str] = ""

    def __init__(self, view: HeatmapView, *, busy: Callable[[], bool], executor: str) -> None:
        self._view = view
        self._case: Case | None = None
        self._asked: dict[str, tuple[Check, Case]] = {}  # by the name of the check: the newest, and what it is about
        self._cases: dict[str, Case] = {}  # of the methods computed so far, by title
        self._examiner = Examiner(weakly(self._on_told), busy=busy, executor=executor)
        weakref.finalize(self, self._examiner.ending.end).atexit = False
        self._making = threading.RLock()
        self._sections: list[Section] = []  # made when the panel is opened first: most people look at the map alone
        self._choice = w.ToggleButtons(options=[(kind.title, k) for k, kind in enumerate(self.kinds)], value=0)
        self._choice.style.button_width = "auto"
        self._told = RichText()
        # Shows one section, none before it is opened first. It stays when the fold is closed, which may be while
        # bqplot draws, and what bqplot draws needs a size: the style sheet folds it without taking its width.
        self._stack = w.Stack(selected_index=None)
        says = RichText(element("div", self.says, style="line-height:1.4;margin:2px 0 6px"))
        inside = w.VBox([says, self._choice, self._told, self._stack])
        self._fold = w.Accordion([inside], titles=["Can I trust this map?"], selected_index=None)
        self._fold.observe(lambda _change: self._on_fold(), names="selected_index")
        self._choice.observe(lambda _change: self._on_choice(), names="value")
        self.widget = self._fold.add_class("sw-fold").add_class("sw-trust")
        view.prime(self._fold, self._choice)

    def _made(self, kind: type[Section]) -> Section:
        """One of the tests; those that compare get the other methods' maps."""
        return kind(self._others) if issubclass(kind, StabilitySection) else kind()  # type: ignore[arg-type]

    def _make(self) -> None:
        sections = [self._made(kind) for kind in self.kinds]
        for section in sections:
            section.ask = lambda section=section: self._ask(section)
        self._stack.children = [section.widget for section in sections]
        self._view.prime(*(one for section in sections for one in section.leaves))
        self._sections = sections  # last: other threads look here whether all is made

    @property
    def opened(self) -> bool:
        """Whether it is open."""
        return self._fold.selected_index is not None

    @property
    def _visible(self) -> Section:
        return self._sections[self._choice.value or 0]

    def show(self, case: Case, title: str) -> None:
        """A map is finished: look into it, if the panel is open; called on any thread."""
        self._cases = {name: kept for name, kept in self._cases.items() if kept.is_comparable(case) and name != title}
        self._cases[title] = self._case = case
        self._cases = dict(list(self._cases.items())[-_REMEMBERED:])
        if self.opened and self._sections:  # being opened on another thread, it asks about this case by itself
            self._ask(self._visible)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until nothing is being checked; False when the time is over first."""
        return self._examiner.wait(timeout)

    def stop(self) -> None:
        """End the tests that run; choosing one runs it again."""
        if not self._examiner.wait(0):
            self._examiner.drop()
            self._told.value = escape("Interrupted. Close and open this panel to go on.")

    def close(self) -> None:
        """End its worker, and let go of the maps."""
        self._examiner.close()
        self._cases, self._case, self._asked = {}, None, {}

    def _others(self) -> dict[str, Case]:
        """The maps of other methods, of the same target."""
        return {name: case for name, case in self._cases.items() if case is not self._case}

    def _on_fold(self) -> None:
        with self._making:
            if not self._sections:
                self._make()
        self._on_choice()
        if not self.opened:
            self._examiner.drop()

    def _on_choice(self) -> None:
        if self.opened and self._sections:  # being opened on another thread, it shows them by itself
            self._stack.selected_index = self._choice.value
            self._ask(self._visible)

    def _ask(self, section: Section) -> None:
        case = self._case
        if case is None or not self.opened:
            return
        for other in self._sections:
            if other is not self._visible:
                self._examiner.drop(other.name)
        check = section.check(case)
        if check is not None:
            self._asked[check.name] = check, case
            self._examiner.submit(check)

    def _on_told(self, told: CheckEvent) -> None:
        """The worker has something to show: on display widgets only."""
        check, case = self._asked.get(told.check.name, (None, None))
        if check is not told.check or case is None:
            return  # about a map that was left since
        if told.error is not None:
            self._told.value = alarm(words_of(told.error) or type(told.error).__name__)
            return
        if told.result is None:
            return
        if self._told.value:
            self._told.value = escape("")
        section = next(section for section in self._sections if section.name == told.check.name)
        with torch.no_grad():
            section.show(told.result, case)


class ImageTrust(TrustPanel):
    """Ablation, deletion and insertion, random weights, saturation, stability and agreement of an image's map.

    Args:
        view: Where the image and its map are shown.
        baselines: The names that mean something for the image, the default first.
        busy: Whether a map is being computed.
        executor: "thread" or "inline".
    """

    kinds = (AblationSection, CurvesSection, RandomizationSection, SaturationSection, StabilitySection)
    says = "A bright region shows what the score is sensitive to, not what causes it. Test it here."

    def __init__(self, view: HeatmapView, baselines: Sequence[str], *, busy: Callable[[], bool], executor: str) -> None:
        self._baselines = baselines
        super().__init__(view, busy=busy, executor=executor)

    def _made(self, kind: type[Section]) -> Section:
        if kind is SaturationSection:
            return SaturationSection(self._baselines)
        if kind is CurvesSection:
            return CurvesSection(self._others, self._baselines)
        if kind is not AblationSection:
            return super()._made(kind)
        ablation = AblationSection(self._view.mark, self._baselines)
        self._view.on_region(ablation.marked)
        return ablation

    def _on_fold(self) -> None:
        super()._on_fold()
        self._view.let_mark(self.opened)
