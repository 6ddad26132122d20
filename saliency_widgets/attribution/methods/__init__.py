"""The attribution methods, one file each, discovered automatically.

To add one, add a file here with a generator decorated by :func:`~saliency_widgets.attribution.registry.method`.
"""
