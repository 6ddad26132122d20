"""The panel under the map: while open, it tests the displayed map; closed, it does nothing."""

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
from saliency_widgets.widgets.base.charts import error_line
from saliency_widgets.widgets.base.heatmap import HeatmapView
from saliency_widgets.widgets.base.lifetime import weakly
from saliency_widgets.widgets.base.messages import error_text
from saliency_widgets.widgets.base.text import RichText
from saliency_widgets.widgets.trust.ablation import AblationSection
from saliency_widgets.widgets.trust.curves import CurvesSection
from saliency_widgets.widgets.trust.randomization import RandomizationSection
from saliency_widgets.widgets.trust.saturation import SaturationSection
from saliency_widgets.widgets.trust.section import Section
from saliency_widgets.widgets.trust.stability import StabilitySection

_REMEMBERED = 6  # maps of other methods for comparison


class TrustPanel:
    """Tests of the displayed map, one at a time.

    Args:
        view: The view of the map.
        busy: Returns whether a map is being computed; then only urgent tests run.
        executor: "thread" or "inline".

    Attributes:
        widget: The panel, initially folded.
        kinds: The section classes, in order.
        says: The text above them.
    """

    kinds: ClassVar[Sequence[type[Section]]] = ()
    introduction: ClassVar[str] = ""

    def __init__(self, view: HeatmapView, *, busy: Callable[[], bool], executor: str) -> None:
        self._view = view
        self._case: Case | None = None
        self._checks: dict[str, tuple[Check, Case]] = {}  # check name -> the newest check and the map that it tests
        self._cases: dict[str, Case] = {}  # the maps computed so far, by title
        self._examiner = Examiner(weakly(self._on_result), busy=busy, executor=executor)
        weakref.finalize(self, self._examiner.jobs.ending.end).atexit = False
        self._making = threading.RLock()
        self._sections: list[Section] = []  # made when the panel is first opened
        self._choice = w.ToggleButtons(options=[(kind.title, k) for k, kind in enumerate(self.kinds)], value=0)
        self._choice.style.button_width = "auto"
        self._message = RichText()
        # Shows one section, none before the panel is first opened. It stays when the fold is closed, which may be while
        # bqplot draws into it and needs a size: the style sheet folds it without changing its width.
        self._stack = w.Stack(selected_index=None)
        introduction = RichText(element("div", self.introduction, style="line-height:1.4;margin:2px 0 6px"))
        inside = w.VBox([introduction, self._choice, self._message, self._stack])
        self._fold = w.Accordion([inside], titles=["Can I trust this map?"], selected_index=None)
        self._fold.observe(lambda _change: self._on_fold(), names="selected_index")
        self._choice.observe(lambda _change: self._on_choice(), names="value")
        self.widget = self._fold.add_class("sw-fold").add_class("sw-trust")
        view.add_controls(self._fold, self._choice)

    def _make_section(self, kind: type[Section]) -> Section:
        """Create a section; those that compare methods get the other maps."""
        return kind(self._others) if issubclass(kind, StabilitySection) else kind()  # type: ignore[arg-type]

    def _make_sections(self) -> None:
        sections = [self._make_section(kind) for kind in self.kinds]
        for section in sections:
            section.ask = lambda section=section: self._ask(section)
        self._stack.children = [section.widget for section in sections]
        self._view.add_controls(*(leaf for section in sections for leaf in section.leaves))
        self._sections = sections  # last: other threads check it to see whether all sections exist

    @property
    def opened(self) -> bool:
        """Whether the panel is open."""
        return self._fold.selected_index is not None

    @property
    def _visible(self) -> Section:
        return self._sections[self._choice.value or 0]

    def show(self, case: Case, title: str) -> None:
        """Test a finished map if the panel is open; called on any thread."""
        self._cases = {
            name: other for name, other in self._cases.items() if other.is_comparable(case) and name != title
        }
        self._cases[title] = self._case = case
        self._cases = dict(list(self._cases.items())[-_REMEMBERED:])
        if self.opened and self._sections:  # a thread that is opening the panel tests this map itself
            self._ask(self._visible)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until no test runs; return False on a timeout."""
        return self._examiner.jobs.wait(timeout)

    def stop(self) -> None:
        """Stop the running tests; selecting one runs it again."""
        if not self._examiner.jobs.wait(0):
            self._examiner.jobs.drop()
            self._message.value = escape("Interrupted. Close and open this panel to continue.")

    def close(self) -> None:
        """End the worker and release the maps."""
        self._examiner.close()
        self._cases, self._case, self._checks = {}, None, {}

    def _others(self) -> dict[str, Case]:
        """Return the maps of other methods for the same target."""
        return {name: case for name, case in self._cases.items() if case is not self._case}

    def _on_fold(self) -> None:
        with self._making:
            if not self._sections:
                self._make_sections()
        self._on_choice()
        if not self.opened:
            self._examiner.jobs.drop()

    def _on_choice(self) -> None:
        if self.opened and self._sections:  # a thread that is opening the panel shows them itself
            self._stack.selected_index = self._choice.value
            self._ask(self._visible)

    def _ask(self, section: Section) -> None:
        case = self._case
        if case is None or not self.opened:
            return
        for other in self._sections:
            if other is not self._visible:
                self._examiner.jobs.drop(other.name)
        check = section.check(case)
        if check is not None:
            self._checks[check.name] = check, case
            self._examiner.submit(check)

    def _on_result(self, result: CheckEvent) -> None:
        """Show a result from the worker; touches only display widgets."""
        check, case = self._checks.get(result.check.name, (None, None))
        if check is not result.check or case is None:
            return  # about a map that is no longer shown
        if result.error is not None:
            self._message.value = error_line(error_text(result.error) or type(result.error).__name__)
            return
        if result.result is None:
            return
        if self._message.value:
            self._message.value = escape("")
        section = next(section for section in self._sections if section.name == result.check.name)
        with torch.no_grad():
            section.show(result.result, case)


class ImageTrust(TrustPanel):
    """Tests of an image's map: ablation, deletion and insertion, random weights, saturation, stability and agreement.

    Args:
        view: The view of the image and its map.
        baselines: The names of the baselines that apply to the image, the default first.
        busy: Returns whether a map is being computed.
        executor: "thread" or "inline".
    """

    kinds = (AblationSection, CurvesSection, RandomizationSection, SaturationSection, StabilitySection)
    introduction = "A bright region shows what the score is sensitive to, not what causes it. Test it here."

    def __init__(self, view: HeatmapView, baselines: Sequence[str], *, busy: Callable[[], bool], executor: str) -> None:
        self._baselines = baselines
        super().__init__(view, busy=busy, executor=executor)

    def _make_section(self, kind: type[Section]) -> Section:
        if kind is SaturationSection:
            return SaturationSection(self._baselines)
        if kind is CurvesSection:
            return CurvesSection(self._others, self._baselines)
        if kind is not AblationSection:
            return super()._make_section(kind)
        ablation = AblationSection(self._view.mark, self._baselines)
        self._view.on_region(ablation.marked)
        return ablation

    def _on_fold(self) -> None:
        super()._on_fold()
        self._view.allow_marking(self.opened)
