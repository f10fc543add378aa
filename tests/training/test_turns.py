import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import uno_jax as uno
from tests.transforms.problems import mlp_batch, mlp_loss, mlp_params
from uno_jax.training import turns
from uno_jax.training.turns import at_turn, turns_of

UNO_S = uno.alternate(uno.orthogonalize(3.0), uno.surgery())
THREE = uno.alternate(optax.identity(), uno.surgery(), optax.scale(-1.0))


def problem(tx):
    params = {"net": mlp_params(0, (3, 4, 2)), "none": None}
    step = uno.make_unlearning_step(lambda p, batch, key: mlp_loss(p["net"], batch), tx)
    state = uno.create_state(params, tx, jax.random.key(0))
    return step, state, mlp_batch(1, 6, (3, 4, 2)), mlp_batch(2, 6, (3, 4, 2))


def primitives(fn, *arguments):
    return {eqn.primitive.name for eqn in jax.make_jaxpr(fn)(*arguments).jaxpr.eqns}


@pytest.mark.parametrize(
    ("tx", "programs"),
    [
        (optax.chain(UNO_S, optax.adam(1e-2)), 2),
        (optax.chain(THREE, optax.sgd(1e-2)), 3),
        (optax.chain(optax.masked(UNO_S, {"net": True, "none": None}), optax.adam(1e-2)), 2),
        (optax.chain(UNO_S, THREE, optax.sgd(1e-2)), 6),
        # In a branch of another the count is traced, and the turn is a branch as ever.
        (optax.apply_if_finite(optax.chain(UNO_S, optax.adam(1e-2)), 3), 2),
        (optax.chain(uno.surgery(), optax.adam(1e-2)), 1),
    ],
)
def test_the_steps_are_those_of_one_program_and_each_turn_is_traced_once(tx, programs):
    step, state, *batches = problem(tx)
    whole = jax.jit(step)
    alone = uno.jit_turns(chex.assert_max_traces(step, n=programs))
    expected, got = state, uno.training.copy_state(state)
    for number in range(2 * programs):
        expected, row = whole(expected, *batches)
        got, metrics = alone(got, *batches)
        for name in ("step", "params", "opt_state"):
            pair = getattr(got, name), getattr(expected, name)
            chex.assert_trees_all_close(*pair, rtol=1e-5, atol=1e-6)
            chex.assert_trees_all_equal_dtypes(*pair)
        # A program of one turn says nothing of the penalty of another.
        assert metrics.keys() - row.keys() == set()
        assert row.keys() - metrics.keys() <= {"penalty_norm", "penalty_ratio"}
        shared = {name: row[name] for name in metrics}
        chex.assert_trees_all_close(metrics, shared, rtol=1e-5, atol=1e-6)
        assert all((number + 1) % count == turn for turn, count in turns_of(got))


def test_a_turn_has_no_branch():
    step, state, *batches = problem(optax.chain(UNO_S, optax.sgd(1e-2)))
    assert "cond" in primitives(step, state, *batches)
    for turn in (0, 1):
        assert "cond" not in primitives(at_turn(step, ((turn, 2),)), state, *batches)


@pytest.mark.parametrize("mask", [None, {"net": True, "none": None}])
def test_the_program_of_a_turn_is_that_of_the_transformation_alone(mask):
    def program(tx, made=0):
        tx = optax.masked(tx, mask) if mask else tx
        step, state, *batches = problem(optax.chain(tx, optax.adam(1e-2)))
        for _ in range(made):
            state, _ = step(state, *batches)
        places = turns.places_of(state.opt_state)
        own = jax.jit(turns.at_own_turn(step, turns_of(state), places))
        return own.lower(turns.own_of(state, places), *batches).as_text()

    of_turns = [program(UNO_S, made) for made in (0, 1)]
    assert of_turns == [program(uno.orthogonalize(3.0)), program(uno.surgery())]
    assert of_turns[0] != of_turns[1]


def test_an_update_that_is_not_made_does_not_count():
    tx = optax.apply_if_finite(optax.chain(UNO_S, optax.sgd(1e-2)), 5)
    step, state, retain, forget = problem(tx)
    step = uno.jit_turns(step)
    broken = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), retain)
    # Its state holds one zero more than once.
    state, _ = step(uno.training.copy_state(state), retain, forget)
    assert turns_of(state) == ((1, 2),)
    before = jax.device_get(state.params)
    state, _ = step(state, broken, forget)
    assert turns_of(state) == ((1, 2),)
    chex.assert_trees_all_equal(state.params, before)


def test_one_that_may_be_left_out_of_a_chain_is_an_error():
    alternating = optax.with_extra_args_support(UNO_S)

    def update(updates, state, params=None, **extra_args):
        new, after = alternating.update(updates, state[0], params, **extra_args)
        kept = jax.tree.map(lambda a, b: jnp.where(state[1] > 0, a, b), after, state[0])
        return new, (kept, state[1])

    tx = optax.GradientTransformationExtraArgs(
        lambda params: (alternating.init(params), jnp.zeros(())), update
    )
    step, state, *batches = problem(optax.chain(tx, optax.sgd(1e-2)))
    with pytest.raises(ValueError, match="jit_turns: expected each update to go through every"):
        uno.jit_turns(step)(uno.training.copy_state(state), *batches)


def test_the_loops_take_it():
    step, state, *batches = problem(optax.chain(UNO_S, optax.sgd(1e-2)))
    steps = [[batch] * 4 for batch in batches]
    got = uno.unlearn(uno.jit_turns(step), uno.training.copy_state(state), *steps, max_steps=4)
    expected = uno.unlearn(jax.jit(step), state, *steps, max_steps=4)
    assert ["penalty_norm" in row for row in got.history] == [True, False, True, False]
    np.testing.assert_allclose(
        [row["cosine"] for row in got.history],
        [row["cosine"] for row in expected.history],
        rtol=1e-5,
    )
