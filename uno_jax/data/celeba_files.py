"""Where CelebA lies: TensorFlow Datasets, or the folder that people download."""

import csv
import os
from pathlib import Path

import numpy as np

from uno_jax._extras import require
from uno_jax.data.pictures import Rows

_NAMES = """5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose
    Black_Hair Blond_Hair Blurry Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee
    Gray_Hair Heavy_Makeup High_Cheekbones Male Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard
    Oval_Face Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks Sideburns Smiling Straight_Hair
    Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace Wearing_Necktie
    Young"""
ATTRIBUTES = tuple(_NAMES.split())
# The official partition, by file number: the last of train and of validation.
LAST_TRAIN, LAST_VALIDATION = 162_770, 182_637
HOW_TO_GET_IT = (
    "Prepare it with TFDS (pip install tensorflow-cpu importlib_resources; builder 'celeb_a', "
    "file_format='array_record') and set TFDS_DATA_DIR,\n"
    "or download CelebA (mmlab.ie.cuhk.edu.hk/projects/CelebA.html) and give --data-dir FOLDER "
    "with img_align_celeba/*.jpg and list_attr_celeba.txt."
)


class TfdsRows:
    """A split of `celeb_a` or `celeb_a_half`, pictures still encoded.

    Args:
      name: of the TFDS data set.
      split: `"train"`, `"validation"` or `"test"`.
      data_dir: the folder of prepared data sets.
    """

    def __init__(self, name: str, split: str, data_dir: Path):
        tfds = require("tensorflow_datasets", "tfds")
        try:
            self._rows = tfds.data_source(
                name,
                split=split,
                data_dir=data_dir,
                download=False,
                decoders={"image": tfds.decode.SkipDecoding()},
            )
        except Exception as error:
            # TFDS raises several unrelated types for "not prepared"; all mean the same here.
            raise FileNotFoundError(
                f"{name}: expected a prepared TFDS data set in {data_dir}, could not open it "
                f"({type(error).__name__}).\n{HOW_TO_GET_IT}"
            ) from error
        self._place = f"{name}/{split}"
        self._numbers = file_numbers(data_dir).get(split) if name == "celeb_a" else None

    def __len__(self) -> int:
        return len(self._rows)

    def number(self, index: int) -> int | None:
        """The original file number of a row, if it is known."""
        if self._numbers is not None:
            return self._numbers.get(index)
        return self._rows[index].get("file_number")

    def __getitem__(self, index: int) -> dict:
        row = self._rows[index]
        number = row.get("file_number") or (self._numbers or {}).get(index)
        return {
            "file": f"{number:06d}.jpg" if number else f"{self._place}/{index}",
            "jpeg": row["image"],
            "attributes": np.array([bool(row["attributes"][name]) for name in ATTRIBUTES]),
            "identity": int(row.get("identity", {}).get("Identity_No", 0)),
        }


class JoinedRows:
    """Several rows one behind the other, each with the positions to take.

    Args:
      parts: pairs of rows and positions into them.
    """

    def __init__(self, parts: list[tuple[Rows, np.ndarray]]):
        self._parts = [rows for rows, _ in parts]
        self._index = [(part, i) for part, (_, taken) in enumerate(parts) for i in taken.tolist()]

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: int) -> dict:
        part, position = self._index[index]
        return self._parts[part][position]


class FolderRows:
    """A split of the folder with `img_align_celeba/*.jpg` and `list_attr_celeba.txt`.

    `identity_CelebA.txt` and `list_eval_partition.txt` are read if they are there;
    without the latter, the official partition goes by file number.

    Args:
      data_dir: the folder.
      split: `"train"`, `"validation"` or `"test"`.
    """

    def __init__(self, data_dir: Path, split: str):
        self._images = picture_folder(data_dir)
        table = _table(data_dir, "list_attr_celeba")
        header = next(row for row in table if len(row) >= len(ATTRIBUTES))
        names = header[-len(ATTRIBUTES) :]
        if sorted(names) != sorted(ATTRIBUTES):
            raise ValueError(f"{data_dir}: expected the 40 attributes of CelebA, got {names}.")
        order = [1 + names.index(name) for name in ATTRIBUTES]
        partition = dict(_pairs(data_dir, "list_eval_partition"))
        self._identity = dict(_pairs(data_dir, "identity_CelebA"))
        present = {file.name for file in self._images.iterdir()}
        wanted = ("train", "validation", "test").index(split)
        self._rows = []
        for row in table:
            file = row[0]
            if len(row) == len(ATTRIBUTES) + 1 and file in present:
                where = partition[file] if file in partition else _official(file)
                if where == wanted:
                    self._rows.append((file, np.array([row[i] == "1" for i in order])))
        if not self._rows:
            raise FileNotFoundError(
                f"{data_dir}: expected pictures of the {split} split in {self._images.name}/, "
                f"found none.\n{HOW_TO_GET_IT}"
            )

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict:
        file, attributes = self._rows[index]
        return {
            "file": file,
            "jpeg": (self._images / file).read_bytes(),
            "attributes": attributes,
            "identity": self._identity.get(file, 0),
        }


def picture_folder(data_dir: Path) -> Path:
    """The folder of pictures inside a download of CelebA.

    Raises:
      FileNotFoundError: if there is none, in three lines that say how to get it.
    """
    for folder in ("img_align_celeba/img_align_celeba", "img_align_celeba"):
        if next((data_dir / folder).glob("*.jpg"), None) is not None:
            return data_dir / folder
    raise FileNotFoundError(
        f"CelebA: expected img_align_celeba/*.jpg in {data_dir}, found none.\n{HOW_TO_GET_IT}"
    )


def file_numbers(data_dir: Path) -> dict[str, dict[int, int]]:
    """Original file numbers of the examples of `celeb_a`, by split and position.

    TFDS does not keep them. They are read from `celeb_a_files.csv` (columns split,
    position, file_number), beside the data sets or one folder up, if it is there.
    """
    for folder in (data_dir, data_dir.parent):
        if (folder / "celeb_a_files.csv").exists():
            numbers: dict[str, dict[int, int]] = {}
            with (folder / "celeb_a_files.csv").open(newline="") as file:
                for row in csv.DictReader(file):
                    split = numbers.setdefault(row["split"], {})
                    split[int(row["position"])] = int(row["file_number"])
            return numbers
    return {}


def tfds_folder() -> Path:
    """The folder of prepared TFDS data sets."""
    return Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()


def _table(data_dir: Path, stem: str) -> list[list[str]]:
    for file in (data_dir / f"{stem}.txt", data_dir / f"{stem}.csv"):
        if file.exists():
            lines = file.read_text().splitlines()
            return [line.replace(",", " ").split() for line in lines if line.strip()]
    raise FileNotFoundError(
        f"CelebA: expected {stem}.txt or {stem}.csv in {data_dir}, found none.\n{HOW_TO_GET_IT}"
    )


def _pairs(data_dir: Path, stem: str):
    if any((data_dir / f"{stem}{end}").exists() for end in (".txt", ".csv")):
        for row in _table(data_dir, stem):
            if len(row) == 2 and row[1].isdecimal():
                yield row[0], int(row[1])


def _official(file: str) -> int:
    number = int("".join(c for c in Path(file).stem if c.isdecimal()) or 0)
    return int(number > LAST_TRAIN) + int(number > LAST_VALIDATION)
