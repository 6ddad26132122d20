"""Shared by all views: the base explorer, controls, the heatmap view, frames, lifetimes."""
