"""A module of another library as parameters and pure functions."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from uno_jax import trees

# The names that modules give to the switch between training and evaluation.
EVALUATION = {
    "train": False,
    "training": False,
    "is_training": False,
    "deterministic": True,
    "use_running_average": True,
    "inference": True,
}

# Where the classes of each library are defined, and what binds their modules.
BINDS = {"flax.nnx": "from_nnx", "flax.linen": "from_linen", "equinox": "from_equinox"}


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Bound:
    """A module of another library, as its parameters and pure functions of them.

    `from_linen`, `from_nnx` and `from_equinox` make it. It holds a copy of what the module was:
    the module is not changed, and what happens to it later does not show here.

    Attributes:
      params: pytree of floating-point arrays alone, the ones to train; None in the places of
        the other leaves. It shares its arrays with the module.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from flax import linen as nn
      >>> from uno_jax.generative.linen import from_linen
      >>> module = nn.Dense(2)
      >>> bound = from_linen(module, module.init(jax.random.key(0), jnp.ones(3)))
      >>> bound
      Bound(Dense, arrays=2, numbers=8)
      >>> doubled = jax.tree.map(lambda x: 2 * x, bound.params)
      >>> jax.jit(bound.method())(doubled, jnp.zeros(3))
      Array([0., 0.], dtype=float32)
      >>> sorted(bound.restore(doubled)["params"])
      ['bias', 'kernel']
    """

    params: Any
    _module: Any
    _base: type
    _rebuild: Callable[[Any], Any]
    _call: Callable[[str, Any, tuple, dict], Any]

    def method(self, name: str = "__call__") -> Callable[..., Any]:
        """Returns a method of the module as a pure function of the parameters.

        The function runs in evaluation mode: without dropout, with the stored batch
        statistics. A parameter of the method named `train`, `training`, `is_training`
        (False), `deterministic`, `use_running_average` or `inference` (True) that a call
        leaves out gets that value, whatever its default. Other arguments are passed on.

        Args:
          name: the method, or an attribute that can be called, such as a submodule.

        Returns:
          `fn(params, *args, **kwargs)`, for use under jit, grad, vmap and jvp. Given
          parameters of another structure or shapes, it raises a ValueError.

        Raises:
          ValueError: if the module has no such method, naming those it has.

        Examples:
          >>> import jax.numpy as jnp
          >>> from flax import nnx
          >>> from uno_jax.generative.nnx import from_nnx
          >>> bound = from_nnx(nnx.Linear(3, 2, rngs=nnx.Rngs(0)))
          >>> bound.method()(bound.params, jnp.zeros((4, 3))).shape
          (4, 2)
          >>> bound.method("encode")
          Traceback (most recent call last):
            ...
          ValueError: Linear has no method 'encode'; it has '__call__'.
        """
        if not callable(getattr(self._module, name, None)):
            names = ", ".join(map(repr, _public(self._module, self._base))) or "none"
            raise ValueError(f"{_name(self._module)} has no method {name!r}; it has {names}.")

        def fn(params, *args, **kwargs):
            self._check(params)
            kwargs = kwargs | evaluation_flags(self._module, name, args, kwargs)
            return self._call(name, params, args, kwargs)

        fn.__name__ = fn.__qualname__ = name
        return fn

    def restore(self, params: Any) -> Any:
        """Returns the kind of object that was bound, with these parameters in it.

        Args:
          params: pytree of the structure and shapes of `self.params`.

        Returns:
          The variables of a Linen module, or a new NNX or Equinox module. All but the
          parameters is as it was when bound: batch statistics, random state, modes.

        Raises:
          ValueError: if `params` has another structure or other shapes.

        Examples:
          >>> import equinox as eqx
          >>> import jax, jax.numpy as jnp
          >>> from uno_jax.generative.equinox import from_equinox
          >>> bound = from_equinox(eqx.nn.Linear(2, 1, key=jax.random.key(0)))
          >>> bound.restore(jax.tree.map(jnp.zeros_like, bound.params)).bias
          Array([0.], dtype=float32)
        """
        self._check(params)
        return self._rebuild(params)

    def _check(self, params):
        name = _name(self._module)
        hint = "Give bound.params, or what training made of them."
        for path, leaf in jax.tree_util.tree_leaves_with_path(params):
            if not hasattr(leaf, "shape") and not isinstance(leaf, int | float):
                raise ValueError(
                    f"expected the parameters of {name}, arrays alone; got "
                    f"{type(leaf).__name__} at '{jax.tree_util.keystr(path)}'. {hint}"
                )
        try:
            trees.check_same_structure(
                params, self.params, tree_name="params", reference_name=f"those of {name}"
            )
        except ValueError as error:
            raise ValueError(f"{error} {hint}") from None

    def __repr__(self):
        leaves = jax.tree.leaves(self.params)
        numbers = sum(leaf.size for leaf in leaves)
        return f"Bound({_name(self._module)}, arrays={len(leaves)}, numbers={numbers})"


def check_module(module: Any, base: type, function: str) -> None:
    """Raises unless `module` is an instance of the library's module class.

    Args:
      module: what the user gave.
      base: the class of the modules of this library.
      function: what the user called, such as `"from_nnx"`.

    Raises:
      ValueError: saying what was got instead, and what to do.
    """
    owner = getattr(module, "__self__", None)
    # A method of an Equinox module is an Equinox module.
    if isinstance(module, base) and owner is None:
        return
    library = next(library for library, binds in BINDS.items() if binds == function)
    expected = f"{function}: expected a module of {library}, got"
    if isinstance(module, type):
        raise ValueError(
            f"{expected} the class {module.__name__}; make a module of it: {module.__name__}(...)."
        )
    if isinstance(owner, base):
        method = getattr(module, "__name__", "name")
        raise ValueError(
            f"{expected} a method of one; give the {_name(owner)} itself, then "
            f"bound.method({method!r})."
        )
    kind = type(module)
    for other in kind.__mro__:
        for theirs, binds in BINDS.items():
            if f"{other.__module__}.".startswith(f"{theirs}.") and other.__name__ == "Module":
                raise ValueError(f"{expected} a {kind.__name__} of {theirs}; use {binds}.")
    raise ValueError(f"{expected} {kind.__module__}.{kind.__qualname__}; give the module itself.")


def split_floats(
    tree: Any, function: str, *, is_leaf: Callable[[Any], bool] | None = None
) -> tuple[Any, Any]:
    """Splits a tree into its floating-point arrays and the rest.

    Args:
      tree: any pytree.
      function: what the user called, for the message.
      is_leaf: subtrees that belong to the rest as a whole.

    Returns:
      Two trees of the structure of `tree`, each with None in the other's places.

    Raises:
      ValueError: if a leaf is complex, naming its path.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_leaf)
    floats, rest = [], []
    for path, leaf in leaves:
        dtype = getattr(leaf, "dtype", None)
        dtype = dtype if hasattr(leaf, "shape") and dtype is not None else jnp.int32
        if jnp.issubdtype(dtype, jnp.complexfloating):
            raise ValueError(
                f"{function}: expected real parameters, got {dtype} at '{trees.path_name(path)}'; "
                "keep its real and imaginary parts as two arrays."
            )
        floating = jnp.issubdtype(dtype, jnp.floating)
        floats.append(leaf if floating else None)
        rest.append(None if floating else leaf)
    return jax.tree.unflatten(structure, floats), jax.tree.unflatten(structure, rest)


