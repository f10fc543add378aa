import sys

import numpy as np
import pytest

from uno_jax import metrics


def by_hand(points, centres, k):
    inside = []
    gaps = np.linalg.norm(centres[:, None] - centres[None], axis=-1)
    radii = np.sort(gaps, axis=1)[:, k]
    for point in points:
        inside.append((np.linalg.norm(centres - point, axis=1) <= radii).any())
    return np.mean(inside)


def test_it_is_what_its_definition_says():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(60, 4)), rng.normal(size=(80, 4)) + 0.5
    found = metrics.coverage(a, b)
    assert found.precision == by_hand(a, b, 3) and found.recall == by_hand(b, a, 3)
    assert 0 < found.precision < 1


def test_parts_of_the_points_are_no_other_points(monkeypatch):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(60, 4)), rng.normal(size=(80, 4))
    whole = metrics.coverage(a, b)
    monkeypatch.setattr(sys.modules["uno_jax.metrics.coverage"], "CHUNK", 7)
    assert metrics.coverage(a, b) == whole


def test_samples_of_one_of_two_modes_are_precise_and_recall_half():
    rng = np.random.default_rng(1)
    both = np.concatenate([rng.normal(size=(500, 2)), rng.normal(size=(500, 2)) + 100])
    found = metrics.coverage(rng.normal(size=(500, 2)), both)
    assert found.precision > 0.9 and found.recall == pytest.approx(0.5, abs=0.05)
    far = metrics.coverage(both + 1000, both)
    assert far == (0.0, 0.0)


@pytest.mark.parametrize("shapes", [((5, 2), (5, 3)), ((3, 2), (9, 2)), ((5,), (5,))])
def test_what_does_not_fit_is_named(shapes):
    with pytest.raises(ValueError, match="coverage: expected .N, D. and .M, D."):
        metrics.coverage(*map(np.zeros, shapes))
