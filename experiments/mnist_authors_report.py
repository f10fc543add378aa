"""The table of the authors' protocol: published, their code run again, ours."""

import csv
import json
import statistics
from pathlib import Path

from scipy import stats

from experiments import common

THEIR_SEEDS = 10
OTHER_RULE = "by the others' rule"
INTRODUCTION = """# The published MNIST figures, and what ran

Three columns a row: what is published (arXiv 2506.04712 and the authors' table of results); the
authors' own code, run again with 10 seeds; ours under the same protocol. Concerned are MNIST and
CelebA; the figures of ImageNet were made as described.

The published UNO, UNO-S and hat were run with two loss weights handed over in each other's place,
which the authors corrected in July 2026 (commit c63489b); their logs and tables were not made
again. So the figures published as UNO are those of plain retain descent with the hat, a loss that
drives the published classifier's word on samples to the classes kept, and those published as hat
are those of plain retain descent. UNO + hat and UNO-S + hat had both weights at 1e3, so that
nothing was exchanged there. UNO itself is published nowhere: it is the row UNO.

The protocol: training mode throughout; a step passes the forget batch, the retain batch and 128
latents, fixed for the run, through batch norm, and all three move the running statistics; the
published classifier, the guide, counts those latents before the update; a run stops at the first
step below 2 %, or after 530 steps. Batches of 128, Adam 1e-3, w = h = 1e3; UNO without a bound
on its penalty, as published. Where a row has the hat, both losses have it, before any projection.
The published ascent-descent projects the retain gradient in its descending steps, as surgery does.

Published beside other rules: "hat" 387.5 is the last step at or above 2 %; Fréchet distances are of
the last checkpoint (after 53 steps for UNO, UNO-S and their hat variants, 530 for the rest), not of
the stop; 659 steps, an epoch of CelebA, was never MNIST's limit.

Steps are means (standard deviations) over seeds. The 95 % intervals are of the means of ten seeds,
by Student's t, once of the published logs and once of the authors' code run again; "inside" says
whether our mean is in each. Slow rows are noisy, so that for them this says little. −ELBO is in
nats per retained test digit, evaluation mode. The classifiers that judge, ours and the one that
judged the authors' code, are two different networks of which neither took part: of the model
before, ours takes 10.7 % of samples for a one and the other 11.1 %. Our figures are of the model
that was counted below 2 %, before the update of that step; after it they are in authors.json.
"difference": steps less those of retain descent on the same seeds, mean ± standard error and p of
Wilcoxon's signed-rank test. The authors' corrected code gave -5.4 ± 4.5, p = 0.64, for UNO over 30
paired seeds (114.7 and 120.1 steps). Beside all of this stand the redirect and the retrained model
in [the other table](table.md): 0.1 and 0.0 % by the same classifier.
"""


def line(row, runs: list[dict], compared: dict | None, reference: Path) -> dict:
    """Figures of a row, by column."""
    published = _published(reference / "mnist_summary.csv")
    known = [published[label]["Step"] for label in row.published]
    steps = [run["stop_step"] for run in runs if run["reached"]]
    looks = [run["counted"] for run in runs]
    total = sum(look["total"] for look in looks)
    mean = statistics.fmean(steps) if steps else None
    of_logs = row.by_the_others_rule or (known[0] if known else None)
    intervals = {
        "published": _of_published(of_logs),
        "their code": _of_measured(row.measured),
    }
    return {
        "what ran": row.name,
        "published as": ", ".join(row.published),
        "steps, published": known[0] if known else "",
        OTHER_RULE: row.by_the_others_rule or "",
        "steps, their code": _theirs(row.measured),
        "steps": mean,
        "steps sd": statistics.stdev(steps) if len(steps) > 1 else 0.0,
        "seeds": len(runs),
        "never": len(runs) - len(steps),
        "intervals": intervals,
        "inside": {
            name: None if bounds is None or mean is None else bool(bounds[0] <= mean <= bounds[1])
            for name, bounds in intervals.items()
        },
        **{f"{name}, their code": value for name, value in _looks(row.measured).items()},
        "classifier %": 100 * sum(look["judge"] for look in looks) / total,
        "guide %": 100 * sum(look["guide"] for look in looks) / total,
        "-ELBO": statistics.fmean(look["bound"] for look in looks),
        "compared": compared,
    }


def interval(mean: float, deviation: float) -> tuple[float, float]:
    """The 95 % interval of a mean over ten seeds, by Student's t."""
    half = stats.t.ppf(0.975, THEIR_SEEDS - 1) * deviation / THEIR_SEEDS**0.5
    return float(mean - half), float(mean + half)


def _of_published(cell: str | None) -> tuple[float, float] | None:
    """Of "mean (standard deviation)", that of a population, as the published table has it."""
    if cell is None:
        return None
    mean, deviation = cell.rstrip(")").split(" (")
    return interval(float(mean), float(deviation) * (THEIR_SEEDS / (THEIR_SEEDS - 1)) ** 0.5)


def _of_measured(measured) -> tuple[float, float] | None:
    if measured is None or measured.deviation is None:
        return None
    return interval(measured.steps, measured.deviation)


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
    never = f", {measured.never} of {THEIR_SEEDS} never" if measured.never else ""
    return f"{measured.steps:.1f}{spread}{never}"


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
    compared = figures["compared"]
    difference = "control" if compared is None else _difference(compared)
    names = ("classifier %", "guide %", "-ELBO")
    theirs = [figures[f"{name}, their code"] for name in names]
    published = figures["steps, published"]
    if figures[OTHER_RULE]:
        published += f"; by the others' rule {figures[OTHER_RULE]}"
    return {
        "what ran": figures["what ran"],
        "published as": figures["published as"],
        "published": published,
        "authors' code": figures["steps, their code"],
        "ours": f"{mean}{never}",
        "seeds": str(figures["seeds"]),
        "published, 95 %, inside": _inside(figures, "published"),
        "authors' code, 95 %, inside": _inside(figures, "their code"),
        "authors' code: classifier %, guide %, −ELBO": ""
        if theirs[0] is None
        else f"{theirs[0]:.1f}, {theirs[1]:.1f}, {theirs[2]:.1f}",
        "ours: classifier %, guide %, −ELBO": f"{figures['classifier %']:.1f}, "
        f"{figures['guide %']:.1f}, {figures['-ELBO']:.1f}",
        "difference": difference,
    }


def _inside(figures: dict, name: str) -> str:
    bounds = figures["intervals"][name]
    if bounds is None:
        return ""
    return f"{bounds[0]:.1f} to {bounds[1]:.1f}, {'yes' if figures['inside'][name] else 'no'}"


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
