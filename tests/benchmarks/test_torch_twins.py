"""The twins in PyTorch compute what ours do, before anything is said of their speed."""

import jax
import numpy as np
import optax
import pytest

import uno_jax as uno
from benchmarks import problems, versus_pytorch, whole_job

pytest.importorskip("torch", reason="needs torch, of the test extra")

SMALL = {
    "mnist_vae": lambda: problems.mnist_vae(16),
    "celeba_vae": lambda: problems.celeba_vae((4, 8), 6),
    "dit_b": lambda: problems.dit_b(depth=2, width=32, heads=2),
}


@pytest.mark.parametrize("name", versus_pytorch.MODELS)
def test_losses_and_gradients_are_ours(name):
    problem = SMALL.get(name, problems.PROBLEMS[name])()
    twin = versus_pytorch.make_twin(name, problem)
    assert versus_pytorch.check(problem, twin, problem.batches(4)[0]) < 1e-4


def test_another_model_is_found_out():
    problem = SMALL["mnist_vae"]()
    twin = versus_pytorch.make_twin("mnist_vae", problem)
    moved = problem._replace(params=jax.tree.map(lambda x: x + 0.1, problem.params))
    with pytest.raises(ValueError, match="expected equal losses and gradients"):
        versus_pytorch.check(moved, twin, problem.batches(4)[0])


@pytest.mark.parametrize("method", ["retain-descent", "surgery", "uno"])
def test_directions_are_ours(method):
    from benchmarks.torch_twins import steps

    problem = SMALL["mnist_vae"]()
    twin = versus_pytorch.make_twin("mnist_vae", problem)
    batches, keys = problem.batches(8), (jax.random.key(1), jax.random.key(2))
    draws = iter([twin.our_draws(key, batch) for key, batch in zip(keys, batches, strict=True)])
    twin = twin._replace(draw=lambda batch: next(draws))
    steps.make_step(twin, method, weight=1e5)(*map(twin.tensors, batches))

    retain, forget = (
        jax.grad(lambda p, b=b, k=k: problem.value(p, b, k))
        for b, k in zip(batches, keys, strict=True)
    )
    tx = uno.methods.get_method(method).build(optax.identity(), weight=1e5)
    expected, _ = jax.jit(
        lambda p: tx.update(
            retain(p), tx.init(p), p, retain_grads=retain(p), forget_grads=forget(p),
            retain_grad_fn=retain, forget_grad_fn=forget,
        )
    )(problem.params)  # fmt: skip
    assert versus_pytorch.distance(expected, twin) < 1e-4


def test_the_table_sets_the_libraries_side_by_side(monkeypatch, tmp_path):
    monkeypatch.setitem(problems.PROBLEMS, "mnist_vae", SMALL["mnist_vae"])
    options = versus_pytorch.Options(
        models="mnist_vae", batch=8, rounds=3, compile=False, output=tmp_path
    )
    lines = versus_pytorch.main(options)
    assert {(line["method"], line["library"]) for line in lines} == {
        (method, library)
        for method in ("retain-descent", "surgery", "uno")
        for library in ("jax", "torch")
    }
    (text,) = (row for row in versus_pytorch.table(lines) if row["method"] == "uno")
    assert float(text["jax, ms"]) > 0 and float(text["jax / torch"]) > 0
    assert "torch_threads" in (tmp_path / "versus_pytorch.md").read_text()


def test_the_whole_job_ends_with_weights_on_disk(tmp_path):
    inputs = whole_job.prepare(tmp_path, None)
    program = tmp_path / "program"
    whole_job.run("jax_job", *inputs, program, "--export")
    whole_job.run("exported_job", *inputs, tmp_path / "exported.npz", program)
    whole_job.run("torch_job", *inputs, tmp_path / "torch.npz")
    with np.load(inputs[0]) as before:
        for name in ("exported", "torch"):
            with np.load(tmp_path / f"{name}.npz") as after:
                assert set(after.files) == set(before.files)
                moved = after["encoder.0.weight"] - before["encoder.0.weight"]
                # Three steps of Adam at 1e-4.
                assert 0 < np.abs(moved).max() < 4e-4
    with pytest.raises(RuntimeError, match="torch_job: expected to end well, got 1"):
        whole_job.run("torch_job", tmp_path / "none.npz", inputs[1], tmp_path / "x.npz")
