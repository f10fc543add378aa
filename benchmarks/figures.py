"""The figures of the benchmarks, written as PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from uno_jax.report.figures import save_figure

COLOURS = ("#33658a", "#86bbd8", "#f26419", "#758e4f", "#8e5572")


def step_times(path: Path, lines: Sequence[Mapping]) -> None:
    """A panel per model: every method's step in surgery steps, a bar per batch size."""
    models = list(dict.fromkeys(line["model"] for line in lines))
    batches = list(dict.fromkeys(line["batch"] for line in lines))
    methods = list(dict.fromkeys(line["method"] for line in lines))
    figure = Figure(
        figsize=(2.7 * len(models) + 1.6, 0.36 * len(methods) + 1), layout="constrained"
    )
    axes = figure.subplots(1, len(models), sharey=True, squeeze=False)[0]
    height = 0.8 / len(batches)
    for axis, model in zip(axes, models, strict=True):
        for number, batch in enumerate(batches):
            own = {x["method"]: x for x in lines if (x["model"], x["batch"]) == (model, batch)}
            places = np.arange(len(methods)) + height * (number - (len(batches) - 1) / 2)
            values = [own[m].get("of_surgery", np.nan) if m in own else np.nan for m in methods]
            axis.barh(places, values, height, color=COLOURS[number], label=f"batch {batch}")
        axis.axvline(1, color="0.4", linewidth=0.8)
        axis.set_title(model, fontsize=10)
        axis.set_xlabel("surgery steps", fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_yticks(range(len(methods)), methods, fontsize=9)
    axes[0].invert_yaxis()
    axes[-1].legend(fontsize=8, frameon=False)
    save_figure(figure, path)


def growth(path: Path, panels: Mapping[str, tuple[str, Mapping[str, tuple]]]) -> None:
    """Log-log curves, a panel per title: what lies along x, and name to (x, y, label)."""
    figure = Figure(figsize=(3.6 * len(panels), 3.2), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (title, (along, curves)) in zip(axes, panels.items(), strict=True):
        for number, (x, y, label) in enumerate(curves.values()):
            axis.loglog(x, y, "o-", color=COLOURS[number], markersize=3, label=label)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel(along, fontsize=9)
        axis.legend(fontsize=8, frameon=False)
        axis.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)
