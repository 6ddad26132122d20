"""The numerics of the methods: quadrature, noise, running moments, completeness."""
