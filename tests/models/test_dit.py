import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import uno_jax as uno
from tests.models.programs import QUICK, perturbed
from uno_jax import diffusion, models

IMAGES = jax.random.normal(jax.random.key(0), (3, 8, 12, 2))
TIMES = jnp.array([0.0, 10.0, 900.0])
LABELS = jnp.array([0, 4, 5])
INPUTS = IMAGES, TIMES, LABELS


def tiny(**changes):
    return models.DiT(**{"patch": 4, "depth": 2, "width": 16, "heads": 2, "classes": 5, **changes})


@pytest.mark.parametrize(
    ("name", "millions"),
    # Peebles and Xie, table 1: 33, 130, 458 and 675 million; the position table is not ours.
    [("S/2", 33), ("S/4", 33), ("B/2", 130), ("B/8", 131), ("L/2", 458), ("XL/2", 675),
     ("XL/8", 676)],
)  # fmt: skip
def test_published_sizes_have_the_published_parameters(name, millions):
    model = models.dit(name)
    shapes = jax.eval_shape(
        model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 4)), jnp.zeros(1), jnp.zeros(1, int)
    )
    assert round(models.parameter_count(shapes) / 1e6) == millions
    output = jax.eval_shape(
        model.apply, shapes, jnp.zeros((2, 32, 32, 4)), jnp.zeros(2), jnp.zeros(2, int)
    )
    assert output.shape == (2, 32, 32, 8) and output.dtype == jnp.float32


def test_it_starts_at_zero_with_identity_blocks():
    model = tiny()
    params = model.init(jax.random.key(1), IMAGES, TIMES, LABELS)
    np.testing.assert_array_equal(model.apply(params, IMAGES, TIMES, LABELS), 0)
    block = models.DiTBlock(16, 2)
    x, condition = jnp.ones((2, 6, 16)), jnp.ones((2, 16))
    params = block.init(jax.random.key(0), x, condition)
    np.testing.assert_array_equal(block.apply(params, x, condition), x)


def test_patches_come_back_where_they_were():
    """With an output layer that copies, each token draws its own patch."""
    model = tiny(depth=0, width=32, mlp_ratio=1.0)
    params = perturbed(model, *INPUTS)
    moved = model.apply({"params": params}, IMAGES, TIMES, LABELS)
    changed = IMAGES.at[0, 4:8, 8:12].add(1.0)
    again = model.apply({"params": params}, changed, TIMES, LABELS)
    different = np.argwhere(np.abs(moved - again) > 1e-6)
    assert {tuple(row[:1]) for row in different} == {(0,)}
    assert different[:, 1].min() == 4 and different[:, 1].max() == 7
    assert different[:, 2].min() == 8 and different[:, 2].max() == 11


def test_every_condition_matters():
    model = tiny()
    params = perturbed(model, *INPUTS)
    base = model.apply({"params": params}, IMAGES, TIMES, LABELS)
    for times, labels in ((TIMES + 5, LABELS), (TIMES, LABELS * 0 + 2)):
        other = model.apply({"params": params}, IMAGES, times, labels)
        assert (np.abs(other - base).max(axis=(1, 2, 3)) > 1e-3).all()


def test_remat_changes_memory_and_nothing_else():
    model, again = tiny(), tiny(remat=True)
    params = perturbed(model, *INPUTS)

    def slope(network):
        def loss(p):
            return jnp.sum(network.apply({"params": p}, IMAGES, TIMES, LABELS) ** 2)

        return jax.jit(jax.grad(loss))(params)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-4),
                 slope(model), slope(again))  # fmt: skip


def test_bfloat16_computes_near_float32_and_keeps_its_parameters():
    model, low = tiny(), tiny(dtype=jnp.bfloat16)
    params = perturbed(low, *INPUTS)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
    expected = model.apply({"params": params}, IMAGES, TIMES, LABELS)
    got = low.apply({"params": params}, IMAGES, TIMES, LABELS)
    assert got.dtype == jnp.float32
    error = float(jnp.linalg.norm(got - expected) / jnp.linalg.norm(expected))
    assert error < 8 * float(jnp.finfo(jnp.bfloat16).eps)


def test_attention_weights_and_norms_are_float32_in_bfloat16():
    model = tiny(dtype=jnp.bfloat16, depth=1)
    params = perturbed(model, *INPUTS)
    text = str(jax.make_jaxpr(model.apply)({"params": params}, IMAGES, TIMES, LABELS))
    exponentials = [line for line in text.splitlines() if " exp " in line or "rsqrt" in line]
    assert exponentials and all("f32" in line for line in exponentials)


def make_step(model, tx, null_label=5):
    process = diffusion.Diffusion(
        lambda params, *arrays: model.apply({"params": params}, *arrays),
        diffusion.linear(),
        learned_variance=model.learned_variance,
        null_label=null_label,
    )
    loss_fn = diffusion.make_diffusion_loss(process, label_dropout=0.1)
    return uno.make_unlearning_step(loss_fn, optax.chain(tx, optax.adam(1e-4)))


def abstract(model, side, channels, batch, tx):
    """Shapes of a state and of a batch."""
    images = jax.ShapeDtypeStruct((batch, side, side, channels), jnp.float32)
    numbers = jax.ShapeDtypeStruct((batch,), jnp.float32)
    labels = jax.ShapeDtypeStruct((batch,), jnp.int32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images, numbers, labels)
    tx = optax.chain(tx, optax.adam(1e-4))
    state = jax.eval_shape(
        lambda p: uno.create_state(p, tx, jax.random.key(0)), variables["params"]
    )
    return state, {"image": images, "label": labels}


def test_dit_xl_takes_one_uno_step_in_the_abstract():
    """675 million parameters; nothing of it is computed."""
    model = models.dit("XL/2", dtype=jnp.bfloat16, remat=True, scan=True)
    tx = uno.orthogonalize(0.02)
    state, batch = abstract(model, 32, 4, 10, tx)
    step = make_step(model, tx, model.null_label)
    after, metrics = jax.eval_shape(step, state, batch, batch)
    assert jax.tree.map(lambda a, b: a.shape == b.shape and a.dtype == b.dtype, state, after)
    assert round(models.parameter_count(after.params) / 1e6) == 675
    assert metrics["cosine"].dtype == jnp.float32


def temporary(model, side, channels, batch, tx):
    state, data = abstract(model, side, channels, batch, tx)
    step = jax.jit(make_step(model, tx, model.null_label), donate_argnums=0)
    compiled = step.lower(state, data, data).compile(QUICK)
    return compiled.memory_analysis().temp_size_in_bytes


def test_uno_with_remat_needs_little_more_memory_than_surgery():
    model = tiny(depth=9, width=64, heads=4, remat=True, scan=True)
    surgery = temporary(model, 32, 4, 32, uno.surgery())
    uno_memory = temporary(model, 32, 4, 32, uno.orthogonalize(0.02))
    assert uno_memory <= 2.2 * surgery, uno_memory / surgery


def test_sides_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="DiT: expected sides that 4 divides, got 8x10"):
        tiny().init(jax.random.key(0), jnp.zeros((1, 8, 10, 2)), TIMES[:1], LABELS[:1])
    with pytest.raises(ValueError, match="dit: expected a size of .* got 'M/2'"):
        models.dit("M/2")
