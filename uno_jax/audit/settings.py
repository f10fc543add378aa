"""What the audit measures with, and by which thresholds it says its verdict."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Settings:
    """How much is drawn, trained and resampled.

    Attributes:
      samples: of each model, judged.
      examples: most examples of a side for losses, features and attacks.
      draws: noise draws that an example's loss is averaged over.
      judge_steps: training steps of each of the audit's own judges.
      retain_steps: after so many steps of retain descent relearning is looked at.
      forget_examples: fine-tuning is tried on so many forget examples.
      forget_steps: after so many of its steps.
      relearn_samples: samples judged there.
      batch_size: of relearning and of the control.
      neighbours: k of precision, recall and density.
      resamples: of the bootstrap.
      seed: of everything random.
    """

    samples: int = 10_000
    examples: int = 2000
    draws: int = 4
    judge_steps: int = 1500
    retain_steps: tuple[int, ...] = (20, 100)
    forget_examples: tuple[int, ...] = (1, 8, 64)
    forget_steps: tuple[int, ...] = (1, 5, 20)
    relearn_samples: int = 2000
    batch_size: int = 128
    neighbours: int = 3
    resamples: int = 1000
    seed: int = 0

    def __post_init__(self):
        small = {"samples": 100, "examples": 20, "relearn_samples": 100}
        for name, value in dataclasses.asdict(self).items():
            least = small.get(name, 0 if name == "seed" else 1)
            for number in value if isinstance(value, tuple) else (value,):
                if number < least:
                    raise ValueError(f"{name}: expected at least {least}, got {number}.")


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """What counts as what.

    Attributes:
      forgotten: samples of the forgotten class must be fewer than this fraction, by every
        judge that took no part, or no more than the judge sees on the retrained model, which has
        forgotten by definition: a classifier calls pictures between two classes something.
      disagreement: by how much fractions of judges may differ before one is called fooled,
        beyond what they differ by on the retrained model. Judges that took no part and all see
        fewer than `forgotten` asks for may differ by more.
      explained: the loss on forget examples must have risen by this part of what it rises by
        when the model is retrained (without such a model, by this part of its standard
        deviation among examples): what only hides the class draws none and still knows it.
      attack: the area under the curve of a membership attack may be at most this much above
        the retrained model's (without one, above 1/2).
      rebound: after retain descent the fraction may be at most this much above `forgotten`.
      loss: by how much of the retained loss that loss may have risen, beyond what it rises by
        when the model is retrained.
      distance: how many times the Fréchet distance may be what it was, or what the retrained
        model's is if that is more, plus what it is between real examples.
      precision: by how much precision may have fallen, from the lower of the same two.
      recall: the part of recall that may have been lost, of the lower of the same two.
    """

    forgotten: float = 0.02
    disagreement: float = 0.02
    explained: float = 0.1
    attack: float = 0.05
    rebound: float = 0.01
    loss: float = 0.05
    distance: float = 1.5
    precision: float = 0.1
    recall: float = 0.5

    def __post_init__(self):
        for name, value in dataclasses.asdict(self).items():
            if not value >= 0 or (name not in ("distance",) and value > 1):
                raise ValueError(f"{name}: expected a number from 0 to 1, got {value}.")
