"""The table explorer: ranked bars, what-if, shuffled features, importance over many rows."""

from saliency_widgets.widgets.table.explorer import TableExplorer, is_row

__all__ = ["TableExplorer", "is_row"]
