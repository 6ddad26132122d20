"""Numerics for the methods: quadrature, noise, running moments, completeness."""
