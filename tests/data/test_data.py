import numpy as np
import pytest

from uno_jax import data


@pytest.fixture(scope="module")
def small():
    return data.load("mnist5k", "train")


def test_mnist5k_has_every_digit_in_both_splits(small):
    test = data.load("mnist5k", "test")
    assert np.bincount(small.labels).tolist() == [400] * 10
    assert np.bincount(test.labels).tolist() == [100] * 10
    assert small.images.shape == (4000, 28, 28, 1)
    assert small.images.dtype == np.uint8
    assert small.images.max() == 255


def test_mnist_through_tfds(tfds_dir):
    """The training images are in `tests/experiments/test_mnist.py`, where they are needed."""
    test = data.load("mnist", "test")
    counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert np.bincount(test.labels).tolist() == counts
    assert test.labels[:10].tolist() == [2, 0, 4, 8, 7, 6, 0, 6, 3, 1]
    assert test.images.shape == (10000, 28, 28, 1)


def test_a_missing_data_set_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"Set TFDS_DATA_DIR .*download_and_prepare"):
        data.load("mnist", "train")


def test_names_are_checked():
    with pytest.raises(ValueError, match=r"data: expected one of \['mnist', 'mnist5k'\], got 'x'"):
        data.load("x", "train")
    with pytest.raises(ValueError, match="split: expected one of .* got 'dev'"):
        data.load("mnist5k", "dev")


def test_split_by_label(small):
    split = data.split_by_label(small, lambda label: (label == 1) | (label == 7))
    assert split.describe() == "forget 800, retain 3,200"
    assert set(small.labels[split.forget]) == {1, 7}
    assert not set(split.forget) & set(split.retain)
    with pytest.raises(ValueError, match="expected to choose some .* got forget 0"):
        data.split_by_label(small, lambda label: label == 11)
    with pytest.raises(ValueError, match="expected a boolean mask"):
        data.split_by_label(small, lambda label: label)


def take(stream, count):
    return [next(stream) for _ in range(count)]


def assert_same(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x["image"], y["image"])
        np.testing.assert_array_equal(x["label"], y["label"])


def test_batches_are_deterministic_in_the_seed(small):
    def stream(seed):
        return data.batches(small, batch_size=32, seed=seed)

    first = take(stream(0), 3)
    assert_same(first, take(stream(0), 3))
    assert not np.array_equal(first[0]["label"], take(stream(1), 1)[0]["label"])
    assert first[0]["image"].shape == (32, 784)
    assert first[0]["image"].dtype == np.float32
    assert first[0]["image"].min() >= 0 and first[0]["image"].max() <= 1


def test_an_epoch_covers_everything_once_and_the_next_is_shuffled_anew(small):
    indices = np.arange(64)
    epochs = take(data.batches(small, indices, batch_size=64, seed=0), 2)
    sums = [np.sort(batch["image"].sum(1)) for batch in epochs]
    np.testing.assert_array_equal(*sums)
    assert not np.array_equal(epochs[0]["image"], epochs[1]["image"])


def test_only_the_chosen_side_is_streamed(small):
    split = data.split_by_label(small, lambda label: label == 1)
    for batch in take(data.batches(small, split.forget, batch_size=128, seed=0), 5):
        assert set(batch["label"]) == {1}


def test_position_is_saved_and_restored(small):
    stream = data.batches(small, batch_size=16, seed=0)
    take(stream, 3)
    state = stream.get_state()
    expected = take(stream, 2)
    fresh = data.batches(small, batch_size=16, seed=0)
    fresh.set_state(state)
    assert_same(take(fresh, 2), expected)


def test_shards_divide_the_stream(small):
    whole = take(data.batches(small, np.arange(32), batch_size=32, seed=0), 1)[0]["image"]
    shards = [
        take(
            data.batches(small, np.arange(32), batch_size=16, seed=0, shard_index=i, shard_count=2),
            1,
        )[0]["image"]
        for i in range(2)
    ]
    np.testing.assert_array_equal(whole[0::2], shards[0])
    np.testing.assert_array_equal(whole[1::2], shards[1])


def test_mistakes_in_sizes_are_named(small):
    with pytest.raises(ValueError, match="shard_index: expected 0 <= index < 2, got 2"):
        data.batches(small, batch_size=1, seed=0, shard_index=2, shard_count=2)
    with pytest.raises(ValueError, match="got batch_size 0"):
        data.batches(small, batch_size=0, seed=0)
    with pytest.raises(ValueError, match="and 0 examples"):
        data.batches(small, np.array([], int), batch_size=4, seed=0)


def test_array_batches():
    arrays = {"a": np.arange(10), "b": np.arange(10) * 2.0}
    batch = next(data.array_batches(arrays, batch_size=4, seed=0))
    np.testing.assert_array_equal(batch["b"], 2.0 * batch["a"])
    with pytest.raises(ValueError, match=r"expected arrays of one length, got \[3, 10\]"):
        data.array_batches({**arrays, "c": np.arange(3)}, batch_size=2, seed=0)
