"""Passes over arrays without products: activations, losses, normalisation, pooling, inputs."""
