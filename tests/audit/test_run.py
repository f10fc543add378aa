"""The audit says of models whose knowledge is known what it should, and can say the opposite."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from tests.audit import mixture
from uno_jax import audit


def verdict(case, **options):
    return audit.run(case, settings=mixture.SETTINGS, **options)


def failed(found):
    return {criterion.group for criterion in found.verdict.criteria if not criterion.passed}


def test_a_model_against_itself_is_not_forgotten():
    found = verdict(mixture.case(steps=10))
    assert found.verdict.name == audit.NOT_FORGOTTEN
    assert {"generation", "memory"} <= failed(found) and "quality" not in failed(found)
    fraction = found.found["models"]["after"]["generation"]["fractions"]["own perceptron"]
    assert fraction["low"] < 0.25 < fraction["high"]
    # Of equal parameters and latents everything is equal.
    influence = found.found["models"]["after"]["influence"]["before"]
    assert influence["output_change"] == 0 and influence["retain_gap"]["value"] == 0
    assert influence["samples_frechet"] == pytest.approx(0, abs=1e-3)
    # Retain descent alone forgets some of it, which is not credited to anyone.
    (remark,) = [r for r in found.verdict.remarks if "credited" in r]
    assert "0.00% are credited" in remark


def test_a_model_that_never_knew_has_forgotten(tmp_path):
    found = verdict(mixture.case(mixture.params(logits=mixture.without(-9.0))), out=tmp_path)
    assert found.verdict.name == audit.FORGOTTEN and not failed(found)
    assert found.verdict.sentence == (
        "The model no longer draws what it was to forget, does not know it better than it "
        "should, keeps its quality, and does not learn it again from retained data."
    )
    after = found.found["models"]["after"]
    # Three classes of four, equally often: the divergence from the retained ones is small.
    assert after["generation"]["total_variation"] < 0.05
    gap = after["influence"]["before"]["forget_gap"]
    # The class was drawn with probability 1/4 and now with e^-9 of 1/3.
    assert gap["value"] == pytest.approx(9 + np.log(3 / 4), abs=0.3)
    saved = json.loads((tmp_path / "audit.json").read_text())
    assert saved == found.found and saved["schema"] == audit.SCHEMA
    assert saved["not_measured"]["control"] == "the number of the method's steps was not given"


SEEN = slice(0, 4)


def guide(images):
    """A weak classifier: it looks at a third of the pixels."""
    centres = jnp.asarray(mixture.means()[:, SEEN])
    return -jnp.sum((images[:, None, SEEN] - centres) ** 2, axis=-1)


def test_a_model_steered_by_a_classifier_is_found_out():
    # Where the guide looks, the forgotten class looks like another one now.
    means = mixture.means()
    means[mixture.FORGOTTEN, SEEN] = means[0, SEEN]
    case = mixture.case(
        mixture.params(means=means),
        judges={"guide": audit.Judge(guide, (mixture.FORGOTTEN,), took_part=True)},
    )
    found = verdict(case)
    fractions = found.found["models"]["after"]["generation"]["fractions"]
    assert found.verdict.name == audit.FOOLED, fractions
    assert {"agreement", "generation"} <= failed(found)
    # The guide alone would have said that it is forgotten.
    assert fractions["guide"]["count"] < 20 < fractions["own perceptron"]["count"]


def test_a_class_that_is_only_hidden_is_still_known():
    hidden = mixture.params(hide=1.0)
    found = verdict(mixture.case(hidden))
    assert found.verdict.name == audit.NOT_FORGOTTEN
    # None is drawn, and none comes back while it is hidden: the loss tells.
    assert failed(found) == {"memory"}
    (known,) = [c for c in found.verdict.criteria if c.name == "no longer known"]
    assert known.value == 0 and not known.passed


def test_what_comes_back_by_itself_is_called_so():
    def towards_the_original(params, batch, key):
        del batch, key
        return jnp.sum((params["logits"] - jnp.zeros(mixture.CLASSES)) ** 2)[None]

    trainer = audit.adam_trainer(towards_the_original, 1.0)
    model = audit.Model(mixture.sample, mixture.loss_fn, None, {"Adam": trainer})
    after = mixture.params(logits=mixture.without(-9.0))
    # Without the retrained model's own curve: it would come back as well.
    trees = {"before": mixture.params(), "after": after}
    found = verdict(mixture.case(model=model, params=trees))
    assert found.verdict.name == audit.REBOUNDS and failed(found) == {"relearning"}


def test_a_broken_model_is_no_success():
    means = mixture.means()
    means[[0, 2, 3]] = means[0]
    found = verdict(mixture.case(mixture.params(logits=mixture.without(-9.0), means=means)))
    assert found.verdict.name == audit.LOST
    assert {"Fréchet distance, own judge", "retained loss"} <= {
        c.name for c in found.verdict.criteria if not c.passed
    }


def test_a_model_that_draws_no_pictures_is_no_success():
    """All of it is finite, and nothing of it is a sample any more."""
    collapsed = mixture.params(logits=mixture.without(-9.0), means=np.full((4, 12), 3e19))
    found = verdict(mixture.case(collapsed))
    assert found.verdict.name == audit.LOST
    lost = {c.name: c for c in found.verdict.criteria if not c.passed}
    assert {"precision", "retained loss"} <= set(lost)
    # What is not finite is None in JSON, never left out.
    assert found.found["models"]["after"]["quality"]["retain_loss"]["value"] is None


def test_two_files_of_samples_will_do():
    rng = np.random.default_rng(5)

    def drawn(classes, count):
        return mixture.side(rng.permutation(classes), count, 6)["image"]

    case = audit.Case(
        data=mixture.data(),
        samples={"before": drawn([0, 1, 2, 3], 1200), "after": drawn([0, 2, 3], 1200)},
    )
    found = verdict(case)
    assert found.verdict.name == audit.FORGOTTEN
    assert {"losses", "relearning", "membership", "control"} <= set(found.found["not_measured"])
    # Nothing is said of what files of samples cannot show.
    assert found.verdict.sentence == (
        "The model no longer draws what it was to forget and keeps its quality. Whether it still "
        "knows it or learns it again was not asked."
    )
    again = verdict(
        audit.Case(data=case.data, samples={**case.samples, "after": drawn([0, 1], 1200)})
    )
    assert again.verdict.name == audit.NOT_FORGOTTEN


def test_members_that_are_remembered_are_found():
    data = mixture.data()
    spots = jnp.asarray(data.forget["image"])

    def remembering(params, batch, key):
        near = jnp.min(jnp.sum((batch["image"][:, None] - spots) ** 2, axis=-1), axis=1)
        bonus = params["hide"] * jnp.exp(-near)
        return mixture.loss_fn(params, batch, key) - 50.0 * bonus

    model = audit.Model(mixture.sample, remembering)
    # Drawn no more, less probable as a class, and yet each training example is known.
    after = mixture.params(logits=mixture.without(-9.0), hide=1.0)
    found = verdict(mixture.case(after, model=model, shadows=(mixture.params(hide=0.0),) * 2))
    assert "memory" in failed(found) and found.verdict.name == audit.NOT_FORGOTTEN
    attacks = found.found["models"]["after"]["membership"]
    assert attacks["threshold"]["auc"] > 0.95 and attacks["ratio"]["auc"] > 0.95
    assert found.found["models"]["retrained"]["membership"]["threshold"]["auc"] < 0.65


def test_without_labels_the_two_sides_are_told_apart():
    data = mixture.data()
    sides = {
        name: {"image": value["image"]} for name, value in vars(data).items() if value is not None
    }
    found = verdict(mixture.case(data=audit.Data(**sides)))
    assert found.verdict.name == audit.NOT_FORGOTTEN
    generation = found.found["models"]["after"]["generation"]
    assert "histogram" not in generation
    fraction = generation["fractions"]["own perceptron"]
    assert fraction["low"] - 0.03 < 0.25 < fraction["high"] + 0.03


def test_the_same_seed_says_the_same():
    after = mixture.params(logits=mixture.without(-2.0))
    first, second = (verdict(mixture.case(after)).found for _ in range(2))
    for found in (first, second):
        del found["about"]
    assert first == second


def proportion(count, total=1000):
    from uno_jax import metrics

    return metrics.proportion(count, total)._asdict()


def model(*counts, **quality):
    """What an audit finds of a model of which judges take so many of 1,000 for the forgotten."""
    names = ("one", "two", "three")[: len(counts)]
    fractions = {name: proportion(count) for name, count in zip(names, counts, strict=True)}
    usual = {"kept": 900, "frechet": {"own judge": 1.0}, "frechet_floor": {"own judge": 0.1},
             "precision": 0.9, "recall": 0.5}  # fmt: skip
    return {"generation": {"fractions": fractions}, "quality": usual | quality}


def test_a_judge_is_worth_what_it_is_worth_on_the_retrained_model():
    """Two judges differ on pictures between classes, on a model that never saw the class too."""
    from uno_jax.audit import verdict as verdicts

    judges = {name: audit.Judge(None, (1,)) for name in ("one", "two")}

    found = {
        "models": {"before": model(120, 130), "after": model(10, 90)},
        "judges": {
            name: {"recall": proportion(990), "false_alarms": proportion(2)} for name in judges
        },
    }
    assert verdicts.decide(found, judges, audit.Thresholds()).name == audit.FOOLED
    found["models"]["retrained"] = model(5, 110)
    said = verdicts.decide(found, judges, audit.Thresholds())
    assert said.name == audit.FORGOTTEN
    assert any("two takes 11.00% of the retrained" in remark for remark in said.remarks)
    limits = {c.name: c.limit for c in said.criteria}
    assert limits["drawn, one"] == 0.02 and limits["drawn, two"] == 0.11
    assert limits["disagreement"] == pytest.approx(0.02 + 0.105)


def test_judges_that_all_see_few_enough_may_differ_unless_one_took_part():
    """Faces: the retrained model's are blurred, and a third of them passes for the forgotten."""
    from uno_jax.audit import verdict as verdicts

    def decide(*counts, guided=(), **quality):
        judges = {
            name: audit.Judge(None, (1,), name in guided)
            for name in ("one", "two", "three")[: len(counts)]
        }
        worth = {"recall": proportion(990), "false_alarms": proportion(2)}
        models = {
            "before": model(*(650, 580, 600)[: len(counts)]),
            "after": model(*counts, **quality),
            "retrained": model(*(340, 390, 360)[: len(counts)]),
        }
        found = {"models": models, "judges": dict.fromkeys(judges, worth)}
        return verdicts.decide(found, judges, audit.Thresholds())

    said = decide(40, 125)
    (agreement,) = (c for c in said.criteria if c.group == "agreement")
    assert said.name == audit.FORGOTTEN
    assert agreement.value > agreement.limit and "its own limit" in agreement.what
    assert "no more often than the retrained model" in said.sentence
    lost = decide(40, 125, precision=0.1)
    assert lost.name == audit.LOST
    assert "no more often than the retrained model, but has lost" in lost.sentence
    # What steered the method sees less than another, if not the least of all.
    assert decide(40, 125, guided=("one",)).name == audit.FOOLED
    assert decide(40, 125, 45, guided=("three",)).name == audit.FOOLED
    assert decide(100, 450).name == audit.FOOLED  # one is content, the other not
    assert decide(450, 600).name == audit.NOT_FORGOTTEN
