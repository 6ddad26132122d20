"""How the caller's model is run: isolated copies, hooks, precision, batch sizes, recorded graphs, memory."""
