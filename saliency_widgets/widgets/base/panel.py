"""The controls of an explorer, generated from the methods' parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import ipywidgets as w
import torch
from torch import Tensor

from saliency_widgets.attribution import get_method
from saliency_widgets.attribution.registry import Method, methods, unknown_method
from saliency_widgets.attribution.score import SCORE
from saliency_widgets.inputs.options import OPTIONS
from saliency_widgets.markup import element, joined
from saliency_widgets.outputs.task import Task
from saliency_widgets.params import Param, unknown
from saliency_widgets.runtime.layers.selection import check_layer
from saliency_widgets.session import Problem, Request
from saliency_widgets.widgets.base.controls import AUTO, Control
from saliency_widgets.widgets.base.target import ClassSearch, PredictionBars
from saliency_widgets.widgets.base.text import RichText

_TOP = 5
_RECOMPUTE = (
    "Discard all results for this model and compute again. Use it after changes to the model that were not detected."
)


class Panel:
    """Controls for the method, the target and the method's parameters; subclasses add their own.

    Args:
        problem: The model and the input.
        method: The initial method.
        target: The initial target.
        score: The scale of the score.
        params: Parameters of the initial method.
        more: Methods in the menu in addition to the built-in ones.

    Attributes:
        widget: The column of controls.
    """

    accepted: tuple[str, ...] = ("method", "methods", "target", "labels", "score", *OPTIONS)
    """The arguments of ``sw.explore`` other than the parameters of a method."""

    def __init__(
        self,
        problem: Problem,
        *,
        method: Any,
        target: Any,
        score: str,
        params: Mapping[str, Any],
        more: Iterable[Any] = (),
    ) -> None:
        self._problem = problem
        # The methods of the menu by name, and for each the method= argument of sw.attribute: its name if that suffices.
        self._methods: dict[str, Method] = {name: entry for name, entry in methods().items() if self._fits(entry)}
        self._method_arguments: dict[str, Any] = {name: name for name in self._methods}
        first = self._add_method(method)
        for addition in more:
            self._add_method(addition)
        begin = first.check_params(params, self.accepted)
        for param in first.params:
            self._check_layer(param, begin[param.name])
        SCORE.check(score)
        self._target: Any = problem.choice(target, score)
        try:
            logits: Tensor | None = problem.logits_for(self._target)[0]
        except (TypeError, ValueError):
            if isinstance(self._target, int):
                raise
            logits = None  # a function or an index tuple as target needs no classes
        self._classes = 0 if logits is None else len(logits)
        self._moved: Callable[[], None] = lambda: None
        self._wrong: Callable[[Exception], None] = lambda _error: None
        self._hold = False
        self._shown = first.name
        self._make_shared(first)

        self._method = Control(
            Param("method", first.name, kind="choice", help="How attribution is computed."),
            options={entry.title: name for name, entry in self._methods.items()},
        )
        self._help = RichText().add_class("sw-help")
        self._params: dict[Param, Control] = {}
        for entry in self._methods.values():
            for param in entry.params:
                if param not in self._params:
                    value = begin.get(param.name) if param in first.params else None
                    self._params[param] = self._control(param, value)
        self._score = Control(SCORE, score)
        self._bars = None
        if logits is not None and self._has_bars(len(logits)):
            self._bars = PredictionBars(min(_TOP, len(logits)), self._on_bar)
        self._values = None if self._bars is None else RichText().add_class("sw-values")
        self._predicted = logits  # the logits shown as bars or as values
        self._show_predicted()
        self._search = ClassSearch(problem.class_names, self._on_search)
        self._choose(self._target)
        self._again = w.Button(description="Recompute", tooltip=_RECOMPUTE, icon="refresh").add_class("sw-recompute")
        self.widget = self._make_column()
        self._show_parameters()

    def _make_shared(self, first: Method) -> None:
        """Create the controls common to all methods; called after all arguments are checked."""

    # ---- requests

    def _fits(self, entry: Method) -> bool:  # noqa: ARG002
        """Return whether a method applies to this kind of input."""
        return True

    def _why_not(self, entry: Method) -> str:
        """Return why a method doesn't apply to this kind of input, after its name."""
        what = "an image" if "image" in entry.needs else "a layer whose output has positions of the input"
        return f"needs {what}, and there is none"

    def _has_bars(self, classes: int) -> bool:  # noqa: ARG002
        """Return whether the predictions for this number of classes are displayed."""
        return True

    def _control(self, param: Param, value: Any) -> Control:
        return Control(param, value)

    @property
    def _shared(self) -> dict[str, Control]:
        """The controls common to all methods, by name."""
        return {SCORE.name: self._score}

    def _add_method(self, method: Any) -> Method:
        """Add a method to the menu if it is new, and number it if another method has the same title."""
        if isinstance(method, str) and method in self._methods:
            return self._methods[method]
        entry = get_method(method)
        if not self._fits(entry):
            raise ValueError(f"method: {entry.title} {self._why_not(entry)}. Choose from {', '.join(self._methods)}.")
        alike = sum(other.title.partition(" #")[0] == entry.title for other in self._methods.values())
        if alike:
            entry = replace(entry, name=f"{entry.name} #{alike + 1}", title=f"{entry.title} #{alike + 1}")
        self._methods[entry.name] = entry
        self._method_arguments[entry.name] = method if isinstance(method, str) else entry
        return entry

    def request(self, changes: Mapping[str, Any] | None = None) -> Request:
        """Return the request for the current state of the controls.

        Args:
            changes: Overrides of that state: "method" by its name in the menu, "target", "score", parameters.

        Raises:
            TypeError: A value has the wrong type.
            ValueError: A value is out of range.
        """
        chosen = {**self.selection, **(changes or {})}
        entry = self._methods[chosen["method"]]
        values = {param.name: chosen.get(param.name, self._params[param].value) for param in entry.params}
        argument = self._method_arguments[entry.name]
        return Request.of(argument, values, target=chosen["target"], score=chosen["score"])

    @property
    def selection(self) -> dict[str, Any]:
        """The selected "method" (by its name in the menu), "target" and "score", without parameters."""
        return {"method": self._method.value, "target": self._target, "score": self._score.value}

    @property
    def menu(self) -> Mapping[str, Method]:
        """The methods of the menu by name."""
        return self._methods

    def control(self, param: Param) -> Control:
        """Return the control of a parameter, either of some methods or common to all."""
        return self._params[param] if param in self._params else self._shared[param.name]

    @property
    def predictions(self) -> list[tuple[int, str, float]]:
        """Index, name and probability of the displayed classes, most probable first."""
        task = self._task
        if self._predicted is None or self._bars is None or not task.shares:
            return []
        return [(k, task.label(k), share) for k, _, share in task.predictions(self._predicted, _TOP)]

    @property
    def outdated(self) -> bool:
        """Whether the displayed predictions belong to an earlier model or input."""
        newest = self._problem.predicted
        if newest is None or self._predicted is None:
            return False
        return not torch.equal(newest[0].nan_to_num(), self._predicted.nan_to_num())

    @property
    def titles(self) -> dict[str, str]:
        """The titles of the methods of the menu, by name."""
        return {name: entry.title for name, entry in self._methods.items()}

    @property
    def title(self) -> str:
        """The selected method and target, for display."""
        return self.title_of(self.request())

    def title_of(self, request: Request) -> str:
        """Return the method and target of a request, for display."""
        target = self._problem.name_of(request.target, request.score, short=True)
        return f"{get_method(request.method).title} · {target}"

    @property
    def controls(self) -> list[w.Widget]:
        """All widgets that send messages to the kernel."""
        moved = [self._method, *self._shared.values(), *self._params.values()]
        bars = [] if self._bars is None else [self._bars.widget.marks[-1]]
        return [*(leaf for control in moved for leaf in control.leaves), self._search.widget, self._again, *bars]

    # ---- changes

    def observe(self, moved: Callable[[], None], wrong: Callable[[Exception], None], again: Callable[[], None]) -> None:
        """Set the callbacks of the controls.

        Args:
            moved: Called when the request changes.
            wrong: Called with the error when a typed value can't be used. Nothing has changed then.
            again: Called when the user presses Recompute.
        """

        def move() -> None:
            if not self._hold:
                moved()

        self._moved, self._wrong = move, wrong
        self._method.observe(self._on_method)
        self._again.on_click(lambda _button: again())
        self._score.observe(self._show_predicted)
        self._score.observe(move)
        for control in self._params.values():
            control.observe(move)

    def update(self, settings: Mapping[str, Any]) -> None:
        """Move controls by name, after checking all names and values."""
        settings = dict(settings)
        name = settings.pop("method", self._method.value)
        if isinstance(name, str) and name not in self._methods:
            raise ValueError(unknown_method(name, self._methods))
        entry = self._methods[name] if isinstance(name, str) else get_method(name)
        if self._methods.get(entry.name) is not entry:
            raise ValueError(
                f"method: {entry.title} is not in this explorer's menu. Pass it as methods= to sw.explore."
            )
        name = entry.name
        controls = {**self._shared, **{param.name: self._params[param] for param in entry.params}}
        target = self._target
        if "target" in settings:
            score = SCORE.check(settings.get(SCORE.name, self._score.value))
            target = self._problem.choice(settings.pop("target"), score)
        for setting, value in settings.items():
            if setting not in controls:
                raise TypeError(unknown("setting", setting, ["method", "target", *controls]))
            settings[setting] = value = self._checked(controls[setting], value)
            self._check_layer(controls[setting].param, value)
        logits = self._logits_now(target)
        self._hold = True
        try:
            self._method.value = name
            for setting, value in settings.items():
                controls[setting].value = value
            if logits is not None:
                self._predicted = logits
            self._choose(target)
            self._show_predicted()
        finally:
            self._hold = False
        self._moved()

    def _check_layer(self, param: Param, value: Any) -> None:
        if param.kind == "layer" and value not in (None, AUTO):
            check_layer(self._problem.model, value)

    def _checked(self, control: Control, value: Any) -> Any:
        return control.param.check(value)

    # ---- display

    def _on_method(self) -> None:
        self._shown = self._method.value
        self._show_parameters()
        self._moved()

    def _show_parameters(self) -> None:
        entry = self._methods[self._method.value]
        for param, control in self._params.items():
            control.show(param in entry.params)
        self._help.value = element("div", element("small", entry.help), style="line-height:1.35;margin:2px 0 4px")

    @property
    def _task(self) -> Task:
        """The task of the model on the selected scale of the score."""
        return self._problem.task(self._score.value)

    def _show_predicted(self) -> None:
        """Show the predictions as bars of probabilities or as values."""
        if self._bars is None or self._values is None or self._predicted is None:
            return
        task = self._task
        shown = task.predictions(self._predicted, _TOP)
        self._bars.widget.layout.display = None if task.shares else "none"
        self._values.layout.display = "none" if task.shares else None
        if task.shares:
            self._bars.show(shown)
            self._bars.mark(self._class_of(self._target))
        else:
            lines: list[str] = [joined([f"{label}: ", element("b", task.text(value))]) for _, label, value in shown]
            more = 0 if task.paired else len(self._predicted) - len(shown)
            lines += [f"and {more} more"] if more else []
            self._values.value = element("div", joined(lines, element("br")), style="line-height:1.5")

    def _logits_now(self, target: Any) -> Tensor | None:
        try:
            return None if self._bars is None else self._problem.logits_for(target)[0]
        except (TypeError, ValueError):
            return None  # the model failed; the following request reports the error

    def _on_bar(self, index: int) -> None:
        positions, shown = self._problem.kind.positions, self._target
        self._choose((shown[0], index) if positions is not None and isinstance(shown, tuple) else index)
        self._moved()

    def _on_search(self, value: Any) -> None:
        try:
            chosen = self._problem.choice(value, self._score.value, self._target)
        except (TypeError, ValueError) as error:
            self._wrong(error)
            return
        self._choose(chosen)
        self._moved()

    def _choose(self, target: Any) -> None:
        self._target = target
        if self._bars is not None:
            self._bars.mark(self._class_of(target))
        self._search.show(self._class_of(target))

    def _class_of(self, target: Any) -> Any:
        """Return the class of a target without its position in a text."""
        return target[1] if self._problem.kind.positions is not None and isinstance(target, tuple) else target

    def _target_section(self) -> list[w.Widget]:
        predicted = [None if self._bars is None else self._bars.widget, self._values, self._search.widget]
        return [widget for widget in predicted if widget is not None]

    def _sections(self) -> Sequence[w.Widget]:
        """Sections between the method and the advanced settings."""
        return ()

    def _make_column(self) -> w.VBox:
        common = [c.widget for p, c in self._params.items() if not p.advanced]
        rare = [c.widget for p, c in self._params.items() if p.advanced] + [self._score.widget, self._again]
        more = w.Accordion(children=[w.VBox(rare)], titles=["More settings"], selected_index=None)
        more.add_class("sw-fold")  # the page makes its header a button for keyboards and screen readers
        target = self._target_section()
        sections = [
            *([section("Target", target)] if target else []),
            section("Method", [self._method.widget, self._help, *common]),
            *self._sections(),
            more,
        ]
        column = w.VBox(sections, layout={"flex": "2 1 270px", "min_width": "260px", "max_width": "460px"})
        return column.add_class("sw-panel")


def section(title: str, children: list[Any]) -> w.VBox:
    """Group controls under a heading."""
    heading = RichText(element("b", title)).add_class("sw-heading")
    return w.VBox([heading, *children], layout={"width": "auto"}).add_class("sw-section")
