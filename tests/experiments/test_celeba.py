"""The CelebA experiment in miniature, on made-up faces and on real ones."""

import dataclasses
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from experiments import audits, celeba, celeba_models, common
from experiments.celeba_lab import Target
from tests import faces as fixtures
from tests.experiments import small_celeba
from uno_jax import checkpoints, data
from uno_jax.audit import case as cases

ROOT = Path(__file__).parents[2]
TINY = celeba.Options(
    method=("redirect", "uno"),
    seeds=1,
    side=16,
    channels=(4, 8),
    latents=6,
    epochs=1.0,
    train_batch=16,
    batch_size=8,
    judge_steps=2,
    steps=2,
    redirect_steps=1,
    samples=200,
    rebound_steps=1,
    save_every=1,
)


@pytest.fixture(autouse=True)
def _small_classifiers(monkeypatch):
    monkeypatch.setattr(celeba_models, "architectures", small_celeba.architectures)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    root = tmp_path_factory.mktemp("celeba")
    records = fixtures.people(80)
    fixtures.write_folder(root / "folder", records)
    fixtures.write_tfds(root / "tfds", records)
    return root


def test_all_stages_on_the_folder_with_an_expression_then_a_person(places, monkeypatch):
    seen = []
    verdict = {"verdict": {"name": "forgotten", "sentence": "None is drawn."}}
    monkeypatch.setattr(audits, "audit_or_restore", lambda *a: seen.append(a) or verdict)
    options = dataclasses.replace(
        TINY,
        data_dir=places / "folder",
        cache_dir=places / "cache",
        out=places / "runs",
        forget="Male & ~Smiling",
        hat=1e3,
        method=("redirect", "surgery"),
    )
    results = celeba.main(options)
    assert list(results["models"]) == ["before", "retrained", "redirect", "surgery"]
    for row in results["models"]["redirect"]:
        assert row["judge"]["total"] == 200
        assert row["judge"]["low"] <= row["judge"]["count"] / 200 <= row["judge"]["high"]
        assert np.isfinite([row["fd"], row["retained_bound"], row["forgotten_bound"]]).all()
        assert set(row["rebound"]) == {"running", "batch"}
    folder = options.out / "Male-and-not-Smiling"
    page = (folder / "report.html").read_text()
    assert "Forgetting Male &amp; ~Smiling" in page
    public = {file.name for file in (folder / "publish").iterdir()}
    assert {"table.md", "table.csv", "table.json", "samples.png"} <= public
    assert not any("reconstruction" in name for name in public)
    assert "| before |" in (folder / "publish" / "table.md").read_text()

    # It ends with an audit of the first method.
    ((_, name, make_case, settings, _),) = seen
    case = make_case()
    cases.check(case)
    assert name == "redirect" and settings.samples == options.audit_samples
    assert set(case.params) == {"before", "after", "retrained"} and case.steps == 1
    assert not any(judge.took_part for judge in case.judges.values())
    images = case.model.sample(case.params["after"], jax.random.key(0), 3)
    assert images.shape == (3, 16, 16, 3) and case.judges["guide"].classify(images).shape == (3, 2)

    # A person is a forget set too; what is trained for all forget sets is used again.
    before = (options.out / "checkpoints" / "before").stat().st_mtime_ns
    person = dataclasses.replace(
        options, forget="identity == 3", hat=0.0, method=("surgery",), seeds=2
    )
    again = celeba.main(person)
    assert (options.out / "checkpoints" / "before").stat().st_mtime_ns == before
    assert set(again["models"]) == {"before", "retrained", "surgery"}
    assert len(again["models"]["surgery"]) == 2
    assert (options.out / "identity-3" / "report.html").exists()

    # The same folder with another setting is refused, with the difference.
    with pytest.raises(ValueError, match=r"latents: 6 there, 7 now"):
        celeba.main(dataclasses.replace(options, latents=7))


