import json
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import uno_jax as uno
from tests.checkpoints import damage
from uno_jax import checkpoints, parallel, trees
from uno_jax.checkpoints.series import checksums

TX = optax.adam(1e-3)
MANIFEST = checkpoints.make_manifest({"learning_rate": 1e-3}, "digits")


def state_at(step):
    params = {"w": jax.random.normal(jax.random.key(step), (64, 32)), "n": None}
    state = uno.create_state(params, TX, jax.random.key(step))
    return state.replace(step=jnp.asarray(step, jnp.int32))


def series(folder, **options):
    return checkpoints.Series(folder, MANIFEST, **options)


def test_state_extras_and_key_come_back_from_the_newest(tmp_path):
    with series(tmp_path) as files:
        assert files.restore(state_at(0)) is None
        for step in (5, 10):
            files.save(state_at(step), {"position": [step], "none": None})
    with series(tmp_path) as files:
        assert files.latest == 10
        restored = files.restore(state_at(0))
    assert restored.step == 10 and restored.extras == {"position": [10], "none": None}
    expected = state_at(10)
    assert jax.tree.structure(restored.state) == jax.tree.structure(expected)
    np.testing.assert_array_equal(restored.state.params["w"], expected.params["w"])
    assert jnp.array_equal(
        jax.random.key_data(restored.state.key), jax.random.key_data(expected.key)
    )


def test_a_saved_state_may_be_donated_at_once(tmp_path):
    spoil = jax.jit(lambda s: jax.tree.map(lambda x: x * 0 - 1, s), donate_argnums=0)
    values = jnp.arange(2.0**20)
    with series(tmp_path) as files:
        state = state_at(1).replace(params=jnp.copy(values))
        files.save(state)
        spoil(state.params)
    with series(tmp_path) as files:
        restored = files.restore(state.replace(params=values))
    np.testing.assert_array_equal(restored.state.params, values)


def test_the_newest_are_kept_and_the_best(tmp_path):
    losses = {1: 3.0, 2: 0.5, 3: 2.0, 4: 1.0, 5: 4.0}
    with series(tmp_path, keep=2, best=("loss", "min")) as files:
        for step, loss in losses.items():
            files.save(state_at(step), metrics={"loss": loss})
    assert checkpoints.steps_in(tmp_path) == [2, 4, 5]


def test_due_after_so_many_steps_or_minutes(tmp_path):
    with series(tmp_path, every_steps=10, every_minutes=0.5 / 60) as files:
        assert not files.due(9) and files.due(10)
        files.save(state_at(10))
        assert not files.due(15) and files.due(20)
        time.sleep(0.6)
        assert files.due(11)
    with series(tmp_path) as files:
        assert not files.due(10**9)


def delete_metadata(folder):
    for file in folder.rglob("_METADATA"):
        file.unlink()


def empty(folder):
    for file in folder.rglob("*"):
        if file.is_file() and not file.name.startswith("_CHECKPOINT"):
            file.write_bytes(b"")


@pytest.mark.parametrize(
    "how", [damage.truncate, damage.flip, damage.delete, delete_metadata, empty]
)
def test_damage_is_said_and_the_one_before_is_taken(tmp_path, how):
    with series(tmp_path) as files:
        files.save(state_at(5))
        files.save(state_at(10))
    how(tmp_path / "10")
    said = []
    with series(tmp_path, report=said.append) as files:
        restored = files.restore(state_at(0))
        assert restored.step == 5
        np.testing.assert_array_equal(restored.state.params["w"], state_at(5).params["w"])
        assert len(said) == 1 and said[0].startswith("checkpoint 10 is damaged: ")
        files.save(state_at(10))
    with series(tmp_path) as files:
        assert files.restore(state_at(0)).step == 10
    assert (tmp_path / "damaged-10").is_dir()


def test_if_all_are_damaged_all_are_named(tmp_path):
    with series(tmp_path) as files:
        files.save(state_at(5))
        files.save(state_at(10))
    for step in (5, 10):
        damage.truncate(tmp_path / str(step))
    with (
        series(tmp_path, report=lambda text: None) as files,
        pytest.raises(ValueError, match="checkpoint 10 is damaged: .*checkpoint 5 is damaged: "),
    ):
        files.restore(state_at(0))


def test_another_model_is_a_mistake_and_not_damage(tmp_path):
    with series(tmp_path) as files:
        files.save(state_at(5))
    other = state_at(0).replace(params={"w": jnp.zeros((3, 3)), "n": None})
    with series(tmp_path) as files:
        with pytest.raises(
            ValueError, match=r"expected shape \(3, 3\) at 'params/w', got \(64, 32\)"
        ):
            files.restore(other)
        assert files.latest == 5


