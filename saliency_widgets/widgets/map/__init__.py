"""Inputs with a map over them: their controls, and what their views share."""
