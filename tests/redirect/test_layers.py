import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uno_jax.redirect.layers import first_layer, output_layer, used_leaves


def dense_params(sizes, seed=0):
    rng = np.random.default_rng(seed)
    return [
        {"w": jnp.asarray(rng.normal(size=(a, b)), jnp.float32), "b": jnp.zeros(b)}
        for a, b in itertools.pairwise(sizes)
    ]


def dense(act):
    def decode(params, z):
        for layer in params[:-1]:
            z = act(z @ layer["w"] + layer["b"])
        return z @ params[-1]["w"] + params[-1]["b"]

    return decode


@pytest.mark.parametrize("act", [jax.nn.relu, jax.nn.leaky_relu, jnp.tanh, jax.nn.gelu])
def test_a_dense_decoder(act):
    params = dense_params((2, 8, 9, 30))
    assert output_layer(dense(act), params, 2) == {"2/w", "2/b"}
    assert first_layer(dense(act), params, 2) == {"0/w", "0/b"}


def test_of_a_product_of_two_parameters_the_larger_is_affine():
    def decode(params, z):
        return z @ params["a"] @ params["b"]

    params = {"a": jnp.ones((2, 3)), "b": jnp.ones((3, 40))}
    assert output_layer(decode, params, 2) == {"b"}


def test_a_sigmoid_leaves_nothing_affine():
    params = dense_params((2, 8, 30))
    decode = dense(jax.nn.relu)
    assert output_layer(lambda p, z: jax.nn.sigmoid(decode(p, z)), params, 2) == set()
    assert first_layer(lambda p, z: jax.nn.sigmoid(decode(p, z)), params, 2) == {"0/w", "0/b"}


def test_norms_and_encoders_stay_out():
    params = {
        "encoder": jnp.ones((5, 2)),
        "steps": jnp.zeros((), jnp.int32),
        "in": {"w": jax.random.normal(jax.random.key(0), (2, 8)), "b": jnp.zeros(8)},
        "norm": {"mean": jnp.zeros(8), "var": jnp.ones(8), "scale": jnp.ones(8), "b": jnp.zeros(8)},
        "out": {"w": jax.random.normal(jax.random.key(1), (8, 30)), "b": jnp.zeros(30)},
    }

    @jax.jit
    def decode(params, z):
        h = z @ params["in"]["w"] + params["in"]["b"]
        n = params["norm"]
        h = (h - n["mean"]) * jax.lax.rsqrt(n["var"] + 1e-5) * n["scale"] + n["b"]
        return jax.nn.relu(h) @ params["out"]["w"] + params["out"]["b"] + params["steps"]

    assert first_layer(decode, params, 2) == {"in/w", "in/b"}
    assert output_layer(decode, params, 2) == {"out/w", "out/b"}
    used = used_leaves(decode, params, 2)
    assert "norm/scale" in used and not used & {"encoder", "steps"}


def test_inside_vmap_checkpoint_and_scan():
    params = dense_params((2, 8, 8, 30))
    stacked = {"in": params[0], "body": jax.tree.map(lambda a: jnp.stack([a, a]), params[1]),
               "out": params[2]}  # fmt: skip

    def one(params, z):
        h = jnp.tanh(params["in"]["w"].T @ z + params["in"]["b"])

        @jax.checkpoint
        def block(h, layer):
            return jnp.tanh(h @ layer["w"] + layer["b"]), None

        h, _ = jax.lax.scan(block, h, params["body"])
        return h @ params["out"]["w"] + params["out"]["b"]

    def decode(params, z):
        return jax.vmap(one, in_axes=(None, 0))(params, z)

    assert first_layer(decode, stacked, 2) == {"in/w", "in/b"}
    assert output_layer(decode, stacked, 2) == {"out/w", "out/b"}


def test_latents_that_enter_in_two_places():
    params = {"a": jnp.ones((2, 6)), "b": jnp.ones((2, 6)), "out": jnp.ones((6, 30))}

    def decode(params, z):
        h = jnp.tanh(z @ params["a"])
        return jnp.tanh(h + z @ params["b"]) @ params["out"]

    assert first_layer(decode, params, 2) == {"a", "b"}
