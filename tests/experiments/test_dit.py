"""The diffusion experiment in miniature: every method, the embedded digits, made-up latents."""

import dataclasses
import typing

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tyro

import uno_jax as uno
from experiments import (
    audits,
    common,
    dit,
    dit_imagenet,
    dit_lab,
    dit_methods,
    dit_models,
    dit_redirect,
    dit_search,
    dit_settings,
)
from tests.models.programs import perturbed
from uno_jax import diffusion, foreign, models
from uno_jax.audit import case as cases

NAMES = typing.get_args(dit.MethodName)
FORGET, EXCHANGE = 1, 7
PROTOCOL = dit_methods.Protocol(batch_size=4, replay=2, erasing_steps=2)


def tiny(**changes):
    return models.DiT(**{"patch": 7, "depth": 1, "width": 16, "heads": 2, **changes})


@pytest.fixture(scope="module")
def model():
    rng = np.random.default_rng(1)
    images = rng.normal(size=(60, 28, 28, 1)).astype(np.float32)
    labels = np.arange(60, dtype=np.int32) % 10
    kept = labels != FORGET
    network = tiny()
    return dit_methods.Model(
        dit_models.process(network),
        perturbed(network, jnp.zeros((2, 28, 28, 1)), jnp.zeros(2), jnp.zeros(2, jnp.int32)),
        images,
        labels,
        FORGET,
        EXCHANGE,
        {"image": images[kept] + 10, "label": labels[kept]},
    )


def moved(before, after):
    """Paths of the parameters that differ."""
    pairs = zip(
        jax.tree_util.tree_flatten_with_path(before)[0], jax.tree.leaves(after), strict=True
    )
    return {
        jax.tree_util.keystr(path, simple=True, separator="/")
        for (path, a), b in pairs
        if not np.array_equal(a, b)
    }


# Those that are put together here in a way of their own.
COMPILED = ("redirect-adam", "esd-x", "esd-u", "salun-relabel")


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(COMPILED)))
def test_every_other_method_makes_a_step(model, name):
    row, how = dit_settings.protocol(dit.resolve(dit.Options(trainable="")), name)
    job = dit_methods.prepare(row, dataclasses.replace(how, batch_size=4, replay=2), model)
    state = job.start(jax.random.key(0))
    after, metrics = jax.eval_shape(job.step, state, *(next(iter(s)) for s in job.streams(0)))
    chex.assert_trees_all_equal_shapes_and_dtypes(after, state)
    assert metrics["retain_loss"].shape == ()


@pytest.mark.parametrize("name", COMPILED)
def test_a_method_takes_finite_steps_and_moves_its_own_parameters(model, name):
    row, how = dit_settings.protocol(dit.resolve(dit.Options(trainable="")), name)
    how = dataclasses.replace(how, batch_size=4, replay=2, erasing_steps=2)
    job = dit_methods.prepare(row, how, model)
    state = job.start(jax.random.key(0))
    chex.assert_trees_all_equal(dit_methods.whole(state), model.original)
    step = jax.jit(chex.assert_max_traces(job.step, n=1))
    for retain, forget, _ in zip(*job.streams(0), range(2), strict=False):
        state, metrics = step(state, retain, forget)
    assert all(np.isfinite(value) for value in metrics.values())
    after = dit_methods.whole(state)
    chex.assert_tree_all_finite(after)
    paths = moved(model.original, after)
    conditioning = {path for path in paths if "modulation" in path or "label" in path}
    expected = {
        "esd-x": conditioning == paths,
        "esd-u": not conditioning,
        "redirect-adam": "label/table" not in paths,
    }.get(name, len(paths) > len(conditioning) > 2)
    assert paths and expected, paths


def test_the_control_without_exchange_never_shows_the_forgotten_label(model):
    """With the table of labels alone to train, the forgotten row does not move."""
    for name, moves in (("retain-only", False), ("retain-descent", True)):
        row, how = dit_settings.protocol(dit.resolve(dit.Options()), name)
        how = dataclasses.replace(how, batch_size=4, replay=0, trainable="label", decay_steps=0)
        job = dit_methods.prepare(row, how, model)
        state = job.start(jax.random.key(0))
        retain, forget = (next(iter(side)) for side in job.streams(0))
        state, _ = jax.jit(job.step)(state, retain, forget)
        table = dit_methods.whole(state)["label"]["table"]
        same = np.array_equal(table[FORGET], model.original["label"]["table"][FORGET])
        assert same is not moves