def join_floats(floats: Any, rest: Any) -> Any:
    """Returns the tree that `split_floats` split."""
    return jax.tree.map(
        lambda a, b: b if a is None else a, floats, rest, is_leaf=lambda x: x is None
    )


def check_any(params: Any, module: Any, function: str, hint: str) -> None:
    """Raises a ValueError unless there is an array in `params`."""
    if not jax.tree.leaves(params):
        raise ValueError(
            f"{function}: expected a module with floating-point parameters, got none in "
            f"{_name(module)}; {hint}"
        )


def signature(module: Any, name: str) -> inspect.Signature | None:
    """The signature of a method without `self`; None for one that has none to read."""
    # Read from the class: what jits a method often hides its signature once bound.
    member = inspect.getattr_static(type(module), name, None)
    try:
        if member is None or isinstance(member, staticmethod | classmethod):
            return inspect.signature(getattr(module, name))
        whole = inspect.signature(getattr(type(module), name))
        return whole.replace(parameters=list(whole.parameters.values())[1:])
    except (TypeError, ValueError):
        return None


def left_out(module: Any, name: str, args: tuple, kwargs: dict) -> dict[str, inspect.Parameter]:
    """The named parameters of a method that a call does not give."""
    whole = signature(module, name)
    if whole is None:
        return {}
    try:
        # Without the keywords: some, as Linen's rngs, are not the method's own.
        given = whole.bind_partial(*args).arguments.keys() | kwargs.keys()
    except TypeError:
        return {}  # Too many arguments: the call itself says so.
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {
        key: parameter
        for key, parameter in whole.parameters.items()
        if parameter.kind in named and key not in given
    }


def evaluation_flags(module: Any, name: str, args: tuple, kwargs: dict) -> dict[str, bool]:
    """The switches to evaluation that a method has and a call leaves out.

    One that defaults to None and is an attribute of the module as well is left to the
    attribute: `nn.merge_param` refuses both.
    """
    return {
        key: EVALUATION[key]
        for key, parameter in left_out(module, name, args, kwargs).items()
        if key in EVALUATION and (parameter.default is not None or vars(module).get(key) is None)
    }


def _name(module):
    return type(module).__name__


def _public(module, base):
    """The public methods of a module's own classes, and its submodules."""
    kind = type(module)
    own = [cls for cls in kind.__mro__ if cls not in base.__mro__]
    fields = {f.name for f in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else ()
    methods = {
        name
        for cls in own
        for name in vars(cls)
        if name not in fields and name != "setup" and callable(getattr(kind, name, None))
    }
    submodules = {name for name, value in vars(module).items() if isinstance(value, base)}
    return sorted(n for n in methods | submodules if n == "__call__" or not n.startswith("_"))
