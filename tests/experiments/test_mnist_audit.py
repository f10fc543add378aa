"""The audits of MNIST models, and the requests over time, in miniature."""

import dataclasses
import json

import pytest

import uno_jax as uno
from experiments import mnist_audit, mnist_requests
from uno_jax import audit

SMALL = {
    "data": "mnist5k", "steps": 2, "redirect_steps": 1, "train_steps": 30, "samples": 400,
    "examples": 200, "judge_steps": 120, "relearn_steps": (1,), "relearn_examples": (1,),
}  # fmt: skip


def test_two_steps_of_the_hat_have_not_forgotten_and_one_of_the_redirect_more(
    reference_dir, tmp_path
):
    options = mnist_audit.Options(reference_dir, tmp_path, models=("hat", "redirect"), **SMALL)
    rows = {row["model"]: row for row in mnist_audit.main(options)}
    assert list(rows) == ["hat", "redirect"]
    assert rows["hat"]["verdict"] in (audit.NOT_FORGOTTEN, audit.FOOLED)
    ones = {name: float(row["own network, %"]) for name, row in rows.items()}
    assert ones["redirect"] < 0.7 * ones["hat"]
    found = json.loads((tmp_path / "audits" / "hat" / "audit.json").read_text())
    assert found["judges"]["guide"]["took_part"] and found["cost"]["seconds"] > 0
    assert not found["judges"]["own network"]["took_part"]
    # The control is there, and what it does too is not credited.
    assert any("credited" in remark for remark in found["verdict"]["remarks"])
    # Given again, nothing is audited again.
    before = (tmp_path / "audits" / "hat" / "audit.json").stat().st_mtime_ns
    again = mnist_audit.main(dataclasses.replace(options, models=("hat",)))
    assert again == [rows["hat"]]
    assert (tmp_path / "audits" / "hat" / "audit.json").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="forget: expected a digit from 0 to 9, got 11"):
        mnist_audit.main(dataclasses.replace(options, forget=11))


def test_requests_go_into_a_ledger_and_are_audited_again(reference_dir, tmp_path):
    smaller = {**SMALL, "samples": 200, "judge_steps": 30}
    options = mnist_requests.Options(reference_dir, tmp_path, digits=(1,), **smaller)
    mnist_requests.main(options)
    rows = mnist_requests.main(dataclasses.replace(options, digits=(1, 7)))
    assert [(row["after requests"], row["digit"]) for row in rows] == [
        ("1", "1"), ("1, 7", "1"), ("1, 7", "7"),
    ]  # fmt: skip
    ledger = uno.requests.read_ledger(tmp_path / "checkpoints" / "ledger.jsonl")
    assert [entry["request"] for entry in ledger] == ["1", "7"]
    assert set(ledger[1]["audits"]) == {"1", "7"}
    assert len(ledger[1]["audits"]["7"]["audit"]) == 64
    assert (tmp_path / "figures" / "requests.png").stat().st_size > 1000
    with pytest.raises(ValueError, match="digits: expected different digits"):
        mnist_requests.main(dataclasses.replace(options, digits=(1, 1)))
