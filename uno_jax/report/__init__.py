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
from uno_jax.report.page import write_page  # noqa: E402

__all__ = ["curves", "fraction_curves", "frontier", "sample_grids", "strips", "write_page"]
