import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from experiments import mnist
from uno_jax import checkpoints, data

TINY = mnist.Options(
    method=("redirect", "uno", "surgery"),
    redirect_steps=2,
    train_steps=40,
    judge_steps=20,
    steps=3,
    samples=300,
    batch_size=32,
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    options = dataclasses.replace(TINY, out=out)
    return options, mnist.main(options)


def test_everything_is_written(finished):
    options, results = finished
    out = options.out
    names = ["before", "after redirect", "after uno", "after surgery", "retrained"]
    assert list(results["models"]) == names
    assert json.loads((out / "metrics.json").read_text())["models"].keys() == set(names)
    for row in results["models"].values():
        assert row["judge"]["total"] == 300
        assert np.isfinite(row["negative_elbo"])
    for name in (
        "before",
        "retrained",
        "after-uno",
        "after-surgery",
        "after-redirect",
        "judge",
        "judge2",
        "guide",
    ):
        assert checkpoints.steps_in(out / "checkpoints" / name)
    for name in ("before", "after", "after-uno", "retrained"):
        samples = np.load(out / "samples" / f"{name}.npz")["images"]
        assert samples.shape == (300, 28, 28, 1) and samples.dtype == np.float32
        assert 0 <= samples.min() < samples.max() <= 1
    after = np.load(out / "samples" / "after-redirect.npz")["images"]
    np.testing.assert_array_equal(np.load(out / "samples" / "after.npz")["images"], after)
    stages = {
        json.loads(line)["stage"] for line in (out / "metrics.jsonl").read_text().splitlines()
    }
    assert {"before", "after-uno", "after-surgery"} <= stages


def test_the_report_stands_alone_and_says_what_the_figures_say(finished):
    options, results = finished
    page = (options.out / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert "<img" in page and 'src="http' not in page and "<script" not in page
    for row in results["models"].values():
        assert f"{row['judge']['count'] / 300:.2%}" in page
        assert f"{row['negative_elbo']:.1f}" in page
    assert results["device"] in page


def test_the_same_folder_continues_and_another_configuration_is_an_error(finished):
    options, results = finished
    again = mnist.main(options)
    assert again["models"]["before"]["judge"] == results["models"]["before"]["judge"]
    assert again["models"]["after uno"]["judge"] == results["models"]["after uno"]["judge"]
    with pytest.raises(ValueError, match=r"another configuration \(seed: 0 there, 1 now\)"):
        mnist.main(dataclasses.replace(options, seed=1))


def test_a_digit_out_of_range():
    with pytest.raises(ValueError, match="forget: expected a digit from 0 to 9, got 12"):
        mnist.main(dataclasses.replace(TINY, forget=12))


def command(*arguments):
    return [sys.executable, "-m", "experiments.mnist", *arguments]


def test_command_line_help_and_one_line_errors(tmp_path):
    text = subprocess.run(command("--help"), capture_output=True, text=True, check=True).stdout
    for option in ("--data", "--forget", "--method", "--seed", "--out", "--steps"):
        assert option in text
    environment = {**os.environ, "TFDS_DATA_DIR": str(tmp_path)}
    result = subprocess.run(
        command("--data", "mnist", "--out", str(tmp_path / "run")),
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert result.returncode == 2
    assert "Set TFDS_DATA_DIR" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_interrupt_leaves_a_usable_checkpoint(tmp_path):
    process = subprocess.Popen(
        command(
            *("--out", str(tmp_path), "--judge-steps", "10", "--train-steps", "100000"),
            *("--batch-size", "8"),
        ),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 120
        while not checkpoints.steps_in(tmp_path / "checkpoints" / "before"):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, error
    assert "goes on from the last checkpoint" in error
    steps = [
        json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()
    ]
    assert max(steps) >= 900
    assert checkpoints.steps_in(tmp_path / "checkpoints" / "before")


def test_training_resumed_equals_training_uninterrupted(tmp_path):
    from uno_jax import data, models

    train = data.load("mnist5k", "train")
    model = models.MnistVAE(hidden=16)

    def run(name, steps):
        from experiments import common

        options = dataclasses.replace(TINY, train_steps=steps, out=tmp_path / name)
        folder = common.RunFolder(options.out, options, ignore=("out", "train_steps"))
        return mnist.train_vae(options, folder, "before", model, train)

    run("resumed", 7)
    resumed, whole = run("resumed", 12), run("whole", 12)
    np.testing.assert_array_equal(
        resumed.params["decoder"]["logits"]["kernel"], whole.params["decoder"]["logits"]["kernel"]
    )


def test_published_weights_frozen_norm_warm_adam_hat_and_tolerance(reference_dir, tmp_path):
    options = dataclasses.replace(
        TINY,
        method=("redirect", "selective-amnesia", "uno-s"),
        reference=reference_dir,
        redirect_steps=6,
        redirect_tolerance=0.9,
        norm="running",
        warm=True,
        hat=1e3,
        out=tmp_path,
    )
    results = mnist.main(options)["models"]
    # The published model is what its owners measured, before; no training step was made.
    assert results["before"]["steps"] is None and results["before"]["negative_elbo"] < 170
    assert results["after redirect"]["steps"] < 6
    assert not checkpoints.steps_in(tmp_path / "checkpoints" / "before")


def test_runs_on_all_of_mnist(tfds_dir, tmp_path):
    options = dataclasses.replace(TINY, data="mnist", method=("uno",), out=tmp_path)
    assert mnist.main(options)["models"]["after uno"]["steps"] >= 1
    train = data.load("mnist", "train")  # decoded already
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(train.labels).tolist() == counts
    assert train.labels[:10].tolist() == [4, 1, 0, 7, 8, 1, 2, 7, 1, 6]
    assert train.images.shape == (60000, 28, 28, 1)
