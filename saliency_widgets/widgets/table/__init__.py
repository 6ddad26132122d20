"""The explorer of rows of tables: ranked bars, what-if, shuffled features, many rows."""

from saliency_widgets.widgets.table.explorer import TableExplorer, is_row

__all__ = ["TableExplorer", "is_row"]
