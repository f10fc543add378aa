"""One device, eight, four by two, and pmap: the same step."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import uno_jax as uno
from tests.parallel.problems import build
from tests.transforms.problems import flat
from uno_jax import parallel

MODELS = ("mnist-vae", "conv-vae", "dit")
MESHES = ("data=8", "data=4,fsdp=2", "data=2,fsdp=2,model=2")
RATE = 1e-3
WEIGHTS = {"mnist-vae": 1e4, "conv-vae": 1e4, "dit": 10.0}


@pytest.fixture(autouse=True, scope="module")
def _compile_quickly():
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


def make(name, axis_name=None, accumulate=1):
    """The state and the step of UNO-S: UNO first, then surgery."""
    problem = build(name, axis_name)
    tx = optax.chain(
        uno.alternate(uno.orthogonalize(WEIGHTS[name]), uno.surgery()),
        optax.scale_by_learning_rate(RATE),
    )
    step = uno.make_unlearning_step(
        problem.loss_fn,
        tx,
        has_model_state=True,
        axis_name=axis_name,
        reduction=problem.reduction,
        accumulate=accumulate,
    )
    state = uno.create_state(problem.params, tx, jax.random.key(0), model_state=problem.model_state)
    return problem, state, step


def two_steps(step, state, retain, forget, whole=lambda state: state):
    """The updates of UNO and of surgery, one vector each, and the metrics of both."""
    vectors, metrics = [flat(whole(state).params)], []
    state = uno.copy_state(state)
    for _ in range(2):
        state, row = step(state, retain, forget)
        vectors.append(flat(whole(state).params))
        metrics.append(jax.device_get(row))
    statistics = flat(whole(state).model_state)
    return np.diff(np.stack(vectors), axis=0), metrics, statistics, state


@functools.cache
def alone(name):
    problem, state, step = make(name)
    step = jax.jit(step)
    return two_steps(step, state, problem.retain, problem.forget)[:3]


def check_same(got, expected):
    for update, reference in zip(got[0], expected[0], strict=True):
        error = np.linalg.norm(update - reference) / np.linalg.norm(reference)
        assert error < 2e-4, error
    for row, reference in zip(got[1], expected[1], strict=True):
        for key, value in reference.items():
            np.testing.assert_allclose(row[key], value, rtol=1e-4, atol=1e-5, err_msg=key)
    np.testing.assert_allclose(got[2], expected[2], rtol=1e-4, atol=1e-5)


def test_the_penalty_matters_in_these_problems():
    """Else the tests below would be tests of retain descent."""
    for name in MODELS:
        problem, state, _ = make(name)
        descent = uno.make_unlearning_step(
            problem.loss_fn, optax.sgd(RATE), has_model_state=True, reduction=problem.reduction
        )
        plain = two_steps(jax.jit(descent), state, problem.retain, problem.forget)[0]
        for update, other in zip(alone(name)[0], plain, strict=True):
            assert np.linalg.norm(update - other) > 0.05 * np.linalg.norm(other)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("sizes", MESHES)
def test_on_a_mesh(name, sizes):
    mesh = parallel.make_mesh(parallel.parse_mesh(sizes))
    problem, state, step = make(name)
    shardings = parallel.state_shardings(mesh, state, parallel.DIT_RULES, smallest=256)
    step = parallel.jit_step(step, shardings)
    batches = parallel.shard_batch(mesh, (problem.retain, problem.forget))
    state = parallel.shard_state(mesh, state, parallel.DIT_RULES, smallest=256)
    *got, after = two_steps(step, state, *batches)
    check_same(got, alone(name))
    assert jax.tree.map(lambda leaf: leaf.sharding, after) == shardings
    if "fsdp" in sizes:
        spread = [not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(after.params)]
        assert any(spread)


@pytest.mark.parametrize("name", MODELS)
def test_under_pmap(name):
    problem, state, step = make(name, axis_name="data")
    mapped = parallel.pmap_step(step)
    batches = parallel.split((problem.retain, problem.forget))
    state = parallel.replicate(state)
    check_same(two_steps(mapped, state, *batches, whole=parallel.unreplicate), alone(name))


@pytest.mark.parametrize("name", ["dit"])
def test_in_micro_batches(name):
    problem, state, step = make(name, accumulate=4)
    step = jax.jit(step)
    check_same(two_steps(step, state, problem.retain, problem.forget), alone(name))


def test_the_shortcut_of_each_device_is_another_step():
    """Cosine and projection of each device's own gradients, averaged afterwards."""
    problem, state, step = make("dit")
    mapped = jax.pmap(step)
    batches = parallel.split((problem.retain, problem.forget))
    state, vectors = parallel.replicate(state), [flat(state.params)]
    for _ in range(2):
        state, _ = mapped(state, *batches)
        params = jax.tree.map(lambda x: jnp.mean(x, axis=0), state.params)
        vectors.append(flat(params))
        state = parallel.replicate(parallel.unreplicate(state).replace(params=params))
    for update, reference in zip(np.diff(vectors, axis=0), alone("dit")[0], strict=True):
        assert np.linalg.norm(update - reference) > 0.02 * np.linalg.norm(reference)
