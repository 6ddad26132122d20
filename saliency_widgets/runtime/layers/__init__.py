"""Layers of a model: hooks at them, which have a spatial output, and where that lies on the image."""
