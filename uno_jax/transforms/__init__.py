"""Optax transformations: each takes a gradient and returns an update."""
