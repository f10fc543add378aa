"""Several processes on the loopback interface: the same steps as one."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.parallel import worker
from uno_jax import parallel
from uno_jax.parallel.launch import main as launch

ROOT = Path(__file__).parents[2]
ONE_DEVICE = {"XLA_FLAGS": "--xla_force_host_platform_device_count=1", "JAX_PLATFORMS": "cpu"}


def run(processes, folder):
    folder.mkdir()
    command = [sys.executable, "-m", "uno_jax.parallel.launch", "--processes", str(processes)]
    command += ["--", sys.executable, "-m", "tests.parallel.worker", str(folder)]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **ONE_DEVICE}, capture_output=True, text=True,
        timeout=170, check=True,
    ).stdout  # fmt: skip


def run_as_slurm_does(processes, folder):
    """Without the launcher: each process finds the others by what `srun` tells it."""
    folder.mkdir()
    tasks = []
    for index in range(processes):
        told = {
            "SLURM_JOB_ID": str(os.getpid()),
            "SLURM_STEP_NODELIST": "localhost",
            "SLURM_NTASKS": str(processes),
            "SLURM_PROCID": str(index),
            "SLURM_LOCALID": str(index),
        }
        command = [sys.executable, "-m", "tests.parallel.worker", str(folder)]
        environment = {**os.environ, **ONE_DEVICE, **told}
        tasks.append(
            subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        )
    said = "".join(task.communicate(timeout=170)[0] for task in tasks)
    assert [task.returncode for task in tasks] == [0] * processes
    return said


def arrays(folder):
    with np.load(folder / "params.npz") as archive:
        return dict(archive)


def test_two_and_four_processes_equal_one(tmp_path):
    alone, cosines = worker.run(parallel.make_mesh({"data": 1}, jax.devices()[:1]))
    alone = list(map(np.asarray, jax.tree.leaves(alone.params)))

    def check(leaves):
        for got, expected in zip(leaves, alone, strict=True):
            np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-6)

    for processes, start in ((2, run_as_slurm_does), (4, run)):
        output = start(processes, tmp_path / str(processes))
        assert f"process {processes - 1} of {processes}" in output
        check(arrays(tmp_path / str(processes)).values())
    # What four processes wrote, this one reads, on eight devices.
    mesh = parallel.make_mesh({"data": 4, "fsdp": 2})
    restored = worker.series_of(tmp_path / "4", worker.start(mesh)[1])
    np.testing.assert_allclose(restored.extras["cosines"], cosines, rtol=1e-4)
    check(jax.tree.leaves(restored.state.params))


def test_alone_nothing_is_joined(monkeypatch):
    def initialize():
        raise AssertionError("joined")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    assert not parallel.join_processes()
    monkeypatch.setenv("SLURM_STEP_NODELIST", "node1")
    monkeypatch.setenv("SLURM_NTASKS", "1")
    assert not parallel.join_processes()
    monkeypatch.setenv("UNO_CLUSTER", "1")
    with pytest.raises(AssertionError, match="joined"):
        parallel.join_processes()


def test_the_first_that_fails_ends_the_others():
    begin = time.monotonic()
    script = (
        "import os, sys, time\n"
        "sys.exit(7) if os.environ['UNO_PROCESS_INDEX'] == '1' else time.sleep(60)"
    )
    assert launch(["--processes", "3", "--", sys.executable, "-c", script]) == 7
    assert time.monotonic() - begin < 30


def test_a_request_to_end_reaches_all_at_the_same_step(tmp_path):
    command = [sys.executable, "-m", "uno_jax.parallel.launch", "--processes", "2", "--"]
    command += [sys.executable, "-m", "tests.parallel.worker", str(tmp_path), "--wait"]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **ONE_DEVICE})
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("waiting-*"))) < 2:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0
    steps = {(tmp_path / f"asked-{index}").read_text() for index in range(2)}
    assert len(steps) == 1


def test_mistakes_of_the_command_line_are_named(capsys):
    with pytest.raises(SystemExit):
        launch(["--processes", "0", "--", "true"])
    assert "expected a number of processes of at least 1" in capsys.readouterr().err
