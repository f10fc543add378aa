import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uno_jax import metrics


@pytest.fixture(scope="module")
def weights():
    rng = np.random.default_rng(0)
    made = {}
    for name, shape in metrics.inception_shapes().items():
        if name.endswith("conv.weight"):
            # The variance is kept through 48 layers, so that the features stay finite.
            made[name] = rng.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape).astype(np.float32)
        else:
            fill = np.ones if name.endswith(("bn.weight", "running_var")) else np.zeros
            made[name] = fill(shape, np.float32)
    return made


def test_the_weights_are_those_of_inception_v3():
    shapes = metrics.inception_shapes()
    convolutions = {n: s for n, s in shapes.items() if n.endswith("conv.weight")}
    assert len(convolutions) == 94
    # 23,851,784 parameters of the usual network, less its classifier (2048 x 1000 + 1000)
    # and its auxiliary classifier's, which features do not need.
    trainable = sum(np.prod(s) for n, s in shapes.items() if "running" not in n)
    assert trainable == 21_785_568
    assert shapes["Mixed_5b.branch5x5_2.conv.weight"] == (64, 48, 5, 5)
    assert shapes["Mixed_6c.branch7x7dbl_4.conv.weight"] == (160, 160, 7, 1)
    assert shapes["Mixed_7c.branch3x3dbl_3b.bn.running_var"] == (384,)


def test_features_have_their_shape_and_see_the_picture(weights):
    images = jax.random.uniform(jax.random.key(0), (2, 64, 64, 3), minval=-1)
    features = jax.jit(metrics.inception_features)(weights, images)
    assert features.shape == (2, 2048)
    assert features.dtype == jnp.float32
    assert np.isfinite(features).all()
    assert not np.allclose(features[0], features[1])


def test_a_missing_weight_is_named(weights):
    some = {n: w for n, w in weights.items() if n != "Mixed_6a.branch3x3.bn.bias"}
    with pytest.raises(ValueError, match=r"Mixed_6a\.branch3x3\.bn\.bias, got nothing"):
        metrics.inception_features(some, jnp.zeros((1, 64, 64, 3)))
