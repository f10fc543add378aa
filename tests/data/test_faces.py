import json

import numpy as np
import pytest

from tests import faces as fixtures
from uno_jax import data

COUNT = 60


@pytest.fixture(scope="module")
def records():
    return fixtures.people(COUNT)


@pytest.fixture(scope="module")
def places(records, tmp_path_factory):
    root = tmp_path_factory.mktemp("celeba")
    fixtures.write_folder(root / "folder", records)
    fixtures.write_tfds(root / "tfds", records)
    fixtures.write_tfds(root / "tfds", records[10:50], "celeb_a_half")
    return root


def load(places, source, split, **changes):
    where = places / ("folder" if source == "folder" else "tfds")
    return data.load_faces(
        source, split, **{"data_dir": where, "cache_dir": places / "cache"} | changes
    )


def test_folder_and_tfds_hold_the_same_faces(places, records):
    for split, count in (("train", 48), ("validation", 6), ("test", 6)):
        folder, tfds = (load(places, source, split) for source in ("folder", "celeb_a"))
        assert folder.images.shape == (count, 64, 64, 3)
        assert folder.images.dtype == np.uint8
        np.testing.assert_array_equal(folder.images, tfds.images)
        np.testing.assert_array_equal(folder.attributes, tfds.attributes)
        np.testing.assert_array_equal(folder.identity, tfds.identity)
    assert folder.files[0] == "000055.jpg"
    assert tfds.files[0] == "celeb_a/test/0"  # TFDS does not keep the names
    expected = [r["attributes"]["Male"] for r in records[54:]]
    assert folder.columns()["Male"].tolist() == expected


def test_pixels_are_memory_mapped_and_decoded_once(places, monkeypatch):
    first = load(places, "folder", "train")
    monkeypatch.setattr(data.pictures, "decode", None)  # a second decoding would fail
    again = load(places, "folder", "train")
    assert isinstance(again.images, np.memmap)
    np.testing.assert_array_equal(first.images, again.images)


def test_another_crop_or_a_changed_file_is_another_entry(places, records, tmp_path):
    whole, cut = (load(places, "folder", "test", crop=c) for c in (1.0, 0.5))
    assert not np.array_equal(whole.images, cut.images)
    changed = fixtures.write_folder(tmp_path / "folder", records)
    before = data.load_faces("folder", "test", data_dir=changed, cache_dir=tmp_path)
    picture = changed / "img_align_celeba" / "000055.jpg"
    picture.write_bytes(records[0]["jpeg"])
    after = data.load_faces("folder", "test", data_dir=changed, cache_dir=tmp_path)
    assert not np.array_equal(before.images[0], after.images[0])
    np.testing.assert_array_equal(before.images[1:], after.images[1:])


def test_the_square_is_cut_from_the_centre():
    picture = fixtures.paint(np.random.default_rng(0), {n: False for n in data.ATTRIBUTES})
    whole = data.pictures.decode(picture, side=178, crop=1.0)
    part = data.pictures.decode(picture, side=89, crop=0.5)
    middle = whole[44:133, 44:133].astype(int)
    assert np.abs(part.astype(int) - middle).mean() < 3  # half a pixel apart


def test_a_corrupted_picture_is_named_and_skipped(records, tmp_path):
    folder = fixtures.write_folder(tmp_path / "folder", records)
    (folder / "img_align_celeba" / "000003.jpg").write_bytes(b"not a picture")
    truncated = records[6]["jpeg"][:1000]
    (folder / "img_align_celeba" / "000007.jpg").write_bytes(truncated)
    whole = data.load_faces("folder", "train", data_dir=folder, cache_dir=tmp_path)
    assert whole.skipped == ("000003.jpg", "000007.jpg")
    assert len(whole.images) == 46
    assert "000003.jpg" not in whole.files
    assert whole.columns()["Male"][2] == records[3]["attributes"]["Male"]
    again = data.load_faces("folder", "train", data_dir=folder, cache_dir=tmp_path)
    assert again.skipped == whole.skipped


def test_joined_takes_what_is_in_both_once(places):
    names = "split,position,file_number,identity\n" + "".join(
        f"train,{i},{i + 1},0\n" for i in range(48)
    )
    (places / "celeb_a_files.csv").write_text(names)
    try:
        joined = load(places, "celeb_a+celeb_a_half", "train")
        alone = load(places, "celeb_a", "train")
        test = load(places, "celeb_a+celeb_a_half", "test")
    finally:
        (places / "celeb_a_files.csv").unlink()
    # Files 1 to 48 in celeb_a's train; 11 to 50 in celeb_a_half, 49 and 50 are new.
    assert joined.files.tolist() == [f"{i:06d}.jpg" for i in range(1, 51)]
    assert alone.files[0] == "000001.jpg"
    assert len(test.files) == 6
    with pytest.raises(FileNotFoundError, match=r"celeb_a_files\.csv"):
        load(places, "celeb_a+celeb_a_half", "train", cache_dir=places / "other")


