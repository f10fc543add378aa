"""What looks at a conditional model of digits: samples per label, judges, distances."""

import json
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import common, devices, dit_methods, dit_models, training
from uno_jax import checkpoints, data, metrics, models

CHUNK = 250
REPLAYED = 100
"""Samples to replay, of each retained label."""
KINDS = ("guided", "unguided")
# The second needs twice the steps to come near the first.
JUDGES = {"judge": (models.DigitCNN(), 1), "judge2": (models.DigitDeepMLP(), 2)}


class Lab:
    """The data, the network and those who judge; nothing of it is handed to a method."""

    def __init__(self, options, folder: common.RunFolder, where: devices.Devices = devices.ONE):
        self.options, self.folder = options, folder
        self.network = dit_models.network(options.model)
        self.train, self.test = (data.load(options.data, part) for part in ("train", "test"))
        self.images = dit_models.pictures(self.train)
        folder.data = checkpoints.fingerprint(
            {"images": self.train.images, "labels": self.train.labels}
        )
        classifier = partial(
            training.classifier,
            folder,
            self.train,
            learning_rate=2e-3,
            seed=options.seed,
            devices=where,
        )
        self.judges, params = {}, {}
        for number, (name, (model, factor)) in enumerate(JUDGES.items()):
            key = jax.random.fold_in(jax.random.key(options.seed), 100 + number)
            self.judges[name], params[name] = classifier(
                name, model, steps=factor * options.judge_steps, key=key
            )
        key = jax.random.fold_in(jax.random.key(options.seed), 102)
        self.guide, _ = classifier("guide", models.DigitMLP(), steps=options.judge_steps, key=key)
        self._features = jax.jit(
            lambda x: JUDGES["judge"][0].apply({"params": params["judge"]}, x, method="embed")
        )
        make = partial(dit_models.make_sampler, self.network, sampler=options.sampler)
        self._draw = {
            "guided": make(guidance=options.guidance, steps=options.sampling_steps),
            "unguided": make(guidance=1.0, steps=options.sampling_steps),
            "quick": make(guidance=1.0, steps=10),
        }

    def model(self, original: Any, replay: int = 0) -> dit_methods.Model:
        """The trained model with the digit to forget, and what it draws if that is replayed."""
        options = self.options
        process = dit_models.process(self.network)
        arrays = self.images, self.train.labels
        model = dit_methods.Model(process, original, *arrays, options.forget, options.exchange)
        return model._replace(replayed=self._replayed(original) if replay else None)

    def _replayed(self, original):
        """Guided samples of the retained labels, drawn once."""
        file = self.folder.path / "samples" / "replayed.npz"
        if not file.exists():
            kept = np.delete(np.arange(10, dtype=np.int32), self.options.forget)
            labels = np.repeat(kept, REPLAYED)
            images = self.samples(original, labels, "guided", seed=4)
            np.savez_compressed(file, image=2 * images.reshape(-1, 28, 28, 1) - 1, label=labels)
        with np.load(file) as archive:
            return dict(archive)

    def samples(self, params: Any, labels: np.ndarray, kind: str, seed: int = 0) -> np.ndarray:
        """Samples of some labels, in [0, 1]: (N, 784). The same seed, the same noise."""
        parts = []
        for number, start in enumerate(range(0, len(labels), CHUNK)):
            part = labels[start : start + CHUNK]
            padded = np.resize(part, min(CHUNK, len(labels)))
            key = jax.random.fold_in(jax.random.key(10_000 + self.options.seed + seed), number)
            drawn = self._draw[kind](params, key, jnp.asarray(padded, jnp.int32))[: len(part)]
            parts.append(np.asarray(dit_models.to_unit(drawn)))
        # A destroyed model draws NaN: such a picture is no digit.
        return np.nan_to_num(np.concatenate(parts))

    @cached_property
    def accuracies(self) -> dict[str, float]:
        """Test accuracy of everyone who looks."""
        images = data.flatten(self.test)
        everyone = {**self.judges, "guide": self.guide}
        return {
            name: metrics.accuracy(classify, images, self.test.labels).value
            for name, classify in everyone.items()
        }

    @cached_property
    def _kept_features(self) -> np.ndarray:
        kept = self.test.labels != self.options.forget
        return np.asarray(self._features(data.flatten(self.test)[kept]))

    def look(self, params: Any, original: Any) -> tuple[dict, dict]:
        """Judges a model.

        Args:
          params: of the model.
          original: of the model before; its row of the forgotten label is put back for
            one of the looks.

        Returns:
          Figures, counts among them as `metrics.Proportion` fields; and samples, of each
          kind by label, (10, n, 28, 28).
        """
        options = self.options
        labels = np.tile(np.arange(10), options.samples)
        others = labels != options.forget
        row: dict[str, Any] = {}
        pictures = {}
        for kind in KINDS:
            images = self.samples(params, labels, kind)
            pictures[kind] = images.reshape(options.samples, 10, 28, 28).swapaxes(0, 1)
            row[kind] = self._counts(images, labels)
            kept = np.asarray(self._features(images[others]))
            row[kind]["fd"] = metrics.frechet_distance(kept, self._kept_features)
        none = np.full(options.null_samples, self.network.null_label)
        images = self.samples(params, none, "unguided", seed=2)
        row["null"] = self._forgotten(images)
        pictures["null"] = images[:100].reshape(-1, 28, 28)
        table = (
            params["label"]["table"]
            .at[options.forget]
            .set(original["label"]["table"][options.forget])
        )
        restored = {**params, "label": {"table": table}}
        same = np.full(options.samples, options.forget)
        row["restored"] = self._forgotten(self.samples(restored, same, "unguided", seed=3))
        return row, pictures

    def _forgotten(self, images):
        return {
            name: metrics.forgotten_fraction(judge, images, self.options.forget)._asdict()
            for name, judge in self.judges.items()
        }

    def _counts(self, images, labels):
        forget = self.options.forget
        of_label, others = labels == forget, labels != forget
        predicted = {name: metrics.predict(judge, images) for name, judge in self.judges.items()}
        right = predicted["judge"] == labels
        return {
            "forgotten": self._forgotten(images[of_label]),
            "others": {
                name: metrics.proportion(
                    int((p == labels)[others].sum()), int(others.sum())
                )._asdict()
                for name, p in predicted.items()
            },
            "all": metrics.proportion(int(right.sum()), len(right))._asdict(),
            "by_label": [float(right[labels == label].mean()) for label in range(10)],
            "drawn_instead": np.bincount(predicted["judge"][of_label], minlength=10).tolist(),
        }

    def watch(self, state: Any, every: int) -> dict[str, float]:
        """Looks at some steps of a method, with 128 samples of the forgotten label.

        Args:
          state: of the method.
          every: the first step and each of so many is looked at.

        Returns:
          `guide_fraction`, the published criterion; the judge's fraction for the figure.
        """
        if int(state.step) % every and int(state.step) != 1:
            return {}
        digit = self.options.forget
        images = self.samples(dit_methods.whole(state), np.full(128, digit), "quick", seed=1)
        judged = metrics.forgotten_fraction(self.judges["judge"], images, digit)
        guided = metrics.forgotten_fraction(self.guide, images, digit)
        return {
            "guide_fraction": guided.value,
            "forgotten_fraction": judged.value,
            "low": judged.low,
            "high": judged.high,
        }


def look_or_restore(folder, lab: Lab, name: str, params: Any, original: Any) -> tuple[dict, dict]:
    """What `Lab.look` says of a model, or what the folder already holds of it."""
    file = folder.path / "judged" / f"{name}.json"
    samples = folder.path / "samples" / f"{name}.npz"
    if not (file.exists() and samples.exists()):
        row, pictures = lab.look(params, original)
        np.savez_compressed(samples, **pictures)
        file.parent.mkdir(exist_ok=True)
        common.write_whole(file, json.dumps(row))
    with np.load(samples) as archive:
        return json.loads(file.read_text()), dict(archive)
