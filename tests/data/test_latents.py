import numpy as np
import pytest

from uno_jax import data

RNG = np.random.default_rng(0)
LATENTS = RNG.normal(size=(7, 4, 4, 3)).astype(np.float16)
LABELS = RNG.integers(0, 1000, 7)


@pytest.fixture(params=["npz", "file", "folder"])
def written(request, tmp_path):
    if request.param == "npz":
        path = tmp_path / "latents.npz"
        np.savez(path, latents=LATENTS, labels=LABELS)
        return path
    if request.param == "file":
        path = tmp_path / "latents.array_record"
        data.write_latents(path, LATENTS, LABELS)
        return path
    data.write_latents(tmp_path / "latents-0.array_record", LATENTS[:4], LABELS[:4])
    data.write_latents(tmp_path / "latents-1.array_record", LATENTS[4:], LABELS[4:])
    return tmp_path


def test_what_is_written_is_read(written):
    latents, labels = data.load_latents(written)
    np.testing.assert_array_equal(latents, LATENTS)
    assert latents.dtype == np.float16 and labels.dtype == np.int32
    np.testing.assert_array_equal(labels, LABELS)


def test_what_is_no_latents_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a file or folder"):
        data.load_latents(tmp_path / "none.npz")
    np.savez(tmp_path / "other.npz", images=LATENTS)
    with pytest.raises(ValueError, match=r"expected arrays 'latents' and 'labels' in other\.npz"):
        data.load_latents(tmp_path / "other.npz")
    np.savez(tmp_path / "flat.npz", latents=LATENTS.reshape(7, -1), labels=LABELS)
    with pytest.raises(ValueError, match=r"expected \(N, H, W, C\) latents"):
        data.load_latents(tmp_path / "flat.npz")
    with pytest.raises(ValueError, match=r"expected \.npz or \.array_record"):
        (tmp_path / "empty").mkdir()
        data.load_latents(tmp_path / "empty")
