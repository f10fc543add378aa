from benchmarks import branches


def test_every_place_is_timed():
    lines = branches.main(branches.Options(side=4, channels=2, batch=1, rounds=2))
    places = ["alone", "in a branch", "in a loop"]
    assert [line["where"] for line in lines] == 2 * places
    assert [line["what"] for line in lines] == 3 * ["convolution"] + 3 * ["gradient"]
    assert all(line["rounds"] == 2 and line["median_ms"] > 0 for line in lines)
