"""The audit's own statistics against closed forms, scipy and scikit-learn."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import pairwise_distances_argmin

import uno_jax as uno
from tests.audit import mixture
from uno_jax import audit, metrics
from uno_jax.audit import case, evidence, generation, judging, membership, networks


def test_divergences_of_counts():
    p, q = np.array([50, 30, 20, 0]), np.array([400, 300, 200, 100])
    kl, distance = generation.divergences(p, q)
    smooth = (q + 0.5) / (q + 0.5).sum()
    assert kl == pytest.approx(stats.entropy(p / 100, smooth))
    assert distance == pytest.approx(0.5 * np.abs(p / 100 - q / 1000).sum())
    assert generation.divergences(q, q) == pytest.approx((0.0, 0.0), abs=1e-3)
    # Samples that are of no class are as far as can be.
    assert generation.divergences(p, np.zeros(4, int))[1] == pytest.approx(0.5)


def test_nearest_neighbours_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    points, centres = rng.normal(size=(40, 5)), rng.normal(size=(60, 5))
    expected = pairwise_distances_argmin(points, centres)
    np.testing.assert_array_equal(generation.nearest(points, centres), expected)


def test_divergence_of_gaussians_by_integration():
    (mean_p, var_p), (mean_q, var_q) = (0.3, 0.5), (-0.2, 1.5)
    x = np.linspace(-12, 12, 200_001)
    p = stats.norm.pdf(x, mean_p, np.sqrt(var_p))
    integrand = p * (
        stats.norm.logpdf(x, mean_p, np.sqrt(var_p)) - stats.norm.logpdf(x, mean_q, np.sqrt(var_q))
    )
    got = uno.losses.diagonal_gaussian().divergence(
        (np.array([[mean_p]]), np.log([[var_p]])), (np.array([[mean_q]]), np.log([[var_q]]))
    )
    assert got.shape == (1,) and got[0] == pytest.approx(np.trapezoid(integrand, x), rel=1e-6)


def test_the_interval_of_a_mean_covers_it_about_as_often_as_it_says():
    rng, hits, trials = np.random.default_rng(0), 0, 2000
    for _ in range(trials):
        found = evidence.mean_with_interval(rng.exponential(2.0, 200))
        hits += found["low"] <= 2.0 <= found["high"]
    # The standard deviation of the count is 0.5 %; a skewed distribution costs some.
    assert 0.92 < hits / trials < 0.965


@pytest.mark.parametrize("chance", [0.001, 0.02, 0.3])
def test_wilson_intervals_cover_as_often_as_they_can(chance):
    rng, trials = np.random.default_rng(1), 3000
    counts = rng.binomial(1000, chance, trials)
    intervals = {int(c): metrics.proportion(int(c), 1000) for c in np.unique(counts)}
    covering = {c for c, found in intervals.items() if found.low <= chance <= found.high}
    hits = np.isin(counts, list(covering)).mean()
    # Counts are whole numbers, so that 95 % is not met exactly; this is what can be.
    exact = stats.binom.pmf(sorted(covering), 1000, chance).sum()
    assert hits == pytest.approx(exact, abs=0.015) and 0.9 < hits <= 1.0


def test_a_loss_that_overflows_is_no_small_loss():
    found = evidence.mean_with_interval(np.array([1.0, np.nan, 3.0]))
    assert found == {"value": np.inf, "low": np.inf, "high": np.inf, "total": 3}
    one = evidence.mean_with_interval(np.array([2.0]))
    assert (one["value"], one["high"], one["total"]) == (2.0, np.inf, 1)


def test_the_likelihood_ratio_takes_out_what_is_hard_anyway():
    rng = np.random.default_rng(2)
    hard = rng.exponential(10.0, 4000)
    members, others = np.arange(4000) < 2000, np.arange(4000) >= 2000
    losses = hard - 0.5 * members
    references = [hard + 0.3 * rng.normal(size=4000) for _ in range(4)]
    plain = metrics.attack(-losses[members], -losses[others], resamples=2).auc
    one, four = (membership.scores(losses, references[:count]) for count in (1, len(references)))
    ratios = [metrics.attack(s[members], s[others], resamples=2).auc for s in (one, four)]
    # Two Gaussians half apart, with the deviation of one reference and of the mean of four.
    expected = [stats.norm.cdf(0.5 / (0.3 / np.sqrt(n)) / np.sqrt(2)) for n in (1, 4)]
    assert plain < 0.55
    np.testing.assert_allclose(ratios, expected, atol=0.02)
    # In standard deviations of the references.
    assert np.std(four[others]) == pytest.approx(0.5, abs=0.03)


def test_draws_of_equal_keys_are_equal_and_no_chunk_repeats_another():
    import jax

    key = jax.random.key(0)
    drawn = evidence.draw(mixture.sample, mixture.params(), key, 1200)
    assert drawn.shape == (1200, mixture.SIDE)
    np.testing.assert_array_equal(drawn, evidence.draw(mixture.sample, mixture.params(), key, 1200))
    assert len(np.unique(drawn[:, 0])) == 1200
    batch = mixture.side([0], 700, 0)
    losses = evidence.losses_of(mixture.loss_fn, mixture.params(), batch, key, 2)
    np.testing.assert_allclose(losses, mixture.loss_fn(mixture.params(), batch, key), rtol=1e-5)


def test_a_judge_learns_the_classes_or_the_two_sides():
    targets = judging.targets(mixture.data())
    assert targets.by_label and targets.labels == (0, 1, 2, 3) and targets.forgotten == (1,)
    assert targets.sides["retain_held_out"].max() == 3
    # Some examples of a class that stays are not a class of their own.
    some = judging.targets(mixture.data(forget=mixture.side([0, 1], 100, 0)))
    assert not some.by_label and some.labels == (0, 1)
    assert set(some.sides["forget"]) == {1} and set(some.sides["retain"]) == {0}


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((784,), (28, 28, 1)),
        ((3072,), (32, 32, 3)),
        ((28, 28), (28, 28, 1)),
        ((64, 64, 3), (64, 64, 3)),
        ((12,), None),
        ((50,), None),
        ((4, 4, 3), None),
    ],
)
def test_pictures_are_recognised_by_their_shape(shape, expected):
    assert networks.picture_shape(shape) == expected


def test_pictures_that_are_no_numbers_are_of_no_class():
    judge = case.Judge(lambda x: np.eye(2)[np.ones(len(x), int)], (1,))
    images = np.zeros((4, 3))
    images[1, 2] = np.nan
    assert judging.predictions(judge, images).tolist() == [1, -1, 1, 1]
    assert judging.forgotten(judge, images).count == 3


def test_numbers_that_json_has_not_become_none():
    plain = audit.run.__globals__["plain"]
    value = {"a": float("nan"), 1: (np.float32(2.0), np.int64(3)), "b": [True, None, "x"]}
    assert plain(value) == {"a": None, "1": [2.0, 3], "b": [True, None, "x"]}


def test_inception_sees_pictures_in_its_own_range(tmp_path):
    rng = np.random.default_rng(3)
    weights = {
        name: (0.05 * rng.normal(size=shape) if "weight" in name else np.ones(shape)).astype("f4")
        for name, shape in metrics.inception_shapes().items()
    }
    np.savez(tmp_path / "weights.npz", **weights)
    # Grey pictures of bytes' range, flattened.
    images = rng.uniform(0, 255, (2, 64)).astype(np.float32)
    images[0, :2] = 0.0, 255.0
    side = {"image": images}
    embed = audit.inception(tmp_path / "weights.npz", audit.Data(side, side))
    unit = (images / 127.5 - 1.0).reshape(-1, 8, 8, 1)
    expected = metrics.inception_features(weights, np.repeat(unit, 3, axis=-1))
    np.testing.assert_allclose(embed(images), expected, rtol=1e-3, atol=1e-4)
    vectors = {"image": images[:, :5]}
    with pytest.raises(ValueError, match="inception: expected pictures, got arrays of"):
        audit.inception(tmp_path / "weights.npz", audit.Data(vectors, vectors))
