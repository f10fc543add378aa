"""What to forget, as a boolean expression over attributes and the person."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

IDENTITY = "identity"
_TOKEN = re.compile(r"\s*(?:(==|!=|[~&|()])|(\d+)(?![A-Za-z0-9_])|([A-Za-z0-9_]+)|(\S))")
_WORDS = {"not": "~", "and": "&", "or": "|"}


class Expression(NamedTuple):
    """A parsed expression.

    Attributes:
      text: as the user wrote it.
      tree: nested tuples: `("attribute", name)`, `("identity", number)`, `("~", a)`,
        `("&", a, b)`, `("|", a, b)`.
    """

    text: str
    tree: tuple

    def mask(self, attributes: Mapping[str, np.ndarray], identity: np.ndarray | None = None):
        """Where the expression holds.

        Args:
          attributes: name to (N,) bool.
          identity: (N,) int, the number of the person, if the expression asks for it.

        Returns:
          (N,) bool.

        Raises:
          ValueError: if the expression asks for an identity and there is none.
        """

        def person(number):
            if identity is None:
                raise ValueError(f"{self.text!r}: expected identities, there are none here.")
            return np.asarray(identity) == number

        return _fold(
            self.tree,
            lambda name: np.asarray(attributes[name], bool),
            person,
            (lambda a: ~a, lambda a, b: a & b, lambda a, b: a | b),
        )

    def probability(self, probabilities: Mapping[str, Any]):
        """How probable the expression is, attributes taken as independent.

        Args:
          probabilities: name to (N,) float in [0, 1], numpy or jax.

        Returns:
          (N,) float in [0, 1]; differentiable.

        Raises:
          ValueError: if the expression asks for an identity.
        """

        def person(number):
            raise ValueError(f"{self.text!r}: expected attributes alone, got an identity.")

        return _fold(
            self.tree,
            lambda name: probabilities[name],
            person,
            (lambda a: 1.0 - a, lambda a, b: a * b, lambda a, b: a + b - a * b),
        )

    @property
    def of_attributes(self) -> bool:
        """Whether it asks for attributes alone, which a classifier of attributes can judge."""
        return IDENTITY not in str(self.tree)


def parse(text: str, names: Sequence[str]) -> Expression:
    """Parses an expression such as `Male & ~Smiling` or `identity == 1234`.

    `~ & | ( )` or `not and or`, in Python's order of precedence; `identity == N` and
    `identity != N`.

    Args:
      text: the expression.
      names: the attributes there are.

    Returns:
      An `Expression`.

    Raises:
      ValueError: for an unknown attribute, listing those there are, or where the text
        is no expression, saying where.

    Examples:
      >>> import numpy as np
      >>> from uno_jax import data
      >>> smiling = {"Male": np.array([True, True]), "Smiling": np.array([True, False])}
      >>> data.parse("Male & ~Smiling", ["Male", "Smiling"]).mask(smiling)
      array([False,  True])
    """
    tokens = [_WORDS.get(m.group().strip(), m.group().strip()) for m in _TOKEN.finditer(text)]
    tree, rest = _either(tokens, text, names)
    if rest:
        raise _mistake(text, rest, "the end")
    return Expression(text, tree)


def _mistake(text, tokens, expected):
    got = repr(tokens[0]) if tokens else "the end"
    return ValueError(f"forget: expected {expected} in {text!r}, got {got}.")


def _either(tokens, text, names):
    left, tokens = _both(tokens, text, names)
    while tokens and tokens[0] == "|":
        right, tokens = _both(tokens[1:], text, names)
        left = ("|", left, right)
    return left, tokens


def _both(tokens, text, names):
    left, tokens = _single(tokens, text, names)
    while tokens and tokens[0] == "&":
        right, tokens = _single(tokens[1:], text, names)
        left = ("&", left, right)
    return left, tokens


def _single(tokens, text, names):
    if not tokens:
        raise _mistake(text, tokens, "an attribute")
    first, rest = tokens[0], tokens[1:]
    if first == "~":
        inner, rest = _single(rest, text, names)
        return ("~", inner), rest
    if first == "(":
        inner, rest = _either(rest, text, names)
        if rest[:1] != [")"]:
            raise _mistake(text, rest, "')'")
        return inner, rest[1:]
    if first == IDENTITY:
        if rest[:1] not in (["=="], ["!="]) or not "".join(rest[1:2]).isdecimal():
            raise _mistake(text, rest, "'== NUMBER' or '!= NUMBER' behind identity")
        person = (IDENTITY, int(rest[1]))
        return (person if rest[0] == "==" else ("~", person)), rest[2:]
    if not re.fullmatch(r"[A-Za-z0-9_]+", first):
        raise _mistake(text, tokens, "an attribute")
    if first not in names:
        raise ValueError(
            f"forget: expected one of the {len(names)} attributes or identity, got {first!r}. "
            f"They are: {', '.join(names)}."
        )
    return ("attribute", first), rest


def _fold(tree: tuple, attribute: Callable, person: Callable, operations: tuple):
    kind, *parts = tree
    if kind == "attribute":
        return attribute(*parts)
    if kind == IDENTITY:
        return person(*parts)
    values = [_fold(part, attribute, person, operations) for part in parts]
    return operations["~&|".index(kind)](*values)
