"""The explorer of texts."""
