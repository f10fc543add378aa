import subprocess
import sys

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import uno_jax as uno
from uno_jax.checkpoints import store
from uno_jax.generative.equinox import from_equinox


class VAE(eqx.Module):
    """As Equinox users write one: for a single example, with functions among its leaves."""

    encoder: eqx.nn.MLP
    decoder: list
    dropout: eqx.nn.Dropout
    scale: jax.Array
    key: jax.Array
    legacy: jax.Array
    beta: float
    latents: int = eqx.field(static=True)

    def __init__(self, key):
        a, b, c = jax.random.split(key, 3)
        self.latents = 2
        self.encoder = eqx.nn.MLP(6, 4, width_size=8, depth=1, key=a)
        self.decoder = [
            eqx.nn.Linear(2, 5, key=b),
            jax.nn.relu,
            eqx.nn.Linear(5, 6, use_bias=False, key=c),
        ]
        self.dropout = eqx.nn.Dropout(0.5)
        self.scale = np.full(6, 2, np.float32)
        self.key = jax.random.key(3)
        self.legacy = jnp.array([0, 7], jnp.uint32)
        self.beta = 0.5

    def encode(self, x, *, key=None):
        return jnp.split(self.encoder(self.dropout(x, key=key)), 2)

    def decode(self, z):
        for layer in self.decoder:
            z = layer(z)
        return z * self.scale

    @eqx.filter_jit
    def __call__(self, x, key):
        mean, log_variance = self.encode(x, key=key)
        noise = jax.random.normal(key, mean.shape)
        return self.decode(mean + jnp.exp(self.beta * log_variance) * noise)

    @property
    def size(self):
        return 3


MODULE = VAE(jax.random.key(0))
X = jax.random.normal(jax.random.key(1), (7, 6))
KEYS = jax.random.split(jax.random.key(2), 7)


def assert_same(got, expected):
    assert eqx.tree_equal(got, expected)


def test_the_parameters_are_the_float_arrays():
    params = from_equinox(MODULE).params
    assert_same(params, eqx.filter(MODULE, eqx.is_inexact_array))
    leaves = jax.tree.leaves(params)
    assert len(leaves) == 8 and all(leaf.dtype == jnp.float32 for leaf in leaves)
    chosen = uno.trainable(params, "decoder/[02]/weight$").trainable
    assert len(jax.tree.leaves(chosen)) == 2


@pytest.mark.parametrize("jit", [False, True])
def test_a_method_is_the_modules_own_in_inference_mode(jit):
    bound = from_equinox(MODULE)
    wrap = jax.jit if jit else lambda f: f
    still = eqx.nn.inference_mode(MODULE)
    for name, args in {
        "encode": (X[0],),
        "decode": (jnp.ones(2),),
        "__call__": (X[0], KEYS[0]),
        "encoder": (X[0],),
    }.items():
        expected = getattr(still, name)(*args)
        got = wrap(bound.method(name))(bound.params, *args)
        chex.assert_trees_all_close(got, expected, rtol=1e-5)
    many = jax.vmap(bound.method(), in_axes=(None, 0, 0))(bound.params, X, KEYS)
    chex.assert_trees_all_close(many, jax.vmap(still)(X, KEYS), rtol=1e-5)


def loss(decode, z):
    return jnp.mean(jax.vmap(decode)(z) ** 2)


def test_gradients_are_those_of_equinox():
    bound = from_equinox(MODULE)
    z = jnp.ones((3, 2))
    decode = bound.method("decode")
    grads = jax.jit(jax.grad(lambda p: loss(lambda z: decode(p, z), z)))(bound.params)
    expected = eqx.filter_grad(lambda module: loss(module.decode, z))(MODULE)
    assert jax.tree.structure(grads) == jax.tree.structure(bound.params)
    chex.assert_trees_all_close(grads, expected, rtol=1e-5)
    tangents = jax.tree.map(jnp.ones_like, bound.params)
    out, slope = jax.jvp(lambda p: decode(p, z[0]), (bound.params,), (tangents,))
    assert out.shape == slope.shape == (6,)


