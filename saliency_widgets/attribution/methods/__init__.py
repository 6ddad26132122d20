"""The attribution methods, one file each, found by discovery.

To add one, add a file here with a generator under :func:`~saliency_widgets.attribution.registry.method`.
"""
