"""What a model returns: which targets can be chosen, and which number of the output a choice explains."""
