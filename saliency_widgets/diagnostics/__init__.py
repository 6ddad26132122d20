"""The check-up: properties of a model that make a method wrong or slow."""
