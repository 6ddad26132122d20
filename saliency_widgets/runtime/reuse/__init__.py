"""What gives the same numbers sooner: fused layers, recorded graphs, CUDA graphs."""
