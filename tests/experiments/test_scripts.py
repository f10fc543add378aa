"""Every experiment is a file that runs from any folder, and a module."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
SCRIPTS = sorted(
    path.name for path in EXPERIMENTS.glob("*.py") if '__name__ == "__main__"' in path.read_text()
)
FOLDERS = {"celeba.py": (EXPERIMENTS.parent, EXPERIMENTS, Path("/"))}


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_file_says_its_options_from_any_folder(script):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    for folder in FOLDERS.get(script, (Path("/"),)):
        file = os.path.relpath(EXPERIMENTS / script, folder)
        result = subprocess.run(
            [sys.executable, file, "--help"],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        assert "usage:" in result.stdout and "--help" in result.stdout


def test_there_are_scripts():
    assert {"celeba.py", "mnist.py", "dit.py", "mnist_table.py"} <= set(SCRIPTS)
