import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.svm import SVC

from tests import digits
from uno_jax import checkpoints, diffusion, forgetting_cli
from uno_jax.case import Case, load_case
from uno_jax.forgetting import CHECKPOINTS, forget
from uno_jax.generative.vae import VAE
from uno_jax.training.finite import NonFiniteError

FORGOTTEN, SAMPLES = 0, 400
MODEL = digits.MODEL


@pytest.fixture(scope="module")
def trained():
    return digits.train()


@pytest.fixture(scope="module")
def look():
    """`look(params)`: what a classifier sees under the forgotten label and under the others,
    guided, and the loss on retained images.
    """
    images, labels = digits.load()
    classifier = SVC(gamma=0.02, C=5).fit(images.reshape(len(images), -1), labels)
    retain = digits.sides(FORGOTTEN)["retain"]
    loss_fn = diffusion.make_diffusion_loss(MODEL)
    kept = np.repeat([label for label in range(10) if label != FORGOTTEN], 40)
    asked = jnp.concatenate([jnp.full(SAMPLES, FORGOTTEN), jnp.asarray(kept)])

    @jax.jit
    def measure(params):
        key = jax.random.key(5)
        drawn = diffusion.sample(MODEL, params, key, asked, digits.SHAPE, steps=15, guidance=2.0)
        losses = jax.lax.map(lambda k: loss_fn(params, retain, k), jax.random.split(key, 10))
        return drawn, jnp.mean(losses)

    def look(params):
        drawn, loss = measure(params)
        seen = classifier.predict(np.asarray(drawn).reshape(len(asked), -1))
        of_label = np.mean(seen[:SAMPLES] == FORGOTTEN)
        return of_label, np.mean(seen[SAMPLES:] == kept), float(loss)

    return look


def copied(tree):
    return jax.tree.map(np.array, tree)


def same(a, b):
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, a, b)))


def test_the_default_forgets_a_label_and_keeps_the_others(trained, look):
    params, data = copied(trained), digits.sides(FORGOTTEN)
    before, others_before, loss_before = look(trained)
    result = forget(MODEL, trained, **data, progress=False)
    after, others, loss = look(result.params)
    assert before > 0.9 and after < 0.02 and after < 0.1 * before
    assert others > others_before - 0.02 and loss < 1.05 * loss_before
    assert result.exchange == {0: 9} and result.method == "redirect"
    assert result.steps == len(result.history) == 100
    assert [row["step"] for row in result.history] == list(range(1, 101))
    assert "of 64 examples a step" in result.cost
    # What the caller holds is what it was.
    assert same(params, trained) and same(data, digits.sides(FORGOTTEN))

    control = forget(MODEL, trained, **data, method="retain-descent", progress=False)
    assert look(control.params)[0] > 0.9 and control.exchange is None


CASE = digits.make_case(pause=0.0)


def run(out=None, **changes):
    case, options = CASE, {**CASE.options, "progress": False, **changes}
    data = {side: options.pop(side, getattr(case, side)) for side in ("retain", "forget")}
    params = options.pop("params", case.params)
    return forget(options.pop("model", case.model), params, **data, out=out, **options)


@pytest.fixture(scope="module")
def undisturbed():
    return run()


