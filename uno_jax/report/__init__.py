"""Pictures and one self-contained HTML page."""

from uno_jax._extras import require

require("matplotlib", "experiments")
require("jinja2", "experiments")

from uno_jax.report.figures import (  # noqa: E402
    curves,
    fraction_curves,
    frontier,
    sample_grids,
    strips,
)
from uno_jax.report.page import Banner, Section, write_page  # noqa: E402

__all__ = [
    "Banner",
    "Section",
    "curves",
    "fraction_curves",
    "frontier",
    "sample_grids",
    "strips",
    "write_page",
]
