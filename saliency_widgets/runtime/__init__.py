"""Runs of the caller's model: isolated copies, hooks, precision, batch sizes, recorded graphs, memory."""