def test_restore_gives_the_module():
    bound = from_equinox(MODULE)
    assert_same(bound.restore(bound.params), MODULE)
    params = jax.tree.map(lambda x: x + 1, bound.params)
    restored = bound.restore(params)
    assert type(restored) is VAE and not restored.dropout.inference
    assert restored.decoder[1] is jax.nn.relu and restored.beta == 0.5
    assert_same(eqx.filter(restored, eqx.is_inexact_array), params)
    np.testing.assert_allclose(
        restored.decode(jnp.ones(2)), bound.method("decode")(params, jnp.ones(2)), rtol=1e-6
    )
    still = eqx.nn.inference_mode(MODULE)
    assert from_equinox(still).restore(params).dropout.inference


def test_unlearning_and_a_checkpoint_go_through(tmp_path):
    bound = from_equinox(MODULE)
    call = jax.vmap(bound.method(), in_axes=(None, 0, None))
    tx = optax.chain(uno.surgery(), optax.adam(0.1))
    step = jax.jit(uno.make_unlearning_step(lambda p, x, key: jnp.mean(call(p, x, key) ** 2), tx))
    state, _ = step(uno.create_state(bound.params, tx, jax.random.key(0)), X, X + 1)
    store.save(tmp_path / "c", state.params)
    read = store.restore(tmp_path / "c", bound.params)
    assert_same(bound.restore(read), bound.restore(state.params))


class Flagged(eqx.Module):
    weight: jax.Array
    half: jax.Array
    index: jax.Array

    def __call__(self, x, *, inference: bool):
        return x * self.weight if inference else -x

    @staticmethod
    def fixed(x, train=True):
        return -x if train else x

    @jax.jit
    def jitted(self, x, deterministic=False):
        return jnp.where(deterministic, x * self.half, -x)

    @eqx.filter_jit
    def filtered(self, x, train=True):
        return -x if train else x + self.index


def test_flags_of_the_call_are_those_of_evaluation():
    module = Flagged(jnp.array(3.0), jnp.array(2.0, jnp.bfloat16), jnp.array(1))
    bound = from_equinox(module)
    names = ("__call__", "fixed", "jitted", "filtered")
    assert [float(bound.method(name)(bound.params, 1.0)) for name in names] == [3, 1, 2, 2]
    assert bound.method()(bound.params, 1.0, inference=False) == -1
    assert bound.method("fixed")(bound.params, 1.0, True) == -1
    assert bound.params.half.dtype == jnp.bfloat16 and bound.params.index is None


def test_a_shared_layer_is_trained_once():
    class Tied(eqx.Module):
        shared: eqx.nn.Shared

        def __init__(self, key):
            a, b = jax.random.split(key)
            pair = [eqx.nn.Linear(3, 3, key=a), eqx.nn.Linear(3, 3, key=b)]
            self.shared = eqx.nn.Shared(pair, lambda p: p[1].weight, lambda p: p[0].weight)

        def __call__(self, x):
            first, second = self.shared()
            return second(first(x))

    module = Tied(jax.random.key(0))
    bound = from_equinox(module)
    assert len(jax.tree.leaves(bound.params)) == 3
    np.testing.assert_allclose(bound.method()(bound.params, jnp.ones(3)), module(jnp.ones(3)))


class Normed(eqx.Module):
    """Stateful, as in Equinox's own example."""

    linear: eqx.nn.Linear
    norm: eqx.nn.BatchNorm
    calls: eqx.nn.StateIndex

    def __init__(self, key):
        self.linear = eqx.nn.Linear(6, 4, key=key)
        self.norm = eqx.nn.BatchNorm(4, axis_name="batch", mode="ema")
        self.calls = eqx.nn.StateIndex(jnp.array(0.0))

    def __call__(self, x, state):
        state = state.set(self.calls, state.get(self.calls) + 1)
        return self.norm(self.linear(x), state)

    def encode(self, x, state, scale=1):
        out, state = self(x, state)
        return *jnp.split(out * scale, 2), state

    def linear_part(self, x):
        return (self.linear(x),)