def begin(out):
    return subprocess.Popen(
        [sys.executable, "-m", "uno_jax.forgetting_cli", "--case", "tests.digits", "--out", out],
        env=os.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for_steps(out, process, steps):
    deadline = time.monotonic() + 100
    while max(checkpoints.steps_in(out / CHECKPOINTS), default=0) < steps:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_killed_and_begun_again_it_ends_the_same(tmp_path, undisturbed, monkeypatch, capsys):
    out = tmp_path / "run"
    process = begin(out)
    wait_for_steps(out, process, 6)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (out / forgetting_cli.PARAMS).exists()

    command = ["--case", "tests.digits", "--out", str(out), "--quiet"]
    case = digits.make_case(pause=0.0)
    case.retain.interrupted_after = 30
    monkeypatch.setattr(digits, "make_case", lambda: case)
    assert forgetting_cli.main(command) == 130
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.fullmatch(
        r"interrupted; step \d+ is saved in .*, and the same command goes on.*", last
    )

    result = run(out)
    assert same(result.params, undisturbed.params)
    assert result.history == undisturbed.history

    monkeypatch.undo()
    assert forgetting_cli.main(command) == 0
    written = checkpoints.restore(out / forgetting_cli.PARAMS, CASE.params)
    assert same(written, undisturbed.params)
    said = json.loads((out / forgetting_cli.HISTORY).read_text())
    assert said["history"] == undisturbed.history and said["exchange"] == {"3": 5}
    assert (out / forgetting_cli.PICTURE).stat().st_size > 1000


def test_a_method_that_takes_turns_resumes_to_the_same(tmp_path):
    options = {"method": "ascent-descent", "steps": 6, "save_every": 3}
    whole = run(**options)
    run(tmp_path, **options)
    # As if it had ended after the third step.
    shutil.rmtree(tmp_path / CHECKPOINTS / "6")
    assert checkpoints.steps_in(tmp_path / CHECKPOINTS) == [3]
    again = run(tmp_path, **options)
    assert same(whole.params, again.params)
    assert whole.history == again.history


def test_a_vae_forgets_by_its_own_default_and_resumes(tmp_path):
    def encode(params, x):
        flat = x.reshape(len(x), -1)
        return flat @ params["in"], jnp.full((len(x), 4), -2.0)

    keys = jax.random.split(jax.random.key(0))
    params = {
        "in": 0.3 * jax.random.normal(keys[0], (64, 4)),
        "out": 0.3 * jax.random.normal(keys[1], (4, 64)),
    }
    model = VAE(
        encode, lambda params, z: (z @ params["out"]).reshape(-1, *digits.SHAPE), "gaussian"
    )
    data = {name: side["image"] for name, side in digits.sides().items()}
    results = [
        forget(model, params, **data, steps=2, out=out, progress=False)
        for out in (None, tmp_path, tmp_path)
    ]
    assert results[0].steps == 2 and results[0].exchange is None
    assert not same(results[0].params, params)
    assert all(same(results[0].params, other.params) for other in results[1:])
    with pytest.raises(ValueError, match="options: expected some of .* on a VAE, got exchange"):
        forget(model, params, **data, exchange=1)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, undisturbed):
    out = tmp_path_factory.mktemp("finished")
    assert same(run(out).params, undisturbed.params)
    return out


def test_a_complete_run_returns_at_once(finished, undisturbed, capsys):
    begin = time.perf_counter()
    result = run(finished, progress=True)
    assert time.perf_counter() - begin < 5
    assert same(result.params, undisturbed.params) and "step" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"method": "surgery"}, "method: expected 'redirect', got 'surgery'"),
        ({"seed": 1}, "seed: expected 0, got 1"),
        ({"steps": 25}, "steps: expected 24, got 25"),
        ({"anchor_weight": 2.0}, "options: expected"),
        ({"exchange": 6}, "options: expected"),
        ({"forget": digits.sides(count=390)["forget"]}, "data: expected those of fingerprint"),
        ({"params": digits.init(jax.random.key(4), 16)}, "params: expected"),
        ({"model": MODEL._replace(null_label=0)}, "model: expected"),
    ],
)
def test_the_folder_of_another_run_is_refused(finished, change, said):
    with pytest.raises(ValueError, match=f"another run .*{said}.*Give another folder"):
        run(finished, **change)


