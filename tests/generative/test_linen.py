import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx
from flax.core import FrozenDict, freeze

import uno_jax as uno
from uno_jax.generative.linen import from_linen


class Encoder(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool):
        hidden = nn.BatchNorm(use_running_average=not train)(nn.Dense(8)(x))
        hidden = nn.Dropout(0.5, deterministic=not train)(nn.relu(hidden))
        return jnp.split(nn.Dense(4)(hidden), 2, axis=-1)


class VAE(nn.Module):
    """As Linen users write one: setup, batch statistics, a random stream of its own."""

    def setup(self):
        self.encoder = Encoder()
        self.hidden = nn.Dense(5)
        self.out = nn.Dense(6)

    def encode(self, x, train: bool):
        return self.encoder(x, train)

    def decode(self, z):
        return self.out(nn.relu(self.hidden(z)))

    def __call__(self, x, train: bool = True):
        mean, log_variance = self.encode(x, train)
        noise = jax.random.normal(self.make_rng("noise"), mean.shape)
        return self.decode(mean + jnp.exp(log_variance / 2) * noise)


X = jax.random.normal(jax.random.key(1), (7, 6))
RNGS = {name: jax.random.key(i) for i, name in enumerate(("params", "noise", "dropout"))}
VAE_ = VAE()


@pytest.fixture(scope="module")
def variables():
    first = VAE_.init(RNGS, X)
    _, moved = VAE_.apply(first, X, rngs=RNGS, mutable=["batch_stats"])
    return {**first, **moved}


def test_the_parameters_are_those_of_the_variables(variables):
    bound = from_linen(VAE_, variables)
    chex.assert_trees_all_equal(bound.params, variables["params"])
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(bound.params))


@pytest.mark.parametrize("jit", [False, True])
def test_a_method_is_apply_in_evaluation(variables, jit):
    bound = from_linen(VAE_, variables)
    wrap = jax.jit if jit else lambda f: f
    chex.assert_trees_all_close(
        wrap(bound.method("encode"))(bound.params, X),
        VAE_.apply(variables, X, train=False, method="encode"),
        rtol=1e-5,
    )
    z = jnp.ones((3, 2))
    chex.assert_trees_all_close(
        wrap(bound.method("decode"))(bound.params, z),
        VAE_.apply(variables, z, method="decode"),
        rtol=1e-5,
    )
    # Its default is train=True; the random stream is the caller's.
    rngs = {"noise": jax.random.key(5)}
    chex.assert_trees_all_close(
        wrap(bound.method())(bound.params, X, rngs=rngs),
        VAE_.apply(variables, X, train=False, rngs=rngs),
        rtol=1e-5,
    )


def test_a_flag_given_is_kept_by_name_or_place(variables):
    encode = from_linen(VAE_, variables).method("encode")
    for args, kwargs in [((X, True), {}), ((X,), {"train": True})]:
        # Training moves batch statistics, which are immutable here.
        with pytest.raises(Exception, match="batch_stats"):
            encode(variables["params"], *args, rngs=RNGS, **kwargs)
    assert len(encode(variables["params"], X, train=False)) == 2


class Flags(nn.Module):
    """The deterministic of Flax's own layers: of the module or of the call, not of both."""

    deterministic: bool | None = None

    @nn.compact
    def __call__(self, x, deterministic: bool | None = None):
        here = nn.merge_param("deterministic", self.deterministic, deterministic)
        return nn.Dropout(0.5, deterministic=here)(nn.Dense(64)(x))

    @nn.compact
    def whole(self, x, **flags):
        return self(x, **flags)

    def jitted(self, x, *, inference, training=True):
        return x if inference and not training else -x


@pytest.mark.parametrize("module", [Flags(), Flags(deterministic=True)], ids=["call", "module"])
def test_flags_stand_in_the_call_or_in_the_module(module):
    x = jnp.ones(64)
    variables = Flags(deterministic=True).init(jax.random.key(0), x)
    bound = from_linen(module, variables)
    expected = nn.Dense(64).apply({"params": variables["params"]["Dense_0"]}, x)
    np.testing.assert_allclose(bound.method()(bound.params, x), expected, rtol=1e-5)
    np.testing.assert_array_equal(bound.method("jitted")(bound.params, x), x)


def test_gradients_are_those_of_apply(variables):
    bound = from_linen(VAE_, variables)
    decode, z = bound.method("decode"), jnp.ones((3, 2))
    grads = jax.jit(jax.grad(lambda p: jnp.sum(decode(p, z) ** 2)))(bound.params)

    def loss(params):
        return jnp.sum(VAE_.apply({**variables, "params": params}, z, method="decode") ** 2)

    chex.assert_trees_all_close(grads, jax.grad(loss)(variables["params"]), rtol=1e-5)
    two = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), bound.params)
    assert jax.vmap(decode, in_axes=(0, None))(two, z).shape == (2, 3, 6)


@pytest.mark.parametrize("frozen", [False, True], ids=["dict", "FrozenDict"])
def test_restore_gives_variables_of_the_same_kind(variables, frozen):
    given = freeze(variables) if frozen else variables
    bound = from_linen(VAE_, given)
    chex.assert_trees_all_equal(bound.restore(bound.params), given)
    params = jax.tree.map(lambda x: x + 1, bound.params)
    restored = bound.restore(params)
    assert type(restored) is (FrozenDict if frozen else dict)
    chex.assert_trees_all_equal(restored["params"], params)
    chex.assert_trees_all_equal(restored["batch_stats"], given["batch_stats"])
    z = jnp.ones((3, 2))
    np.testing.assert_array_equal(
        VAE_.apply(restored, z, method="decode"), bound.method("decode")(params, z)
    )


