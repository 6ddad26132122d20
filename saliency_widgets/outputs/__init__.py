"""Model outputs: the targets that can be chosen, and the number of the output that each of them explains."""
