import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score, roc_curve

from uno_jax import metrics


def draws(shift, seed, count=300):
    rng = np.random.default_rng(seed)
    return rng.normal(size=count) + shift, rng.normal(size=count)


def test_area_and_rate_are_those_of_scikit_learn():
    members, others = draws(1.0, 0)
    members, others = np.round(members, 1), np.round(others, 1)  # with ties
    truth = np.repeat([1, 0], 300)
    found = metrics.attack(members, others, resamples=5)
    scores = np.concatenate([members, others])
    assert found.auc == pytest.approx(roc_auc_score(truth, scores))
    false, true, _ = roc_curve(truth, scores, drop_intermediate=False)
    assert found.tpr == pytest.approx(true[false <= 0.01].max())
    assert (found.members, found.others, found.false_positives) == (300, 300, 0.01)


def test_gaussians_have_the_area_of_the_closed_form():
    members, others = draws(1.0, 1, count=50_000)
    found = metrics.attack(members, others, resamples=2)
    assert found.auc == pytest.approx(stats.norm.cdf(1 / np.sqrt(2)), abs=0.005)
    expected = stats.norm.sf(stats.norm.isf(0.01) - 1)
    assert found.tpr == pytest.approx(expected, abs=0.01)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    truth, hits, trials = stats.norm.cdf(0.5 / np.sqrt(2)), 0, 150
    for seed in range(trials):
        found = metrics.attack(*draws(0.5, seed, count=80), resamples=100, seed=seed)
        hits += found.auc_interval[0] <= truth <= found.auc_interval[1]
    # A binomial of 150 at 95 % has a standard deviation of 1.8 %.
    assert 0.89 < hits / trials <= 1.0


def test_those_who_cannot_be_told_apart_are_at_chance():
    found = metrics.attack(np.zeros(50), np.zeros(70), resamples=20)
    assert found.auc == 0.5 and found.auc_interval == (0.5, 0.5) and found.tpr == 0
    apart = metrics.attack(np.ones(50), np.zeros(70), resamples=20)
    assert apart.auc == 1 and apart.tpr == 1


@pytest.mark.parametrize(
    ("members", "others", "options", "message"),
    [
        ([], [1.0], {}, "got 0 and 1"),
        ([1.0, np.nan], [1.0], {}, "1 and 0 of them not finite"),
        ([1.0], [1.0], {"false_positives": 0.0}, "false_positives in .0, 1."),
        ([1.0], [1.0], {"resamples": 0}, "resamples of at least 1"),
    ],
)
def test_what_is_out_of_range_is_named(members, others, options, message):
    with pytest.raises(ValueError, match=message):
        metrics.attack(np.array(members), np.array(others), **options)
