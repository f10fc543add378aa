import jax
import numpy as np
import optax
import pytest

import uno_jax as uno
from tests.transforms.problems import flat, mlp_batch, mlp_loss, mlp_params

SIZES = (3, 6, 2)


GRADIENT_METHODS = [name for name, row in uno.methods.METHODS.items() if not row.matches]


@pytest.mark.parametrize("name", GRADIENT_METHODS)
def test_every_row_takes_a_step_along_its_formula(name):
    method = uno.methods.get_method(name)
    params = mlp_params(0, SIZES)
    retain, forget = mlp_batch(1, 9, SIZES), mlp_batch(2, 9, SIZES)
    tx = method.build(optax.sgd(1.0), 2.0)
    step = uno.make_unlearning_step(
        lambda p, batch, key: mlp_loss(p, batch), tx, descend=method.descend
    )
    new, _ = jax.jit(step)(uno.create_state(params, tx, jax.random.key(0)), retain, forget)
    got = flat(params) - flat(new.params)

    r, f = (flat(jax.grad(mlp_loss)(params, batch)) for batch in (retain, forget))
    expected = {
        "surgery": lambda: r - (r @ f) / (f @ f) * f,
        "surgery-ascent": lambda: -(f - (f @ r) / (r @ r) * r),
        "retain-descent": lambda: r,
        "uno": lambda: flat(jax.grad(objective)(params)),
    }

    def objective(p):
        a, b = jax.grad(mlp_loss)(p, retain), jax.grad(mlp_loss)(p, forget)
        dot = sum(jax.tree.leaves(jax.tree.map(lambda x, y: (x * y).sum(), a, b)))
        return mlp_loss(p, retain) + 2.0 * (dot / optax.tree.norm(a) / optax.tree.norm(b)) ** 2

    np.testing.assert_allclose(got, expected[name](), atol=1e-5 * np.linalg.norm(got))


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"method: expected one of \['redirect', .*got 'x'"):
        uno.methods.get_method("x")
