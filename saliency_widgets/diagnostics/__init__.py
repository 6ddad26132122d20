"""The check-up: what in a model makes a method wrong or slow."""
