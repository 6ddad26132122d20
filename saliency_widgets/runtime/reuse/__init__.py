"""Faster computations of the same numbers: fused layers, recorded graphs, CUDA graphs."""
