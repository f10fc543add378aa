"""What cannot be done is refused in words: what was expected, what was got."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import uno_jax as uno
from tests.audit import mixture
from uno_jax import audit, data, diffusion, metrics, models

QUICK = audit.Settings(
    samples=200, examples=40, draws=1, judge_steps=60, retain_steps=(1,), forget_steps=(1,),
    forget_examples=(1,), relearn_samples=100, batch_size=16, resamples=5,
)  # fmt: skip


def audited(after=None, **changes):
    return lambda: audit.run(mixture.case(after, **changes), settings=QUICK)


def with_side(**changes):
    return audited(data=mixture.data(**changes))


def of_samples(images):
    before = mixture.side([0, 1, 2, 3], 400, 7)["image"]
    case = audit.Case(data=mixture.data(), samples={"before": before, "after": images})
    return lambda: audit.run(case, settings=QUICK)


def judged(classify, forgotten=(1,)):
    return audited(judges={"yours": audit.Judge(classify, forgotten)})


def with_params(**changes):
    return audited(params={"before": mixture.params(), "after": mixture.params(), **changes})


SIDE = mixture.side([1], 50, 9)
NAN = mixture.params(means=np.full((4, mixture.SIDE), np.nan))
FEW = {"logits": jnp.zeros(3), "means": jnp.zeros((3, mixture.SIDE)), "hide": jnp.zeros(())}
NEVER = mixture.params(logits=mixture.without(-30.0))
LOSS = lambda params, batch, key: jnp.sum((params - batch) ** 2)  # noqa: E731
KEY = jax.random.key(0)
RETAIN = [jnp.ones(2)]

CASES = {
    # The data of an audit.
    "an empty forget set": (
        with_side(forget=mixture.side([1], 0, 0)),
        "forget: expected at least 2 examples, got 0",
    ),
    "a single example": (with_side(retain=mixture.side([0], 1, 0)), "at least 2 examples, got 1"),
    "no images": (
        with_side(forget={"label": SIDE["label"]}),
        "forget: expected arrays with the name image, got ['label']",
    ),
    "images and labels of different number": (
        with_side(forget={**SIDE, "label": SIDE["label"][:9]}),
        "forget: expected arrays of one length, got {'image': 50, 'label': 9}",
    ),
    "a label for all": (with_side(forget={**SIDE, "label": 1}), "arrays of one length"),
    "images of another size": (
        with_side(forget={**SIDE, "image": SIDE["image"][:, :5]}),
        "with images of (12,), as in retain, got ['image', 'label'] with (5,)",
    ),
    "labels on one side alone": (
        with_side(forget={"image": SIDE["image"]}),
        "forget: expected ['image', 'label'] with images of (12,)",
    ),
    "images of bytes": (
        with_side(forget={**SIDE, "image": np.zeros((50, 12), np.uint8)}),
        "expected images of floats, as the model takes them, got uint8",
    ),
    "images with NaN": (
        with_side(forget={**SIDE, "image": np.full((50, 12), np.nan)}),
        "forget: expected finite images, got NaN or infinity",
    ),
    "labels that are no integers": (
        with_side(forget={**SIDE, "label": SIDE["label"] / 2}),
        "forget: expected labels of integers, got float64",
    ),
    "two sides that are the same": (
        with_side(forget=mixture.side([0, 2, 3], 200, 2), forget_held_out=None),
        "expected to tell the forget set from the retained one",
    ),
    # Its models.
    "no model after": (
        audited(params={"before": mixture.params()}),
        "params: expected before, after and perhaps retrained, control, got ['before']",
    ),
    "a model of another name": (with_params(later=mixture.params()), "got ['after', 'before', 'l"),
    "parameters without a model": (audited(model=None), "samples: expected before, after"),
    "samples and parameters": (
        audited(model=None, samples=dict.fromkeys(("before", "after"), SIDE["image"])),
        "model: expected how the parameters are used, got None",
    ),
    "models of different shapes": (with_params(after=FEW), "after"),
    "models of different structure": (with_params(after={"weights": jnp.ones(3)}), "after"),
    "parameters that are not finite": (
        with_params(after=NAN),
        "params: expected finite numbers, got others at after/means",
    ),
    "a shadow of another shape": (audited(shadows=(FEW,)), "shadow 0"),
    "a class that is never drawn": (
        with_params(before=NEVER, after=NEVER),
        "before: expected samples of what is to be forgotten, got none among 200",
    ),
    "fewer samples than asked for": (
        audited(model=audit.Model(lambda params, key, n: jnp.zeros((n - 1, 12)))),
        "sample: expected 200 samples, got shape (199, 12)",
    ),
    "a loss of the whole batch": (
        audited(model=audit.Model(mixture.sample, lambda *a: jnp.mean(mixture.loss_fn(*a)))),
        "loss_fn: expected a loss of each example, shape (40,), got ()",
    ),
    "a negative number of steps": (audited(steps=-1), "steps: expected at least 0, got -1"),
    "costs that are no numbers": (
        audited(cost={"seconds": float("nan")}),
        "cost: expected finite numbers of at least 0, got others: ['seconds']",
    ),
    # Its samples.
    "samples of bytes' range": (
        of_samples(127 + 100 * SIDE["image"]),
        "after: expected images in the range of the data",
    ),
    "samples of one colour": (of_samples(np.zeros((50, 12))), "in the range of the data"),
    "samples of another size": (
        of_samples(np.zeros((50, 13))),
        "after: expected at least 2 samples of (12,), as the data has, got (50, 13)",
    ),
    "samples that are not finite": (
        of_samples(np.full((50, 12), np.inf)),
        "after: expected finite samples, got none",
    ),
    # Its judges.
    "a judge that forgets nothing": (
        judged(lambda x: jnp.zeros((len(x), 4)), ()),
        "judge yours: expected the classes that are forgotten, got none",
    ),
    "a judge with the name of the audit's own": (
        audited(judges={"own perceptron": audit.Judge(lambda x: x, (1,))}),
        "judges: expected names that the audit's own have not, got 'own perceptron'",
    ),
    "a judge of one class": (
        judged(lambda x: jnp.zeros((len(x), 1)), (0,)),
        "judge yours: expected logits of at least two classes",
    ),
    "a judge without that class": (
        judged(lambda x: jnp.zeros((len(x), 4)), (7,)),
        "(7,) among them, for each image, got shape (2, 4) for two images",
    ),
    "a judge that says always the same": (
        judged(lambda x: jnp.eye(4)[jnp.ones(len(x), int)]),
        "judge yours: expected to tell the forget set from the retained one",
    ),
    # Its settings.
    "too few samples": (
        lambda: audit.Settings(samples=10),
        "samples: expected at least 100, got 10",
    ),
    "no steps": (
        lambda: audit.Settings(retain_steps=(0,)),
        "retain_steps: expected at least 1, got 0",
    ),
    "a threshold above 1": (
        lambda: audit.Thresholds(forgotten=2.0),
        "forgotten: expected a number from 0 to 1, got 2.0",
    ),
    # Transformations, steps and loops.
    "an unknown method": (lambda: uno.methods.get_method("forget-me"), "method: expected one of"),
    "a method without what it needs": (
        lambda: uno.methods.get_method("redirect-diagonal").build(optax.sgd(1.0)),
        "redirect-diagonal: expected second_moment, got None",
    ),
    "turns of nothing": (lambda: uno.alternate(), "alternate: expected at least one"),
    "an unknown way to take products": (
        lambda: uno.orthogonalize(hessian="guess"),
        "hessian: expected",
    ),
    "no step to make": (
        lambda: uno.train(None, None, [], max_steps=0),
        "max_steps: expected at least 1, got 0",
    ),
    "never a look": (
        lambda: uno.unlearn(None, None, [], [], max_steps=1, evaluate_every=0),
        "evaluate_every: expected at least 1, got 0",
    ),
    "too few batches": (
        lambda: uno.training.second_moment(LOSS, jnp.zeros(2), RETAIN, KEY, count=2),
        "batches: expected at least 2, got 1",
    ),
    "no parameters to train": (
        lambda: uno.trainable({"layer": jnp.ones(2)}, "head"),
        "head",
    ),
    # Models, diffusion, data, metrics.
    "an unknown mode of batch norm": (
        lambda: models.make_vae_loss(models.MnistVAE(), norm="group"),
        "norm: expected one of ('batch', 'running'), got 'group'",
    ),
    "labels dropped without a null label": (
        lambda: diffusion.make_diffusion_loss(
            diffusion.Diffusion(lambda p, x, t, y: x, diffusion.linear()), label_dropout=0.1
        ),
        "label_dropout: expected a model with a null label",
    ),
    "everything to be forgotten": (
        lambda: data.split_by_mask(np.ones(3, bool), "faces"),
        "forget: expected to choose some of the 3 examples of faces and leave some",
    ),
    "an attribute that is none": (lambda: data.parse("Glasses", data.ATTRIBUTES), "Glasses"),
    "more than all": (lambda: metrics.proportion(3, 2), "expected 0 <= count <= total"),
    "features of different width": (
        lambda: metrics.frechet_distance(np.zeros((5, 2)), np.zeros((5, 3))),
        "expected (N, D) and (M, D)",
    ),
    "too few neighbours to count": (
        lambda: metrics.covered(np.zeros((5, 2)), np.zeros((3, 2))),
        "covered: expected (N, D) and (M, D) with M above 3 neighbours",
    ),
    "scores of nobody": (lambda: metrics.attack([], [1.0]), "attack: expected finite scores"),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_said_what_was_expected(name):
    call, message = CASES[name]
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


def test_there_are_enough_of_them():
    assert len(CASES) >= 40
