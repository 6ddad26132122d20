"""Maps side by side: the grid, a comparison, and the maps that are pinned in an explorer."""
