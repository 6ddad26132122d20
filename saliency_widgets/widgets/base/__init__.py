"""Code shared by all views: controls, the heatmap view, charts, frame streaming and widget lifetimes."""
