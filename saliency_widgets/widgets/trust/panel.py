"""The panel below the map, which tests the displayed map while the panel is open."""

from __future__ import annotations

import importlib
import threading
import weakref
from collections.abc import Callable

import ipywidgets as w
import torch

from saliency_widgets.attribution.registry import modules_in
from saliency_widgets.evaluation.registry import trust_tests
from saliency_widgets.markup import element, escape
from saliency_widgets.session.examiner import Check, CheckEvent, Examiner
from saliency_widgets.session.explanation import FinishedMap
from saliency_widgets.widgets.base.charts import error_line
from saliency_widgets.widgets.base.lifetime import weakly
from saliency_widgets.widgets.base.messages import error_text
from saliency_widgets.widgets.base.text import RichText
from saliency_widgets.widgets.trust.section import Context, Section

_REMEMBERED = 6  # maps, for comparison between methods
_INTRODUCTION = (
    "{mark} shows what the score is sensitive to, not what causes the score. Run the tests below to check it."
)


def views() -> dict[str, type[Section]]:
    """Return the subclasses of :class:`Section` in the modules of this folder, by the name of their view."""
    modules = modules_in(importlib.import_module("saliency_widgets.widgets.trust"))
    classes = [value for module in modules for value in vars(module).values() if isinstance(value, type)]
    return {value.view: value for value in classes if issubclass(value, Section) and "view" in vars(value)}


class TrustPanel:
    """A panel that runs the tests registered for this kind of input on the displayed map, one at a time.

    Args:
        context: The parts of the explorer that the tests can use.
        busy: Returns whether a map is being computed. Only urgent tests run during that time.
        executor: "thread" or "inline".

    Attributes:
        widget: The panel, initially closed.
        tests: The tests, in the order of their tabs.
    """

    def __init__(self, context: Context, *, busy: Callable[[], bool], executor: str) -> None:
        self._context = context
        self.tests = [test for test in trust_tests().values() if test.fits(context.kind)]
        self._shown: FinishedMap | None = None
        self._checks: dict[str, tuple[Check, FinishedMap]] = {}  # by test: its newest check and the map to test
        self._maps: dict[str, FinishedMap] = {}  # the maps computed so far, by title
        self._examiner = Examiner(weakly(self._on_result), busy=busy, executor=executor)
        weakref.finalize(self, self._examiner.jobs.ending.end).atexit = False
        self._making = threading.RLock()
        self._sections: list[Section] = []  # created when the panel is first opened
        self._choice = w.ToggleButtons(options=[(test.title, k) for k, test in enumerate(self.tests)], value=0)
        self._choice.style.button_width = "auto"
        self._message = RichText()
        # The stack shows one section, and none until the panel is first opened. It stays when the panel is closed, as
        # bqplot may be drawing and needs a size: the style sheet hides the stack without changing its width.
        self._stack = w.Stack(selected_index=None)
        style = "line-height:1.4;margin:2px 0 6px"
        introduction = RichText(element("div", _INTRODUCTION.format(mark=context.kind.mark), style=style))
        inside = w.VBox([introduction, self._choice, self._message, self._stack])
        self._fold = w.Accordion([inside], titles=["Can I trust this map?"], selected_index=None)
        self._fold.observe(lambda _change: self._on_fold(), names="selected_index")
        self._choice.observe(lambda _change: self._on_choice(), names="value")
        self.widget = self._fold.add_class("sw-fold").add_class("sw-trust")
        self.widget.layout.flex = "1 1 100%"
        context.view.add_controls(self._fold, self._choice)

    def _make_sections(self) -> None:
        classes = views()
        sections = [classes[test.view](test, self._context) for test in self.tests]
        for section in sections:
            section.ask = lambda section=section: self._ask(section)
            section.others = self._others
        self._stack.children = [section.widget for section in sections]
        self._context.view.add_controls(*(leaf for section in sections for leaf in section.leaves))
        self._sections = sections  # last, because other threads use it to check whether the sections exist

    @property
    def opened(self) -> bool:
        """Whether the panel is open."""
        return self._fold.selected_index is not None

    @property
    def _visible(self) -> Section:
        return self._sections[self._choice.value or 0]

    def show(self, shown: FinishedMap, title: str) -> None:
        """Test a finished map if the panel is open. Can be called on any thread.

        A map that is only drawn again, as other planes of a volume are, is not tested again.
        """
        if self._shown is not None and self._shown.is_same(shown):
            return
        if self._shown is None or not self._shown.is_comparable(shown):
            self._remove_markers()  # they belong to another row or score
        maps = {name: other for name, other in self._maps.items() if other.is_comparable(shown) and name != title}
        self._maps = dict([*maps.items(), (title, shown)][-_REMEMBERED:])
        self._shown = shown
        if self.opened and self._sections:  # otherwise, a thread that is opening the panel tests this map
            self._ask(self._visible)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until no test is running. Return False on a timeout."""
        return self._examiner.jobs.wait(timeout)

    def stop(self) -> None:
        """Stop the running tests. Selecting a test runs it again."""
        if self._examiner.jobs.has():
            self._examiner.jobs.drop()
            self._message.value = escape("Interrupted. Close and open this panel to continue.")

    def unmark(self) -> None:
        """Drop the region that the user has marked on an earlier input."""
        for section in self._sections:
            if isinstance(section.region, torch.Tensor):
                section.region = None

    def close(self) -> None:
        """End the worker and release the maps."""
        self._examiner.close()
        self._maps, self._shown, self._checks = {}, None, {}

    def _others(self) -> dict[str, FinishedMap]:
        """Return the maps of other methods for the same target."""
        return {name: other for name, other in self._maps.items() if other is not self._shown}

    def _remove_markers(self) -> None:
        if self._context.bars is not None:
            self._context.bars.show_markers(None)

    def _on_fold(self) -> None:
        with self._making:
            if not self._sections:
                self._make_sections()
        if not self.opened:
            self._examiner.jobs.drop()  # first, so that no late result restores the markers
        self._on_choice()
        if any("region" in test.needs for test in self.tests):
            self._context.view.allow_marking(self.opened)

    def _on_choice(self) -> None:
        self._remove_markers()
        if self.opened and self._sections:  # otherwise, a thread that is opening the panel shows them
            self._stack.selected_index = self._choice.value
            self._ask(self._visible)

    def _ask(self, section: Section) -> None:
        shown = self._shown
        if shown is None or not self.opened:
            return
        for other in self._sections:
            if other is not self._visible:
                self._examiner.jobs.drop(other.test.name)
        check = section.check(shown)
        if check is not None:
            self._checks[check.name] = check, shown
            self._examiner.submit(check)

    def _on_result(self, event: CheckEvent) -> None:
        """Show a result from the worker; changes only display widgets."""
        check, shown = self._checks.get(event.check.name, (None, None))
        if check is not event.check or shown is None:
            return  # the check is about a map that is no longer displayed
        if event.error is not None:
            self._message.value = error_line(error_text(event.error) or type(event.error).__name__)
            return
        if event.result is None:
            return
        if self._message.value:
            self._message.value = escape("")
        section = next(section for section in self._sections if section.test.name == event.check.name)
        with torch.no_grad():
            section.show(event.result, shown)
