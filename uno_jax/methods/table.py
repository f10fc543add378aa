"""The table of methods: name, how to build it, what it needs and costs.

Command lines, result tables and benchmarks are generated from `METHODS`, so a
new method is one transformation, one row here and one test.
"""

import optax

from uno_jax.methods.row import Method, Setting
from uno_jax.transforms.alternation import alternate
from uno_jax.transforms.ascent import add_forget, ascend, ascend_orthogonally
from uno_jax.transforms.gauss_newton import scale_by_gauss_newton
from uno_jax.transforms.line_search import line_search
from uno_jax.transforms.orthogonalize import orthogonalize
from uno_jax.transforms.projection import orthogonalize_against, surgery
from uno_jax.transforms.saliency import keep_salient
from uno_jax.transforms.second_moment import pull_to_start, scale_by_second_moment

CG_ITERATIONS = 60
UNO = "arXiv 2506.04712"
# From large to small: the diagonal metric's step has a root mean square of 1e-3.
DIAGONAL_FACTORS = (4.0, 2.8, 2.0, 1.4, 1.0, 0.7, 0.5, 0.35, 0.25, 0.12, 0.06, 0.03)


def _uno(setting: Setting) -> optax.GradientTransformationExtraArgs:
    return orthogonalize(setting.weight, max_ratio=setting.max_ratio, hessian=setting.hessian)


METHODS: dict[str, Method] = {
    row.name: row
    for row in (
        Method(
            "redirect",
            lambda setting: optax.chain(
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
            "redirect-diagonal",
            lambda setting: optax.chain(
                scale_by_second_moment(setting.second_moment, root_mean_square=1e-3),
                optax.scale(-1.0),
                line_search(DIAGONAL_FACTORS),
            ),
            "retain",
            "D⁻¹ ∇(redirect + λ anchor), D² = mean g_r², line search",
            2,
            0,
            "uno_jax",
            needs=("second_moment",),
            matches=True,
        ),
        Method(
            "redirect-adam",
            lambda setting: add_forget(1.0),
            "retain",
            "descend ∇(redirect + λ anchor)",
            2,
            0,
            "uno_jax",
            needs=("labels", "targets"),
        ),
        Method(
            "uno",
            _uno,
            "retain",
            "descend g_r + w ∇cos²(g_r, g_f), as published: no bound",
            2,
            2,
            UNO,
        ),
        Method(
            "uno-s",
            lambda setting: alternate(_uno(setting), surgery()),
            "retain",
            "UNO on odd steps, surgery on even ones",
            2,
            1,
            UNO,
        ),
        Method(
            "surgery",
            lambda setting: surgery(),
            "retain",
            "descend g_r − (g_r·g_f/|g_f|²) g_f",
            2,
            0,
            UNO,
        ),
        Method(
            "surgery-ascent",
            lambda setting: optax.chain(orthogonalize_against(), optax.scale(-1.0)),
            "forget",
            "ascend g_f − (g_f·g_r/|g_r|²) g_r",
            2,
            0,
            UNO,
        ),
        Method(
            "surgery-descent",
            lambda setting: orthogonalize_against(),
            "forget",
            "descend g_f − (g_f·g_r/|g_r|²) g_r (SP)",
            2,
            0,
            UNO,
        ),
        Method("ascent", lambda setting: ascend(), "forget", "ascend g_f", 1, 0, UNO),
        Method(
            "ascent-descent",
            lambda setting: alternate(ascend(), optax.identity()),
            "retain",
            "ascend g_f on odd steps, descend g_r on even ones",
            1,
            0,
            UNO,
        ),
        Method(
            "orthogonal-ascent",
            lambda setting: ascend_orthogonally(1.0),
            "retain",
            "descend g_r − β|g_r| ĝ_f⊥",
            2,
            0,
            "uno_jax",
        ),
        Method(
            "salun",
            # For models without labels: the mask on the joint descent and ascent.
            lambda setting: optax.chain(add_forget(-1.0), keep_salient(0.5)),
            "retain",
            "descend m ⊙ (g_r − g_f), m where |g_f| is largest",
            2,
            0,
            "arXiv 2310.12508",
        ),
        Method(
            "salun-relabel",
            lambda setting: keep_salient(0.5),
            "retain",
            "descend m ⊙ ∇(L_r + relabelling), m where |g_f| is largest",
            2,
            0,
            "arXiv 2310.12508",
            needs=("labels", "relabelling"),
        ),
        Method(
            "esd-x",
            lambda setting: optax.identity(),
            "forget",
            "descend ∇|f_f − f_∅⁰ + η (f_f⁰ − f_∅⁰)|², conditioning alone",
            1,
            0,
            "arXiv 2303.07345",
            needs=("labels", "erasing"),
            moves="conditioning",
        ),
        Method(
            "esd-u",
            lambda setting: optax.identity(),
            "forget",
            "the same, all but the conditioning",
            1,
            0,
            "arXiv 2303.07345",
            needs=("labels", "erasing"),
            moves="rest",
        ),
        Method(
            "selective-amnesia",
            lambda setting: optax.chain(
                add_forget(1.0), pull_to_start(setting.second_moment, setting.pull)
            ),
            "retain",
            "descend g_replay + g_surrogate + λ F ⊙ (θ − θ₀)",
            2,
            0,
            "arXiv 2305.10120",
            needs=("second_moment", "surrogate"),
        ),
        Method(
            "retain-descent",
            lambda setting: optax.identity(),
            "retain",
            "descend g_r (control)",
            1,
            0,
            "control",
        ),
        Method(
            "recalibration",
            lambda setting: optax.set_to_zero(),
            "retain",
            "no step; running statistics of batch norm alone",
            0,
            0,
            "control",
        ),
    )
}


UNCONDITIONAL = tuple(name for name, row in METHODS.items() if "labels" not in row.needs)
"""Names of the methods that a model without labels can use."""


def get_method(name: str) -> Method:
    """Returns the row of that name.

    Raises:
      ValueError: naming the known methods.
    """
    if name not in METHODS:
        raise ValueError(f"method: expected one of {sorted(METHODS)}, got {name!r}.")
    return METHODS[name]