def test_the_redirect_asks_for_the_exchange_label_and_keeps_the_rest(model):
    retain = model.stream("retain", batch_size=40, seed=0, replay=8)
    exchange = model.stream("exchange", batch_size=4, seed=1)
    anchors, redirects = dit_redirect.streams(model, retain, exchange, unlabelled=10, seed=3)
    losses = dit_redirect.losses(model.process, dit_redirect.Options(anchor_weight=2.0))
    anchor, redirect = (jax.jit(loss_fn) for loss_fn in losses)
    batch, other = next(anchors), next(redirects)
    outputs = jax.jit(diffusion.outputs(model.process))
    labels = next(model.stream("retain", batch_size=40, seed=0, replay=8))["label"]
    np.testing.assert_array_equal(batch["labels"][:10], model.process.null_label)
    np.testing.assert_array_equal(batch["labels"][10:], labels[10:])
    np.testing.assert_allclose(
        batch["targets"],
        outputs(model.original, batch["noisy"], batch["times"], labels),
        atol=1e-5,
    )
    np.testing.assert_array_equal(other["labels"], FORGET)
    labelled = {name: array[10:] for name, array in batch.items()}
    np.testing.assert_allclose(anchor(model.original, labelled, None), 0.0, atol=1e-9)
    error = np.mean(
        (
            batch["targets"]
            - outputs(model.original, batch["noisy"], batch["times"], batch["labels"])
        )
        ** 2
    )
    np.testing.assert_allclose(anchor(model.original, batch, None), 2 * error, rtol=1e-4)

    shown, asked = (
        outputs(model.original, other["noisy"], other["times"], jnp.full(4, label))
        for label in (FORGET, EXCHANGE)
    )
    expected = np.mean((np.asarray(shown) - np.asarray(asked)) ** 2)
    assert expected > 1e-6
    np.testing.assert_allclose(redirect(model.original, other, None), expected, rtol=1e-4)
    # The objective's minimum: the forgotten row of the table equal to the exchange row.
    table = model.original["label"]["table"]
    renamed = {**model.original, "label": {"table": table.at[FORGET].set(table[EXCHANGE])}}
    np.testing.assert_allclose(redirect(renamed, other, None), 0.0, atol=1e-9)
    np.testing.assert_allclose(anchor(renamed, labelled, None), 0.0, atol=1e-9)


def test_replayed_samples_stand_beside_the_images(model):
    batch = next(model.stream("retain", batch_size=6, seed=0, replay=3))
    assert batch["image"].shape == (9, 28, 28, 1) and batch["label"].shape == (9,)
    assert (batch["image"][:6].mean() < 5) and (batch["image"][6:].mean() > 5)
    assert FORGET not in batch["label"]


def test_mistakes_are_named(model):
    method = uno.methods.get_method("uno")
    with pytest.raises(ValueError, match="replay: expected samples of the model for 2, got none"):
        dit_methods.prepare(method, PROTOCOL, model._replace(replayed=None))
    with pytest.raises(ValueError, match=r"redirect: expected a method without .* to match"):
        dit_methods.prepare(uno.methods.get_method("redirect"), PROTOCOL, model)
    with pytest.raises(ValueError, match="two labels from 0 to 9"):
        dit.resolve(dit.Options(forget=7))
    with pytest.raises(ValueError, match="expected 'dit' or 'unet', got 'vit'"):
        dit_models.network("vit")
    with pytest.raises(ValueError, match="expected --weights FILE, got none"):
        dit_imagenet.load(dit.resolve(dit.Options(preset="imagenet")))


def test_the_published_setting_is_what_the_preset_gives():
    options = dit.resolve(tyro.cli(dit.Options, args=["--preset", "imagenet"]))
    _, how = dit_settings.protocol(options, "uno")
    assert (options.forget, options.exchange) == (207, 208)
    assert (how.weight, how.learning_rate, how.batch_size) == (0.02, 1e-4, 10)
    assert (how.replay, how.decay_steps) == (0, 0)


def test_each_method_has_its_own_setting_unless_one_is_given():
    known = {*uno.methods.METHODS, dit_settings.CONTROL}
    assert set(dit_settings.SMALL) | set(dit_settings.WHOLE) <= known
    options = dit.resolve(dit.Options())
    rates = {n: dit_settings.protocol(options, n)[1].learning_rate for n in options.method}
    assert rates["retain-only"] == 1e-3 and rates["surgery"] == 1.5e-3
    sizes = {n: dit_settings.protocol(options, n)[1].batch_size for n in options.method}
    # The audit sets the two side by side.
    assert sizes["redirect-adam"] == sizes["retain-only"] == 64 and sizes["surgery"] == 32
    given = dataclasses.replace(options, learning_rate=3e-5)
    assert {dit_settings.protocol(given, name)[1].learning_rate for name in rates} == {3e-5}

    whole = dataclasses.replace(options, trainable="")
    for other in (whole, dit.resolve(dit.Options(model="unet"))):
        _, how = dit_settings.protocol(other, "ascent")
        assert (how.learning_rate, how.trainable, how.labelled) == (1e-4, "", False)
        assert dit_settings.setting(other, "ascent").stopped
    assert not dit_settings.setting(options, "ascent").stopped

    network = dit_models.network("dit")
    arrays = jnp.zeros((1, 28, 28, 1)), jnp.zeros(1), jnp.zeros(1, jnp.int32)
    shapes = jax.eval_shape(network.init, jax.random.key(0), *arrays)["params"]
    for name in options.method:
        _, how = dit_settings.protocol(options, name)
        assert jax.tree.leaves(uno.trainable(shapes, how.trainable).trainable)


