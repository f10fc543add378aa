"""What may happen to the largest file of a checkpoint."""

import os
from pathlib import Path


def _largest_file(folder: Path) -> Path:
    return max((f for f in folder.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)


def truncate(folder: Path) -> None:
    file = _largest_file(folder)
    os.truncate(file, file.stat().st_size // 2)


def flip(folder: Path) -> None:
    file = _largest_file(folder)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x10
    file.write_bytes(content)


def delete(folder: Path) -> None:
    _largest_file(folder).unlink()
