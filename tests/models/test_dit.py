import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import uno_jax as uno
from tests.models.programs import QUICK, compiled, perturbed
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
    params = compiled(model.init, jax.random.key(1), *INPUTS)
    np.testing.assert_array_equal(compiled(model.apply, params, *INPUTS), 0)
    block = models.DiTBlock(16, 2)
    x, condition = jnp.ones((2, 6, 16)), jnp.ones((2, 16))
    params = compiled(block.init, jax.random.key(0), x, condition)
    np.testing.assert_array_equal(compiled(block.apply, params, x, condition), x)


def test_patches_come_back_where_they_were():
    """With an output layer that copies, each token draws its own patch."""
    model = tiny(depth=0, width=32, mlp_ratio=1.0)
    params = perturbed(model, *INPUTS)
    apply = jax.jit(model.apply)
    moved = apply({"params": params}, IMAGES, TIMES, LABELS)
    changed = IMAGES.at[0, 4:8, 8:12].add(1.0)
    again = apply({"params": params}, changed, TIMES, LABELS)
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


def test_stacked_blocks_are_the_same_network():
    model = tiny(depth=3, remat=True, scan=True)
    params = perturbed(model, *INPUTS)
    stacked = models.stack_blocks(params)
    assert len(jax.tree.leaves(stacked)) < len(jax.tree.leaves(params)) - 15

    def slope(p):
        return compiled(
            jax.grad(lambda p: jnp.sum(model.apply({"params": p}, IMAGES, TIMES, LABELS) ** 2)), p
        )

    expected = slope(params)
    got = models.unstack_blocks(slope(stacked))
    chex.assert_trees_all_equal_structs(got, expected)
    chex.assert_trees_all_close(got, expected, rtol=2e-4, atol=1e-4)
    chex.assert_trees_all_equal(models.unstack_blocks(stacked), params)


@pytest.mark.parametrize(
    # A block's input; without remat its five layers and the two products of attention too, and
    # no intermediate of elementwise functions.
    ("remat", "arrays"), [(True, 1), (False, 8)],
)  # fmt: skip
def test_a_loop_keeps_no_more_than_the_products_of_matrices(remat, arrays):
    model = tiny(depth=4, scan=True, remat=remat)
    params = models.stack_blocks(perturbed(model, *INPUTS))

    def backward(p):
        loss = lambda p: jnp.sum(model.apply({"params": p}, IMAGES, TIMES, LABELS) ** 2)  # noqa: E731
        return jax.vjp(loss, p)[1]

    own = {leaf.shape for leaf in jax.tree.leaves(params)}
    kept = [leaf.shape for leaf in jax.tree.leaves(jax.eval_shape(backward, params))]
    assert sum(shape[:1] == (4,) and shape not in own for shape in kept) == arrays


def memory(model, side, channels, batch, method, optimizer):
    """Bytes of temporaries that a step is compiled to need, and its state, in the abstract."""
    images = jax.ShapeDtypeStruct((batch, side, side, channels), jnp.float32)
    numbers = jax.ShapeDtypeStruct((batch,), jnp.float32)
    labels = jax.ShapeDtypeStruct((batch,), jnp.int32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images, numbers, labels)
    process = diffusion.Diffusion(
        lambda params, *arrays: model.apply({"params": params}, *arrays),
        diffusion.linear(),
        learned_variance=model.learned_variance,
        null_label=model.null_label,
    )
    tx = optax.chain(method, optimizer)
    state = jax.eval_shape(
        lambda p: uno.create_state(models.stack_blocks(p), tx, jax.random.key(0)),
        variables["params"],
    )
    loss_fn = diffusion.make_diffusion_loss(process, label_dropout=0.1)
    step = jax.jit(uno.make_unlearning_step(loss_fn, tx), donate_argnums=0)
    data = {"image": images, "label": labels}
    lowered = step.lower(state, data, data)
    after, metrics = lowered.out_info
    chex.assert_trees_all_equal_shapes_and_dtypes(after, state)
    assert metrics["cosine"].dtype == jnp.float32
    return lowered.compile(QUICK).memory_analysis().temp_size_in_bytes, state


def test_a_step_of_uno_on_dit_xl_needs_twice_the_memory_of_surgery():
    """675 million parameters; nothing of it is computed."""
    model = models.dit("XL/2", dtype=jnp.bfloat16, remat=True, scan=True)
    surgery, state = memory(model, 32, 4, 10, uno.surgery(), optax.adam(1e-4))
    twice, _ = memory(model, 32, 4, 10, uno.orthogonalize(0.02), optax.adam(1e-4))
    assert round(models.parameter_count(state.params) / 1e6) == 675
    assert twice <= 2.2 * surgery, twice / surgery
    assert twice < 20 * 2**30


def test_sides_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="DiT: expected sides that 4 divides, got 8x10"):
        tiny().init(jax.random.key(0), jnp.zeros((1, 8, 10, 2)), TIMES[:1], LABELS[:1])
    with pytest.raises(ValueError, match="dit: expected a size of .* got 'M/2'"):
        models.dit("M/2")
