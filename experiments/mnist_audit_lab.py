"""What the audits of MNIST models share: the published model, its data, its methods."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

import uno_jax as uno
from experiments import audits, common, published, redirect, resumable, training
from experiments.vae_methods import Protocol, prepare
from uno_jax import audit, checkpoints, data, metrics, models


@dataclasses.dataclass(frozen=True)
class Options:
    """How MNIST models are made and audited."""

    reference: Path
    """Folder with mnist_vae.npz and mnist_classifier.npz."""
    out: Path | None = None
    """The run's folder; the same folder continues."""
    data: Literal["mnist5k", "mnist"] = "mnist"
    """mnist: TFDS, in TFDS_DATA_DIR; mnist5k: 5,000 digits that come with the package."""
    steps: int = 100
    """Most steps of the gradient methods."""
    redirect_steps: int = 10
    """Steps of the redirect."""
    train_steps: int = 2105
    """Training steps of the retrained models: five epochs, as the original."""
    samples: int = 10_000
    """Samples of each model that are judged."""
    examples: int = 2000
    """Examples of each side at most, for losses and features."""
    judge_steps: int = 1500
    """Training steps of each of the audit's own judges."""
    relearn_steps: tuple[int, ...] = (20, 100)
    """Steps of retain descent after which relearning is looked at."""
    relearn_examples: tuple[int, ...] = (1, 8, 64)
    """Forget examples that relearning is tried on."""
    seed: int = 0
    """Decides batches, noise and latents."""


class Lab:
    """The published model, the guide and the data, made once."""

    def __init__(self, options: Options, folder: common.RunFolder):
        self.options, self.folder = options, folder
        self.vae = models.MnistVAE()
        # Once, so that what all audits compile is compiled once.
        self.subject = audit.vae(self.vae)
        self.original = published.load_vae(options.reference / "mnist_vae.npz")
        self.guide = jax.jit(published.load_guide(options.reference / "mnist_classifier.npz")[0])
        self.train, self.test = (data.load(options.data, part) for part in ("train", "test"))
        folder.data = checkpoints.fingerprint(
            {"images": self.train.images, "labels": self.train.labels}
        )
        self.decode = jax.jit(
            lambda state, z: models.decode(self.vae, state.params, state.model_state, z)
        )

    def without(self, digits: tuple[int, ...]) -> data.Source:
        """The training examples of other digits."""
        kept = ~np.isin(self.train.labels, digits)
        return data.Source(self.train.name, self.train.images[kept], self.train.labels[kept])

    def sides(self, digit: int, gone: tuple[int, ...] = ()) -> audit.Data:
        """The examples of one request; those of earlier ones are on neither side."""

        def part(source, forget):
            chosen = (source.labels == digit) == forget
            chosen &= (source.labels == digit) | ~np.isin(source.labels, gone)
            return {"image": data.flatten(source)[chosen], "label": source.labels[chosen]}

        return audit.Data(
            part(self.train, False), part(self.train, True),
            part(self.test, False), part(self.test, True),
        )  # fmt: skip

    def unlearn(self, name: str, method: str, digit: int, **protocol: Any) -> uno.training.Result:
        """Runs a gradient method until the guide sees few enough."""
        latents = jax.random.normal(jax.random.key(self.options.seed + 2), (128, 2))

        def look(state):
            seen = metrics.forgotten_fraction(self.guide, self.decode(state, latents), digit)
            return {"guide_fraction": seen.value}

        return self._run(
            f"after-{name}",
            method,
            self.original,
            self.train,
            digit,
            Protocol(**protocol),
            self.guide,
            steps=self.options.steps,
            evaluate=look,
            forgotten=lambda now: now["guide_fraction"] < 0.02,
        )

    def redirect(
        self, state: uno.TrainState, digit: int, gone: tuple[int, ...], name: str
    ) -> uno.training.Result:
        """Redirects a digit of a model; of digits gone before nothing is looked at."""
        return self._run(
            name,
            "redirect",
            state,
            self.without(gone),
            digit,
            Protocol(),
            steps=self.options.redirect_steps,
        )

    def _run(
        self, name, method, start, train, digit, protocol, guide=None, **loop
    ) -> uno.training.Result:
        split = data.split_by_label(train, lambda label: label == digit)
        model = redirect.digits(self.vae, start, train, split, data.flatten(train))
        job = prepare(uno.methods.get_method(method), protocol, model, guide, digit)
        return resumable.unlearn_or_restore(
            self.folder,
            name,
            job.step,
            job.start(jax.random.key(self.options.seed)),
            lambda: job.streams(self.options.seed + 1),
            **loop,
        )

    def retrained(self, name: str, gone: tuple[int, ...], seed: int) -> uno.TrainState:
        """A model trained from scratch without some digits, as the original was."""
        step, state = training.fresh_vae(self.vae, seed, 1e-3)
        return resumable.train_or_restore(
            self.folder,
            name,
            step,
            state,
            data.batches(self.without(gone), batch_size=128, seed=seed),
            steps=self.options.train_steps,
        )

    def audit(self, name: str, digit: int, trees: dict[str, uno.TrainState], **case: Any) -> dict:
        """What the audit finds, or what the folder already holds."""
        options, gone = self.options, case.pop("gone", ())
        settings = audit.Settings(
            samples=options.samples,
            examples=options.examples,
            judge_steps=options.judge_steps,
            retain_steps=options.relearn_steps,
            forget_examples=options.relearn_examples,
            relearn_samples=min(options.samples, 2000),
            seed=options.seed,
        )

        def make_case():
            return audit.Case(
                data=self.sides(digit, gone),
                params={who: audit.variables(state) for who, state in trees.items()},
                model=self.subject,
                about={"model": name, "digit": digit, **common.facts()},
                **case,
            )

        return audits.audit_or_restore(self.folder, name, make_case, settings)


def percent(fraction: dict) -> float:
    """A counted proportion of an audit, in per cent."""
    return 100 * metrics.Proportion(**fraction).value


def row_of(found: dict) -> dict[str, str]:
    """The figures of an audit that a table has room for."""
    after = found["models"]["after"]
    fractions = after["generation"]["fractions"]
    gaps = after["influence"]["before"]
    rebounds = [
        percent(p) for marks in after["relearning"]["retain"].values() for p in marks.values()
    ]
    return {
        "verdict": found["verdict"]["name"],
        **{f"{who}, %": f"{percent(fraction):.2f}" for who, fraction in fractions.items()},
        "retained −ELBO": f"{gaps['retain_gap']['value']:+.2f}",
        "forgotten −ELBO": f"{gaps['forget_gap']['value']:+.1f}",
        "Fréchet": f"{after['quality']['frechet']['own judge']:.2f}",
        "membership AUC": f"{after['membership']['ratio']['auc']:.3f}"
        if "ratio" in after.get("membership", {})
        else "",
        "rebound, %": f"{max(rebounds):.2f}",
    }


def run(options: Options, name: str, free: str, make_rows: Callable) -> list[dict[str, str]]:
    """Runs audits in a folder of their own, prints their table and writes it.

    Args:
      options: of the command.
      name: of the folder, if the options name none.
      free: the option to which more may come later in the same folder.
      make_rows: `make_rows(options, lab)`, the rows of the table.

    Returns:
      The rows.
    """
    folder = common.RunFolder(
        options.out or Path("runs") / name, options, ignore=("out", "reference", free)
    )
    rows = make_rows(options, Lab(options, folder))
    common.print_table(rows)
    publish = folder.path / "publish"
    publish.mkdir(exist_ok=True)
    common.write_tables(publish, rows, [], {**common.facts(), "seed": options.seed})
    return rows
