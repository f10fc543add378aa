import io
import itertools

import jax
import jax.numpy as jnp
import optax
import pytest

import uno_jax as uno


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
    report = uno.print_progress(every_seconds=0.0, file=file)
    report({"step": 3, "retain_loss": jnp.asarray(0.5)})
    assert file.getvalue() == "step 3  retain_loss 0.5\n"
    slow = uno.print_progress(every_seconds=1e6, file=file)
    slow({"step": 4})
    slow({"step": 5})
    assert "step 5" not in file.getvalue()


@pytest.mark.parametrize(("name", "value"), [("max_steps", 0), ("evaluate_every", 0)])
def test_mistakes_are_named(name, value):
    arguments = {"max_steps": 1, name: value}
    with pytest.raises(ValueError, match=f"{name}: expected at least 1, got 0"):
        uno.unlearn(*setup(), **arguments)