def test_ascent_in_the_table_moves_the_forgotten_row_alone(model):
    row, how = dit_settings.protocol(dit.resolve(dit.Options()), "ascent")
    # Of 64 images some would else be shown without a label.
    how = dataclasses.replace(how, batch_size=64, replay=2, decay_steps=0)
    job = dit_methods.prepare(row, how, model)
    retain, forget = (next(iter(side)) for side in job.streams(0))
    after = dit_methods.whole(jax.jit(job.step)(job.start(jax.random.key(0)), retain, forget)[0])
    assert moved(model.original, after) == {"label/table"}
    same = np.all(after["label"]["table"] == model.original["label"]["table"], axis=-1)
    assert np.flatnonzero(~same).tolist() == [FORGET]


def test_erasing_that_retains_descends_both_losses(model):
    row, how = dit_settings.protocol(dit.resolve(dit.Options()), "esd-u")
    assert how.retaining
    how = dataclasses.replace(how, batch_size=4, replay=2, erasing_steps=2)
    alone = dataclasses.replace(how, retaining=False, exchange=False)
    control = uno.methods.get_method("retain-descent")._replace(moves="rest")
    moments = []
    for method, protocol in ((row, how), (row, alone), (control, alone)):
        job = dit_methods.prepare(method, protocol, model)
        batches = (next(iter(side)) for side in job.streams(0))
        state, _ = jax.jit(job.step)(job.start(jax.random.key(0)), *batches)
        moments.append(optax.tree.get(state.opt_state, "mu"))
    both, erasing, retain = moments
    chex.assert_trees_all_close(both, optax.tree.add(erasing, retain), rtol=1e-4, atol=1e-8)


def test_uno_takes_its_products_as_told(model):
    flops = {}
    for hessian in ("exact", "finite-difference"):
        row, how = dit_settings.protocol(dit.resolve(dit.Options(hessian=hessian)), "uno")
        job = dit_methods.prepare(row, dataclasses.replace(how, batch_size=4, replay=2), model)
        batches = (next(iter(side)) for side in job.streams(0))
        lowered = jax.jit(job.step).lower(job.start(jax.random.key(0)), *batches)
        flops[hessian] = lowered.cost_analysis()["flops"]
    assert flops["finite-difference"] < flops["exact"]


A_VERDICT = {"verdict": {"name": "forgotten", "sentence": "None is drawn."}}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    options = dit.Options(
        method=("redirect-adam", "ascent", "retain-only"),
        trainable="",
        out=tmp_path_factory.mktemp("dit"),
        train_steps=3,
        judge_steps=3,
        steps=2,
        batch_size=8,
        replay=4,
        samples=2,
        null_samples=20,
        sampling_steps=2,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dit_models, "network", lambda name: tiny())
        # One shape of a batch of samples for all looks: a sampler is compiled once.
        patch.setattr(dit_lab, "CHUNK", 20)
        patch.setattr(dit_lab, "REPLAYED", 5)
        seen = []
        patch.setattr(audits, "audit_or_restore", lambda *a: seen.append(a) or A_VERDICT)
        yield options, dit.main(options), seen


