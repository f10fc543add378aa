"""CelebA in memory-mapped pixels, with attributes, people and file names."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import grain
import numpy as np

from uno_jax.data import celeba_files, pictures
from uno_jax.data.batches import stream
from uno_jax.data.celeba_files import ATTRIBUTES

FACE_SOURCES = ("celeb_a", "celeb_a_half", "celeb_a+celeb_a_half", "folder")
FACE_SPLITS = ("train", "validation", "test")


class Faces(NamedTuple):
    """A split of CelebA.

    Attributes:
      name: of the data set and split.
      images: (N, side, side, 3) uint8, memory-mapped.
      attributes: (N, 40) bool, columns as in `ATTRIBUTES`.
      identity: (N,) int32, the number of the person; 0 where it is not known.
      files: (N,) str, the original file names as far as they are known.
      skipped: names of pictures left out because they could not be decoded.
    """

    name: str
    images: np.ndarray
    attributes: np.ndarray
    identity: np.ndarray
    files: np.ndarray
    skipped: tuple[str, ...]

    def columns(self) -> dict[str, np.ndarray]:
        """Attribute name to (N,) bool."""
        return dict(zip(ATTRIBUTES, self.attributes.T, strict=True))


def load_faces(
    source: str,
    split: str,
    *,
    data_dir: Path | None = None,
    cache_dir: Path | None = None,
    side: int = 64,
    crop: float = 1.0,
    workers: int | None = None,
    report: Callable[[int, int], None] | None = None,
) -> Faces:
    """Loads a split of CelebA, decoded once and cached.

    Args:
      source: `"celeb_a"` through TFDS, `"celeb_a_half"` (the first 10,000 images at
        half size), both joined, or `"folder"`, the download. Joined, all of
        `celeb_a_half` is training data, images in both are taken once, and validation
        and test are those of `celeb_a`.
      split: `"train"`, `"validation"` or `"test"`.
      data_dir: the folder of TFDS data sets, `TFDS_DATA_DIR` if `None`; for
        `"folder"`, the folder of the download.
      cache_dir: where decoded pixels are kept, the user's cache folder if `None`.
      side: of the pictures.
      crop: side of the square cut from the centre, as a fraction of the shorter side.
      workers: grain's threads, as many as cores if `None`.
      report: called now and then with the numbers of pictures decoded and to decode.

    Returns:
      `Faces`.

    Raises:
      ValueError: for an unknown source or split.
      FileNotFoundError: if the data are not there, saying how to get them.
    """
    if source not in FACE_SOURCES:
        raise ValueError(f"data: expected one of {FACE_SOURCES}, got {source!r}.")
    if split not in FACE_SPLITS:
        raise ValueError(f"split: expected one of {FACE_SPLITS}, got {split!r}.")
    if source == "folder" and data_dir is None:
        raise ValueError("data: expected a data_dir for the source 'folder', got None.")
    place = Path(data_dir) if data_dir else celeba_files.tfds_folder()
    parts = _parts(source, split)
    key = {"source": source, "split": split, "files": _stamps(place, source, parts)}
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "uno_jax" / "faces"
    entry = pictures.cached(
        cache_dir or default,
        key,
        lambda: _open(place, source, split, parts),
        side=side,
        crop=crop,
        workers=workers or os.cpu_count() or 1,
        report=report,
    )
    return Faces(
        f"{source}/{split}",
        entry["images"],
        entry["attributes"],
        entry["identity"],
        entry["files"],
        tuple(entry["skipped"].tolist()),
    )


def face_batches(
    faces: Faces,
    indices: np.ndarray | None = None,
    *,
    batch_size: int,
    seed: int,
    flip: bool = False,
    shard_index: int = 0,
    shard_count: int = 1,
) -> grain.DatasetIterator:
    """Streams batches of faces, reshuffled every epoch, without end.

    Args:
      faces: the examples.
      indices: which of them; all if `None`.
      batch_size: examples per batch and shard.
      seed: decides the order; same seed, same batches.
      flip: whether each face also comes as its mirror image, once an epoch both ways.
      shard_index: which shard of the stream this process reads.
      shard_count: number of shards.

    Returns:
      A grain iterator over `{"image": (B, side, side, 3) float32 in [-1, 1],
      "attributes": (B, 40) bool}`, with `get_state` and `set_state`.

    Raises:
      ValueError: if there is nothing to stream, or a size is out of range.
    """
    chosen = np.arange(len(faces.images)) if indices is None else np.asarray(indices)

    def gather(positions):
        rows = chosen[positions % len(chosen)]
        # Read in the order of the file, which is what a disk does best.
        order = np.argsort(rows, kind="stable")
        images = np.empty((len(rows), *faces.images.shape[1:]), np.uint8)
        images[order] = faces.images[rows[order]]
        mirrored = positions >= len(chosen)
        images[mirrored] = images[mirrored, :, ::-1]
        return {"image": to_floats(images), "attributes": faces.attributes[rows]}

    return stream(
        gather,
        len(chosen) * (2 if flip else 1),
        batch_size=batch_size,
        seed=seed,
        shard_index=shard_index,
        shard_count=shard_count,
    )


def to_floats(images: np.ndarray) -> np.ndarray:
    """Pixels as the models take them: uint8 to float32 in [-1, 1]."""
    return images.astype(np.float32) / np.float32(127.5) - np.float32(1)


def _parts(source, split):
    """The TFDS splits that a split is made of."""
    if source == "folder":
        return []
    if source == "celeb_a+celeb_a_half" and split == "train":
        return [("celeb_a", "train"), *(("celeb_a_half", part) for part in FACE_SPLITS)]
    return [(source.split("+")[0], split)]


def _open(place, source, split, parts):
    if source == "folder":
        return celeba_files.FolderRows(place, split)
    rows = [celeba_files.TfdsRows(name, part, place) for name, part in parts]
    if len(rows) == 1:
        return rows[0]
    numbers = celeba_files.file_numbers(place).get("train", {})
    if len(numbers) != len(rows[0]):
        raise FileNotFoundError(
            f"{source}: expected celeb_a_files.csv beside {place}, with the file numbers of "
            f"{len(rows[0])} training images, to find those in both; got {len(numbers)}."
        )
    known = set(numbers.values())
    taken = [np.arange(len(rows[0]))]
    for part in rows[1:]:
        taken.append(np.array([i for i in range(len(part)) if part.number(i) not in known], int))
    return celeba_files.JoinedRows(list(zip(rows, taken, strict=True)))


def _stamps(place, source, parts):
    """Names, sizes and times of the files that a split is read from."""
    if source == "folder":
        folder = celeba_files.picture_folder(place)
        files = [*folder.glob("*.jpg"), *place.glob("*.txt"), *place.glob("*.csv")]
    else:
        files = [*place.glob("celeb_a_files.csv"), *place.parent.glob("celeb_a_files.csv")]
        for name, part in parts:
            files += (place / name).glob(f"*/{name}-{part}*")
    stamps = sorted((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files)
    if len(stamps) <= 100:
        return [list(stamp) for stamp in stamps]
    return [str(place), len(stamps), sum(s[1] for s in stamps), max(s[2] for s in stamps)]
