import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import uno_jax as uno
from uno_jax.checkpoints import store
from uno_jax.generative.nnx import from_nnx


class Counter(nnx.Variable):
    """A kind of variable of the user's own, which is not trained."""


class Encoder(nnx.Module):
    def __init__(self, rngs):
        self.dense = nnx.Linear(6, 8, rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(8, 4, rngs=rngs)

    def __call__(self, x):
        hidden = self.dropout(nnx.relu(self.norm(self.dense(x))))
        return jnp.split(self.head(hidden), 2, axis=-1)


class VAE(nnx.Module):
    """As NNX users write one: with its own random state."""

    def __init__(self, rngs):
        self.encoder = Encoder(rngs)
        self.layers = nnx.List([nnx.Linear(2, 5, rngs=rngs), nnx.Linear(5, 6, rngs=rngs)])
        self.gains = nnx.Dict(low=nnx.Param(jnp.ones(5)), high=nnx.Param(jnp.ones(6)))
        self.calls = Counter(jnp.array(0))
        self.table = jnp.arange(3.0)
        self.activation = nnx.relu
        self.rngs = rngs

    def encode(self, x):
        self.calls[...] += 1
        return self.encoder(x)

    def decode(self, z):
        z = self.activation(self.layers[0](z)) * self.gains["low"]
        return self.layers[1](z) * self.gains["high"] + self.table.sum()

    def __call__(self, x):
        mean, log_variance = self.encode(x)
        noise = jax.random.normal(self.rngs.noise(), mean.shape)
        return self.decode(mean + jnp.exp(log_variance / 2) * noise)

    def _loss(self, x):
        return jnp.mean((self(x) - x) ** 2)


X = jax.random.normal(jax.random.key(1), (7, 6))


@pytest.fixture
def vae():
    module = VAE(nnx.Rngs(0, noise=1, dropout=2))
    module(X)  # In training mode: batch statistics and random state are no longer the first.
    return module


def everything(module):
    graph, state = nnx.split(module)
    return graph, jax.tree.map(jnp.copy, nnx.to_pure_dict(state))


def assert_same(got, expected):
    """Of two modules or what `everything` made of one: graph, modes and all values."""
    got, expected = (t if isinstance(t, tuple) else everything(t) for t in (got, expected))
    assert got[0] == expected[0]
    chex.assert_trees_all_equal_shapes_and_dtypes(got[1], expected[1])
    chex.assert_trees_all_equal(
        *(
            jax.tree.map(lambda x: jax.random.key_data(x) if is_key(x) else x, t[1])
            for t in (got, expected)
        )
    )


def is_key(leaf):
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def evaluated(module):
    module = nnx.clone(module)
    module.eval()
    return module


def names(params):
    return {
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_leaves_with_path(params)
    }


def test_the_parameters_are_the_params_as_a_plain_dict(vae):
    params = from_nnx(vae).params
    chex.assert_trees_all_equal(params, nnx.to_pure_dict(nnx.state(vae, nnx.Param)))
    assert type(params) is dict
    assert {"encoder/dense/kernel", "layers/0/kernel", "gains/low"} < names(params)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    chosen = uno.trainable(params, "kernel$").trainable
    assert len(jax.tree.leaves(chosen)) == 4


@pytest.mark.parametrize("jit", [False, True])
def test_a_method_is_the_modules_own_in_evaluation(vae, jit):
    bound = from_nnx(vae)
    wrap = jax.jit if jit else lambda f: f
    z = jnp.ones((3, 2))
    for name, x in {"encode": X, "decode": z, "__call__": X, "encoder": X, "_loss": X}.items():
        expected = getattr(evaluated(vae), name)(x)
        chex.assert_trees_all_close(wrap(bound.method(name))(bound.params, x), expected, rtol=1e-5)


def test_calls_leave_no_trace(vae):
    before, bound = everything(vae), from_nnx(vae)
    call = bound.method()
    first = call(bound.params, X)
    jax.grad(lambda p: jnp.sum(call(p, X)))(bound.params)
    with jax.checking_leaks():
        jax.jit(call)(bound.params, X)
    assert jnp.array_equal(call(bound.params, X), first)
    assert_same(vae, before)
    assert_same(bound.restore(bound.params), before)


def test_gradients_are_those_of_nnx_and_floats_alone(vae):
    bound = from_nnx(vae)
    loss = bound.method("_loss")
    grads = jax.jit(jax.grad(loss))(bound.params, X)
    expected = nnx.grad(lambda module: module._loss(X))(evaluated(vae))
    chex.assert_trees_all_close(grads, nnx.to_pure_dict(expected), rtol=1e-4, atol=1e-6)
    assert all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(grads))


