"""CelebA in miniature, made up: JPEG files of painted faces, as folder and as TFDS."""

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from uno_jax.data import ATTRIBUTES


def paint(rng: np.random.Generator, attributes: dict[str, bool], size=(178, 218)) -> bytes:
    """A JPEG of a head on a background: attributes show as colours and bars."""
    width, height = size
    y, x = np.mgrid[:height, :width] / np.array([height, width]).reshape(2, 1, 1)
    picture = np.full((height, width, 3), rng.uniform(60, 200, 3))
    head = (x - 0.5) ** 2 / 0.08 + (y - 0.55) ** 2 / 0.1 < 1
    picture[head] = rng.uniform(150, 220) * np.array([1.0, 0.85, 0.7])
    if attributes["Male"]:
        picture[y < 0.3] = (20, 20, 20)
    if attributes["Smiling"]:
        picture[(abs(y - 0.7) < 0.03) & (abs(x - 0.5) < 0.12)] = (250, 250, 250)
    if attributes["Eyeglasses"]:
        picture[(abs(y - 0.48) < 0.05) & (abs(x - 0.5) < 0.22)] = (0, 0, 0)
    file = io.BytesIO()
    Image.fromarray(picture.astype(np.uint8)).save(file, "JPEG", quality=92)
    return file.getvalue()


def people(count: int, seed: int = 0) -> list[dict]:
    """Records of made-up people: file number, JPEG, attributes, identity."""
    rng = np.random.default_rng(seed)
    records = []
    for number in range(1, count + 1):
        attributes = {name: bool(rng.random() < 0.4) for name in ATTRIBUTES}
        identity = 1 + number % 7
        jpeg = paint(rng, attributes)
        records.append(
            {"number": number, "jpeg": jpeg, "attributes": attributes, "identity": identity}
        )
    return records


SPLIT_NAMES = ("train", "validation", "test")


def split_of(position: int, count: int) -> int:
    """80 % train, 10 % validation, 10 % test, in order."""
    return 0 if position < 0.8 * count else 1 if position < 0.9 * count else 2


def write_folder(folder: Path, records: list[dict]) -> Path:
    """The layout of the download."""
    (folder / "img_align_celeba").mkdir(parents=True)
    table = [str(len(records)), " ".join(ATTRIBUTES)]
    partition, identity = [], []
    for position, record in enumerate(records):
        name = f"{record['number']:06d}.jpg"
        (folder / "img_align_celeba" / name).write_bytes(record["jpeg"])
        values = ("1" if record["attributes"][a] else "-1" for a in ATTRIBUTES)
        table.append(f"{name}  {'  '.join(values)}")
        partition.append(f"{name} {split_of(position, len(records))}")
        identity.append(f"{name} {record['identity']}")
    for stem, lines in (
        ("list_attr_celeba", table),
        ("list_eval_partition", partition),
        ("identity_CelebA", identity),
    ):
        (folder / f"{stem}.txt").write_text("\n".join(lines) + "\n")
    return folder


def write_tfds(data_dir: Path, records: list[dict], name: str = "celeb_a") -> Path:
    """The data set as TFDS prepares it: serialised examples in array_record."""
    import tensorflow_datasets as tfds
    from array_record.python.array_record_module import ArrayRecordWriter

    version = {"celeb_a": "2.1.0", "celeb_a_half": "1.0.0"}[name]
    folder = data_dir / name / version
    folder.mkdir(parents=True)
    table = {
        "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
        "attributes": {a: np.bool_ for a in ATTRIBUTES},
        "identity": {"Identity_No": np.int64},
    }
    if name == "celeb_a_half":
        table["file_number"] = np.int64
    features = tfds.features.FeaturesDict(table)
    splits = []
    for number, split in enumerate(SPLIT_NAMES):
        file = folder / f"{name}-{split}.array_record-00000-of-00001"
        writer = ArrayRecordWriter(str(file), "group_size:1")
        rows = [r for i, r in enumerate(records) if split_of(i, len(records)) == number]
        for record in rows:
            row = {
                "image": io.BytesIO(record["jpeg"]),
                "attributes": record["attributes"],
                "identity": {"Identity_No": record["identity"]},
            }
            if name == "celeb_a_half":
                row["file_number"] = record["number"]
            writer.write(features.serialize_example(features.encode_example(row)))
        writer.close()
        splits.append(
            {
                "name": split,
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "numBytes": str(file.stat().st_size),
                "shardLengths": [str(len(rows))],
            }
        )
    features.save_config(folder)
    info = {"name": name, "version": version, "fileFormat": "array_record", "splits": splits}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return data_dir
