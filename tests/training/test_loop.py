import io
import itertools

import jax
import jax.numpy as jnp
import optax
import pytest

import uno_jax as uno
from uno_jax import trees


def setup(tx=None):
    tx = tx or optax.sgd(0.1)
    step = jax.jit(uno.make_unlearning_step(lambda p, b, key: jnp.sum((p - b) ** 2), tx))
    state = uno.create_state(jnp.zeros(2), tx, jax.random.key(0))
    batches = itertools.repeat(jnp.ones(2)), itertools.repeat(-jnp.ones(2))
    return step, state, *batches


def test_stops_at_the_predicate():
    result = uno.unlearn(
        *setup(),
        max_steps=50,
        evaluate=lambda state: {"first": float(state.params[0])},
        forgotten=lambda row: row["first"] > 0.5,
    )
    assert result.stopped
    assert [row["step"] for row in result.history] == [1, 2, 3, 4]
    assert result.history[-1]["first"] == pytest.approx(1 - 0.8**4)
    assert isinstance(result.history[0]["retain_loss"], float)
    assert result.state.step == 4


def test_stops_at_max_steps_and_evaluates_the_last():
    seen = []
    result = uno.unlearn(
        *setup(),
        max_steps=5,
        evaluate=lambda state: {"at": int(state.step)},
        evaluate_every=2,
        report=seen.append,
    )
    assert not result.stopped
    assert [row.get("at") for row in result.history] == [None, 2, None, 4, 5]
    assert len(seen) == 5


def test_ends_with_the_shorter_stream():
    step, state, retain, _ = setup()
    result = uno.unlearn(step, state, retain, [jnp.ones(2)] * 3, max_steps=10)
    assert len(result.history) == 3


def test_train_descends():
    tx = optax.sgd(0.1)
    step = jax.jit(uno.make_training_step(lambda p, b, key: jnp.sum((p - b) ** 2), tx))
    state = uno.create_state(jnp.zeros(2), tx, jax.random.key(0))
    result = uno.train(step, state, itertools.repeat(jnp.ones(2)), max_steps=20)
    losses = [row["loss"] for row in result.history]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 1e-3


def test_progress_lines():
    file = io.StringIO()
    report = uno.training.print_progress(every_seconds=0.0, file=file)
    report({"step": 3, "retain_loss": jnp.asarray(0.5)})
    assert file.getvalue() == "step 3  retain_loss 0.5\n"
    slow = uno.training.print_progress(every_seconds=1e6, file=file)
    slow({"step": 4})
    slow({"step": 5})
    assert "step 5" not in file.getvalue()


@pytest.mark.parametrize(("name", "value"), [("max_steps", 0), ("evaluate_every", 0)])
def test_mistakes_are_named(name, value):
    arguments = {"max_steps": 1, name: value}
    with pytest.raises(ValueError, match=f"{name}: expected at least 1, got 0"):
        uno.unlearn(*setup(), **arguments)


def test_after_sees_every_state_last_and_may_end_the_loop():
    seen = []

    class EnoughError(Exception):
        pass

    def after(state, row):
        seen.append((int(state.step), row["step"], row["looked"]))
        if row["step"] == 3:
            raise EnoughError

    with pytest.raises(EnoughError):
        uno.unlearn(*setup(), max_steps=9, evaluate=lambda state: {"looked": 1}, after=after)
    assert seen == [(1, 1, 1), (2, 2, 1), (3, 3, 1)]


@pytest.mark.parametrize("bad_step", [2, 4])
def test_metrics_that_are_not_finite_stop_the_loop_and_name_the_leaves(bad_step):
    step, state, _, forget = setup(optax.adam(0.1))
    batches = [jnp.ones(2)] * 4
    batches[bad_step - 1] = jnp.array([jnp.nan, 1.0])
    with pytest.raises(
        uno.training.NonFiniteError, match=f"step {bad_step}: .*retain_loss nan.* at params"
    ):
        uno.unlearn(step, state, batches, forget, max_steps=4)
    result = uno.unlearn(step, state, batches, forget, max_steps=4, check_finite=False)
    assert len(result.history) == 4


def test_steps_that_are_not_finite_can_be_skipped():
    step, state, _, forget = setup(optax.apply_if_finite(optax.sgd(0.1), max_consecutive_errors=3))
    batches = [jnp.ones(2), jnp.array([jnp.inf, 1.0]), jnp.ones(2)]
    result = uno.unlearn(step, state, batches, forget, max_steps=3, check_finite=False)
    expected = uno.unlearn(step, state, batches[::2], forget, max_steps=2)
    assert jnp.array_equal(result.state.params, expected.state.params)


@pytest.mark.parametrize("on_host", [True, False])
def test_leaves_that_are_not_finite_are_named_whatever_their_kind(on_host, monkeypatch):
    monkeypatch.setattr(trees, "on_host", lambda leaves: on_host)
    tree = {"a": jnp.ones(2, jnp.bfloat16), "b": [jnp.array([jnp.inf])], "i": jnp.arange(3),
            "k": jax.random.key(0), "n": None, "z": jnp.array([1.0, jnp.nan])}  # fmt: skip
    assert uno.training.non_finite_leaves(tree) == ["b/0", "z"]
    assert uno.training.non_finite_leaves({}) == []
