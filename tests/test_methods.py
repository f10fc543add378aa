import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import uno_jax as uno
from tests.transforms.problems import flat, mlp_batch, mlp_loss, mlp_params

SIZES = (3, 6, 2)
GRADIENT_METHODS = [name for name, row in uno.methods.METHODS.items() if not row.matches]
WEIGHT, PULL = 2.0, 3.0


def loss_fn(params, batch, key):
    del key
    return mlp_loss(params, batch)


@pytest.mark.parametrize("name", GRADIENT_METHODS)
def test_every_row_takes_two_steps_along_its_formula(name):
    method = uno.methods.get_method(name)
    start = params = mlp_params(0, SIZES)
    retain, forget = mlp_batch(1, 9, SIZES), mlp_batch(2, 9, SIZES)
    fisher = jax.tree.map(jnp.square, mlp_params(7, SIZES))
    tx = method.build(optax.sgd(0.1), weight=WEIGHT, second_moment=fisher, pull=PULL)
    step = jax.jit(uno.make_unlearning_step(loss_fn, tx, descend=method.descend))
    state = uno.create_state(params, tx, jax.random.key(0))

    def uno_direction(p):
        def objective(q):
            a, b = jax.grad(mlp_loss)(q, retain), jax.grad(mlp_loss)(q, forget)
            dot = sum(jax.tree.leaves(jax.tree.map(lambda x, y: (x * y).sum(), a, b)))
            cosine = dot / optax.tree.norm(a) / optax.tree.norm(b)
            return mlp_loss(q, retain) + WEIGHT * cosine**2

        return flat(jax.grad(objective)(p))

    salient = flat(uno.transforms.saliency_mask(jax.grad(mlp_loss)(start, forget), 0.5))

    def formulas(p, turn):
        r, f = (flat(jax.grad(mlp_loss)(p, batch)) for batch in (retain, forget))
        across = f - (f @ r) / (r @ r) * r
        surgery = r - (r @ f) / (f @ f) * f
        return {
            "redirect-adam": r + f,
            "uno": uno_direction(p),
            "uno-s": surgery if turn else uno_direction(p),
            "surgery": surgery,
            "surgery-ascent": -across,
            "surgery-descent": across,
            "ascent": -f,
            "ascent-descent": r if turn else -f,
            "orthogonal-ascent": r - np.linalg.norm(r) * across / np.linalg.norm(across),
            "salun": salient * (r - f),
            # The same direction; what they descend is another loss, see tests/losses.
            "salun-relabel": salient * r,
            "esd-x": f,
            "esd-u": f,
            "selective-amnesia": r + f + PULL * flat(fisher) * (flat(p) - flat(start)),
            "retain-descent": r,
            "recalibration": 0 * r,
        }

    for turn in range(2):
        new, _ = step(state, retain, forget)
        got = (flat(state.params) - flat(new.params)) / 0.1
        expected = formulas(state.params, turn)[name]
        np.testing.assert_allclose(got, expected, atol=2e-5 * max(1, np.linalg.norm(got)))
        state = new


@pytest.mark.parametrize("name", GRADIENT_METHODS)
def test_every_row_takes_the_hat(name):
    method = uno.methods.get_method(name)
    params = mlp_params(0, SIZES)
    fisher = jax.tree.map(jnp.ones_like, params)
    inputs = mlp_batch(3, 8, SIZES)[0]

    def sample_fn(p, model_state, key):
        return jnp.tanh(inputs @ p[0]["w"] + p[0]["b"]) @ p[1]["w"] + p[1]["b"]

    hat = uno.losses.hat_loss(lambda x: x, sample_fn, forgotten=0)
    retain, forget = mlp_batch(1, 9, SIZES), mlp_batch(2, 9, SIZES)

    def moved(added):
        tx = method.build(optax.sgd(1.0), weight=WEIGHT, second_moment=fisher, added=added)
        step = uno.make_unlearning_step(loss_fn, tx, descend=method.descend)
        return flat(step(uno.create_state(params, tx, jax.random.key(0)), retain, forget)[0].params)

    got = moved(()) - moved((uno.add_loss(hat, 4.0),))
    expected = 4.0 * flat(jax.grad(lambda p: hat(p, None, None))(params))
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_costs_are_what_the_transformations_use():
    for row in uno.methods.METHODS.values():
        assert row.descend in ("retain", "forget") and row.formula and row.source
        assert row.gradients >= 0 and row.products >= 0


@pytest.mark.parametrize("name", ("uno", "uno-s"))
def test_products_are_taken_as_told(name):
    params = mlp_params(0, SIZES)
    retain, forget = mlp_batch(1, 9, SIZES), mlp_batch(2, 9, SIZES)
    row = uno.methods.get_method(name)

    def moved(weight, hessian):
        tx = row.build(optax.sgd(1.0), weight=weight, hessian=hessian)
        step = uno.make_unlearning_step(loss_fn, tx)
        return flat(step(uno.create_state(params, tx, jax.random.key(0)), retain, forget)[0].params)

    exact, near, without = (
        moved(WEIGHT, "exact"),
        moved(WEIGHT, "finite-difference"),
        moved(0, "exact"),
    )
    assert not np.array_equal(exact, near)
    assert np.linalg.norm(near - exact) < 0.05 * np.linalg.norm(exact - without)
    with pytest.raises(ValueError, match="hessian: expected"):
        moved(WEIGHT, "guess")


def test_what_is_missing_is_said():
    with pytest.raises(ValueError, match=r"method: expected one of \['ascent', .*got 'x'"):
        uno.methods.get_method("x")
    with pytest.raises(ValueError, match="selective-amnesia: expected second_moment, got None"):
        uno.methods.get_method("selective-amnesia").build(optax.sgd(1.0))
    with pytest.raises(ValueError, match="redirect: expected nothing added"):
        uno.methods.get_method("redirect").build(optax.sgd(1.0), added=(optax.identity(),))


def test_ascent_destroys_and_surgery_does_not():
    """A, on a model at the minimum of the retain loss."""
    batch = mlp_batch(1, 40, SIZES)
    batch = (batch[0], jnp.tanh(batch[0] @ jnp.ones((3, 2))))
    retain, forget = (tuple(x[part] for x in batch) for part in (slice(30), slice(30, 40)))
    tx = optax.adam(1e-2)
    train = jax.jit(uno.make_training_step(loss_fn, tx))
    state = uno.create_state(mlp_params(0, SIZES), tx, jax.random.key(0))
    for _ in range(500):
        state, _ = train(state, batch)
    losses = {}
    for name in ("ascent", "surgery"):
        method = uno.methods.get_method(name)
        tx = method.build(optax.adam(1e-2))
        step = jax.jit(uno.make_unlearning_step(loss_fn, tx, descend=method.descend))
        after = uno.create_state(state.params, tx, jax.random.key(0))
        for _ in range(100):
            after, _ = step(after, retain, forget)
        losses[name] = mlp_loss(after.params, retain)
    before = mlp_loss(state.params, retain)
    assert losses["ascent"] > 100 * before
    assert losses["surgery"] < 2 * before
