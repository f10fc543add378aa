"""The report of the experiment on conditional digits: table, grids per class, page."""

from pathlib import Path

import numpy as np

from experiments import common, dit_settings
from uno_jax import metrics, report

SHOWN = 6


def write_report(options, folder, results, pictures, histories) -> Path:
    """Writes the table as CSV, JSON and Markdown, the figures, and the page."""
    lines = [table_line(name, row) for name, row in results["models"].items()]
    publish = folder.path / "publish"
    publish.mkdir(exist_ok=True)
    summary = _summary(options, results)
    facts = {
        "command": results["command"],
        "versions": results["versions"],
        "device": results["device"],
        "seed": options.seed,
        "seconds, training": f"{results['seconds_training']:.0f}",
        "seconds, unlearning": f"{results['seconds_unlearning']:.0f}",
    }
    common.write_tables(publish, lines, summary, facts)
    page = report.write_page(
        folder.path / "report.html",
        title=f"Forgetting the label {options.forget}",
        summary=summary,
        rows=lines,
        figures=_figures(options, publish, results, pictures, histories),
        facts=facts,
    )
    common.print_table(lines)
    common.console.print(f"report: {page}")
    return page


def _value(row: dict) -> float:
    return 100 * metrics.Proportion(**row).value


def _both(row: dict) -> str:
    return f"{_value(row['judge']):.1f} ({_value(row['judge2']):.1f})"


def table_line(name: str, row: dict) -> dict[str, str]:
    """A line of the table: per cent by the judge, by the second in parentheses."""
    guided, unguided = row["guided"], row["unguided"]
    return {
        "model": name,
        "moves": f"{100 * row['moves']:.3g}",
        "label, guided": _both(guided["forgotten"]),
        "label, unguided": _both(unguided["forgotten"]),
        "old row put back": _both(row["restored"]),
        "no label": _both(row["null"]),
        "other nine, guided": _both(guided["others"]),
        "other nine, unguided": _both(unguided["others"]),
        "FD, guided": f"{guided['fd']:.1f}",
        "FD, unguided": f"{unguided['fd']:.1f}",
        "steps": str(row["steps"] or ""),
        "seconds": f"{row['seconds']:.0f}",
    }


def _summary(options, results) -> list[str]:
    before = metrics.Proportion(**results["models"]["before"]["guided"]["all"])
    ends = metrics.Proportion(**results["models"]["before"]["guided"]["forgotten"]["judge"])
    seen = results["accuracies"]
    return [
        f"A class-conditional diffusion model ({options.model}) of {options.data} was made to "
        f"forget the label {options.forget}, with {options.exchange} in its place. Before, the "
        f"judge takes {before} of its guided samples for their label.",
        "moves: per cent of the parameters that the method trains. "
        f"label: per cent of {options.samples} samples of the forgotten label that the judge takes "
        f"for a {options.forget}, by the second judge in parentheses (before, 95 %: "
        f"{100 * ends.low:.1f} to {100 * ends.high:.1f}). old row put back: the same, unguided, "
        "with the forgotten label's row of the table as it was before: if the digit returns, it "
        f"was only renamed. no label: of {options.null_samples} unconditional samples. other nine: "
        f"per cent of {9 * options.samples} samples taken for their label. FD: on the judge's "
        "features, samples of the nine labels to test images of them.",
        f"The judges' test accuracies are {seen['judge']:.1%} and {seen['judge2']:.1%}; they took "
        "no part in any method. The guide, a perceptron "
        f"({seen['guide']:.1%}), stops methods that ascend in all parameters, below "
        f"{options.stop_below:.0%} of 128 samples. Beside the images a retain batch holds "
        f"guided samples of the original: {_replayed(options)}.{_retaining(options)} "
        "retain-descent descends the same retain loss, exchange images included; "
        "retain-only has no exchange images. retrained: from scratch, exchange images under "
        "the forgotten label.",
    ]


def _replayed(options) -> str:
    """How many samples of the original each method's retain batches hold."""
    counts: dict[int, list[str]] = {}
    for name in options.method:
        counts.setdefault(dit_settings.protocol(options, name)[1].replay, []).append(name)
    return "; ".join(f"{count} with {', '.join(names)}" for count, names in counts.items())


def _retaining(options) -> str:
    """Says which methods have a retain loss that they are published without."""
    names = [name for name in options.method if dit_settings.setting(options, name).retaining]
    if not names:
        return ""
    return f" {', '.join(names)}: beside the retain loss without exchange; as published, alone."


def _figures(options, folder, results, pictures, histories) -> dict[str, Path]:
    figures = {}
    for kind in ("guided", "unguided"):
        grids = {
            name: np.concatenate([label[:SHOWN] for label in of[kind]])
            for name, of in pictures.items()
        }
        caption = (
            f"Samples, {kind}: a row per label, 0 to 9, 0 to 9, from the same noise in every model."
        )
        figures[caption] = report.sample_grids(folder / f"{kind}.png", grids, columns=SHOWN)
    grids = {name: of["null"][: SHOWN * SHOWN] for name, of in pictures.items()}
    figures["Samples without a label."] = report.sample_grids(
        folder / "no_label.png", grids, columns=SHOWN
    )
    looks = {
        name: [
            (r["step"], r["forgotten_fraction"], r["low"], r["high"]) for r in rows if "low" in r
        ]
        for name, rows in histories.items()
    }
    figures[
        "Fraction of 128 unguided samples of the label that the judge takes for the digit, by "
        "step, with 95 % Wilson intervals."
    ] = report.fraction_curves(
        folder / "forgotten_fraction.png",
        looks,
        ylabel=f"samples judged a {options.forget}",
        levels={
            name: _value(results["models"][name]["unguided"]["forgotten"]["judge"]) / 100
            for name in ("before", "retrained")
        },
    )
    losses = {
        f"{name}, {side}": ([r["step"] for r in rows], [r[f"{side}_loss"] for r in rows])
        for name, rows in histories.items()
        for side in ("retain", "forget")
    }
    if losses:
        figures["Loss of the gradient methods on the two batches."] = report.curves(
            folder / "losses.png", losses, xlabel="step", ylabel="loss"
        )
    return figures
