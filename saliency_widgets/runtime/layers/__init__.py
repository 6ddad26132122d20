"""Layers of a model: hooks on them, the ones with a spatial output, and its position on the image."""
