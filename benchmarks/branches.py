"""What a branch or a loop costs a convolution and its gradient.

    python -m benchmarks.branches

A gradient has its axes in another order than a convolution. Of a program's own convolutions
XLA's CPU backend puts them into the usual order, which is fast; of those inside a branch or a
loop it does not, as the text of the compiled programs shows (`dim_labels`).
"""

import dataclasses

import jax
import jax.numpy as jnp
import tyro

from benchmarks import timing
from experiments import common


@dataclasses.dataclass(frozen=True)
class Options:
    """Time a 3x3 convolution and its gradient where XLA may meet them."""

    side: int = 14
    """Of the images, in pixels."""
    channels: int = 64
    """Before and behind."""
    batch: int = 32
    """Images."""
    rounds: int = 10
    """Timed runs of each program."""


def _places(fn):
    """The function by where it stands."""

    def in_branch(flag, x):
        return jax.lax.cond(flag, fn, jnp.zeros_like, x)

    def in_loop(flag, x):
        del flag
        return jax.lax.fori_loop(0, 1, lambda i, y: 0.5 * y + fn(y), x)

    return {"alone": lambda flag, x: fn(x), "in a branch": in_branch, "in a loop": in_loop}


def main(options: Options) -> list[dict]:
    """Prints a table and returns its lines."""
    images = jnp.ones((options.batch, options.side, options.side, options.channels))
    kernel = jnp.full((3, 3, options.channels, options.channels), 0.01)

    def convolution(x, k):
        axes = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, k, (1, 1), "SAME", dimension_numbers=axes)

    work = {
        "convolution": (lambda x: convolution(x, kernel), images),
        "gradient": (jax.grad(lambda k: jnp.sum(jnp.sin(convolution(images, k)))), kernel),
    }
    programs = {
        (name, place): timing.compile_program(placed, True, argument).run
        for name, (fn, argument) in work.items()
        for place, placed in _places(fn).items()
    }
    times = timing.interleaved(programs, rounds=options.rounds)
    lines = [
        {"what": name, "where": place, **timing.spread(own)} for (name, place), own in times.items()
    ]
    common.print_table(
        [
            {
                "what": line["what"],
                "where": line["where"],
                "ms": f"{line['median_ms']:.3g}",
                "10 to 90 %": f"{line['low_ms']:.3g} to {line['high_ms']:.3g}",
            }
            for line in lines
        ]
    )
    return lines


if __name__ == "__main__":
    main(tyro.cli(Options))
