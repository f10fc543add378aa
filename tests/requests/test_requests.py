import json

import pytest

import uno_jax as uno


def request(letter, log):
    def run(model):
        log.append(letter)
        return model - {letter}

    return uno.requests.Request(letter, run, "by hand")


def fulfil(letters, folder, kept, log, **options):
    return uno.requests.unlearn_requests(
        [request(letter, log) for letter in letters],
        frozenset("abcd"),
        ledger=folder / "ledger.jsonl",
        save=kept.__setitem__,
        restore=kept.get,
        audit=lambda model, names: {name: name not in model for name in names},
        **options,
    )


def test_requests_are_fulfilled_in_turn_and_all_so_far_are_audited(tmp_path):
    kept, log, said = {}, [], []
    assert fulfil("ca", tmp_path, kept, log, report=said.append) == frozenset("bd")
    entries = uno.requests.read_ledger(tmp_path / "ledger.jsonl")
    assert [entry["request"] for entry in entries] == ["c", "a"]
    assert [entry["audits"] for entry in entries] == [{"c": True}, {"c": True, "a": True}]
    assert all(
        entry["began"] <= entry["ended"] and entry["method"] == "by hand" for entry in entries
    )
    assert said == ["c: by hand", "a: by hand"]
    # Later ones are taken up from there, nothing is done twice.
    assert fulfil("cab", tmp_path, kept, log) == frozenset("d")
    assert log == ["c", "a", "b"]
    assert len(uno.requests.read_ledger(tmp_path / "ledger.jsonl")) == 3


def test_a_call_that_was_interrupted_goes_on(tmp_path):
    kept, log = {}, []

    def interrupted(model, names):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        uno.requests.unlearn_requests(
            [request("a", log)], frozenset("ab"), ledger=tmp_path / "ledger.jsonl",
            save=kept.__setitem__, restore=kept.get, audit=interrupted,
        )  # fmt: skip
    assert not uno.requests.read_ledger(tmp_path / "ledger.jsonl")
    # The model was saved: only the audit and the entry were missing.
    assert fulfil("ab", tmp_path, kept, log) == frozenset("")
    assert log == ["a", "b"]


def test_a_ledger_that_was_changed_is_found(tmp_path):
    fulfil("ab", tmp_path, {}, [])
    file = tmp_path / "ledger.jsonl"
    lines = file.read_text().splitlines()
    first = json.loads(lines[0])
    file.write_text(
        "\n".join([json.dumps({**first, "audits": {"a": "forgotten"}}), lines[1]]) + "\n"
    )
    with pytest.raises(ValueError, match="line 2: expected the digest of the line before"):
        uno.requests.read_ledger(file)
    file.write_text(lines[1] + "\n")
    with pytest.raises(ValueError, match="line 1: expected the digest"):
        uno.requests.read_ledger(file)
    file.write_text("forgotten\n")
    with pytest.raises(ValueError, match="line 1: expected an entry"):
        uno.requests.read_ledger(file)
    file.write_text("{}\n")
    with pytest.raises(ValueError, match="line 1: expected .'request'"):
        uno.requests.read_ledger(file)


def test_what_does_not_go_together_is_said(tmp_path):
    with pytest.raises(ValueError, match="requests: expected names that are unique, got"):
        fulfil("aa", tmp_path, {}, [])
    kept: dict = {}
    fulfil("a", tmp_path, kept, [])
    with pytest.raises(ValueError, match=r"expected to begin with \[\('b'"):
        fulfil("ba", tmp_path, kept, [])
    with pytest.raises(ValueError, match="a: is in the ledger, but its model was not found"):
        fulfil("ab", tmp_path, {}, [])
    with pytest.raises(ValueError, match="entry: expected"):
        uno.requests.append_to_ledger(tmp_path / "ledger.jsonl", {"request": "a"})
