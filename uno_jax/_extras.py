"""One sentence for a missing extra, instead of a stack trace from inside."""

import importlib
from types import ModuleType


def require(module: str, extra: str) -> ModuleType:
    """Imports an optional module.

    Args:
      module: its dotted name.
      extra: the extra of this package that brings it.

    Returns:
      The module.

    Raises:
      ImportError: naming the extra to install.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.split(".")[0]
        if error.name is None or error.name.split(".")[0] != package:
            raise
        raise ImportError(
            f"{package} is not installed; run: pip install 'uno_jax[{extra}]'"
        ) from error
