"""The report of the CelebA experiment: tables and figures, and what may be published."""

from pathlib import Path

import numpy as np

import uno_jax as uno
from experiments import common
from uno_jax import data, report

GRID = 36
FACES = 10
EYE_TEXT = {"judge": "judge %", "judge2": "judge 2 %", "guide": "guide %"}


def write_report(lab, folder, results, states, histories) -> Path:
    """Writes the tables, the figures and the page."""
    lines = [_line(name, rows) for name, rows in _ordered(results["models"]).items()]
    publish = folder.path / "publish"
    publish.mkdir(exist_ok=True)
    public = _public_figures(lab, publish, states, histories, results)
    facts = {
        "command": results["command"],
        "versions": results["versions"],
        "device": results["device"],
        "seeds": _seeds(lab.options),
    }
    summary = _summary(lab, results)
    common.write_tables(publish, lines, summary, facts)
    page = report.write_page(
        folder.path / "report.html",
        title=f"Forgetting {results['forget']}",
        summary=summary,
        rows=lines,
        figures={**public, **_private_figures(lab, folder, states)},
        facts=facts,
    )
    common.print_table(lines)
    common.console.print(f"report: {page}")
    return page


def _ordered(rows: dict) -> dict:
    names = ["before", *(n for n in rows if n not in ("before", "retrained")), "retrained"]
    return {name: rows[name] for name in names}


def _seeds(options) -> str:
    last = options.seed + options.seeds - 1
    return f"{options.seed} to {last}" if last > options.seed else str(last)


def _spread(values: list, form: str) -> str:
    """Mean, and the range if there are several and they differ."""
    values = [v for v in values if v is not None]
    if not values:
        return ""
    mean = format(np.mean(values), form)
    low, high = format(min(values), form), format(max(values), form)
    return mean if low == high else f"{mean} ({low} to {high})"


def _percent(row: dict, who: str) -> float:
    return 100 * row[who]["count"] / row[who]["total"]


def _line(name: str, rows: list[dict]) -> dict[str, str]:
    line = {"model": name}
    for who, title in EYE_TEXT.items():
        line[title] = _spread([_percent(row, who) for row in rows], ".2f")
    ends = rows[0]["judge"]
    line["judge, seed 1, 95 %"] = f"{100 * ends['low']:.2f} to {100 * ends['high']:.2f}"
    line["FD"] = _spread([row["fd"] for row in rows], ".1f")
    if "fid" in rows[0]:
        line["FID"] = _spread([row["fid"] for row in rows], ".1f")
    line["retained −ELBO"] = _spread([row["retained_bound"] for row in rows], ".1f")
    line["forgotten −ELBO"] = _spread([row["forgotten_bound"] for row in rows], ".1f")
    for norm, title in (("running", "frozen"), ("batch", "training")):
        values = [100 * row["rebound"][norm] for row in rows]
        line[f"judge % after more, {title}"] = _spread(values, ".2f")
    line["steps"] = _spread([row.get("steps") for row in rows], ".0f")
    line["seconds"] = _spread([row.get("seconds") for row in rows], ".0f")
    return line


def _summary(lab, results) -> list[str]:
    eyes = results["eyes"]

    def share(row):
        return f"{100 * row['count'] / row['total']:.1f} %"

    seen = {name: _percent(rows[0], "judge") for name, rows in results["models"].items()}
    return [
        f"A VAE of faces was made to forget {results['forget']}: {lab.split.describe()} training "
        f"faces of {lab.train.name}. The judge takes {seen['before']:.1f} % of its samples for "
        f"{results['forget']} before, and {seen['retrained']:.1f} % of those of a model trained "
        "from scratch without.",
        "Two judges of different architecture took no part in any method. Told apart on "
        f"{eyes['judge']['set']}: "
        + "; ".join(
            f"{name} finds {share(row['recall'])} and is wrong about {share(row['false alarms'])} "
            "of the others"
            for name, row in eyes.items()
        )
        + ". The guide stops the gradient methods. What is published for CelebA under UNO, UNO-S "
        "and hat ran with two loss weights in each other's place and compares with no row here. "
        "retain-descent is the control: "
        "it only goes on training without the forgotten faces.",
        f"Fractions are of {lab.options.samples:,} samples; FD is the Fréchet distance on the "
        "judge's features to retained training faces; −ELBO is that of held-out faces, summed "
        "squared error plus KL; the last fractions are of 2,000 samples after "
        f"{lab.options.rebound_steps} further steps of retain descent, batch norm frozen or in "
        "training mode. Several seeds: mean (range).",
    ]


def _public_figures(lab, folder, states, histories, results) -> dict[str, Path]:
    """Figures without any real face."""
    grids = {name: _visible(lab.samples(state, GRID)) for name, state in _ordered(states).items()}
    levels = {
        name: _percent(results["models"][name][0], "judge") / 100
        for name in ("before", "retrained")
    }
    return {
        "Samples from the same latents before, after each method, and from the model retrained "
        "without.": report.sample_grids(folder / "samples.png", grids, columns=6),
        "Fraction of 1,000 samples that the judge takes for the forgotten, by step, with 95 % "
        "Wilson intervals.": report.fraction_curves(
            folder / "forgotten_fraction.png",
            {
                name: [
                    (r["step"], r["forgotten_fraction"], r["low"], r["high"])
                    for r in rows
                    if "low" in r
                ]
                for name, rows in histories.items()
            },
            ylabel=f"samples judged {results['forget']}",
            levels=levels,
        ),
        "Loss of the gradient methods on the two batches, per face.": report.curves(
            folder / "losses.png",
            {
                f"{name}, {side}": (
                    [r["step"] for r in rows],
                    [r[f"{side}_loss"] / lab.options.batch_size for r in rows],
                )
                for name, rows in histories.items()
                if not uno.methods.get_method(name).matches
                for side in ("retain", "forget")
            },
            xlabel="step",
            ylabel="loss (nats per face)",
        ),
    }


def _private_figures(lab, folder, states) -> dict[str, Path]:
    """Reconstructions of held-out faces; not for publication."""
    figures = {}
    for side, mask in (("retained", ~lab.test_mask), ("forgotten", lab.test_mask)):
        rows = np.flatnonzero(mask)[:FACES]
        if not len(rows):
            continue
        images = data.to_floats(lab.test.images[rows])
        strips = {"original": _visible(images)}
        for name, state in _ordered(states).items():
            strips[name] = _visible(np.asarray(lab.reconstruct(state, images)))
        caption = (
            f"Held-out {side} faces and their reconstructions. Real faces: not to be published."
        )
        figures[caption] = report.strips(folder.figure(f"reconstructions_{side}"), strips)
    return figures


def _visible(images: np.ndarray) -> np.ndarray:
    """From [-1, 1] to [0, 1]."""
    return np.clip((images + 1) / 2, 0, 1)
