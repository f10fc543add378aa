"""The table of the authors' protocol: published, their code run again, ours."""

import csv
import json
import statistics
from pathlib import Path

from scipy import stats

from experiments import common

THEIR_SEEDS = 10
INTRODUCTION = """# The published MNIST figures, and what ran

Three columns a row: what is published (arXiv 2506.04712 and the authors' table of results); the
authors' own code, run again with 10 seeds; ours under the same protocol. The published UNO,
UNO-S and hat were run with two loss weights handed over in each other's place, which the authors
corrected in July 2026 (commit c63489b); their logs and tables were not made again. So the figures
published as UNO are those of plain retain descent with the hat, and those published as hat are
those of plain retain descent. UNO + hat and UNO-S + hat had both weights at 1e3, so that nothing
was exchanged there. UNO itself is published nowhere: it is the row UNO.

The protocol: training mode throughout; a step passes the forget batch, the retain batch and 128
latents, fixed for the run, through batch norm, and all three move the running statistics; the
published classifier, the guide, counts those latents before the update; a run stops at the first
step below 2 %, or after 530 steps. Batches of 128, Adam 1e-3, w = h = 1e3; UNO without a bound
on its penalty, as published. Where a row has the hat, both losses have it, before any projection.
The published ascent-descent projects the retain gradient in its descending steps, as surgery does.

Published beside other rules: "hat" 387.5 is the last step at or above 2 %, by the rule of the
others its logs give 136.5; Fréchet distances are of the last checkpoint (after 53 steps for UNO,
UNO-S and their hat variants, 530 for the rest), not of the stop; 659 steps, an epoch of CelebA,
was never MNIST's limit.

The classifier took no part: a convolutional network that stopped and guided nothing. −ELBO in
nats per retained test digit, evaluation mode. All figures are of the model that was counted below
2 %, before the update of that step; after it they are in authors.json.
"inside": whether our mean of the steps is in the 95 % interval of what the authors' code gave
(of their published logs where their spread was not noted when it was run again). "difference":
steps less those of the control, retain descent with the same seeds, mean ± standard error and p of
Wilcoxon's signed-rank test.
"""


def line(row, runs: list[dict], compared: dict | None, reference: Path) -> dict:
    """Figures of a row, by column."""
    published = _published(reference / "mnist_summary.csv")
    known = [published[label] for label in row.published]
    steps = [run["stop_step"] for run in runs if run["reached"]]
    never = len(runs) - len(steps)
    looks = [run["counted"] for run in runs]
    total = sum(look["total"] for look in looks)
    low, high = interval(row.measured, known[0] if known else None)
    mean = statistics.fmean(steps) if steps else None
    return {
        "what ran": row.name,
        "published as": ", ".join(row.published),
        "steps, published": known[0]["Step"] if known else "",
        "steps, their code": _theirs(row.measured),
        "steps": mean,
        "steps sd": statistics.stdev(steps) if len(steps) > 1 else 0.0,
        "seeds": len(runs),
        "never": never,
        "interval low": low,
        "interval high": high,
        "inside": None if low is None or mean is None else bool(low <= mean <= high),
        **{f"{name}, their code": value for name, value in _looks(row.measured).items()},
        "classifier %": 100 * sum(look["judge"] for look in looks) / total,
        "guide %": 100 * sum(look["guide"] for look in looks) / total,
        "-ELBO": statistics.fmean(look["bound"] for look in looks),
        "compared": compared,
    }


def interval(measured, published: dict | None) -> tuple[float | None, float | None]:
    """The 95 % interval of the mean that the authors' code gave, by Student's t."""
    if measured is None and published is None:
        return None, None
    # The published spread is that of a population.
    sd = float(published["Step"].split("(")[1].rstrip(")")) if published else None
    sd = None if sd is None else sd * (THEIR_SEEDS / (THEIR_SEEDS - 1)) ** 0.5
    mean = float(published["Step"].split()[0]) if measured is None else measured.steps
    if measured is not None and measured.deviation is not None:
        sd = measured.deviation
    half = stats.t.ppf(0.975, THEIR_SEEDS - 1) * sd / THEIR_SEEDS**0.5
    return float(mean - half), float(mean + half)


def _before(look: dict) -> str:
    return (
        f"classifier {100 * look['judge'] / look['total']:.1f} %, guide "
        f"{100 * look['guide'] / look['total']:.1f} %, −ELBO {look['bound']:.1f}"
    )


def _published(file: Path) -> dict[str, dict]:
    with file.open() as lines:
        return {row["Label"]: row for row in csv.DictReader(lines)}


def _theirs(measured) -> str:
    if measured is None:
        return ""
    spread = "" if measured.deviation is None else f" ({measured.deviation:.1f})"
    return f"{measured.steps:.1f}{spread}"


def _looks(measured) -> dict[str, float | None]:
    if measured is None:
        return {"classifier %": None, "guide %": None, "-ELBO": None}
    return {
        "classifier %": measured.classifier,
        "guide %": measured.guide,
        "-ELBO": measured.bound,
    }


def _short(figures: dict) -> dict[str, str]:
    """A row of the page."""
    never = f", {figures['never']} of {figures['seeds']} never" if figures["never"] else ""
    mean = "" if figures["steps"] is None else f"{figures['steps']:.1f} ({figures['steps sd']:.1f})"
    low, high = figures["interval low"], figures["interval high"]
    bounds = "" if low is None else f"{low:.1f} to {high:.1f}"
    compared = figures["compared"]
    difference = "control" if compared is None else _difference(compared)
    names = ("classifier %", "guide %", "-ELBO")
    theirs = [figures[f"{name}, their code"] for name in names]
    return {
        "what ran": figures["what ran"],
        "published as": figures["published as"],
        "published": figures["steps, published"],
        "authors' code": figures["steps, their code"],
        "ours": f"{mean}{never}",
        "95 % interval of theirs": bounds,
        "inside": {None: "", True: "yes", False: "no"}[figures["inside"]],
        "theirs: classifier %, guide %, −ELBO": ""
        if theirs[0] is None
        else f"{theirs[0]:.1f}, {theirs[1]:.1f}, {theirs[2]:.1f}",
        "ours: classifier %, guide %, −ELBO": f"{figures['classifier %']:.1f}, "
        f"{figures['guide %']:.1f}, {figures['-ELBO']:.1f}",
        "difference": difference,
    }


def _difference(compared: dict) -> str:
    return (
        f"{compared['difference']:+.1f} ± {compared['error']:.1f}, p = {compared['p']:.2g} "
        f"({compared['seeds']} seeds)"
    )


def write(folder, lines: list[dict], results: list[dict], accuracies: dict, options) -> None:
    """Writes authors.md and authors.json."""
    short = [_short(figures) for figures in lines]
    facts = {
        **common.facts(),
        "seeds": f"from {options.first_seed}, the same for every row",
        "before": _before(results[0]["before"]),
        **{f"test accuracy, {name}": f"{value:.2%}" for name, value in accuracies.items()},
    }
    text = [INTRODUCTION, common.markdown_table(short), "", "## How this was made", ""]
    text += [f"- {name}: `{value}`" for name, value in facts.items()]
    common.write_whole(folder.path / "authors.md", "\n".join(text) + "\n")
    everything = {"facts": facts, "lines": lines, "rows": results}
    common.write_whole(folder.path / "authors.json", json.dumps(everything) + "\n")
    common.print_table([{k: row[k] for k in ("what ran", "published", "ours")} for row in short])
