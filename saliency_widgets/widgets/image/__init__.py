"""The explorer of images."""