def test_the_same_command_on_a_tfds_directory(places, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(places / "tfds"))
    names = places / "names.txt"
    names.write_text("celeb_a/train/3\nceleb_a/train/5\n")
    options = dataclasses.replace(
        TINY,
        cache_dir=places / "cache",
        out=places / "tfds-runs",
        forget_files=names,
        method=("retain-descent",),
    )
    results = celeba.main(options)
    assert results["forget"] == "names"
    assert results["models"]["before"][0]["forgotten_bound"] is None  # none held out
    names.write_text("000001.jpg\n")
    with pytest.raises(ValueError, match=r"names of images .* 1 are none: 000001\.jpg"):
        celeba.main(options)


def test_a_step_on_real_faces(tfds_dir, tmp_path):
    options = dataclasses.replace(
        TINY,
        data="celeb_a",
        cache_dir=tmp_path / "cache",
        out=tmp_path,
        epochs=0.02,
        forget="Eyeglasses",
        method=("surgery",),
        stage="unlearn",
    )
    celeba.main(options)
    lines = (tmp_path / "Eyeglasses" / "metrics.jsonl").read_text().splitlines()
    history = [row for row in map(json.loads, lines) if row["stage"] == "surgery-0"]
    assert 1 <= len(history) <= 2
    assert np.isfinite(history[0]["retain_loss"])


def command(places, out, *extra):
    return [
        *(sys.executable, "-m", "tests.experiments.small_celeba"),
        *("--data-dir", str(places / "folder")),
        *("--cache-dir", str(places / "cache"), "--out", str(out), "--stage", "unlearn"),
        *("--method", "surgery", "redirect", "--side", "16", "--channels", "4", "8"),
        *("--latents", "6", "--epochs", "3", "--train-batch", "16", "--batch-size", "8"),
        *("--judge-steps", "2", "--steps", "20", "--redirect-steps", "2", "--seeds", "1"),
        *("--save-every", "4", "--train-save-every", "4", "--stop-below", "0"),
        *("--samples", "100", *extra),
    ]


def start(places, out):
    return subprocess.Popen(
        command(places, out),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def kill_when_saved(process, series, seconds=300):
    """SIGKILL as soon as a series has a checkpoint; it must not have finished by then."""
    end = time.monotonic() + seconds
    while not checkpoints.steps_in(series):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stderr.close()


@pytest.mark.filterwarnings("ignore:Sharding info not provided:UserWarning")
def test_a_killed_run_ends_where_an_uninterrupted_one_does(places):
    killed, whole = places / "killed", places / "whole"
    uninterrupted = start(places, whole)
    try:
        kill_when_saved(start(places, killed), killed / "checkpoints" / "before")
        kill_when_saved(start(places, killed), killed / "Male" / "checkpoints" / "surgery-0")
        for process in (start(places, killed), uninterrupted):
            _, errors = process.communicate()
            assert process.returncode == 0, errors
    finally:
        uninterrupted.kill()
    for name in ("checkpoints/before", "Male/checkpoints/surgery-0", "Male/checkpoints/redirect-0"):
        last = checkpoints.steps_in(whole / name)[-1]
        a, b = (
            ocp.load_checkpointables(out / name / str(last))["state"] for out in (killed, whole)
        )
        jax.tree.map(np.testing.assert_array_equal, a, b)
    lines = (whole / "Male" / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [r["step"] for r in rows if r["stage"] == "surgery-0"] == list(range(1, 21))


def test_mistakes_end_in_a_message(places, capsys, monkeypatch, tmp_path):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["celeba", "--out", str(tmp_path / "out"), *arguments])
        with pytest.raises(SystemExit) as stop:
            common.run(celeba.main, celeba.Options)
        assert stop.value.code == 2
        return " ".join(capsys.readouterr().err.split())

    assert "5_o_Clock_Shadow" in run("--forget", "Mael", "--data-dir", str(places / "folder"))
    message = run("--data-dir", str(tmp_path))
    assert "TFDS_DATA_DIR" in message
    assert "list_attr_celeba.txt" in message


def test_folders_are_named_for_what_is_forgotten(tmp_path):
    assert Target("Male").slug == "Male"
    assert (
        Target("(Male | Bald) & ~5_o_Clock_Shadow").slug == "Male-or-Bald-and-not-5_o_Clock_Shadow"
    )
    assert Target("identity != 12").slug == "identity-is-not-12"
    assert set(data.FACE_SOURCES) >= {"celeb_a", "folder"}
