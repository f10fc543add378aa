import csv
import dataclasses
import json

import numpy as np
import pytest

from experiments import mnist_table, redirect
from uno_jax import methods

ROWS = ("retrained", "redirect", "digit-3", "uno", "surgery + hat", "ascent, frozen, warm")


@pytest.fixture(scope="module")
def tiny(reference_dir, tmp_path_factory):
    options = mnist_table.Options(
        reference=reference_dir,
        out=tmp_path_factory.mktemp("table"),
        data="mnist5k",
        rows=ROWS,
        seeds=2,
        warm_seeds=1,
        digits=(3,),
        digit_seeds=1,
        max_steps=3,
        warm_steps=2,
        marks=(1, 3),
        redirect_steps=3,
        rebound=(1, 2),
        retrain_steps=(2, 4, 6),
        judge_steps=10,
        samples=300,
        workers=0,
    )
    return options, mnist_table.main(options)


def test_every_kind_of_row_is_written(tiny):
    options, lines = tiny
    by_name = {line["row"]: line for line in lines}
    # The digits have a table of their own.
    assert set(by_name) == {"before", *ROWS} - {"digit-3"}
    with (options.out / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["row"] for row in rows] == [line["row"] for line in lines]
    with (options.out / "digits.csv").open() as file:
        digits = list(csv.DictReader(file))
    assert [row["model"] for row in digits] == ["before", "redirect", "control", "retrained"]
    text = (options.out / "table.md").read_text()
    assert "| redirect | 3.0 (0.0) |" in text and "jax" in text and "cores" in text
    assert (options.out / "table.tex").read_text().count(r"\\") == len(lines) + 1
    for name in ("frontier", "samples"):
        assert (options.out / "figures" / f"{name}.png").stat().st_size > 1000


def test_samples_are_there_for_other_judges(tiny):
    for name, count in (("before", 300), ("after", 300), ("retrained", 300), ("uno", 100)):
        images = np.load(tiny[0].out / "samples" / f"{name}.npz")["images"]
        assert images.shape == (count, 28, 28, 1) and images.dtype == np.float32


def test_the_published_model_and_the_redirect(tiny):
    by_name = {line["row"]: line for line in tiny[1]}
    assert by_name["before"]["-ELBO"] < 165
    assert by_name["redirect"]["guide %"] < by_name["before"]["guide %"]
    assert by_name["redirect"]["never"] == ""
    assert by_name["ascent, frozen, warm"]["-ELBO"] > by_name["before"]["-ELBO"]
    for line in tiny[1]:
        assert line["judge low %"] <= line["judge %"] <= line["judge high %"]
        assert line["judge least %"] <= line["judge most %"]


def test_what_is_there_is_not_run_again(tiny):
    options, lines = tiny
    file = options.out / "rows" / "uno.json"
    row = json.loads(file.read_text())
    row["runs"][0]["stop"]["bound"] = row["runs"][1]["stop"]["bound"] = 1234.5
    file.write_text(json.dumps(row))
    again = {line["row"]: line for line in mnist_table.main(options)}
    assert again["uno"]["-ELBO"] == 1234.5
    assert again["redirect"] == {line["row"]: line for line in lines}["redirect"]


def test_all_methods_have_rows_and_costs(tiny, monkeypatch):
    monkeypatch.setattr(redirect, "RETAIN_SIZE", 2048)
    monkeypatch.setattr(redirect, "FORGET_SIZE", 1024)
    rows = mnist_table.all_rows(dataclasses.replace(tiny[0], rows=()))
    assert {row.method for row in rows} == {*methods.UNCONDITIONAL, "retrain"}
    assert len({row.name for row in rows}) == len(rows)
    evaluations = {m.name: mnist_table.evaluations(m, 128) for m in methods.METHODS.values()}
    assert evaluations["uno"] == 128 * 6 and evaluations["surgery"] == 128 * 2
    assert evaluations["redirect"] == 63 * 1536
    with pytest.raises(ValueError, match=r"rows: expected some of .* got \['x'\]"):
        mnist_table.all_rows(dataclasses.replace(tiny[0], rows=("x",)))


def test_a_worker_process_gives_the_same(tiny, tmp_path):
    options = dataclasses.replace(
        tiny[0], out=tmp_path, rows=("uno",), seeds=1, retrain_steps=(1,), workers=1
    )
    (line,) = (row for row in mnist_table.main(options) if row["row"] == "uno")
    one = json.loads((tiny[0].out / "rows" / "uno.json").read_text())["runs"][0]["marks"]["3"]
    np.testing.assert_allclose(line["-ELBO at 3"], one["bound"], rtol=0.01)


def test_another_configuration_is_refused(tiny):
    with pytest.raises(ValueError, match=r"another configuration \(max_steps: 3 there, 4 now\)"):
        mnist_table.main(dataclasses.replace(tiny[0], max_steps=4))
