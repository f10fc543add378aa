"""What looks at a model in the MNIST table: judges, bound, distances, rebound."""

import itertools
import time
from collections.abc import Callable
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
import optax

import uno_jax as uno
from experiments import common, published, redirect, training
from experiments.vae_methods import Job, Model
from uno_jax import data, metrics, models

REBOUND = (20, 100)
# The second needs twice the steps to reach 99 %.
JUDGES = {"judge": (models.DigitCNN((16, 32)), 1), "judge2": (models.DigitDeepMLP(), 2)}


class Lab:
    """The data, the published model and those who judge, made once per process.

    Nothing that judges is handed to a method; the guide is, and judges nothing.
    """

    def __init__(self, options, folder: common.RunFolder):
        self.options = options
        self.vae = models.MnistVAE()
        self.original = published.load_vae(options.reference / "mnist_vae.npz")
        self.guide, self.guide_features = map(
            jax.jit, published.load_guide(options.reference / "mnist_classifier.npz")
        )
        self.train, self.test = (data.load(options.data, part) for part in ("train", "test"))
        self.images, self.test_images = map(data.flatten, (self.train, self.test))
        self.judges = {name: self._judge(name, folder) for name in JUDGES}
        params = self.judges["judge"][1]
        self.judge_features = jax.jit(
            lambda x: JUDGES["judge"][0].apply({"params": params}, x, method="embed")
        )
        self.decode = jax.jit(
            lambda state, z: models.decode(self.vae, state.params, state.model_state, z)
        )
        self._bound = jax.jit(self._mean_bound, static_argnames="train")
        self._counts = jax.jit(self._count, static_argnames="who")
        self._guided = jax.jit(self._guide_fraction)
        self._rebound_steps: dict[str, Callable] = {}
        self._before: dict[tuple[int, int], dict] = {}

    def _judge(self, name, folder):
        model, factor = JUDGES[name]
        return training.classifier(
            folder,
            self.train,
            name,
            model,
            steps=factor * self.options.judge_steps,
            learning_rate=1.5e-3,
            key=jax.random.key(sorted(JUDGES).index(name)),
            seed=0,
        )

    def model(self, digit: int) -> Model:
        """The published model with one digit to forget."""
        split = data.split_by_label(self.train, lambda label: label == digit)
        return redirect.digits(self.vae, self.original, self.train, split, self.images)

    @cached_property
    def accuracies(self) -> dict[str, float]:
        """Test accuracy of everyone who looks."""
        all_ = {**{name: judge for name, (judge, _) in self.judges.items()}, "guide": self.guide}
        return {
            name: metrics.accuracy(classify, self.test_images, self.test.labels).value
            for name, classify in all_.items()
        }

    def latents(self, seed: int) -> jax.Array:
        """The fixed latents of a seed."""
        return jax.random.normal(jax.random.key(10_000 + seed), (self.options.samples, 2))

    def guide_fraction(self, digit: int, seed: int) -> Callable:
        """The published criterion: the guide's fraction of 128 samples of a state."""
        z = self.latents(seed)[:128]
        return lambda state: self._guided(state, z, digit)

    def _guide_fraction(self, state, z, digit):
        logits = self.guide(models.decode(self.vae, state.params, state.model_state, z))
        return jnp.mean(logits.argmax(axis=-1) == digit)

    def _mean_bound(self, state, images, key, train):
        arguments = self.vae, state.params, state.model_state, images, key
        return jnp.mean(models.negative_elbo(*arguments, train=train))

    def bound(self, state, digit, *, train=False) -> float:
        """Negative ELBO of the retained test digits, nats per image."""
        images = self.test_images[self.test.labels != digit]
        return float(self._bound(state, images, jax.random.key(3), train=train))

    def look(self, state, digit, seed, *, thorough=False) -> dict:
        """Counts and figures of a model; thorough adds what is asked at the stop."""
        counted = ("judge", "guide", "judge2") if thorough else ("judge", "guide")
        z = self.latents(seed)
        counts = jax.device_get(self._counts(state, z, digit, who=counted))
        row = {
            "total": len(z),
            **{name: int(count) for name, count in counts.items()},
            "bound": self.bound(state, digit),
        }
        if thorough:
            row["bound_batch"] = self.bound(state, digit, train=True)
            row |= self._distances(self.decode(state, z), digit)
        return row

    def _count(self, state, latents, digit, who):
        """How many pictures each of some takes for the digit."""
        images = models.decode(self.vae, state.params, state.model_state, latents)
        # A destroyed model draws NaN: such a picture is no digit.
        drawn = jnp.isfinite(images).all(axis=1)
        images = jnp.nan_to_num(images)
        return {
            name: jnp.sum((self._classify(name, images).argmax(axis=-1) == digit) & drawn)
            for name in who
        }

    def _classify(self, who, images):
        classify = self.guide if who == "guide" else self.judges[who][0]
        # In pieces, whose intermediates stay in the cache; written out, since XLA's CPU
        # backend runs convolutions inside a loop slowly.
        pieces = [images[start : start + 500] for start in range(0, len(images), 500)]
        return jnp.concatenate([classify(piece) for piece in pieces])

    def _distances(self, images, digit):
        if not jnp.isfinite(images).all():
            return {"fd_guide": float("nan"), "fd_judge": float("nan")}
        kept = self.test.labels != digit
        return {
            "fd_guide": metrics.frechet_distance(
                np.asarray(self.guide_features(images)), self._test_features["guide"]
            ),
            "fd_judge": metrics.frechet_distance(
                np.asarray(self.judge_features(images)), self._test_features["judge"][kept]
            ),
        }

    @cached_property
    def _test_features(self) -> dict[str, np.ndarray]:
        return {
            "guide": np.asarray(self.guide_features(self.test_images)),
            "judge": np.asarray(self.judge_features(self.test_images)),
        }

    def before(self, digit: int, seed: int) -> dict:
        """A thorough look at the published model."""
        if (digit, seed) not in self._before:
            self._before[digit, seed] = self.look(self.original, digit, seed, thorough=True)
        return self._before[digit, seed]

    def rebound(self, state, digit, seed, *, steps=REBOUND) -> dict:
        """Judge's counts after retain descent with a cold Adam, both batch-norm modes."""
        retain = self.model(digit).split.retain
        tx = optax.adam(1e-3)
        row = {}
        for norm in ("running", "batch"):
            if norm not in self._rebound_steps:
                loss_fn = models.make_vae_loss(self.vae, norm=norm)
                step = uno.make_training_step(loss_fn, tx, has_model_state=True)
                self._rebound_steps[norm] = jax.jit(step)
            after = uno.create_state(
                state.params, tx, jax.random.key(seed), model_state=state.model_state
            )
            batches = data.batches(self.train, retain, batch_size=128, seed=seed + 77)
            for number, batch in enumerate(itertools.islice(batches, max(steps)), start=1):
                after, _ = self._rebound_steps[norm](after, batch)
                if number in steps:
                    count = self._counts(after, self.latents(seed), digit, who=("judge",))
                    row[f"rebound_{norm}_{number}"] = int(count["judge"])
        return row

    def run(self, job: Job, step: Callable, digit: int, seed: int, *, steps, marks, stop) -> dict:
        """Runs one seed of a job.

        Args:
          job: what `prepare` made.
          step: its step, jitted.
          digit: the forgotten digit.
          seed: of batches, noise and latents.
          steps: most steps.
          marks: steps after which to look; the run goes on to the last of them even when
            it has stopped.
          stop: "guide": the published criterion ends it; "last": its steps do.

        Returns:
          Figures at the marks, at the stop and after it.
        """
        state = job.start(jax.random.key(seed))
        fraction = self.guide_fraction(digit, seed)
        at_marks, stopped, final, seconds = {}, None, None, []
        for number, batches in enumerate(zip(*job.streams(seed + 1), strict=False), start=1):
            begin = time.perf_counter()
            state, _ = jax.block_until_ready(step(state, *batches))
            seconds.append(time.perf_counter() - begin)
            if number in marks:
                at_marks[number] = self.look(state, digit, seed)
            if stopped is None and stop == "guide" and fraction(state) < 0.02:
                stopped, final = number, state
            if number == steps or (stopped and number >= max(marks)):
                break
        reached = stopped is not None
        stopped, final = (stopped, final) if reached else (number, state)
        return {
            "seed": seed,
            "reached": reached,
            "stop_step": stopped,
            "seconds_per_step": float(np.median(seconds)),
            "marks": at_marks,
            "stop": self.look(final, digit, seed, thorough=True),
            **self.rebound(final, digit, seed, steps=self.options.rebound),
            "state": final,
        }
