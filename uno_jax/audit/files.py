"""Cases from files: two npz of samples and the data sets."""

from pathlib import Path

import numpy as np

from uno_jax.audit import case as cases

IMAGES = ("image", "images", "samples", "x")
LABELS = ("label", "labels", "y")


def read_images(path: str | Path) -> dict[str, np.ndarray]:
    """Reads images, and labels if there are such, from an npz file.

    Args:
      path: the file, with an array named image, images, samples or x, and perhaps label,
        labels or y. Images of bytes become floats in [0, 1].

    Returns:
      `{"image": ...}`, with `"label"` if there is one.

    Raises:
      ValueError: if it holds no such array.
      FileNotFoundError: if there is no such file.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: expected an npz file with images, got no such file.")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = dict(archive) if hasattr(archive, "files") else {"image": archive}
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: expected an npz file of plain arrays, got {error}.") from error
    images = next((arrays[name] for name in IMAGES if name in arrays), None)
    labels = next((arrays[name] for name in LABELS if name in arrays), None)
    if images is None:
        raise ValueError(f"{path}: expected an array of {', '.join(IMAGES)}, got {sorted(arrays)}.")
    if images.dtype == np.uint8:
        images = images.astype(np.float32) / 255.0
    found = {"image": images.astype(np.float32)}
    return found if labels is None else {**found, "label": labels.astype(np.int64)}


def case_of_files(
    *,
    before: Path,
    after: Path,
    retain: Path,
    forget: Path,
    retrained: Path | None = None,
    control: Path | None = None,
    retain_held_out: Path | None = None,
    forget_held_out: Path | None = None,
) -> cases.Case:
    """A case of samples alone.

    Args:
      before: samples of the model before.
      after: samples of the model after.
      retain: examples to retain.
      forget: examples to forget.
      retrained: samples of the retrained model.
      control: samples of the control.
      retain_held_out: examples like `retain` that no model was trained on.
      forget_held_out: examples like `forget` that no model was trained on.

    Returns:
      A `Case`; its judges are the audit's own.

    Raises:
      ValueError: for a file that does not hold images.
      FileNotFoundError: for a file that is not there.
    """
    sides = {
        "retain": retain, "forget": forget, "retain_held_out": retain_held_out,
        "forget_held_out": forget_held_out,
    }  # fmt: skip
    samples = {"before": before, "after": after, "retrained": retrained, "control": control}
    read = {name: read_images(path) for name, path in sides.items() if path is not None}
    if not all("label" in side for side in read.values()):
        read = {name: {"image": side["image"]} for name, side in read.items()}
    return cases.Case(
        data=cases.Data(**read),
        samples={
            name: read_images(path)["image"] for name, path in samples.items() if path is not None
        },
    )
