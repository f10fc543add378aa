"""What the CelebA experiment measures of a model, and with which eyes."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

import uno_jax as uno
from experiments import celeba_models
from experiments.celeba_models import Classifier
from uno_jax import checkpoints, data, foreign, metrics, models
from uno_jax.redirect import latent_shift

EYES = ("judge", "judge2", "guide")
REFERENCES = 5000  # retained training faces that a Fréchet distance is taken to


class Target:
    """What to forget: an expression, or a list of image names.

    Args:
      text: the expression.
      files: a file with one image name a line, instead of the expression.

    Raises:
      ValueError: for an expression that cannot be read or an unknown attribute.
    """

    def __init__(self, text: str, files: Path | None = None):
        self.expression = None if files else data.parse(text, data.ATTRIBUTES)
        self.files = set(files.read_text().split()) if files else set()
        self.text = files.stem if files else text
        words = self.text.replace("~", " not ").replace("!=", " is not ").replace("==", " ")
        words = words.replace("&", " and ").replace("|", " or ")
        self.slug = "-".join("".join(c if c.isalnum() or c == "_" else " " for c in words).split())

    def mask(self, faces: data.Faces) -> np.ndarray:
        """(N,) bool, true for what to forget."""
        if self.expression is None:
            return np.isin(faces.files, sorted(self.files))
        return self.expression.mask(faces.columns(), faces.identity)

    def split(self, faces: data.Faces) -> data.Split:
        """Divides the training faces.

        Raises:
          ValueError: if a side is empty, or a name in the file is that of no face.
        """
        if unknown := sorted(self.files - set(faces.files.tolist())):
            raise ValueError(
                f"forget-files: expected names of images of {faces.name}, such as "
                f"{faces.files[0]}; {len(unknown)} are none: {', '.join(unknown[:5])}."
            )
        return data.split_by_mask(self.mask(faces), faces.name)

    def eye(self, classifier: Classifier, faces: data.Faces) -> Callable:
        """From images to (N, 2) logits, retained and to be forgotten; differentiable.

        An expression over attributes is what the classifier says of them. For anything
        else, a linear discriminant of its features is fitted to the training faces.
        """
        if self.expression is not None and self.expression.of_attributes:

            def look(images):
                chances = jax.nn.sigmoid(classifier.logits(images))
                columns = dict(zip(data.ATTRIBUTES, chances.T, strict=True))
                p = jnp.clip(self.expression.probability(columns), 1e-6, 1 - 1e-6)
                return jnp.stack([jnp.log1p(-p), jnp.log(p)], axis=1)

            return look
        features = embed(classifier, faces)
        ridge = np.full_like(features, np.log(1e-3))
        line = latent_shift(features, ridge, self.mask(faces))

        def look_along(images):
            odds = classifier.embed(images) @ line.direction.astype(np.float32) + line.offset
            return jnp.stack([jnp.zeros_like(odds), odds], axis=1)

        return look_along


def embed(classifier: Classifier, faces: data.Faces, rows: np.ndarray | None = None) -> np.ndarray:
    """Features of faces of a set, (N, D)."""
    rows = np.arange(len(faces.images)) if rows is None else rows
    return np.concatenate(
        [
            np.asarray(classifier.embed(data.to_floats(faces.images[part])))
            for part in np.array_split(rows, -(-len(rows) // 500))
        ]
    )


def train_fingerprint(faces: data.Faces) -> str:
    """Of every label and of a thousand faces."""
    some = faces.images[:: max(1, len(faces.images) // 1000)]
    return checkpoints.fingerprint(
        {"images": some, "attributes": faces.attributes, "identity": faces.identity}
    )


class Lab:
    """The data, the eyes and the measures of one forget set.

    Args:
      options: of the experiment.
      target: what to forget.
      train: training faces.
      test: held-out faces.
      classifiers: the trained `celeba_models.architectures`.
    """

    def __init__(
        self,
        options,
        target: Target,
        train: data.Faces,
        test: data.Faces,
        classifiers: dict[str, Classifier],
    ):
        self.options, self.target, self.train, self.test = options, target, train, test
        self.split = target.split(train)
        self.test_mask = target.mask(test)
        self.vae = celeba_models.vae(options)
        self.classifiers = classifiers
        self.eyes = {name: target.eye(classifiers[name], train) for name in EYES}
        key = jax.random.key(options.seed + 2)
        self.latents = jax.random.normal(key, (options.samples, options.latents))
        self.decode = jax.jit(
            lambda state, z: models.decode(self.vae, state.params, state.model_state, z)
        )
        self.reconstruct = jax.jit(self._reconstruct)
        self._bound = jax.jit(
            lambda state, x, key: models.negative_elbo(
                self.vae, state.params, state.model_state, x, key
            )
        )

    def _reconstruct(self, state, images):
        variables = {"params": state.params, "batch_stats": state.model_state}
        mean, _ = self.vae.apply(variables, images, method="encode")
        return models.decode(self.vae, state.params, state.model_state, mean)

    def samples(self, state: uno.TrainState, count: int | None = None) -> np.ndarray:
        """Pictures of the fixed latents, (N, side, side, 3) in [-1, 1]."""
        latents = self.latents[:count]
        return np.concatenate(
            [self.decode(state, latents[i : i + 500]) for i in range(0, len(latents), 500)]
        )

    def fraction(self, who: str, images: np.ndarray) -> metrics.Proportion:
        """What one of the eyes takes for the forgotten."""
        return metrics.forgotten_fraction(self.eyes[who], images, 1)

    def look(self, state: uno.TrainState) -> dict:
        """A look at each step: 128 samples for the stop, at some steps more to judge."""
        row = {"guide_fraction": self.fraction("guide", self.samples(state, 128)).value}
        step = int(state.step)
        if step in (0, 1, 2, 3, 5) or step % 10 == 0:
            judged = self.fraction("judge", self.samples(state, 1000))
            row |= {"forgotten_fraction": judged.value, "low": judged.low, "high": judged.high}
        return row

    @cached_property
    def _reference(self) -> np.ndarray:
        rows = np.random.default_rng(0).permutation(self.split.retain)[:REFERENCES]
        return np.sort(rows)

    @cached_property
    def _reference_features(self) -> np.ndarray:
        return embed(self.classifiers["judge"], self.train, self._reference)

    @cached_property
    def _inception(self):
        features = metrics.inception_embedder(foreign.read_arrays(self.options.inception))
        return features, features(data.to_floats(self.train.images[self._reference]))

    def bound(self, state: uno.TrainState, mask: np.ndarray) -> float | None:
        """Mean −ELBO of held-out faces, None if there are none."""
        images = self.test.images[np.flatnonzero(mask)]
        parts = [
            self._bound(state, data.to_floats(images[i : i + 256]), jax.random.key(3 + i))
            for i in range(0, len(images), 256)
        ]
        return float(np.mean(np.concatenate(parts))) if parts else None

    def measure(self, state: uno.TrainState) -> dict:
        """Everything the table says of a model."""
        images = self.samples(state)
        row = {who: self.fraction(who, images)._asdict() for who in EYES}
        row["fd"] = metrics.frechet_distance(
            np.concatenate(
                [
                    np.asarray(self.classifiers["judge"].embed(images[i : i + 500]))
                    for i in range(0, len(images), 500)
                ]
            ),
            self._reference_features,
        )
        if self.options.inception:
            features, reference = self._inception
            row["fid"] = metrics.frechet_distance(features(images), reference)
        row["retained_bound"] = self.bound(state, ~self.test_mask)
        row["forgotten_bound"] = self.bound(state, self.test_mask)
        return row

    def rebound(self, state: uno.TrainState, norm: str, seed: int) -> float:
        """The judge's fraction after some steps of retain descent with a cold Adam."""
        tx = optax.adam(self.options.learning_rate)
        loss_fn = models.make_vae_loss(self.vae, norm=norm)
        step = self._steps.setdefault(
            norm, jax.jit(uno.make_training_step(loss_fn, tx, has_model_state=True))
        )
        batches = data.face_batches(
            self.train, self.split.retain, batch_size=self.options.batch_size, seed=seed + 77
        )
        start = uno.create_state(
            state.params, tx, jax.random.key(seed), model_state=state.model_state
        )
        result = uno.train(step, start, batches, max_steps=self.options.rebound_steps)
        return self.fraction("judge", self.samples(result.state, 2000)).value

    @cached_property
    def _steps(self) -> dict[str, Callable]:
        return {}

    def accuracies(self) -> dict[str, dict]:
        """How well each of the eyes tells held-out faces apart, and how often it errs."""
        faces, mask = (
            (self.test, self.test_mask)
            if self.test_mask.any()
            else (self.train, self.target.mask(self.train))
        )
        return {
            name: {
                "set": faces.name,
                "recall": self._share(look, faces, mask),
                "false alarms": self._share(look, faces, ~mask),
            }
            for name, look in self.eyes.items()
        }

    def _share(self, look, faces, mask):
        images = data.to_floats(faces.images[np.flatnonzero(mask)])
        return metrics.forgotten_fraction(look, images, 1)._asdict()
