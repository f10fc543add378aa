import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import digits
from uno_jax import audit
from uno_jax.audit import __main__ as command
from uno_jax.audit import case as cases
from uno_jax.audit.of_run import case_of_run
from uno_jax.forgetting import forget
from uno_jax.forgetting_cli import write
from uno_jax.generative.vae import VAE

COUNT = 5


def run_of(case, folder, **options):
    result = forget(
        case.model, case.params, retain=case.retain, forget=case.forget, progress=False,
        steps=1, **options,
    )  # fmt: skip
    write(folder, result)
    return result


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    case, folder = digits.make_case(pause=0.0), tmp_path_factory.mktemp("run")
    return case, folder, run_of(case, folder, exchange=5)


def look(found):
    """Whether the models of a case can be drawn from, and their losses taken."""
    cases.check(found)
    key = jax.random.key(0)
    samples = found.model.sample(found.params["after"], key, COUNT)
    assert samples.shape == (COUNT, *found.data.retain["image"].shape[1:])
    batch = cases.take(found.data.forget, np.arange(COUNT))
    losses = found.model.loss_fn(found.params["after"], batch, key)
    assert losses.shape == (COUNT,) and np.isfinite(losses).all()


def test_the_case_of_a_labelled_diffusion_model(done):
    case, folder, result = done
    found = case_of_run(case, folder)
    look(found)
    assert found.steps == 1 and found.about["method"] == "redirect"
    assert len(found.data.retain["image"]) == len(case.retain.arrays["image"])
    for before, after in ((found.params["before"], case.params), (found.params["after"],
                          result.params)):  # fmt: skip
        assert jax.tree.all(jax.tree.map(np.array_equal, before, after))


def test_the_case_of_a_diffusion_model_without_labels(done, tmp_path):
    case = done[0]
    data = {"retain": case.retain.arrays["image"], "forget": case.forget["image"]}
    case = dataclasses.replace(case, **data, forget_held_out=data["forget"][:20])
    run_of(case, tmp_path, method="surgery")
    found = case_of_run(case, tmp_path)
    look(found)
    assert len(found.data.forget_held_out["image"]) == 20


def test_the_case_of_a_vae(done, tmp_path):
    def encode(params, x):
        flat = x.reshape(len(x), -1)
        return flat @ params["in"], jnp.full((len(x), 2), -2.0)

    model = VAE(
        encode, lambda params, z: (z @ params["out"]).reshape(-1, *digits.SHAPE), "gaussian"
    )
    keys = jax.random.split(jax.random.key(0))
    params = {
        "in": 0.1 * jax.random.normal(keys[0], (64, 2)),
        "out": 0.1 * jax.random.normal(keys[1], (2, 64)),
    }
    case = dataclasses.replace(done[0], model=model, params=params)
    run_of(case, tmp_path, method="uno")
    found = case_of_run(case, tmp_path)
    look(found)
    assert found.model.encode(params, found.data.forget)[0].shape[1] == 2


def test_what_is_no_complete_run_is_refused(done, tmp_path, capsys):
    case = done[0]
    with pytest.raises(FileNotFoundError, match="run: expected the folder of a complete run"):
        case_of_run(case, tmp_path)
    assert command.main(["--case=tests.digits", f"--out={tmp_path / 'audit'}"]) == 2
    assert "run: expected the folder that uno-forget wrote" in capsys.readouterr().err
    arguments = ["--case=tests.audit.mixture:case", f"--run={tmp_path}"]
    assert command.main([*arguments, f"--out={tmp_path / 'audit'}"]) == 2
    assert "run: expected a uno_jax.case.Case" in capsys.readouterr().err


def test_the_exports_are_there():
    assert audit.Case is cases.Case
