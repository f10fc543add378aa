"""A ledger of deletion requests: what was asked, when, how, and what the audit said.

One JSON object a line, each with the digest of the line before, so that a line that was changed
or taken out is found.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FIELDS = ("request", "method", "began", "ended", "audits", "previous")
START = "0" * 64


def read_ledger(path: str | Path) -> list[dict[str, Any]]:
    """Reads a ledger and checks its chain.

    Args:
      path: the file; one that is not there is an empty ledger.

    Returns:
      Its entries in order: `request`, `method`, `began` and `ended` (UTC, ISO 8601), `audits`
      (request to what its audit said), `previous` (digest of the line before).

    Raises:
      ValueError: naming the line that is not what was written.
    """
    return _read(Path(path))[0]


def _read(path: Path) -> tuple[list[dict[str, Any]], str]:
    """The entries of a ledger, and the digest that the next one is to hold."""
    entries: list[dict[str, Any]] = []
    previous = START
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}: expected an entry, got {error}.") from error
        if not isinstance(entry, dict) or sorted(entry) != sorted(FIELDS):
            raise ValueError(f"{path}, line {number}: expected {FIELDS}, got {line[:80]}.")
        if entry["previous"] != previous:
            raise ValueError(
                f"{path}, line {number}: expected the digest of the line before, {previous[:12]}, "
                f"got {str(entry['previous'])[:12]}: the ledger was changed."
            )
        previous = digest(line)
        entries.append(entry)
    return entries, previous


def append_to_ledger(path: str | Path, entry: Mapping[str, Any]) -> None:
    """Appends an entry and has it on disk when it returns.

    Args:
      path: the file, made with its folder if it is not there.
      entry: the fields of `read_ledger` but `previous`.

    Raises:
      ValueError: for other fields, or a ledger that was changed.
    """
    path = Path(path)
    if sorted(entry) != sorted(FIELDS[:-1]):
        raise ValueError(f"entry: expected {FIELDS[:-1]}, got {sorted(entry)}.")
    line = json.dumps({**entry, "previous": _read(path)[1]})
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())


def digest(line: str) -> str:
    """SHA-256 of a line, in hexadecimal."""
    return hashlib.sha256(line.encode()).hexdigest()