def test_jvp_and_vmap_over_parameters(vae):
    bound = from_nnx(vae)
    decode, z = bound.method("decode"), jnp.ones((3, 2))
    tangent = jax.tree.map(jnp.ones_like, bound.params)
    out, slope = jax.jvp(lambda p: decode(p, z), (bound.params,), (tangent,))
    assert out.shape == slope.shape == (3, 6)
    two = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), bound.params)
    both = jax.vmap(decode, in_axes=(0, None))(two, z)
    chex.assert_trees_all_close(both[0], out, rtol=1e-5)


def test_restore_is_a_module_with_these_parameters(vae):
    bound = from_nnx(vae)
    params = jax.tree.map(lambda x: x + 0.5, bound.params)
    restored = bound.restore(params)
    assert type(restored) is VAE and restored is not vae
    assert not restored.encoder.dropout.deterministic
    assert not restored.encoder.norm.use_running_average
    chex.assert_trees_all_close(evaluated(restored)(X), bound.method()(params, X), rtol=1e-5)
    restored(X)  # It trains on: its state moves, that of others does not.
    assert_same(bound.restore(bound.params), vae)
    assert restored.calls[...] == 2


def test_restore_keeps_evaluation_mode(vae):
    vae.eval()
    restored = from_nnx(vae).restore(from_nnx(vae).params)
    assert restored.encoder.dropout.deterministic and restored.encoder.norm.use_running_average


def test_what_happens_to_the_module_later_does_not_show(vae):
    bound, before = from_nnx(vae), everything(vae)
    vae.layers[0].bias[...] += 1
    vae.eval()
    vae(X)
    assert_same(bound.restore(bound.params), before)


def test_unlearning_goes_through(vae):
    bound = from_nnx(vae)
    loss = bound.method("_loss")
    tx = optax.chain(uno.surgery(), optax.sgd(0.1))
    step = jax.jit(uno.make_unlearning_step(lambda p, batch, key: loss(p, batch), tx))
    state = uno.create_state(bound.params, tx, jax.random.key(0))
    state, _ = step(state, X, X + 1)
    restored = bound.restore(state.params)
    assert not jnp.array_equal(restored.layers[0].kernel[...], vae.layers[0].kernel[...])
    assert_same(from_nnx(vae).restore(bound.params), vae)


