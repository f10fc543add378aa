import json
import sys

import pytest

from benchmarks import compare, growth


def row(method, median, spread=0.0, **facts):
    noise = {"low_ms": median * (1 - spread), "high_ms": median * (1 + spread)}
    return {"model": "m", "batch": 8, "method": method, "median_ms": median, **noise, **facts}


def write(path, *rows):
    path.write_text(json.dumps({"rows": rows}))
    return path


def run(old, new, factor=1.15):
    return compare.main(compare.Options(old, new, factor))


def test_a_step_that_became_slower_is_found(tmp_path, capsys):
    old = write(tmp_path / "old.json", row("uno", 10.0), row("surgery", 5.0))
    new = write(tmp_path / "new.json", row("uno", 13.0), row("surgery", 5.2))
    assert run(old, new) == 1
    said = capsys.readouterr().out.splitlines()
    assert "slower" in next(line for line in said if "uno" in line)
    assert "slower" not in next(line for line in said if "surgery" in line)
    assert run(old, new, factor=1.5) == 0
    assert run(new, old) == 0


def test_noise_is_no_regression(tmp_path):
    old = write(tmp_path / "old.json", row("uno", 10.0, 0.3))
    new = write(tmp_path / "new.json", row("uno", 13.0, 0.3))
    assert run(old, new) == 0


def test_rows_are_matched_by_what_they_are_of(tmp_path):
    old = compare.rows_of(
        write(tmp_path / "old.json", row("uno", 1.0, library="jax"), row("gone", 1.0))
    )
    new = compare.rows_of(
        write(
            tmp_path / "new.json", row("uno", 9.0, library="torch"), row("uno", 2.0, library="jax")
        )
    )
    (line,) = compare.compare(old, new, 1.0)
    assert line["ratio"] == 2.0 and line["of"] == "m 8 uno jax"


def test_nothing_to_compare_is_an_error_of_its_own(tmp_path, capsys):
    old = write(tmp_path / "old.json", row("uno", 1.0))
    assert run(old, write(tmp_path / "new.json", row("surgery", 1.0))) == 2
    assert run(old, write(tmp_path / "new.json")) == 2
    assert run(old, tmp_path / "missing.json") == 2
    assert run(old, old, factor=0.5) == 2
    assert "factor: expected a number of at least 1, got 0.5" in capsys.readouterr().err


def test_the_exponent_is_that_of_the_upper_half():
    x = [1e1, 1e2, 1e3, 1e4, 1e5]
    assert growth.exponent(x, [7, 7, 1e3, 1e4, 1e5]) == pytest.approx(1.0)
    assert growth.exponent([1.0, 2.0], [1.0, 8.0]) == pytest.approx(3.0)


def test_the_command_exits_with_its_answer(tmp_path):
    import subprocess

    old = write(tmp_path / "old.json", row("uno", 1.0))
    new = write(tmp_path / "new.json", row("uno", 2.0))
    command = [sys.executable, "-m", "benchmarks.compare", str(old), str(new), "--factor", "1.2"]
    assert subprocess.run(command, capture_output=True).returncode == 1
