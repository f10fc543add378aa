"""The figures of a report, written as PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

DPI = 110


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Writes a figure as PNG, with the folders on the way; returns the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI, bbox_inches="tight")
    return path


def _tile(images: np.ndarray, columns: int) -> np.ndarray:
    """Arranges (N, H, W, ...) images row by row, with a white line between them."""
    count, height, width, *colours = images.shape
    rows = -(-count // columns)
    shape = (rows * (height + 1) - 1, columns * (width + 1) - 1, *colours)
    sheet = np.ones(shape, images.dtype)
    for i, image in enumerate(images):
        y, x = (i // columns) * (height + 1), (i % columns) * (width + 1)
        sheet[y : y + height, x : x + width] = image
    return sheet


def sample_grids(path: str | Path, grids: Mapping[str, np.ndarray], *, columns: int = 10) -> Path:
    """Draws one grid of samples per model, side by side.

    Args:
      path: the PNG to write.
      grids: title to (N, H, W) grey or (N, H, W, 3) colour images in [0, 1]. Decode the
        same latents for every model, then a place in one grid can be compared with that
        in another.
      columns: images per row of a grid.

    Returns:
      The path.
    """
    across = min(len(grids), 3)
    down = -(-len(grids) // across)
    first = _tile(next(iter(grids.values())), columns)
    aspect = first.shape[0] / first.shape[1]
    figure = Figure(figsize=(4.2 * across, (4.2 * aspect + 0.4) * down), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, (title, images) in zip(axes, grids.items(), strict=False):
        axis.imshow(_tile(np.asarray(images), columns), cmap="gray", vmin=0, vmax=1)
        axis.set_title(title, fontsize=10)
    return save_figure(figure, path)


def strips(path: str | Path, rows: Mapping[str, np.ndarray]) -> Path:
    """Draws one row of images per model, one below the other.

    Args:
      path: the PNG to write.
      rows: title to (N, H, W) grey or (N, H, W, 3) colour images in [0, 1], N the same.

    Returns:
      The path.
    """
    count = len(next(iter(rows.values())))
    figure = Figure(figsize=(1.0 * count + 1.6, 1.05 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), 1, squeeze=False).ravel()
    for axis, (title, images) in zip(axes, rows.items(), strict=True):
        axis.imshow(_tile(np.asarray(images), count), cmap="gray", vmin=0, vmax=1)
        axis.set(xticks=[], yticks=[])
        axis.set_ylabel(title, rotation=0, ha="right", va="center", fontsize=9)
        for side in axis.spines.values():
            side.set_visible(False)
    return save_figure(figure, path)


def fraction_curves(
    path: str | Path,
    fractions: Mapping[str, Sequence[tuple[int, float, float, float]]],
    *,
    ylabel: str,
    xlabel: str = "step",
    levels: Mapping[str, float] | None = None,
) -> Path:
    """Draws proportions by step with their intervals.

    Args:
      path: the PNG to write.
      fractions: name to rows of (step, value, low, high), in [0, 1].
      ylabel: what the proportion is.
      xlabel: what the steps are.
      levels: name to a proportion drawn as a horizontal line.

    Returns:
      The path.
    """
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axis = figure.subplots()
    for name, rows in fractions.items():
        step, value, low, high = np.asarray(rows, float).T
        (line,) = axis.plot(step, 100 * value, marker=".", label=name)
        axis.fill_between(step, 100 * low, 100 * high, alpha=0.2, color=line.get_color(), lw=0)
    for (name, value), style in zip((levels or {}).items(), ("--", ":", "-."), strict=False):
        axis.axhline(100 * value, color="gray", linestyle=style, label=name)
    axis.set(xlabel=xlabel, ylabel=f"{ylabel} (%)")
    axis.set_ylim(bottom=0)
    axis.legend(fontsize=8)
    axis.grid(alpha=0.3)
    return save_figure(figure, path)


def curves(
    path: str | Path, lines: Mapping[str, tuple[Sequence, Sequence]], *, xlabel: str, ylabel: str
) -> Path:
    """Draws lines, for example losses by step.

    Args:
      path: the PNG to write.
      lines: name to the x and y values.
      xlabel: name of the x axis.
      ylabel: name of the y axis.

    Returns:
      The path.
    """
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axis = figure.subplots()
    for name, (x, y) in lines.items():
        axis.plot(x, y, label=name, lw=1.2)
    axis.set(xlabel=xlabel, ylabel=ylabel)
    axis.legend(fontsize=8)
    axis.grid(alpha=0.3)
    return save_figure(figure, path)


def frontier(
    path: str | Path, points: Mapping[str, tuple[float, float]], *, xlabel: str, ylabel: str
) -> Path:
    """Draws named points, both axes better to the lower left.

    Args:
      path: the PNG to write.
      points: name to x and y; those that are not finite are left out. x is drawn on a
        logarithmic scale, y on one that is linear below 0.1.
      xlabel: name of the x axis.
      ylabel: name of the y axis.

    Returns:
      The path.
    """
    points = {name: p for name, p in points.items() if np.isfinite(p).all()}
    figure = Figure(figsize=(9, 6), layout="constrained")
    axis = figure.subplots()
    for number, (name, (x, y)) in enumerate(points.items()):
        marker = "osD^v<>Px*"[number // 10 % 10]
        axis.plot(x, y, marker, color=f"C{number % 10}", label=name)
    axis.set_xscale("log")
    axis.set_yscale("symlog", linthresh=0.1)
    axis.set_ylim(bottom=-0.01)
    axis.set(xlabel=xlabel, ylabel=ylabel)
    axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axis.grid(alpha=0.3)
    return save_figure(figure, path)