def test_without_data_three_lines_say_how_to_get_them(tmp_path):
    for source in ("celeb_a", "folder"):
        with pytest.raises(FileNotFoundError) as error:
            data.load_faces(source, "train", data_dir=tmp_path, cache_dir=tmp_path / "cache")
        text = str(error.value)
        assert len(text.splitlines()) == 3
        assert "TFDS_DATA_DIR" in text
        assert "--data-dir" in text


def test_unknown_sources_and_splits_are_refused(tmp_path):
    with pytest.raises(ValueError, match="expected one of"):
        data.load_faces("celeba", "train")
    with pytest.raises(ValueError, match="expected one of"):
        data.load_faces("celeb_a", "dev")
    with pytest.raises(ValueError, match="data_dir"):
        data.load_faces("folder", "train")


def test_the_official_partition_goes_by_number_without_its_file(records, tmp_path):
    folder = fixtures.write_folder(tmp_path / "folder", records)
    (folder / "list_eval_partition.txt").unlink()
    (folder / "identity_CelebA.txt").unlink()
    train = data.load_faces("folder", "train", data_dir=folder, cache_dir=tmp_path)
    assert len(train.images) == COUNT
    assert set(train.identity) == {0}
    with pytest.raises(FileNotFoundError, match="test split"):
        data.load_faces("folder", "test", data_dir=folder, cache_dir=tmp_path)


def test_csv_tables_are_read_too(records, tmp_path):
    folder = fixtures.write_folder(tmp_path / "folder", records)
    expected = data.load_faces("folder", "train", data_dir=folder, cache_dir=tmp_path)
    text = (folder / "list_attr_celeba.txt").read_text().splitlines()[1:]
    rows = [f"image_id,{','.join(text[0].split())}", *(",".join(t.split()) for t in text[1:])]
    (folder / "list_attr_celeba.csv").write_text("\n".join(rows))
    (folder / "list_attr_celeba.txt").unlink()
    found = data.load_faces("folder", "train", data_dir=folder, cache_dir=tmp_path)
    np.testing.assert_array_equal(found.attributes, expected.attributes)


def test_batches_are_floats_and_flips_are_mirrors(places):
    train = load(places, "folder", "train")
    rows = np.array([5, 3])
    batch = next(data.face_batches(train, rows, batch_size=4, seed=0, flip=True))
    assert batch["image"].dtype == np.float32
    assert batch["image"].shape == (4, 64, 64, 3)
    assert batch["attributes"].shape == (4, 40)
    found = {image.tobytes() for image in batch["image"]}
    images = data.to_floats(train.images[rows])
    expected = {image.tobytes() for image in (*images, *images[:, :, ::-1])}
    assert found == expected
    assert images.min() >= -1
    assert images.max() <= 1


def test_batches_are_the_same_for_the_same_seed_and_split_among_shards(places):
    train = load(places, "folder", "train")

    def take(**changes):
        batch = next(data.face_batches(train, **{"batch_size": 24, "seed": 1} | changes))
        return batch["image"]

    np.testing.assert_array_equal(take(), take())
    assert not np.array_equal(take(), take(seed=2))
    shards = np.concatenate([take(shard_index=i, shard_count=2) for i in range(2)])
    assert len({image.tobytes() for image in shards}) == 48


def test_the_real_faces_have_the_published_counts(tfds_dir, tmp_path):
    test = data.load_faces("celeb_a", "test", cache_dir=tmp_path)
    assert len(test.images) == 660
    columns = test.columns()
    counts = {name: int(columns[name].sum()) for name in ("Male", "Eyeglasses", "Smiling", "Bald")}
    assert counts == {"Male": 156, "Eyeglasses": 22, "Smiling": 234, "Bald": 0}
    assert len(set(test.identity)) == 22
    assert len(test.skipped) == 0
    half = data.load_faces("celeb_a_half", "test", cache_dir=tmp_path)
    assert int(half.columns()["Male"].sum()) == 423
    keys = sorted((tmp_path).glob("*/key.json"))
    assert {json.loads(key.read_text())["source"] for key in keys} == {"celeb_a", "celeb_a_half"}