@pytest.fixture
def stateful():
    module, state = eqx.nn.make_with_state(Normed)(jax.random.key(0))
    train = jax.vmap(module, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
    return module, train(X, state)[1]


def clone(state):
    return jax.tree.map(lambda x: x, state)


@pytest.mark.parametrize("jit", [False, True])
def test_a_state_is_passed_and_taken_off(stateful, jit):
    module, state = stateful
    before = jax.tree.leaves(state)
    bound = from_equinox(module, state)
    still = eqx.nn.inference_mode(module)
    wrap = jax.jit if jit else lambda f: f
    expected = jax.vmap(still, in_axes=(0, None))(X, clone(state))[0]
    for _ in range(2):
        call = wrap(jax.vmap(bound.method(), in_axes=(None, 0)))
        np.testing.assert_allclose(call(bound.params, X), expected, rtol=1e-5)
    mean, log_variance = wrap(bound.method("encode"))(bound.params, X[0])
    np.testing.assert_allclose(jnp.concatenate([mean, log_variance]), expected[0], rtol=1e-5)
    assert isinstance(bound.method("linear_part")(bound.params, X[0]), tuple)
    chex.assert_trees_all_equal(jax.tree.leaves(state), before)
    assert_same(bound.restore(bound.params), module)


def test_a_state_given_in_the_call_comes_back(stateful):
    module, state = stateful
    for bound in (from_equinox(module), from_equinox(module, state)):
        out, moved = bound.method()(bound.params, X[0], clone(state))
        assert out.shape == (4,) and moved.get(module.calls) == 2


def test_first_values_of_a_state_are_not_trained():
    params = from_equinox(Normed(jax.random.key(0))).params
    assert {leaf.shape for leaf in jax.tree.leaves(params)} == {(4, 6), (4,)}
    assert len(jax.tree.leaves(params)) == 4


class Complex(eqx.Module):
    inner: dict


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (VAE, "got the class VAE; make a module of it"),
        (nnx.Linear(2, 3, rngs=nnx.Rngs(0)), "got a Linear of flax.nnx; use from_nnx"),
        (MODULE.decode, "got a method of one; give the VAE itself, then bound.method.'decode'"),
        ([MODULE], "got builtins.list; give the module itself"),
        (
            eqx.nn.make_with_state(Normed)(jax.random.key(0)),
            r"in a tuple with its state; give from_equinox\(module, state\)",
        ),
        (eqx.nn.Dropout(0.5), "got none in Dropout"),
        (Complex({"w": jnp.ones(2, complex)}), "got complex64 at 'inner/w'"),
    ],
)
def test_what_is_no_module_to_train_is_refused(module, message):
    with pytest.raises(ValueError, match=message):
        from_equinox(module)


def test_another_state_is_refused():
    with pytest.raises(ValueError, match=r"expected an eqx.nn.State as state, got dict"):
        from_equinox(MODULE, {})


def test_a_missing_method_is_named_with_those_there_are():
    for name in ("sample", "size", "latents"):
        with pytest.raises(
            ValueError,
            match=f"no method '{name}'; it has '__call__', 'decode', 'dropout', 'encode', 'enc",
        ):
            from_equinox(MODULE).method(name)


def test_other_parameters_are_refused():
    bound = from_equinox(MODULE)
    other = eqx.tree_at(lambda p: p.scale, bound.params, jnp.ones(3))
    for call in (bound.restore, lambda params: bound.method("decode")(params, jnp.ones(2))):
        with pytest.raises(ValueError, match=r"those of VAE at '.scale': expected shape \(6,\)"):
            call(other)
        with pytest.raises(ValueError, match="arrays alone; got .* at '.encoder.activation"):
            call(MODULE)


def test_a_missing_library_is_named():
    code = """
import sys
import uno_jax.generative.bound
assert not {"flax", "equinox"} & set(sys.modules)
from uno_jax.generative import equinox, linen, nnx
assert not {"flax", "equinox"} & set(sys.modules)
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("flax", "equinox"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Block())
for call in (lambda: equinox.from_equinox(0), lambda: nnx.from_nnx(0),
             lambda: linen.from_linen(0, 0)):
    try:
        call()
    except ImportError as error:
        print(error)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.splitlines() == [
        "equinox is not installed; run: pip install equinox",
        *["flax is not installed; run: pip install 'uno_jax[experiments]'"] * 2,
    ], result.stderr
