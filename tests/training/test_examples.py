import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from uno_jax.training.examples import CHUNK, check_alike, joined, read_examples


def numbered(count, labels=3):
    return {
        "image": np.arange(count, dtype=np.float32)[:, None],
        "label": np.arange(count) % labels,
    }


def drawn(batches, count):
    return np.concatenate([next(batches)["image"][:, 0] for _ in range(count)])


def in_batches(data, size):
    rows = range(0, len(data["label"]), size)
    return [{key: value[i : i + size] for key, value in data.items()} for i in rows]


def test_each_pass_holds_every_example_once_in_another_order():
    first, second = drawn(read_examples(numbered(6), "retain").batches(4, seed=0), 3).reshape(2, 6)
    assert sorted(first) == sorted(second) == list(range(6))
    assert list(first) != list(second)


def test_the_seed_decides_the_order():
    examples = read_examples(numbered(50), "retain")
    one, same, other = (drawn(examples.batches(8, seed=seed), 20) for seed in (0, 0, 1))
    assert np.array_equal(one, same) and not np.array_equal(one, other)


@pytest.mark.parametrize("form", ("arrays", "batches"))
@pytest.mark.parametrize("skipped", (1, 5, 12))
def test_skipping_gives_what_would_have_come(form, skipped):
    data = numbered(23)
    examples = read_examples(data if form == "arrays" else in_batches(data, 7), "retain")
    streams = (
        lambda: examples.batches(5, seed=3),
        lambda: examples.paired([(0, 9), (2, 8)], 5, seed=3),
        lambda: joined(examples.batches(4, 1), more=examples.batches(3, 2)).map(dict),
    )
    for stream in streams:
        expected = next(itertools.islice(stream(), skipped, None))
        batches = stream()
        batches.skip(skipped)
        got = next(batches)
        assert got.keys() == expected.keys()
        for key in set(got) - {"more"}:
            np.testing.assert_array_equal(got[key], expected[key])


def test_a_batch_may_be_larger_than_the_data():
    batch = next(read_examples(numbered(3), "retain").batches(8, seed=0))
    assert set(batch["image"][:, 0]) == {0, 1, 2} and len(batch["label"]) == 8


def test_batches_keep_their_order_and_are_cut_anew():
    examples = read_examples(in_batches(numbered(10), 4), "retain")
    assert list(drawn(examples.batches(3, seed=7), 4)) == [*range(10), 0, 1]


def test_pairs_are_of_their_labels():
    data = numbered(30)
    for form in (data, in_batches(data, 7)):
        batches = read_examples(form, "retain").paired([(0, 9), (2, 8), (2, 7)], 6, seed=0)
        seen = [next(batches) for _ in range(10)]
        pairs = {
            (int(a), int(b)) for s in seen for a, b in zip(s["label"], s["other"], strict=True)
        }
        assert pairs == {(0, 9), (2, 8), (2, 7)}


def test_all_forms_say_the_same():
    data = numbered(CHUNK + 5)
    forms = data, {key: jnp.asarray(value) for key, value in data.items()}, in_batches(data, 100)
    for form in forms:
        examples = read_examples(form, "retain")
        assert (examples.count, examples.shape) == (CHUNK + 5, (1,))
        assert sum(examples.labels.values()) == CHUNK + 5
        np.testing.assert_allclose(examples.means()[0], data["image"][::3].mean())
        np.testing.assert_array_equal(examples.arrays["label"], data["label"])
    assert read_examples(data["image"], "retain").keys == ("image",)
    assert read_examples(examples, "retain") is examples


def test_the_fingerprint_is_of_every_value():
    data = numbered(10)
    same = read_examples({key: value.copy() for key, value in data.items()}, "retain")
    before = read_examples(data, "retain").fingerprint()
    assert before == same.fingerprint()
    data["label"][3] += 1
    assert before != read_examples(data, "retain").fingerprint()


IMAGES = np.zeros((4, 2), np.float32)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"image": IMAGES, "label": np.zeros(3, int)}, "arrays of one length, got .*4.*3"),
        (IMAGES[:0], "at least one example, got none"),
        ([], "at least one example in each pass"),
        (IMAGES + np.nan, "finite images, got NaN or infinity; leave"),
        (np.zeros((4, 2), np.uint8), r"floating-point .* got uint8; .* images / 255 for \[0, 1\]"),
        ({"image": IMAGES, "mask": IMAGES}, r"names 'image' .* got \['image', 'mask'\]; rename"),
        ({"label": np.zeros(3, int)}, r"names 'image' .* got \['label'\]"),
        ({"image": IMAGES, "label": np.zeros(4)}, "integers, got .* float64"),
        ({"image": IMAGES, "label": np.eye(4, dtype=int)}, "one-hot label becomes"),
        ({"image": IMAGES, "label": np.full(4, -1)}, "at least 0, got -1"),
        ((IMAGES, np.zeros(4, int)), "got a tuple; write {'image': images, 'label'"),
        ((batch for batch in [IMAGES]), r"read again, got a generator.*list\(batches\)"),
        ([(IMAGES, IMAGES)], "batches that are arrays, or dicts with 'image', got a tuple"),
        ([IMAGES, IMAGES[:, :1]], r"as the first is, got .*\(1,\)"),
        ("mnist", "an array .* got str"),
        (3, "an array .* got int"),
        (np.float32(1), "one length, got .*None"),
    ],
)
def test_what_cannot_be_read_is_refused(data, said):
    with pytest.raises(ValueError, match=f"retain: expected .*{said}"):
        read_examples(data, "retain")


def test_sides_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"forget: expected .* as in retain, got \('image',\)"):
        check_alike(read_examples(numbered(3), "retain"), read_examples(IMAGES, "forget"))
    with pytest.raises(ValueError, match="batch_size: expected at least 1, got 0"):
        read_examples(IMAGES, "retain").batches(0, seed=0)
