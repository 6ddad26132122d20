"""The explorer of a volume or a video."""