class Tied(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(3, 3, rngs=rngs)
        self.second = nnx.Linear(3, 3, rngs=rngs)
        self.second.kernel = self.first.kernel

    def __call__(self, x):
        return self.second(self.first(x))


def test_a_tied_weight_is_one_parameter():
    module = Tied(nnx.Rngs(0))
    bound = from_nnx(module)
    assert names(bound.params) == {"first/kernel", "first/bias", "second/bias"}
    params = jax.tree.map(lambda x: 2 * x, bound.params)
    x = jnp.ones((2, 3))
    chex.assert_trees_all_close(bound.method()(params, x), 4 * module(x), rtol=1e-5)
    restored = bound.restore(params)
    assert restored.second.kernel is restored.first.kernel


class Odd(nnx.Module):
    """Parameters of every sort."""

    def __init__(self):
        self.half = nnx.Param(jnp.ones(2, jnp.bfloat16))
        self.host = nnx.Param(np.full(2, 3, np.float32))
        self.steps = nnx.Param(jnp.arange(2))
        self.nothing = nnx.Param(None)
        self.pair = nnx.Param({"a": jnp.ones(2), "n": jnp.array(2)})
        self.lora = nnx.LoRA(2, 1, 2, rngs=nnx.Rngs(0))
        self.tail = nnx.data((nnx.Param(jnp.ones(2)), nnx.BatchStat(jnp.ones(2))))

    def __call__(self, x, train: bool = True, *, deterministic):
        assert deterministic and not train
        return x * self.half + self.host + self.steps + self.pair["a"] * self.pair["n"]


def test_only_floats_of_params_are_trained():
    module = Odd()
    bound = from_nnx(module)
    assert names(bound.params) == {"half", "host", "lora/lora_a", "lora/lora_b", "pair/a", "tail/0"}
    assert bound.params["half"].dtype == jnp.bfloat16
    out = jax.jit(bound.method())(bound.params, jnp.ones(2))
    np.testing.assert_array_equal(out, [6.0, 7.0])
    grads = jax.grad(lambda p: bound.method()(p, jnp.ones(2)).sum())(bound.params)
    np.testing.assert_array_equal(grads["pair"]["a"], [2.0, 2.0])
    assert grads["half"].dtype == jnp.bfloat16
    assert_same(bound.restore(bound.params), module)


def test_a_flag_given_is_kept():
    bound = from_nnx(Odd())
    with pytest.raises(AssertionError):
        bound.method()(bound.params, jnp.ones(2), True)


@nnx.jit
def squared(module, x):
    return module(x) ** 2


def test_jitted_methods_and_other_modules_functions_work():
    class Jitted(nnx.Module):
        def __init__(self):
            self.scale = nnx.Param(jnp.array(3.0))

        @functools.partial(nnx.jit, static_argnames="train")
        def __call__(self, x, train=True):
            return x * self.scale if train else -x * self.scale

    bound = from_nnx(Jitted())
    assert bound.method()(bound.params, 2.0) == -6
    assert bound.method()(bound.params, 2.0, train=True) == 6
    assert squared(bound.restore({"scale": jnp.array(1.0)}), 2.0) == 4


def test_a_checkpoint_brings_the_parameters_back(vae, tmp_path):
    bound = from_nnx(vae)
    store.save(tmp_path / "c", bound.params)
    read = store.restore(tmp_path / "c", jax.tree.map(jnp.zeros_like, bound.params))
    assert_same(bound.restore(read), vae)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (VAE, r"got the class VAE; make a module of it: VAE\(\.\.\.\)"),
        (nn.Dense(3), "got a Dense of flax.linen; use from_linen"),
        ({"w": jnp.ones(2)}, "got builtins.dict; give the module itself"),
        (Tied(nnx.Rngs(0)).__call__, "give the Tied itself, then bound.method.'__call__'"),
        (nnx.Dropout(0.5, rngs=nnx.Rngs(0)), "got none in Dropout; only nnx.Param"),
    ],
)
def test_what_is_no_module_to_train_is_refused(module, message):
    with pytest.raises(ValueError, match=message):
        from_nnx(module)


def test_complex_parameters_are_refused():
    module = nnx.Dict(inner=nnx.Dict(w=nnx.Param(jnp.ones(2, jnp.complex64))))
    with pytest.raises(ValueError, match="expected real parameters, got complex64 at 'inner/w'"):
        from_nnx(module)


def test_a_missing_method_is_named_with_those_there_are(vae):
    with pytest.raises(ValueError, match="VAE has no method 'sample'; it has '__call__', 'decode'"):
        from_nnx(vae).method("sample")
    with pytest.raises(ValueError, match="'encoder'"):
        from_nnx(vae).method("table")


def test_other_parameters_are_refused():
    bound = from_nnx(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
    for call in (bound.restore, lambda params: bound.method()(params, jnp.ones(2))):
        with pytest.raises(ValueError, match=r"those of Linear at '\['kernel'\]': .* \(2, 3\)"):
            call({**bound.params, "kernel": jnp.ones((3, 2))})
        with pytest.raises(ValueError, match="got nothing there. Give bound.params"):
            call({"kernel": bound.params["kernel"]})
        with pytest.raises(ValueError, match=r"arrays alone; got custom_jvp at '\['kernel'\]'"):
            call({**bound.params, "kernel": nnx.relu})
