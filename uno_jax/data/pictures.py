"""Encoded pictures, decoded once by grain's workers into a memory-mapped array."""

import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import grain
import numpy as np

from uno_jax._extras import require

FORMAT = 1  # of the cache; a change makes it anew


class Rows(Protocol):
    """Records with random access: `{"file", "jpeg", "attributes", "identity"}`."""

    def __len__(self) -> int:
        """How many."""
        ...

    def __getitem__(self, index: int) -> dict:
        """The record: name, encoded bytes, (40,) bool, int."""
        ...


def decode(jpeg: bytes, *, side: int, crop: float) -> np.ndarray:
    """Decodes a picture, cuts a square from its centre and resizes it.

    Args:
      jpeg: the encoded picture, any format that Pillow reads.
      side: of the result, in pixels.
      crop: side of the square as a fraction of the shorter side, in (0, 1].

    Returns:
      (side, side, 3) uint8, antialiased bilinear.

    Raises:
      OSError: if the picture is corrupted.
    """
    image_module = require("PIL.Image", "tfds")
    with image_module.open(io.BytesIO(jpeg)) as picture:
        picture = picture.convert("RGB")
    width, height = picture.size
    square = crop * min(width, height)
    left, top = (width - square) / 2, (height - square) / 2
    resized = picture.resize(
        (side, side),
        image_module.Resampling.BILINEAR,
        box=(left, top, left + square, top + square),
    )
    return np.asarray(resized)


def cached(
    folder: Path,
    key: dict,
    open_rows: Callable[[], Rows],
    *,
    side: int,
    crop: float,
    workers: int,
    report: Callable[[int, int], None] | None = None,
) -> dict[str, np.ndarray]:
    """The decoded pictures of a set, from its cache or made now.

    The entry is written aside and renamed when complete, so that an interruption
    leaves no half of one.

    Args:
      folder: the folder of all entries.
      key: what the entry depends on, as JSON values; it names the entry.
      open_rows: opens the records, called only if there is no entry.
      side: see `decode`.
      crop: see `decode`.
      workers: grain's threads that read and decode.
      report: called now and then with the numbers done and to do.

    Returns:
      `images` (N, side, side, 3) uint8, memory-mapped; `attributes` (N, 40) bool,
      `identity` (N,) int32, `files` (N,) str and `skipped`, the names of pictures that
      could not be decoded.
    """
    import hashlib

    if not 0 < crop <= 1 or side < 1:
        raise ValueError(f"expected a side of at least 1 and a crop in (0, 1], got {side}, {crop}.")
    key = {**key, "side": side, "crop": crop, "format": FORMAT}
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    entry = Path(folder) / digest
    if not entry.exists():
        Path(folder).mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=folder, prefix=f"{digest}-"))
        try:
            _write(made, open_rows(), side, crop, workers, report)
            (made / "key.json").write_text(json.dumps(key, indent=2) + "\n")
            try:
                os.rename(made, entry)
            except OSError:  # another process was first, its entry is the same
                if not entry.exists():
                    raise
        finally:
            shutil.rmtree(made, ignore_errors=True)
    with np.load(entry / "rows.npz") as rows:
        return {"images": np.load(entry / "images.npy", mmap_mode="r"), **rows}


def _write(folder, rows, side, crop, workers, report):
    def prepare(index):
        record = rows[index]
        try:
            return {**record, "image": decode(record["jpeg"], side=side, crop=crop)}
        except (OSError, ValueError):
            return {**record, "image": None}

    records = grain.MapDataset.range(len(rows)).map(prepare)
    options = grain.ReadOptions(num_threads=workers, prefetch_buffer_size=16 * workers)
    kept: list[dict] = []
    skipped: list[str] = []
    pixels = side * side * 3
    with (folder / "pixels").open("wb") as file:
        for done, record in enumerate(records.to_iter_dataset(options), start=1):
            if record["image"] is None:
                skipped.append(record["file"])
            else:
                file.write(record["image"].tobytes())
                kept.append({k: record[k] for k in ("file", "attributes", "identity")})
            if report is not None and (done % 256 == 0 or done == len(rows)):
                report(done, len(rows))
    if not kept:
        raise ValueError(f"expected pictures, all {len(skipped)} are corrupted: {skipped[:5]}.")
    raw = np.memmap(folder / "pixels", np.uint8, "r", shape=(len(kept), pixels))
    images = np.lib.format.open_memmap(
        folder / "images.npy", "w+", np.uint8, (len(kept), side, side, 3)
    )
    for start in range(0, len(kept), 4096):
        part = raw[start : start + 4096]
        images[start : start + 4096] = part.reshape(len(part), side, side, 3)
    images.flush()
    del raw, images
    (folder / "pixels").unlink()
    np.savez(
        folder / "rows.npz",
        files=np.array([record["file"] for record in kept]),
        attributes=np.array([record["attributes"] for record in kept], bool),
        identity=np.array([record["identity"] for record in kept], np.int32),
        skipped=np.array(skipped, str),
    )