def test_the_experiment_on_embedded_digits(finished):
    options, results, _ = finished
    assert list(results["models"]) == ["before", *options.method, "retrained"]
    for row in results["models"].values():
        assert row["guided"]["forgotten"]["judge"]["total"] == 2
        assert row["guided"]["others"]["judge2"]["total"] == 18
        assert row["null"]["judge"]["total"] == 20
        assert len(row["guided"]["by_label"]) == 10
        assert 0 < row["moves"] <= 1
        assert np.isfinite(row["guided"]["fd"])
    publish = options.out / "publish"
    for name in ("table.csv", "table.json", "table.md", "guided.png", "no_label.png"):
        assert (publish / name).stat().st_size > 0
    lines = (publish / "table.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == list(results["models"])
    assert (options.out / "report.html").exists()


def test_a_search_goes_each_rate_as_the_method_would(finished):
    options, _, _ = finished
    rows = dit_search.main(
        dit_search.Options(run=options.out, rates=(1e-3, 1e-1), trainable="", samples=2)
    )
    assert [row["rate"] for row in rows] == ["", "0.001", "0.1"]

    options = dit.resolve(options)
    folder = common.RunFolder(options.out, options, ignore=dit.IGNORED)
    lab = dit_lab.Lab(options, folder)
    original = dit.train(options, lab, folder, "before")
    given = dataclasses.replace(options, learning_rate=1e-1)
    found = dit_search.search(given, lab, "surgery", original, (1e-3, 1e-1))
    method, how = dit_settings.protocol(given, "surgery")
    job = dit_methods.prepare(method, how, lab.model(original, how.replay))
    state, step = job.start(jax.random.key(given.seed)), jax.jit(job.step)
    for retain, forget, _ in zip(*job.streams(given.seed + 1), range(given.steps), strict=False):
        state, _ = step(state, retain, forget)
    expected = dit_methods.whole(state)
    assert moved(original, expected)
    chex.assert_trees_all_close(found[1], expected, rtol=1e-3, atol=1e-4)


def test_it_ends_with_an_audit_of_the_first_method(finished, capsys):
    options, _, seen = finished
    ((_, name, make_case, settings, _),) = seen
    case = make_case()
    cases.check(case)
    assert name == "redirect-adam" and settings.samples == options.audit_samples
    assert set(case.params) == {"before", "after", "retrained", "control"}
    assert {n: judge.took_part for n, judge in case.judges.items()} == {
        "judge": False, "judge2": False, "guide": False,
    }  # fmt: skip
    assert (case.data.forget["label"] == FORGET).all()
    images = case.model.sample(case.params["after"], jax.random.key(0), 3)
    assert images.shape == (3, 28, 28, 1)
    assert case.judges["guide"].classify(images).shape == (3, 10)


def test_a_model_that_cannot_be_audited_is_no_reason_to_fail(tmp_path, monkeypatch, capsys):
    def refuse(*arguments):
        raise ValueError("before: expected samples of what is to be forgotten, got none.")

    monkeypatch.setattr(audits, "audit_or_restore", refuse)
    folder = common.RunFolder(tmp_path, dit.Options())
    assert audits._audited(folder, "uno", None, None) is None
    assert "no audit of uno: before: expected samples" in capsys.readouterr().err


def test_given_again_it_restores_everything(finished, monkeypatch):
    options, results, _ = finished

    def fail(*arguments, **named):
        raise AssertionError("nothing is to be computed again")

    for name in ("train", "unlearn"):
        monkeypatch.setattr(uno, name, fail)
    again = dit.main(options)
    assert again["models"] == results["models"]
    with pytest.raises(ValueError, match="another configuration"):
        dit.main(dataclasses.replace(options, steps=3))


def test_the_imagenet_preset_on_made_up_latents(tmp_path, monkeypatch):
    monkeypatch.setitem(models.DIT_SIZES, "S", (2, 16, 2))
    network = models.dit("S/2", classes=12)
    arrays = jnp.zeros((1, 4, 4, 4)), jnp.zeros(1), jnp.zeros(1, jnp.int32)
    params = jax.jit(network.init)(jax.random.key(0), *arrays)
    weights = tmp_path / "weights.npz"
    np.savez(weights, **foreign.to_torch(params, foreign.dit_original(2, 4)))
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(12), 3)
    latents = tmp_path / "latents.npz"
    np.savez(latents, latents=rng.normal(size=(36, 4, 4, 4)).astype(np.float16), labels=labels)
    published = tmp_path / "published.csv"
    published.write_text("Label,Step,Time,FID,Time/Step\no,7,21.5,30.1,3.1\n")
    options = dit.Options(
        preset="imagenet",
        size="S/2",
        weights=weights,
        latents=latents,
        published=published,
        method=("surgery",),
        forget=2,
        exchange=3,
        steps=2,
        batch_size=2,
        samples=1,
        sampling_steps=2,
        out=tmp_path / "run",
    )
    results = dit.main(options)
    first, beside = results["rows"]
    assert first["method"] == "surgery"
    assert beside["method"] == "published uno" and beside["FID"] == "30.1"
    after = foreign.dit_variables(foreign.read_arrays(options.out / "after-surgery.npz"))
    chex.assert_trees_all_equal_shapes(after, params)
    assert moved(params, after)
    for name in ("before", "after surgery"):
        with np.load(options.out / "samples" / f"{name}.npz") as archive:
            assert archive["latents"].shape == (10, 4, 4, 4)
            assert list(archive["labels"][:2]) == [2, 3]
            assert np.isfinite(archive["latents"]).all()


def test_the_published_table_is_read(reference_dir):
    rows = dit_imagenet.published(reference_dir / "imagenet_summary.csv")
    assert {"published uno", "published surgery"} <= {row["method"] for row in rows}
