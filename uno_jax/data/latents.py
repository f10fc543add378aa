"""Precomputed latents of pictures with their labels, from npz or array_record files."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from uno_jax._extras import require


class Latents(NamedTuple):
    """A labelled set of latents in memory.

    Attributes:
      latents: (N, H, W, C), float16 or float32.
      labels: (N,) int32.
    """

    latents: np.ndarray
    labels: np.ndarray


def load_latents(path: str | Path) -> Latents:
    """Reads latents that were made once with an image encoder.

    A latent diffusion model never sees pictures. Its latents are made with its own
    encoder, for ImageNet and DiT the Stable-Diffusion VAE's, where PyTorch and the
    pictures are (256x256 pixels, scaled to [-1, 1]):

    ```text
    vae = diffusers.AutoencoderKL.from_pretrained("stabilityai/sd-vae-ft-ema")
    for pixels, label in pictures:  # (B, 3, 256, 256), (B,)
        latents = vae.encode(pixels).latent_dist.sample() * 0.18215  # (B, 4, 32, 32)
        parts.append((latents.permute(0, 2, 3, 1).half().numpy(), label.numpy()))
    latents, labels = map(numpy.concatenate, zip(*parts))
    numpy.savez("latents.npz", latents=latents, labels=labels)
    ```

    Unlearning looks at the forgotten class, the exchange class and a sample of the others,
    so a file of some 50,000 latents (400 MB) is enough.

    Args:
      path: an `.npz` file with `latents` (N, H, W, C) and `labels` (N,); or what
        `write_latents` wrote, an `.array_record` file or a folder of them.

    Returns:
      The `Latents`, in the dtype they came in.

    Raises:
      FileNotFoundError: if there is nothing at `path`.
      ValueError: if it holds something else, saying what was expected.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"latents: expected a file or folder at {path}, found none.")
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            if not {"latents", "labels"} <= set(archive.files):
                raise ValueError(
                    f"latents: expected arrays 'latents' and 'labels' in {path.name}, got "
                    f"{archive.files}."
                )
            latents, labels = archive["latents"], archive["labels"]
    else:
        files = [path] if path.is_file() else sorted(path.glob("*.array_record*"))
        if not files or ".array_record" not in files[0].name:
            raise ValueError(f"latents: expected .npz or .array_record, got {path.name!r}.")
        pairs = list(_records(files))
        latents, labels = (np.stack(side) for side in zip(*pairs, strict=True))
    if latents.ndim != 4 or labels.shape != latents.shape[:1]:
        raise ValueError(
            "latents: expected (N, H, W, C) latents and (N,) labels, got "
            f"{latents.shape} and {labels.shape}."
        )
    return Latents(latents, labels.astype(np.int32))


def write_latents(path: str | Path, latents: np.ndarray, labels: np.ndarray) -> None:
    """Writes latents as an array_record file, one self-describing record each.

    Args:
      path: the file, ending in `.array_record`.
      latents: (N, H, W, C) float.
      labels: (N,) int.
    """
    writer_module = require("array_record.python.array_record_module", "tfds")
    save = require("safetensors.numpy", "experiments").save
    # Groups of one: rows are read in any order.
    writer = writer_module.ArrayRecordWriter(str(path), "group_size:1")
    for latent, label in zip(latents, labels, strict=True):
        record = {"latent": np.ascontiguousarray(latent), "label": np.asarray([label], np.int32)}
        writer.write(save(record))
    writer.close()


def _records(files: list[Path]) -> Iterator[tuple[np.ndarray, np.int32]]:
    reader_module = require("array_record.python.array_record_module", "tfds")
    load = require("safetensors.numpy", "experiments").load
    for file in files:
        reader = reader_module.ArrayRecordReader(str(file))
        for record in reader.read_all():
            arrays = load(record)
            yield arrays["latent"], arrays["label"][0]
        reader.close()
