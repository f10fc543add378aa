"""A proportion never stands alone: count, total and interval belong to it."""

from typing import NamedTuple

from scipy import stats


class Proportion(NamedTuple):
    """A counted proportion with its 95 % Wilson interval.

    Attributes:
      count: how many.
      total: out of how many.
      low: lower end of the interval, in [0, 1].
      high: upper end of the interval, in [0, 1].
    """

    count: int
    total: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """The proportion, in [0, 1]."""
        return self.count / self.total

    def __str__(self) -> str:
        return f"{self.value:.2%} [{self.low:.2%}, {self.high:.2%}]"


def proportion(count: int, total: int) -> Proportion:
    """Counts a proportion.

    Args:
      count: how many, 0 to `total`.
      total: out of how many, at least 1.

    Returns:
      A `Proportion`.

    Raises:
      ValueError: if the counts are out of range.

    Examples:
      >>> from uno_jax import metrics
      >>> print(metrics.proportion(2, 100))
      2.00% [0.55%, 7.00%]
    """
    if not 0 <= count <= total or total < 1:
        raise ValueError(f"proportion: expected 0 <= count <= total, got {count} of {total}.")
    interval = stats.binomtest(count, total).proportion_ci(method="wilson")
    return Proportion(count, total, float(interval.low), float(interval.high))
