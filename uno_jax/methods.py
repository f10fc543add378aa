"""The table of methods: name, how to build it, what it needs and costs.

Command lines, result tables and benchmarks are generated from `METHODS`, so a
new method is one transformation, one row here and one test.
"""

from collections.abc import Callable
from typing import NamedTuple

import optax

from uno_jax.transforms.gauss_newton import scale_by_gauss_newton
from uno_jax.transforms.line_search import line_search
from uno_jax.transforms.orthogonalize import orthogonalize
from uno_jax.transforms.projection import orthogonalize_against, surgery


class Method(NamedTuple):
    """A row of the table.

    Attributes:
      name: the name on command lines and in tables.
      build: from the base optimizer (for example `optax.adam(1e-3)`) and the
        penalty weight to the whole transformation.
      descend: the gradient that enters it, `"retain"` or `"forget"`.
      formula: the direction, as text.
      gradients: loss gradients per step.
      products: Hessian-vector (or Gauss-Newton) products per step.
      source: where the method comes from.
      matches: whether the method descends a matching objective, with
        `make_matching_step`, rather than the losses of `make_unlearning_step`.
    """

    name: str
    build: Callable[[optax.GradientTransformation, float], optax.GradientTransformation]
    descend: str
    formula: str
    gradients: int
    products: int
    source: str
    matches: bool = False


CG_ITERATIONS = 60
UNO = "arXiv 2506.04712"

METHODS: dict[str, Method] = {
    row.name: row
    for row in (
        Method(
            "redirect",
            # A second-order step with its own length: the base optimizer and the
            # penalty weight have no part in it.
            lambda optimizer, weight: optax.chain(
                scale_by_gauss_newton(damping=0.1, iterations=CG_ITERATIONS),
                optax.scale(-1.0),
                line_search(),
            ),
            "retain",
            "(G + μI)⁻¹ ∇(redirect + λ anchor), line search",
            2,
            CG_ITERATIONS + 2,
            "uno_jax",
            matches=True,
        ),
        Method(
            "uno",
            lambda optimizer, weight: optax.chain(orthogonalize(weight), optimizer),
            "retain",
            "descend g_r + w ∇cos²(g_r, g_f)",
            2,
            2,
            UNO,
        ),
        Method(
            "surgery",
            lambda optimizer, weight: optax.chain(surgery(), optimizer),
            "retain",
            "descend g_r − (g_r·g_f/|g_f|²) g_f",
            2,
            0,
            UNO,
        ),
        Method(
            "surgery-ascent",
            lambda optimizer, weight: optax.chain(
                orthogonalize_against(), optax.scale(-1.0), optimizer
            ),
            "forget",
            "ascend g_f − (g_f·g_r/|g_r|²) g_r",
            2,
            0,
            UNO,
        ),
        Method(
            "retain-descent",
            lambda optimizer, weight: optimizer,
            "retain",
            "descend g_r (control)",
            1,
            0,
            "control",
        ),
    )
}


def get_method(name: str) -> Method:
    """Returns the row of that name.

    Raises:
      ValueError: naming the known methods.
    """
    if name not in METHODS:
        raise ValueError(f"method: expected one of {sorted(METHODS)}, got {name!r}.")
    return METHODS[name]
