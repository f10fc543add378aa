"""Deletion requests, one after the other, with a ledger of what was done."""

import datetime
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from uno_jax.requests.ledger import append_to_ledger, read_ledger


class Request(NamedTuple):
    """Something that a model shall forget.

    Attributes:
      name: what is asked, unique, and fit for the name of a checkpoint.
      run: `run(model) -> model`, which makes a model forget it; `model` is what the caller
        makes of it: parameters, a train state.
      method: how, for the ledger.
    """

    name: str
    run: Callable[[Any], Any]
    method: str


def unlearn_requests(
    requests: Sequence[Request],
    model: Any,
    *,
    ledger: str | Path,
    save: Callable[[str, Any], None],
    restore: Callable[[str], Any],
    audit: Callable[[Any, tuple[str, ...]], Mapping[str, Any]] | None = None,
    report: Callable[[str], None] | None = None,
) -> Any:
    """Makes a model forget one request after the other.

    After each, every request so far is audited again: what was forgotten must stay so. Model
    and ledger are on disk before the next begins; the same call goes on from there, and takes
    up requests that were added at the end.

    Args:
      requests: in the order in which they came.
      model: the model before the first of them.
      ledger: file of the ledger, see `read_ledger`.
      save: `save(name, model)`, keeps the model after a request.
      restore: `restore(name)`, that model, or None if it was not saved.
      audit: `audit(model, names)` says of each request so far what its audit found, what
        JSON has: for example its verdict and its digest.
      report: called with a line about each request.

    Returns:
      The model after the last request.

    Raises:
      ValueError: for names that are not unique, a ledger that was changed or that holds other
        requests, or a model that the ledger has and `restore` has not.

    Examples:
      >>> import tempfile, pathlib
      >>> import uno_jax as uno
      >>> kept = {}
      >>> requests = [uno.requests.Request("b", lambda model: model - {"b"}, "by hand")]
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     ledger = pathlib.Path(folder) / "ledger.jsonl"
      ...     model = uno.requests.unlearn_requests(
      ...         requests, {"a", "b"}, ledger=ledger, save=kept.__setitem__, restore=kept.get,
      ...         audit=lambda model, names: {name: name not in model for name in names})
      ...     model, uno.requests.read_ledger(ledger)[0]["audits"]
      ({'a'}, {'b': True})
    """
    say = report or (lambda line: None)
    names = [request.name for request in requests]
    if len(set(names)) != len(names):
        raise ValueError(f"requests: expected names that are unique, got {names}.")
    done = [(entry["request"], entry["method"]) for entry in read_ledger(ledger)]
    asked = [(request.name, request.method) for request in requests]
    if done != asked[: len(done)]:
        raise ValueError(f"{ledger}: expected to begin with {asked}, got {done}.")
    for number, request in enumerate(requests, start=1):
        saved = restore(request.name)
        if number <= len(done):
            if saved is None:
                raise ValueError(f"{request.name}: is in the ledger, but its model was not found.")
            say(f"{request.name}: forgotten before")
            model = saved
            continue
        began = _now()
        if saved is None:
            say(f"{request.name}: {request.method}")
            model = request.run(model)
            save(request.name, model)
        else:
            # It was made, and what came between it and the ledger was interrupted.
            model = saved
        audits = dict(audit(model, tuple(names[:number]))) if audit else {}
        entry = {"request": request.name, "method": request.method, "began": began}
        append_to_ledger(ledger, {**entry, "ended": _now(), "audits": audits})
    return model


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
