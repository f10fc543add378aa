"""Generative models as functions: families, and the way from modules of other libraries."""
