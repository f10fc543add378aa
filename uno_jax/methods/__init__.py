"""The methods by name: the table, and the recipe that runs a method on a family of models.

`METHODS` is what command lines, tables and benchmarks are made of. `recipe_for(name, model)` gives
the recipe that `uno.forget` runs: from a model and two data sets to a `Job`.
"""

from uno_jax.methods.job import Job
from uno_jax.methods.recipes import Recipe, recipe_for
from uno_jax.methods.row import Method, Setting
from uno_jax.methods.table import METHODS, UNCONDITIONAL, get_method

__all__ = [
    "METHODS",
    "UNCONDITIONAL",
    "Job",
    "Method",
    "Recipe",
    "Setting",
    "get_method",
    "recipe_for",
]