def test_another_configuration_other_data_and_other_versions(tmp_path):
    series(tmp_path).__exit__(None)
    other = checkpoints.make_manifest({"learning_rate": 1e-4, "w": 2}, "faces")
    expected = (
        "data: expected those of fingerprint digits, got faces; learning_rate: expected 0.001, "
        "got 0.0001; w: expected None, got 2"
    )
    with pytest.raises(ValueError, match=f"checkpoints of another run .{expected}"):
        checkpoints.Series(tmp_path, other)
    older = MANIFEST | {"versions": MANIFEST["versions"] | {"jax": "0.1"}}
    (tmp_path / "manifest.json").write_text(json.dumps(older))
    said = []
    checkpoints.Series(tmp_path, MANIFEST, report=said.append)
    assert "version of jax: expected '0.1', got" in said[0]
    (tmp_path / "manifest.json").write_text(json.dumps(MANIFEST | {"schema": 99}))
    with pytest.raises(ValueError, match="schema: expected 1, got 99"):
        series(tmp_path)


def test_a_state_that_is_not_finite_is_not_saved(tmp_path):
    bad = state_at(7)
    bad.params["w"] = bad.params["w"].at[3, 2].set(jnp.inf)
    with series(tmp_path) as files:
        with pytest.raises(
            uno.training.NonFiniteError, match="step 7: .*at params/w; there is no checkp"
        ):
            files.save(bad)
        files.save(state_at(5))
        files.wait()
        with pytest.raises(uno.training.NonFiniteError, match="the last good checkpoint is 5 in"):
            files.save(bad)
        assert files.latest == 5


def test_restores_to_another_mesh(tmp_path):
    first = parallel.make_mesh({"data": 4, "fsdp": 2})
    second = parallel.make_mesh({"fsdp": 4}, jax.devices()[:4])
    state = parallel.shard_state(first, state_at(3), smallest=8)
    with series(tmp_path) as files:
        files.save(state)
    template = parallel.shard_state(second, state_at(0), smallest=8)
    with series(tmp_path) as files:
        restored = files.restore(template).state
    assert restored.params["w"].sharding == template.params["w"].sharding
    assert not restored.params["w"].sharding.is_fully_replicated
    np.testing.assert_array_equal(restored.params["w"], state.params["w"])
    assert checksums(restored) == checksums(state)


def test_checksums_see_a_bit_and_an_exchange():
    values = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    sums = {checksums({"a": v})["a"] for v in (values, values.T, values[::-1], values.at[0, 0].set(
        jnp.nextafter(values[0, 0], 2.0)))}  # fmt: skip
    assert len(sums) == 4
    mixed = {"f": jnp.ones(3, jnp.bfloat16), "i": jnp.arange(3), "b": jnp.array([True, False])}
    assert checksums(mixed) == checksums(jax.tree.map(jnp.copy, mixed))


def test_checksums_are_the_same_computed_on_the_device(monkeypatch):
    rng = np.random.default_rng(0)
    tree = {
        "f": jnp.asarray(rng.normal(size=(3, 4, 5)), jnp.float32),
        "h": jnp.asarray(rng.normal(size=(4, 5)), jnp.bfloat16),
        "i": jnp.asarray(rng.integers(0, 9, 7)),
        "b": jnp.array([True, False]),
        "s": jnp.float32(3.5),
        "k": jax.random.key(1),
    }
    here = checksums(tree)
    assert len(set(here.values())) == len(tree)
    monkeypatch.setattr(trees, "on_host", lambda leaves: False)
    assert checksums(tree) == here


def test_checksums_take_numbers_as_jax_does():
    for value in (3.0, np.array([1.5, 2.5]), 7):
        assert checksums({"a": value}) == checksums({"a": jnp.asarray(value)})


def test_sizes_out_of_range_are_named(tmp_path):
    for options, message in (
        ({"keep": 0}, "keep: expected at least 1, got 0"),
        ({"every_steps": 0}, "every_steps: expected at least 1, got 0"),
        ({"every_minutes": -1}, "every_minutes: expected at least 0, got -1"),
        ({"best": ("loss", "least")}, "best: expected .'metric', 'min' or 'max'., got"),
    ):
        with pytest.raises(ValueError, match=message):
            series(tmp_path, **options)
