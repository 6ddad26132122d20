"""The view of images: the map, its controls and annotations."""
