"""Maps side by side: the grid, a comparison, and the maps pinned in an explorer."""
