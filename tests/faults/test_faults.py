"""Every strike of `python -m tests.faults`, a few of each kind."""

import random

import pytest

from tests.faults import strikes
from tests.faults.__main__ import ONCE, REPEATED, repeat


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    return strikes.finish(tmp_path_factory.mktemp("alone") / "run")[0]


@pytest.mark.parametrize("fault", REPEATED)
def test_the_job_goes_on_as_if_nothing_had_been(fault, expected, tmp_path):
    assert repeat(REPEATED[fault][1], 2, tmp_path, expected, seed=1)[0] == 2


@pytest.mark.parametrize("fault", ONCE)
def test_the_job_says_what_is_wrong_and_goes_on(fault, expected, tmp_path):
    outcome = ONCE[fault](tmp_path / "run", random.Random(0), expected)
    assert outcome.recovered, outcome.lost
