"""Three steps of UNO on the MNIST VAE in eager PyTorch.

python -m benchmarks.jobs.torch_job weights.npz data.npz forgotten.npz
"""

import sys
from pathlib import Path

import numpy as np
import torch

from benchmarks.torch_twins import vaes
from benchmarks.torch_twins.steps import make_step

WEIGHT, LEARNING_RATE = 1e3, 1e-4


def main(weights: Path, data: Path, out: Path) -> None:
    twin = vaes.twin_of(vaes.MnistVAE(), 2)
    with np.load(weights) as arrays:
        twin.module.load_state_dict(
            {name: torch.from_numpy(arrays[name]) for name in arrays.files}, strict=False
        )
    step = make_step(twin, "uno", weight=WEIGHT, learning_rate=LEARNING_RATE)
    with np.load(data) as arrays:
        pairs = zip(*(torch.from_numpy(arrays[name]) for name in ("retain", "forget")), strict=True)
    for retain, forget in pairs:
        step(retain, forget)
    state = twin.module.state_dict()
    np.savez(out, **{name: value.numpy() for name, value in state.items() if value.ndim})


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
