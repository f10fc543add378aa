"""Whole jobs, one process each: weights and data in, weights of a model that forgot out."""
