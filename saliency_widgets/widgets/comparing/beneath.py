"""What stands beside and below a grid: the predictions, and the explorer of the cell that was clicked."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping

import ipywidgets as w
import torch

from saliency_widgets.attribution.targets import probabilities
from saliency_widgets.engine import Subject
from saliency_widgets.widgets.charts import QUIET, said
from saliency_widgets.widgets.explorer import Explorer
from saliency_widgets.widgets.parts import close_whole

_TOP = 3


def predictions_of(subjects: Mapping[str, Subject]) -> str:
    """What each model says of each input, as far as it is known, as HTML.

    Args:
        subjects: By what each is called.
    """
    lines = []
    for name, subject in subjects.items():
        if (logits := subject.predicted) is None:
            continue
        shares = probabilities(logits.cpu().double())[0]
        top = torch.topk(shares, min(_TOP if len(subjects) <= 2 else 1, len(shares)))
        told = "".join(
            f"<div style='display:flex;gap:8px'><span style='flex:1;min-width:0;overflow:hidden;text-overflow:ellipsis;"
            f"white-space:nowrap'>{html.escape(subject.name_of(int(index)).split(',')[0])}</span>"
            f"<span>{float(share):.1%}</span></div>"
            for index, share in zip(top.indices, top.values, strict=True)
        )
        heading = f"<div style='color:{QUIET}'>{html.escape(name)}</div>" if name else ""
        lines.append(f"<div style='margin-bottom:4px;line-height:1.35'>{heading}{told}</div>")
    return "".join(lines) or said("Not computed yet")


class Beneath:
    """The place of an explorer below a grid; it holds one at a time.

    Args:
        on_shut: Called when it was closed.

    Attributes:
        widget: The place.
    """

    def __init__(self, on_shut: Callable[[], None]) -> None:
        self.widget = w.VBox(layout={"flex": "1 1 100%", "overflow": "visible", "display": "none"})
        self._explorer: Explorer | None = None
        self._on_shut = on_shut

    def show(self, explorer: Explorer, name: str) -> str:
        """Show an explorer instead of the last one. Returns the class by which the page finds it."""
        old, left = self.widget.children[:1], self._explorer
        mark = f"sw-opened-{explorer.model_id}"
        shut = w.Button(description="Close the explorer")
        shut.on_click(lambda _button: self.shut())
        words = w.HTML(f"<b style='overflow-wrap:anywhere'>{html.escape(name)}</b>", layout={"min_width": "0"})
        heading = w.HBox([words, shut], layout={"align_items": "center", "flex_flow": "row wrap"})
        explorer.add_class(mark)
        self._explorer = explorer
        self.widget.children = [heading, explorer]
        self.widget.layout.display = None
        for child in old:
            close_whole(child)
        if left is not None:
            left.close()
        return mark

    def shut(self) -> None:
        """Close the explorer."""
        found, self._explorer = self._explorer, None
        if found is None:
            return
        heading = self.widget.children[0]
        self.widget.children = []
        self.widget.layout.display = "none"
        close_whole(heading)
        found.close()
        self._on_shut()
