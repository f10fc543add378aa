"""Every strike of `python -m tests.faults`, one of each kind."""

import random
import shutil

import pytest

from tests.faults import job, strikes
from tests.faults.__main__ import ON_PART, ONCE, REPEATED


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    return strikes.finish(tmp_path_factory.mktemp("alone") / "run")[0]


@pytest.fixture(scope="module")
def half_done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("half") / "run"
    strikes.finish_part(folder)
    return folder


def test_struck_again_and_again_the_job_ends_as_if_nothing_had_been(expected, tmp_path):
    rng = random.Random(1)
    for fault, (_, strike) in REPEATED.items():
        outcome = strike(tmp_path / "run", rng, expected)
        assert outcome.recovered, fault
        assert outcome.lost <= (0 if fault == "SIGTERM" else 3 * job.Options.save_every), fault
    assert strikes.finish(tmp_path / "run")[0] == expected


@pytest.mark.parametrize("fault", ONCE)
def test_the_job_says_what_is_wrong_and_goes_on(fault, expected, request, tmp_path):
    if fault in ON_PART:
        shutil.copytree(request.getfixturevalue("half_done"), tmp_path / "run")
    outcome = ONCE[fault](tmp_path / "run", random.Random(0), expected)
    assert outcome.recovered, outcome.said
