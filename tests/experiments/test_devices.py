"""Training and unlearning of an experiment: on one device, on a mesh, under pmap."""

import dataclasses
import itertools

import jax
import numpy as np
import optax
import pytest

import uno_jax as uno
from experiments import common, devices, resumable
from tests.transforms.problems import flat, mlp_loss, mlp_params
from uno_jax import data

SIZES = (6, 64, 6)
KINDS = {"one": ("", "jit"), "mesh": ("data=4,fsdp=2", "jit"), "pmap": ("", "pmap")}


@dataclasses.dataclass(frozen=True)
class Options:
    train: int = 6


def loss_fn(params, batch, key):
    del key
    return mlp_loss(params, (batch["x"], batch["y"]))


def bad_loss_fn(params, batch, key):
    return loss_fn(params, batch, key) / (batch["x"][0, 0] - batch["x"][0, 0])


def stream(seed):
    rng = np.random.default_rng(seed)
    arrays = {name: rng.normal(size=(40, 6)).astype(np.float32) for name in "xy"}
    return data.array_batches(arrays, batch_size=16, seed=seed)


def folder_at(path):
    folder = common.RunFolder(path, Options())
    folder.data = "noise"
    return folder


def train(folder, kind, steps):
    where = devices.choose(*KINDS[kind])
    tx = optax.adam(1e-2)
    step = uno.make_training_step(loss_fn, tx, axis_name=where.axis_name)
    start = uno.create_state(mlp_params(0, SIZES), tx, jax.random.key(0))
    return resumable.train_or_restore(
        folder, "training", step, start, stream(1), steps=steps, save_every=2, devices=where
    )


def unlearn(folder, kind, params, steps, retain_loss=loss_fn):
    where = devices.choose(*KINDS[kind])
    tx = optax.chain(uno.surgery(), optax.adam(1e-3))
    step = uno.make_unlearning_step(
        retain_loss, tx, forget_loss_fn=loss_fn, axis_name=where.axis_name
    )
    start = uno.create_state(params, tx, jax.random.key(1))
    return resumable.unlearn_or_restore(
        folder,
        "forgetting",
        step,
        start,
        lambda: (stream(2), stream(3)),
        steps=steps,
        evaluate=lambda state: {"first": float(state.params[0]["b"][0])},
        save_every=2,
        devices=where,
    )


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = folder_at(tmp_path_factory.mktemp("alone"))
    state = train(folder, "one", 6)
    return state, unlearn(folder, "one", state.params, 5)


@pytest.mark.parametrize("kinds", list(itertools.permutations(KINDS, 2)))
def test_begun_on_one_and_ended_on_another_it_is_the_same_run(kinds, alone, tmp_path):
    first, second = kinds
    folder = folder_at(tmp_path)
    train(folder, first, 3)
    state = train(folder, second, 6)
    np.testing.assert_allclose(flat(state.params), flat(alone[0].params), atol=2e-5)
    assert all(len(leaf.sharding.device_set) == 1 for leaf in jax.tree.leaves(state.params))
    unlearn(folder, first, alone[0].params, 3)
    result = unlearn(folder, second, alone[0].params, 5)
    np.testing.assert_allclose(flat(result.state.params), flat(alone[1].state.params), atol=2e-5)
    for got, expected in zip(result.history, alone[1].history, strict=True):
        assert got["step"] == expected["step"]
        for name in ("retain_loss", "cosine", "first"):
            np.testing.assert_allclose(got[name], expected[name], rtol=1e-3, atol=1e-5)


def test_a_method_that_destroys_ends_there_and_is_not_run_again(tmp_path, alone):
    folder = folder_at(tmp_path)
    params = alone[0].params
    for _ in range(2):
        result = unlearn(folder, "one", params, 5, bad_loss_fn)
        assert not result.stopped and result.history[-1]["destroyed"]
        assert [row["step"] for row in result.history] == [1]
        np.testing.assert_array_equal(flat(result.state.params), flat(params))


def test_training_that_is_not_finite_names_the_last_good_checkpoint(tmp_path):
    folder = folder_at(tmp_path)
    train(folder, "one", 4)
    tx = optax.adam(1e-2)
    step = uno.make_training_step(bad_loss_fn, tx)
    start = uno.create_state(mlp_params(0, SIZES), tx, jax.random.key(0))
    with pytest.raises(
        uno.training.NonFiniteError, match="step 1: loss .*the last good checkpoint is 4 in"
    ):
        resumable.train_or_restore(
            folder, "training", step, start, stream(1), steps=8, save_every=2
        )


def test_what_does_not_go_together_is_named():
    with pytest.raises(ValueError, match="mesh: expected none under pmap, got 'data=8'"):
        devices.choose("data=8", "pmap")
    with pytest.raises(ValueError, match="mesh: expected 3 devices for .*, got 8"):
        devices.choose("data=3", "jit")
