"""The explorer of a signal."""