def test_what_happens_to_the_variables_later_does_not_show(variables):
    given = jax.tree.map(lambda x: x, variables)
    bound = from_linen(VAE_, given)
    given["batch_stats"]["encoder"].clear()
    given["params"].clear()
    restored = bound.restore(bound.params)
    chex.assert_trees_all_equal(restored, variables)
    restored["batch_stats"].clear()
    chex.assert_trees_all_equal(bound.restore(bound.params), variables)


def test_unlearning_goes_through(variables):
    bound = from_linen(VAE_, variables)
    call = bound.method()

    def loss(params, batch, key):
        return jnp.mean((call(params, batch, rngs={"noise": key}) - batch) ** 2)

    tx = optax.chain(uno.surgery(), optax.sgd(0.1))
    step = jax.jit(uno.make_unlearning_step(loss, tx))
    state, _ = step(uno.create_state(bound.params, tx, jax.random.key(0)), X, X + 1)
    assert bound.restore(state.params)["batch_stats"]["encoder"]


class Boxed(nn.Module):
    @nn.compact
    def __call__(self, x):
        init = nn.with_partitioning(nn.initializers.lecun_normal(), (None, "model"))
        return nn.Dense(4, kernel_init=init)(x)


def test_boxes_are_off_in_the_parameters_and_on_again_after():
    x = jnp.ones((2, 3))
    variables = Boxed().init(jax.random.key(0), x)
    bound = from_linen(Boxed(), variables)
    chex.assert_trees_all_equal(bound.params, nn.meta.unbox(variables)["params"])
    restored = bound.restore(bound.params)
    assert restored["params"]["Dense_0"]["kernel"].names == (None, "model")
    chex.assert_trees_all_equal(restored, variables)
    np.testing.assert_array_equal(bound.method()(bound.params, x), Boxed().apply(variables, x))


class Odd(nn.Module):
    @nn.compact
    def __call__(self, x):
        half = self.param("half", nn.initializers.ones, (2,), jnp.bfloat16)
        steps = self.param("steps", lambda key: jnp.arange(2))
        return x * half + steps


def test_only_floats_are_trained():
    variables = Odd().init(jax.random.key(0), jnp.ones(2))
    variables["params"]["half"] = np.asarray(variables["params"]["half"])
    bound = from_linen(Odd(), variables)
    assert bound.params["steps"] is None
    assert repr(bound) == "Bound(Odd, arrays=1, numbers=2)"
    grads = jax.grad(lambda p: bound.method()(p, jnp.ones(2)).sum())(bound.params)
    assert grads["half"].dtype == jnp.bfloat16 and grads["steps"] is None
    chex.assert_trees_all_equal(bound.restore(bound.params), variables)


def test_a_submodule_of_a_field_is_a_method():
    class Model(nn.Module):
        decoder: nn.Module

        def __call__(self, z):
            return self.decoder(z)

    module = Model(nn.Dense(3))
    variables = module.init(jax.random.key(0), jnp.ones(2))
    bound = from_linen(module, variables)
    np.testing.assert_array_equal(
        bound.method("decoder")(bound.params, jnp.ones(2)), module.apply(variables, jnp.ones(2))
    )
    with pytest.raises(ValueError, match="Model has no method 'x'; it has '__call__', 'decoder'."):
        bound.method("x")


DENSE = nn.Dense(3)
WEIGHTS = DENSE.init(jax.random.key(0), jnp.ones(2))


@pytest.mark.parametrize(
    ("module", "variables", "message"),
    [
        (DENSE, WEIGHTS["params"], r"with 'params' in them, got \['kernel', 'bias'\]; bare"),
        (DENSE, {"params": jnp.ones(2)}, "expected the variables that module.init returns"),
        (DENSE, None, "got NoneType"),
        (DENSE, {"params": {}}, "floating-point parameters, got none in Dense"),
        (DENSE, {"params": {"w": {"v": jnp.ones(2, complex)}}}, "got complex64 at 'w/v'"),
        (DENSE.bind(WEIGHTS), WEIGHTS, r"give from_linen\(\*module.unbind\(\)\)"),
        (DENSE.apply, WEIGHTS, "got a method of one; give the Dense itself, then bound.method"),
        (nn.Dense, WEIGHTS, "got the class Dense; make a module of it"),
        (nnx.Linear(2, 3, rngs=nnx.Rngs(0)), WEIGHTS, "got a Linear of flax.nnx; use from_nnx"),
        (
            eqx.nn.Linear(2, 3, key=jax.random.key(0)),
            WEIGHTS,
            "got a Linear of equinox; use from_equinox",
        ),
        (
            WEIGHTS,
            DENSE,
            "expected a module of flax.linen, got builtins.dict; give the module itself",
        ),
    ],
)
def test_what_does_not_fit_is_refused(module, variables, message):
    with pytest.raises(ValueError, match=message):
        from_linen(module, variables)


def test_a_missing_method_is_named_with_those_there_are(variables):
    bound = from_linen(VAE_, variables)
    with pytest.raises(
        ValueError, match="VAE has no method 'sample'; it has '__call__', 'decode', 'encode'"
    ):
        bound.method("sample")


def test_other_parameters_are_refused(variables):
    bound = from_linen(VAE_, variables)
    without = {k: v for k, v in bound.params.items() if k != "out"}
    for call in (bound.restore, lambda params: bound.method("decode")(params, jnp.ones((3, 2)))):
        with pytest.raises(ValueError, match=r"params does not match those of VAE at '\['out'\]"):
            call(without)
        with pytest.raises(ValueError, match="expected nothing there.* Give bound.params"):
            call(variables | bound.params)
