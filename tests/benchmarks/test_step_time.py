"""The benchmarks on small programs: ratios, never absolute times."""

import json

import jax
import numpy as np
import pytest

from benchmarks import growth, hessians, parts, problems, step_time, timing
from tests.transforms.problems import mlp_batch, mlp_loss, mlp_params


@pytest.fixture
def optimised():
    """As users compile: the other tests leave most of XLA's passes out."""
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


def small():
    """Of plain arrays: quick to compile."""
    sizes = (3, 8, 2)

    def batches(size):
        return tuple(
            dict(zip("xy", mlp_batch(seed, size, sizes), strict=True)) for seed in range(2)
        )

    return problems.Problem(
        model=None,
        loss_fn=lambda params, batch, key: mlp_loss(params, (batch["x"], batch["y"])),
        params=mlp_params(0, sizes),
        model_state=None,
        batches=batches,
        weight=1.0,
    )


def test_uno_costs_what_it_should_in_surgery_steps(optimised, tmp_path):
    options = step_time.Options(
        models="mnist_vae", methods="retain-descent,surgery,uno", batch="64", rounds=15,
        output=tmp_path,
    )  # fmt: skip
    lines = {line["method"]: line for line in step_time.main(options)}
    # By counting products 1/2, 1 and up to 3.
    assert 0.25 < lines["retain-descent"]["of_surgery"] < 0.85
    assert lines["surgery"]["of_surgery"] == 1
    assert 1.2 < lines["uno"]["of_surgery"] < 4
    assert lines["uno"]["gflop"] > 1.5 * lines["surgery"]["gflop"] > 0
    assert lines["surgery"]["of_retain-descent"] > 1.2
    for line in lines.values():
        assert line["low_ms"] <= line["median_ms"] <= line["high_ms"] and line["rounds"] >= 3
        assert line["temporary_mib"] > 0 and line["compile_seconds"] > 0 and 0 < line["of_peak"] < 2
    saved = json.loads((tmp_path / "step_time.json").read_text())
    assert saved["rows"] == list(lines.values()) and saved["matmul_peak_gflops"] > 0
    assert (tmp_path / "step_time.png").read_bytes()[:4] == b"\x89PNG"
    text = (tmp_path / "step_time.md").read_text()
    assert "| mnist_vae | 64 | uno |" in text
    assert "| method | mnist_vae, 64 |" in text and "| surgery | 1 (" in text


def test_every_way_to_take_products_is_timed_and_compared(monkeypatch):
    monkeypatch.setitem(problems.PROBLEMS, "small", small)
    options = hessians.Options(models="small", batch=16, train_steps=2, rounds=3)
    lines = {line["hessian"]: line for line in hessians.main(options)}
    assert set(hessians.WAYS) <= set(lines)
    assert lines["exact"]["error"] == 0 and lines["exact"]["cosine"] == 1
    assert lines["1/2 of the batch"]["error"] > 0 and lines["1/2 of the batch"]["cosine"] < 1
    lazy = lines["exact, every 16th step"]
    assert lazy["median_ms"] > 0 and "error" not in lazy


@pytest.mark.parametrize("whole", [True, False])
def test_a_run_goes_on_from_the_one_before_through_all_turns(whole):
    problem = small()
    methods = "ascent", "uno-s", "retain-descent"
    made = parts.compile_parts(problem, methods, {4: problem.batches(4)}, whole=whole)[4]
    turns = {name: len(turn) for name, turn in made.turns.items()}
    shared = {} if whole else {parts.SHARED: 1}
    assert turns == {"ascent": 1, "uno-s": 2, "retain-descent": 1, **shared}
    for number in (1, 2):
        for key, program in made.programs.items():
            result = program.run()
            if key != parts.SHARED:
                assert result[0].step == (number - 1) * turns[key[0]] + key[1] + 1
                assert all(np.isfinite(value) for value in result[1].values())
    # The states were copied before they were donated.
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(problem.params))


def test_what_a_step_costs_is_what_its_programs_cost():
    problem = small()
    methods = "surgery", "uno", "uno-s", "ascent-descent", "retain-descent"
    both = parts.compile_parts(problem, methods, {size: problem.batches(size) for size in (4, 8)})
    assert list(both) == [4, 8]
    made = both[4]
    assert made.turns == {
        parts.SHARED: ((parts.SHARED,),),
        "surgery": ((parts.SHARED, ("surgery", 0)),),
        "uno": ((("uno", 0),),),
        "uno-s": ((("uno", 0),), (parts.SHARED, ("surgery", 0))),
        # Without ascent among the methods, its first turn is compiled for itself.
        "ascent-descent": tuple((parts.SHARED, ("ascent-descent", turn)) for turn in (0, 1)),
        "retain-descent": ((("retain-descent", 0),),),
    }
    cost = {parts.SHARED: 10.0, ("uno", 0): 30.0}
    for method, expected in (("uno", 30), ("surgery", 11), ("uno-s", 20.5), ("gradients", 10)):
        assert made.step(method, lambda key: cost.get(key, 1.0)) == expected
    handed = made.programs[parts.SHARED].result_bytes
    assert handed > 8 * problem.parameters  # two gradients of float32
    assert made.temporary_bytes("surgery") >= handed
    # Another batch size has the same updates, and other gradients.
    assert set(made.programs) == set(both[8].programs)
    for key, program in made.programs.items():
        assert (both[8].programs[key] is program) == (
            key in {("surgery", 0), ("ascent-descent", 0), ("ascent-descent", 1)}
        )


def test_growth_is_fitted_over_widths_and_batches(tmp_path):
    options = growth.Options(
        parameters=(1e4, 2e4), batch=(4,), methods=("surgery",), rounds=3, output=tmp_path
    )
    lines = growth.main(options)
    assert [line["along"] for line in lines] == ["parameters", "parameters", "batch"]
    # 6 and 13 hidden units, and the published 400.
    assert [line["parameters"] for line in lines] == [
        problems.mnist_vae(hidden).parameters for hidden in (6, 13, 400)
    ]
    assert (tmp_path / "growth.png").exists()


def test_rounds_go_round_and_stop_in_time():
    order = []
    runs = {name: lambda name=name: order.append(name) for name in "ab"}
    times = timing.interleaved(runs, rounds=5, seconds=0.0)
    assert order == list("ab" * 3) and {len(own) for own in times.values()} == {2}
    assert timing.spread(np.array([1.0, 2.0, 3.0]))["median_ms"] == 2.0


def test_unknown_names_are_said():
    with pytest.raises(ValueError, match="models: expected of .*got 'gan'"):
        problems.get_problem("gan")
    with pytest.raises(ValueError, match="mnist_vae: expected float32 without remat, got"):
        problems.get_problem("mnist_vae", remat=True)
    assert "uno" in problems.timed_methods() and "redirect" not in problems.timed_methods()
