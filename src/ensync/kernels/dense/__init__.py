"""Matrix products of dense layers, and training on one sample a step."""
