"""How each method is run: its learning rate, the parameters it moves, whether it is stopped."""

import dataclasses
from typing import NamedTuple

import uno_jax as uno
from experiments import dit_methods

CONTROL = "retain-only"
"""Retain descent without images of the exchange class under the forgotten label."""


class Setting(NamedTuple):
    """How a method is run.

    Attributes:
      rate: of Adam, at its highest.
      trainable: regular expression of the parameters that move.
      batches: its batches are so many times those of the options.
      replays: likewise what is replayed in them.
      stopped: whether the guide stops it: a method without a minimum to go to that others
        suffer from. The others make all their steps.
      retaining: see `dit_methods.Protocol`.
      labelled: likewise.
    """

    rate: float = 1e-3
    trainable: str = ""
    batches: int = 1
    replays: int = 1
    stopped: bool = False
    retaining: bool = False
    labelled: bool = False


WHOLE = {
    "surgery": Setting(1e-4),
    "surgery-ascent": Setting(1e-4, stopped=True),
    "surgery-descent": Setting(1e-4),
    "ascent": Setting(1e-4, stopped=True),
    "ascent-descent": Setting(1e-4, stopped=True),
    "orthogonal-ascent": Setting(1e-4, stopped=True),
    "salun": Setting(1e-4, stopped=True),
    "uno-s": Setting(3e-4),
    "esd-x": Setting(2e-4),
    "esd-u": Setting(2e-4),
    "salun-relabel": Setting(5e-4),
}
"""With all parameters to move, as published: methods that harm other labels at 1e-3."""

SMALL = {
    "redirect-adam": Setting(batches=2, replays=2),
    CONTROL: Setting(batches=2, replays=2),
    "uno": Setting(2e-3, dit_methods.CONDITIONING),
    "surgery": Setting(1.5e-3, dit_methods.CONDITIONING),
    "uno-s": Setting(2e-3, dit_methods.CONDITIONING, replays=2),
    "salun-relabel": Setting(2e-3, dit_methods.CONDITIONING),
    "retain-descent": Setting(2e-3, dit_methods.CONDITIONING),
    "salun": Setting(1e-3, "block_[23]/modulation"),
    # Of the table of labels only the row that it is shown moves, so nothing is to be stopped.
    "ascent": Setting(3e-2, "^label/", labelled=True),
    "esd-x": Setting(1e-3, retaining=True),
    "esd-u": Setting(5e-4, retaining=True),
}
"""On the small DiT: within what a search by the guide found, see the README."""


def setting(options, name: str) -> Setting:
    """How a method is run with these options."""
    small = options.preset == "mnist" and options.model == "dit" and options.trainable is None
    return (SMALL if small else {}).get(name) or WHOLE.get(name) or Setting()


def protocol(options, name: str) -> tuple[uno.methods.Method, dit_methods.Protocol]:
    """The method's row and how it is run."""
    of = setting(options, name)
    fields = {field.name for field in dataclasses.fields(dit_methods.Protocol)}
    chosen = {key: value for key, value in vars(options).items() if key in fields}
    chosen |= {
        "learning_rate": options.learning_rate or of.rate,
        "trainable": of.trainable if options.trainable is None else options.trainable,
        "batch_size": of.batches * options.batch_size,
        "replay": of.replays * options.replay,
        "decay_steps": options.steps if options.decay else 0,
        "exchange": name != CONTROL,
        "retaining": of.retaining,
        "labelled": of.labelled,
    }
    row = uno.methods.get_method("retain-descent" if name == CONTROL else name)
    return row, dit_methods.Protocol(**chosen)
