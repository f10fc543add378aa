"""A row of the table of methods: how it is built, what it needs and costs."""

from collections.abc import Callable
from typing import Any, NamedTuple

import optax


class Setting(NamedTuple):
    """What a method is built from, beside the optimizer.

    Attributes:
      weight: w of UNO, in units of the loss.
      max_ratio: bound of UNO's penalty, see `uno.orthogonalize`; None, as published, for none.
      second_moment: mean square of retain gradients, a tree like the parameters; needed
        by the rows whose `needs` say so, see `uno.training.second_moment`.
      pull: λ of Selective Amnesia.
      hessian: how UNO takes its products, see `uno.orthogonalize`.
    """

    weight: float = 1e3
    second_moment: Any = None
    pull: float = 1.0
    hessian: str = "exact"
    max_ratio: float | None = None


class Method(NamedTuple):
    """A row of the table.

    Attributes:
      name: the name on command lines and in tables.
      direction: from a `Setting` to the transformation in front of the optimizer. For a
        row that `matches` it is the whole step, with a length of its own.
      descend: the gradient that enters it, `"retain"` or `"forget"`.
      formula: the direction, as text.
      gradients: loss gradients per step.
      products: Hessian-vector (or Gauss-Newton) products per step.
      source: where the method comes from.
      needs: what it needs beyond two batches: `"second_moment"`, `"surrogate"` (a forget
        loss and retain batches of its own), `"labels"` (a conditional model), `"relabelling"`
        (`uno.losses.relabelling_loss` in the retain loss), `"erasing"`
        (`uno.losses.erasing_loss` as the forget loss), `"targets"` (an anchor as the retain
        loss, a redirect as the other).
      moves: which parameters the method trains: `"all"`; `"conditioning"`, those through
        which the label comes in; `"rest"`, the others.
      matches: whether the method descends a matching objective, with
        `make_matching_step`, rather than the losses of `make_unlearning_step`.
    """

    name: str
    direction: Callable[[Setting], optax.GradientTransformation]
    descend: str
    formula: str
    gradients: float
    products: float
    source: str
    needs: tuple[str, ...] = ()
    matches: bool = False
    moves: str = "all"

    def build(
        self,
        optimizer: optax.GradientTransformation,
        *,
        weight: float = 1e3,
        second_moment: Any = None,
        pull: float = 1.0,
        hessian: str = "exact",
        max_ratio: float | None = None,
        added: tuple[optax.GradientTransformation, ...] = (),
    ) -> optax.GradientTransformationExtraArgs:
        """Builds the whole transformation.

        Args:
          optimizer: the base optimizer, for example `optax.adam(1e-3)`. A row that
            `matches` makes a second-order step of its own length and leaves it out.
          weight: w of UNO; other rows have no part in it.
          second_moment: tree like the parameters, if the row needs one.
          pull: λ of Selective Amnesia.
          hessian: how UNO takes its products, `"exact"` or `"finite-difference"`.
          max_ratio: bound of UNO's penalty in lengths of the retain gradient; `None` is the
            published form, which these rows follow. It destroys a model whose loss is a mean:
            give 1.0 there, the default of `uno.orthogonalize`.
          added: transformations between the direction and the optimizer, such as the
            "hat", `uno.add_loss(uno.losses.hat_loss(...), 1e3)`.

        Returns:
          An Optax transformation.

        Raises:
          ValueError: if something the row needs is missing, or something is added to a
            row that does not use the optimizer.
        """
        if "second_moment" in self.needs and second_moment is None:
            raise ValueError(f"{self.name}: expected second_moment, got None.")
        direction = self.direction(Setting(weight, second_moment, pull, hessian, max_ratio))
        if self.matches:
            if added:
                raise ValueError(f"{self.name}: expected nothing added, its length is searched.")
            return optax.with_extra_args_support(direction)
        return optax.chain(direction, *added, optimizer)
