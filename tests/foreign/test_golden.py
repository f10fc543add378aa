"""The published MNIST VAE and float64 PyTorch gradients, reproduced in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import uno_jax as uno
from experiments.published import load_guide
from uno_jax import foreign, models


@pytest.fixture(scope="module")
def golden(reference_dir):
    return foreign.read_arrays(reference_dir / "golden_mnist_vae.npz")


@pytest.fixture(scope="module")
def published(reference_dir):
    arrays = foreign.read_arrays(reference_dir / "mnist_vae.npz")
    return jax.tree.map(jnp.asarray, foreign.from_torch(arrays, foreign.MNIST_VAE))


@pytest.fixture(scope="module")
def problem(golden, published):
    model = models.MnistVAE()

    def terms(params, side):
        images = golden[f"{side}_images"].astype(np.float32) / 255.0
        noise = golden[f"eps_{side}"].astype(np.float32)
        output, _ = model.apply(
            {"params": params, "batch_stats": published["batch_stats"]},
            images,
            noise,
            train=True,
            mutable=["batch_stats"],
        )
        return models.elbo_terms(model, output, images)

    def loss(side):
        return lambda params: sum(jnp.sum(term) for term in terms(params, side))

    return published["params"], terms, loss


def golden_vector(tree, golden):
    """Our parameters in the order and the layout of the golden gradients."""
    arrays = foreign.to_torch({"params": tree}, foreign.MNIST_VAE)
    return np.concatenate([arrays[name].ravel() for name in golden["names"]])


def assert_relative(got, expected, tolerance):
    error = np.linalg.norm(got - expected) / np.linalg.norm(expected)
    assert error < tolerance, error


@pytest.mark.parametrize("side", ["retain", "forget"])
def test_losses_and_gradients(problem, golden, side):
    params, terms, loss = problem
    values = jax.jit(lambda p: terms(p, side))(params)
    for name, value in zip(("reconstruction", "kl"), values, strict=True):
        np.testing.assert_allclose(np.sum(value), golden[f"{side}_{name}"], rtol=1e-5)
    gradient = golden_vector(jax.jit(jax.grad(loss(side)))(params), golden)
    assert_relative(gradient, golden[f"grad_{side}"], 1e-4)


def test_uno_adds_the_gradient_of_the_squared_cosine(problem, golden):
    params, _, loss = problem
    retain_fn, forget_fn = jax.grad(loss("retain")), jax.grad(loss("forget"))
    updates = jax.jit(retain_fn)(params)

    # Parameters are arguments: as constants they would be folded, for most of a minute.
    @jax.jit
    def run(params, updates, weight):
        tx = uno.orthogonalize(lambda count: weight, max_ratio=None)
        return tx.update(
            updates, tx.init(params), params, retain_grad_fn=retain_fn, forget_grad_fn=forget_fn
        )

    scale = 1e6  # lifts the penalty above the rounding of the retain gradient
    result, state = run(params, updates, scale)
    penalty = jax.tree.map(lambda a, b: (a - b) / scale, result, updates)
    assert_relative(golden_vector(penalty, golden), golden["grad_cosine_squared"], 1e-4)
    np.testing.assert_allclose(state.cosine**2, golden["cosine_squared"], rtol=1e-4)

    def squared_cosine(p):
        r, f = retain_fn(p), forget_fn(p)
        dot = sum(jax.tree.leaves(jax.tree.map(jnp.vdot, r, f)))
        squares = [sum(jnp.vdot(x, x) for x in jax.tree.leaves(t)) for t in (r, f)]
        return dot**2 / (squares[0] * squares[1])

    # Double backprop of the penalised loss, at the published weight.
    weight = 1e3
    expected = jax.jit(jax.grad(lambda p: loss("retain")(p) + weight * squared_cosine(p)))(params)
    got, _ = run(params, updates, weight)
    assert_relative(golden_vector(got, golden), golden_vector(expected, golden), 1e-5)


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("surgery", lambda r, f, c: r - (r @ f) / (f @ f) * f),
        ("surgery-ascent", lambda r, f, c: -(f - (f @ r) / (r @ r) * r)),
        ("surgery-descent", lambda r, f, c: f - (f @ r) / (r @ r) * r),
        ("uno", lambda r, f, c: r + 1e3 * c),
    ],
)
def test_directions_of_the_methods_assembled_from_the_golden_gradients(
    problem, golden, name, formula
):
    params, _, loss = problem
    method = uno.methods.get_method(name)
    retain_fn, forget_fn = jax.jit(jax.grad(loss("retain"))), jax.jit(jax.grad(loss("forget")))
    grads = {"retain": retain_fn(params), "forget": forget_fn(params)}
    tx = method.build(optax.identity(), weight=1e3)
    got, _ = tx.update(
        grads[method.descend],
        tx.init(params),
        params,
        retain_grads=grads["retain"],
        forget_grads=grads["forget"],
        retain_grad_fn=retain_fn,
        forget_grad_fn=forget_fn,
    )
    r, f, c = (
        golden[key].astype(np.float64)
        for key in ("grad_retain", "grad_forget", "grad_cosine_squared")
    )
    assert_relative(golden_vector(got, golden), formula(r, f, c), 1e-4)


def test_hat_and_its_gradient(golden, published, reference_dir):
    classify, _ = load_guide(reference_dir / "mnist_classifier.npz")
    vae = models.MnistVAE()

    def sample_fn(params, model_state, key):
        logits, _ = vae.apply(
            {"params": params, "batch_stats": model_state},
            golden["z"].astype(np.float32),
            method="decode",
            train=True,
            mutable=["batch_stats"],
        )
        return jax.nn.sigmoid(logits)

    loss_fn = uno.losses.hat_loss(classify, sample_fn, forgotten=1)
    value, grads = jax.value_and_grad(loss_fn)(published["params"], published["batch_stats"], None)
    np.testing.assert_allclose(value, golden["hat_loss"], rtol=1e-4)
    assert_relative(golden_vector(grads, golden), golden["grad_hat"], 1e-4)


def test_surgery_directions(problem, golden):
    params, _, loss = problem
    retain, forget = jax.grad(loss("retain"))(params), jax.grad(loss("forget"))(params)
    r, f = (golden[f"grad_{side}"].astype(np.float64) for side in ("retain", "forget"))
    assert_relative(
        golden_vector(uno.transforms.project_out(retain, forget), golden),
        r - (r @ f) / (f @ f) * f,
        1e-4,
    )
    assert_relative(
        golden_vector(uno.transforms.project_out(forget, retain), golden),
        f - (f @ r) / (r @ r) * r,
        1e-4,
    )


def test_published_classifier(golden, published, reference_dir):
    arrays = foreign.read_arrays(reference_dir / "mnist_classifier.npz")
    variables = foreign.from_torch(arrays, foreign.DIGIT_MLP)
    model = models.DigitMLP()  # without its batch norm, as the published code judges
    params = {k: v for k, v in variables["params"].items() if k != "norm"}
    vae = models.MnistVAE()
    logits, _ = vae.apply(
        published,
        golden["z"].astype(np.float32),
        method="decode",
        train=True,
        mutable=["batch_stats"],
    )
    predicted = model.apply({"params": params}, jax.nn.sigmoid(logits)).argmax(-1)
    assert (predicted == 1).mean() == golden["forget_fraction"]


def test_the_published_vae_reaches_its_measured_elbo(published, tfds_dir):
    from uno_jax import data

    test = data.load("mnist", "test")
    retained = data.split_by_label(test, lambda label: label == 1).retain
    images = (test.images[retained].reshape(-1, 784) / 255.0).astype(np.float32)
    values = models.negative_elbo(
        models.MnistVAE(), published["params"], published["batch_stats"], images, jax.random.key(0)
    )
    # 162.4 nats in evaluation mode, one noise draw.
    np.testing.assert_allclose(np.mean(values), 162.4, atol=0.3)


def test_round_trip_and_errors(reference_dir, tmp_path):
    arrays = foreign.read_arrays(reference_dir / "mnist_vae.npz")
    back = foreign.to_torch(foreign.from_torch(arrays, foreign.MNIST_VAE), foreign.MNIST_VAE)
    for name, array in back.items():
        np.testing.assert_array_equal(array, arrays[name])
    missing = {k: v for k, v in arrays.items() if k != "enc_mu.bias"}
    with pytest.raises(ValueError, match=r"missing \['enc_mu.bias'\], not expected \['odd'\]"):
        foreign.from_torch({**missing, "odd": np.zeros(1)}, foreign.MNIST_VAE)
    with pytest.raises(FileNotFoundError, match="expected a file"):
        foreign.read_arrays(tmp_path / "none.npz")
    (tmp_path / "model.pth").write_bytes(b"")
    with pytest.raises(ValueError, match="expected .npz or .safetensors"):
        foreign.read_arrays(tmp_path / "model.pth")


def test_safetensors_read_like_npz(tmp_path):
    import safetensors.numpy

    arrays = {"fc1.weight": np.arange(6, dtype=np.float32).reshape(2, 3)}
    safetensors.numpy.save_file(arrays, tmp_path / "w.safetensors")
    got = foreign.read_arrays(tmp_path / "w.safetensors")
    np.testing.assert_array_equal(got["fc1.weight"], arrays["fc1.weight"])
