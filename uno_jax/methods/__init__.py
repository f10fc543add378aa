"""The methods by name: `METHODS` is what command lines, tables and benchmarks are made of."""

from uno_jax.methods.row import Method, Setting
from uno_jax.methods.table import METHODS, UNCONDITIONAL, get_method

__all__ = ["METHODS", "UNCONDITIONAL", "Method", "Setting", "get_method"]