def test_progress_is_a_few_lines(capsys):
    run(progress=True)
    first, *lines = capsys.readouterr().err.strip().splitlines()
    assert first == "redirect: forgotten labels go to others: 3 to 5"
    assert lines[0].startswith("redirect: step 1 of 24") and "forget_loss" in lines[0]
    assert lines[-1].startswith("redirect: step 24 of 24") and len(lines) < 10
    run(steps=1)
    assert capsys.readouterr().err == ""


def test_what_is_not_finite_ends_the_run_and_is_not_saved(tmp_path):
    with pytest.raises(NonFiniteError, match="step [0-9]+: .*retain_loss (nan|inf)"):
        run(tmp_path, method="retain-descent", exchange=None, learning_rate=1e20)
    assert checkpoints.steps_in(tmp_path / CHECKPOINTS) == []
    params = {**CASE.params, "out": CASE.params["out"].at[0, 0].set(jnp.nan)}
    with pytest.raises(ValueError, match="params: expected finite numbers, got others at out"):
        run(params=params)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"weight": 3.0}, "options: expected some of anchor_weight, .*method='redirect'.*weight"),
        ({"method": "fast"}, "method: expected one that a diffusion model can run"),
        ({"steps": 0}, "steps: expected an integer of at least 1, got 0"),
        ({"forget": np.zeros((4, 8, 8, 1), np.uint8)}, "floating-point numbers"),
        ({"forget": np.zeros((4, 8, 8, 1), np.float32)}, "forget: expected .* as in retain"),
    ],
)
def test_mistakes_are_said(change, said):
    with pytest.raises(ValueError, match=said):
        run(**change)


def test_without_orbax_the_extra_is_named_and_without_out_not_needed():
    code = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("orbax", "flax", "grain", "scipy", "matplotlib", "rich"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
for name in [n for n in sys.modules if n.split(".")[0] == "orbax"]:
    del sys.modules[name]
sys.meta_path.insert(0, Block())
import jax, jax.numpy as jnp, numpy as np
from uno_jax import diffusion
from uno_jax.forgetting import forget
model = diffusion.Diffusion(lambda p, x, t, y: x * p[y][:, None], diffusion.cosine(10))
side = lambda label: {"image": np.ones((4, 2), np.float32), "label": np.full(4, label)}
call = lambda **more: forget(
    model, jnp.ones((2, 2))[:, 0], retain=side(0), forget=side(1), steps=1, progress=False, **more)
assert call().exchange == {1: 0}
try:
    call(out="nowhere")
except ImportError as error:
    print(error)
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == (
        "orbax is not installed; run: pip install 'uno_jax[experiments]'"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--case", "no.such"], "error: case: expected MODULE:FUNCTION, got 'no.such': there is"),
        (
            ["--case", "tests.digits:none"],
            "error: case: expected MODULE:FUNCTION, got 'tests.digits:none'",
        ),
        (["--case", "tests.digits:load"], "error: case: expected a uno_jax.case.Case, got a tuple"),
        (["--case", "tests.digits", "--set", "x"], "error: set: expected NAME=VALUE, got 'x'"),
        (["--case", "tests.digits", "--set", "x=1"], "error: options: expected some of"),
        (["--case", "tests.digits", "--method", "fast"], "error: method: expected one that"),
        (["--case", "tests.digits", "--steps", "0"], "error: steps: expected"),
    ],
)
def test_the_command_says_a_mistake_in_one_line(arguments, said, tmp_path, capsys):
    assert forgetting_cli.main([*arguments, "--out", str(tmp_path / "run")]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith(said)


def test_the_command_line_wins_over_the_case():
    parsed = forgetting_cli.parse(
        ["--case", "m", "--out", "o", "--steps", "7", "--set", "unlabelled=0.5", "--set", "a=b"]
    )
    case = Case(None, None, None, None, options={"steps": 3, "seed": 2})
    options = forgetting_cli.options_of(parsed, case)
    assert options == {"steps": 7, "seed": 2, "unlabelled": 0.5, "a": "b"}
    assert isinstance(load_case("tests.digits:make_case"), Case)
