"""The image explorer."""
