"""Where the benchmarks put their numbers, and what they say of the machine."""

import json
import os
from pathlib import Path

import jax

from experiments import common


def about(**more: float | str) -> dict:
    """Command, versions, hardware and what else is to be said of a run."""
    flags = {"xla_flags": os.environ["XLA_FLAGS"]} if os.environ.get("XLA_FLAGS") else {}
    return {**common.facts(), "devices": len(jax.devices()), **flags, **more}


def save(folder: Path, name: str, lines: list[dict], *tables: list[dict[str, str]], facts: dict):
    """Writes NAME.json, of all lines, and NAME.md, of the tables, into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps({"rows": lines, **facts}, indent=1) + "\n")
    said = "\n".join(f"- {key}: `{value}`" for key, value in facts.items())
    text = "\n\n".join(map(common.markdown_table, tables))
    (folder / f"{name}.md").write_text(f"{text}\n\n{said}\n")
