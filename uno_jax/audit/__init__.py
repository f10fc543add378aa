"""Proof of forgetting: for any two models, figures with intervals and a verdict."""

from uno_jax._extras import require

require("scipy", "experiments")
require("matplotlib", "experiments")
require("flax", "experiments")

from uno_jax.audit.adapters import denoiser, stateful_trainer, vae, variables  # noqa: E402
from uno_jax.audit.case import Case, Data, Judge, Model, Trainer  # noqa: E402
from uno_jax.audit.files import case_of_files, read_images  # noqa: E402
from uno_jax.audit.page import summary  # noqa: E402
from uno_jax.audit.relearning import adam_trainer  # noqa: E402
from uno_jax.audit.run import COSTS, SCHEMA, Audit, run  # noqa: E402
from uno_jax.audit.settings import Settings, Thresholds  # noqa: E402
from uno_jax.audit.spaces import inception  # noqa: E402
from uno_jax.audit.verdict import (  # noqa: E402
    FOOLED,
    FORGOTTEN,
    LOST,
    NOT_FORGOTTEN,
    REBOUNDS,
    VERDICTS,
    Criterion,
    Verdict,
)

__all__ = [
    "COSTS",
    "FOOLED",
    "FORGOTTEN",
    "LOST",
    "NOT_FORGOTTEN",
    "REBOUNDS",
    "SCHEMA",
    "VERDICTS",
    "Audit",
    "Case",
    "Criterion",
    "Data",
    "Judge",
    "Model",
    "Settings",
    "Thresholds",
    "Trainer",
    "Verdict",
    "adam_trainer",
    "case_of_files",
    "denoiser",
    "inception",
    "read_images",
    "run",
    "stateful_trainer",
    "summary",
    "vae",
    "variables",
]
