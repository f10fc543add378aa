"""A model and what it shall forget: what `uno-forget` and `uno-audit` are told."""

import dataclasses
import importlib
import sys
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Case:
    """One description of a request to forget, from which forgetting and audit are derived.

    Attributes:
      model: how the network is used, as `uno.forget` takes it.
      params: parameters of the trained model.
      retain: what the model shall keep, as `uno.forget` takes it.
      forget: what it shall forget, likewise.
      options: further arguments of `uno.forget` by name, such as `{"method": "uno"}`; what is
        given on the command line wins.
      retain_held_out: for the audit, examples like `retain` that no model was trained on.
      forget_held_out: for the audit, examples like `forget` that no model was trained on;
        without them there is no membership inference.
      sampling: for the audit of a diffusion model, options of `diffusion.sample`: `sampler`,
        `steps`, `guidance`.
    """

    model: Any
    params: Any
    retain: Any
    forget: Any
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    retain_held_out: Any = None
    forget_held_out: Any = None
    sampling: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def load_case(where: str) -> Any:
    """Calls the function that makes a case.

    Args:
      where: `"module:function"`, or `"module"` for its `make_case`. Modules are also looked
        for in the working directory.

    Returns:
      What the function returns.

    Raises:
      ValueError: if there is no such module or function.
    """
    module, _, name = where.partition(":")
    name = name or "make_case"
    if "" not in sys.path:
        sys.path.insert(0, "")
    if not module or module.startswith("."):
        raise ValueError(f"case: expected MODULE:FUNCTION, got {where!r}.")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise ValueError(
            f"case: expected MODULE:FUNCTION, got {where!r}: there is no module {error.name}."
        ) from error
    function = getattr(found, name, None)
    if not callable(function):
        raise ValueError(
            f"case: expected MODULE:FUNCTION, got {where!r}: {module} has no function {name}."
        )
    return function()
