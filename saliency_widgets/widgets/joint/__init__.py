"""Inputs that are explained together: an image, and below it a text."""
