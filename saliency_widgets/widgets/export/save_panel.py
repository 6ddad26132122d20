"""The panel that saves a page: the choice of recorded settings, the estimated size, and the save button."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets as w

from saliency_widgets.attribution.errors import Cancelled
from saliency_widgets.files import resolve_target
from saliency_widgets.markup import Markup, element
from saliency_widgets.session.jobs import Check, Jobs
from saliency_widgets.session.worker import worker_error
from saliency_widgets.widgets.base.charts import INK, QUIET, error_line
from saliency_widgets.widgets.base.controls import LABEL_WIDTH
from saliency_widgets.widgets.base.messages import error_text
from saliency_widgets.widgets.base.text import RichText
from saliency_widgets.widgets.export.page import Saved
from saliency_widgets.widgets.export.recording import PageSize, offered, recordable
from saliency_widgets.widgets.export.saving import LIMIT, PageWriter, save_html

if TYPE_CHECKING:
    from saliency_widgets.widgets.base.kind_view import Explored

_SAYS = (
    "One file that opens from disk without a kernel. The display settings stay interactive; select what else can be "
    "changed:"
)


class SavePanel:
    """A panel that saves an explorer as a page.

    Args:
        explorer: The explorer.
        executor: "thread" or "inline".

    Attributes:
        widget: The panel, initially folded.
    """

    def __init__(self, explorer: Explored, executor: str) -> None:
        self._explorer = explorer
        self._making = threading.Lock()
        self._made = False
        self._jobs = Jobs(executor, busy=lambda: explorer.session.busy)  # the explorer's own maps take precedence
        self._boxes: dict[str, w.Checkbox] = {}
        self._counts: dict[str, RichText] = {}
        self._rows: dict[str, w.HBox] = {}
        self._inside = w.VBox()
        self._fold = w.Accordion([self._inside], titles=["Save as a page"], selected_index=None)
        self._fold.observe(lambda _change: self.show(), names="selected_index")
        self.widget = self._fold.add_class("sw-fold").add_class("sw-save")
        explorer.view.add_controls(self._fold)

    @property
    def opened(self) -> bool:
        """Return whether the panel is open."""
        return self._fold.selected_index is not None

    @property
    def record(self) -> dict[str, bool]:
        """The selected settings, as the ``record`` argument of :meth:`Explorer.save_html`."""
        there = recordable(self._explorer.panel, self._explorer.problem)
        return {name: True for name, box in self._boxes.items() if box.value and name in there}

    def show(self) -> None:
        """Update the size if the panel is open. Called when the map or the selection has changed."""
        if self.opened and not self._jobs.ending.over:
            with self._making:  # two threads may run this if the panel is opened while a map finishes
                if not self._made:
                    self._make()
                    self._made = True
            self._jobs.put("size", lambda _check: self._update_size())

    def close(self) -> None:
        """End the worker."""
        self._jobs.close()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until nothing is being saved; return False on a timeout.

        Raises:
            RuntimeError: Called on the worker's thread, for example in an observer.
        """
        return self._jobs.wait(timeout, "page")

    def _make(self) -> None:
        """Create the contents when the panel is first opened."""
        for name, param in offered(self._explorer.panel).items():
            box = w.Checkbox(description=param.title, tooltip=param.help, indent=False, layout={"width": LABEL_WIDTH})
            box.layout.flex = "1 1 auto"
            box.add_class(f"sw-record-{name}")
            box.observe(lambda _change: self.show(), names="value")
            self._boxes[name], self._counts[name] = box, RichText()
            self._rows[name] = w.HBox([box, self._counts[name]], layout={"display": "none", "align_items": "center"})
        # The height is fixed so that messages don't move the buttons.
        self._size, self._message = (RichText(layout={"height": "48px", "overflow": "auto"}) for _ in range(2))
        self._bar = w.IntProgress(max=1, layout={"width": "auto", "height": "16px"})
        self._name = w.Text("saliency.html", description="File", continuous_update=False)
        self._name.style.description_width, self._name.layout.width = LABEL_WIDTH, "auto"
        save, stop = w.Button(description="Save", icon="save"), w.Button(description="Stop", icon="stop")
        for button in (save, stop):
            button.layout.width = "96px"
        save.on_click(lambda _button: self._save())
        stop.on_click(lambda _button: self._jobs.drop("page"))
        says = RichText(element("div", _SAYS, style=f"line-height:1.35;margin:0 0 4px;color:{QUIET}"))
        buttons = w.HBox([save.add_class("sw-save-now"), stop.add_class("sw-save-stop")])
        rows = list(self._rows.values())
        self._inside.children = [says, *rows, self._size, self._name, buttons, self._bar, self._message]
        self._explorer.view.add_controls(*self._boxes.values(), self._name, save, stop)

    def _save(self) -> None:
        if not self._jobs.has("page"):
            name = self._name.value.strip() or "saliency.html"
            self._jobs.put("page", partial(self._write, Path(name if Path(name).suffix else f"{name}.html")))

    # ---- on the worker's thread: writes only to display widgets

    def _update_size(self) -> None:
        explorer = self._explorer
        if self._jobs.ending.over or not self._made:
            return
        there = recordable(explorer.panel, explorer.problem)
        for name, row in self._rows.items():
            wanted = "" if name in there else "none"
            if row.layout.display != wanted:
                row.layout.display = wanted
            _set_value(self._counts[name], _line(f"{there.get(name, 0)} values", QUIET))
        try:
            size = PageWriter(explorer, self.record).size
        except BaseException as error:
            _set_value(self._size, _line(error_text(worker_error(error)), QUIET))
            return
        over = f" Over the limit of {LIMIT} maps: record fewer values." if size.maps > LIMIT else ""
        _set_value(self._size, _line(f"{size}.{over}", INK))

    def _write(self, path: Path, check: Check) -> None:
        self._update_size()
        try:
            there = resolve_target(path).exists()
            writer = PageWriter(self._explorer, self.record)
            writer.check(LIMIT)
            saved = writer.write(path, check=check, report=self._progress)
        except Cancelled:
            self._finish(0, _line("Stopped: nothing was written. Computed maps stay in the cache.", INK))
        except BaseException as caught:
            error = worker_error(caught)
            expected = isinstance(error, (TypeError, ValueError, RuntimeError, OSError))
            what = error_text(error)
            if not expected:
                what = f"{type(error).__name__}: {what}. Unexpected error: please report it."
            self._finish(0, error_line(f"{what} Nothing was written; change a setting and save again."))
        else:
            replaced = ", replacing the existing file" if there else ""
            self._finish(1, _line(f"Saved{replaced}: {saved.path.resolve()}", INK))
        finally:
            self._update_size()

    def _finish(self, share: int, text: Markup) -> None:
        self._bar.max, self._bar.value = 1, share
        _set_value(self._message, text)

    def _progress(self, done: int, total: int, what: str) -> None:
        self._bar.max, self._bar.value = max(total, 1), done
        _set_value(self._message, _line(f"{done} of {total} maps · {what}", INK))


def _set_value(widget: Any, text: Markup) -> None:
    if widget.value != text:
        widget.value = text


def _line(text: str, color: str) -> Markup:
    return element("div", text, style=f"line-height:1.35;color:{color};overflow-wrap:anywhere")


class WithPages:
    """What views share whose maps can be saved as a page: a mixin for a subclass of ``KindView``.

    Attributes:
        saving: The controls that save a page.
    """

    saving: SavePanel
    _explorer: Explored
    setup: Any

    def add_saving(self, column: w.VBox) -> w.VBox:
        """Add the controls to the column of an explorer's controls, and return it."""
        self.saving = SavePanel(self._explorer, self.setup.executor)
        column.children = (*column.children, self.saving.widget)
        return column

    def finish(self) -> None:
        """Estimate the size of a page."""
        self.saving.show()

    def page_size(self, record: Mapping[str, Any] | None) -> PageSize:
        """Estimate the size of a page."""
        return PageWriter(self._explorer, record).size

    def save_html(self, path: str | os.PathLike[str], record: Mapping[str, Any] | None, **options: Any) -> Saved:
        """Write a page."""
        return save_html(self._explorer, path, record, **options)

    def close(self) -> None:
        """End the worker of the pages."""
        self.saving.close()
