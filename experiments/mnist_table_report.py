"""The MNIST table as CSV, JSON, Markdown and LaTeX, with its figures."""

import csv
import json
import statistics
from pathlib import Path

import numpy as np

from experiments import common
from uno_jax import metrics, report

GRID_ROWS = ("redirect", "uno", "surgery", "ascent", "retain-descent", "retrained")


def write(options, folder, results: list[dict], accuracies: dict) -> list[dict]:
    """Writes table.csv, table.json, table.md, table.tex and the figures."""
    curve = next((_curve(r) for r in results if r["method"] == "retrain"), [])
    main = [_line(r, curve, options) for r in results if "control" not in r]
    digits = [line for r in results if "control" in r for line in _digit_lines(r, options)]
    before = next((r["before"] for r in results if "control" not in r), None)
    if before:
        main.insert(0, {"row": "before", "runs": len(before), **_stop_cells(before)})
    facts = {
        **common.facts(),
        "seeds": f"{options.seeds} from {options.first_seed}; {options.warm_seeds} with a warm "
        f"Adam, {options.digit_seeds} per digit",
        **{f"test accuracy, {name}": f"{value:.2%}" for name, value in accuracies.items()},
    }
    everything = {"facts": facts, "lines": main, "digits": digits, "rows": results}
    (folder.path / "table.json").write_text(json.dumps(everything) + "\n")
    _write_csv(folder.path / "table.csv", main)
    _write_csv(folder.path / "digits.csv", digits)
    short = [_short(line, options) for line in main]
    (folder.path / "table.md").write_text(_markdown(short, main, digits, facts, options))
    (folder.path / "table.tex").write_text(_latex(short))
    _figures(folder, results, main)
    common.print_table([_narrow(row) for row in short])
    return main


def _percent(counts, total) -> float:
    return round(100 * sum(counts) / total, 3)


def _spread(values, digits=1) -> str:
    values = [v for v in values if v is not None]
    sd = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):.{digits}f} ({sd:.{digits}f})"


def _stop_cells(looks: list[dict]) -> dict:
    """Figures at the stop over seeds: pooled fractions with interval, and ranges."""
    total = sum(look["total"] for look in looks)
    cells: dict = {}
    for who in ("judge", "judge2", "guide"):
        counts = [look[who] for look in looks]
        pooled = metrics.proportion(sum(counts), total)
        cells[f"{who} %"] = _percent(counts, total)
        if who == "judge":
            cells["judge low %"] = round(100 * pooled.low, 3)
            cells["judge high %"] = round(100 * pooled.high, 3)
            each = [100 * look[who] / look["total"] for look in looks]
            cells["judge least %"], cells["judge most %"] = min(each), max(each)
    cells["-ELBO"] = _mean(looks, "bound")
    cells["-ELBO most"] = round(max(look["bound"] for look in looks), 2)
    cells["-ELBO, batch statistics"] = _mean(looks, "bound_batch")
    cells["FD, guide"] = _mean(looks, "fd_guide")
    cells["FD, judge"] = _mean(looks, "fd_judge")
    return cells


def _mean(looks, key) -> float:
    return round(statistics.fmean(look[key] for look in looks), 2)


def _line(result: dict, curve, options) -> dict:
    runs = result["runs"]
    looks = [run["stop"] for run in runs]
    total = sum(look["total"] for look in looks)
    steps = [run["stop_step"] for run in runs]
    line = {
        "row": result["name"],
        "runs": len(runs),
        "steps": _spread(
            [s for s, run in zip(steps, runs, strict=True) if run["reached"]] or steps
        ),
        "never": sum(not run["reached"] for run in runs),
        **_stop_cells(looks),
    }
    if result["method"] in ("redirect", "redirect-diagonal"):
        line["never"] = ""  # it makes its steps, and no classifier is asked
    for norm, name in (("running", "frozen"), ("batch", "training")):
        for further in options.rebound:
            key = f"rebound_{norm}_{further}"
            line[f"judge % after {further} more, {name}"] = _percent(
                [run[key] for run in runs], total
            )
            line[f"most after {further} more, {name}"] = max(
                100 * run[key] / run["stop"]["total"] for run in runs
            )
    for mark in options.marks:
        seen = [run["marks"][str(mark)] for run in runs if str(mark) in run["marks"]]
        if not seen:
            continue
        for who in ("judge", "guide"):
            line[f"{who} % at {mark}"] = _percent([s[who] for s in seen], _totals(seen))
        line[f"judge most % at {mark}"] = max(100 * s["judge"] / s["total"] for s in seen)
        line[f"-ELBO at {mark}"] = _mean(seen, "bound")
        line[f"-ELBO most at {mark}"] = round(max(s["bound"] for s in seen), 2)
    if "seconds_per_step" in runs[0]:
        line["seconds"] = round(
            statistics.fmean(r["seconds_per_step"] * r["stop_step"] for r in runs), 3
        )
    line["gradients per training image"] = round(
        statistics.fmean(steps) * result["evaluations_per_step"] / result["training_images"], 3
    )
    if result["method"] != "retrain":
        enough = [step for step, bound in curve if bound <= line["-ELBO"]]
        line["retraining steps to this -ELBO"] = (
            str(enough[0]) if enough else f"> {curve[-1][0]}" if curve else ""
        )
    return line


def _totals(looks) -> int:
    return sum(look["total"] for look in looks)


def _curve(result) -> list[tuple[int, float]]:
    """Mean −ELBO of retraining by steps."""
    marks = result["runs"][0]["marks"]
    return [
        (int(m), statistics.fmean(run["marks"][m]["bound"] for run in result["runs"]))
        for m in marks
    ]


def _digit_lines(result, options) -> list[dict]:
    before, base = result["before"], result["before"][0]["bound"]

    def line(name, looks, extra):
        total = _totals(looks)
        return {
            "digit": result["digit"],
            "model": name,
            "judge %": _percent([s["judge"] for s in looks], total),
            "judge most %": max(100 * s["judge"] / s["total"] for s in looks),
            "judge2 %": _percent([s["judge2"] for s in looks], total),
            "-ELBO": _mean(looks, "bound"),
            "-ELBO above the original": round(_mean(looks, "bound") - base, 2),
            **extra,
        }

    def back(runs):
        total = _totals([run["stop"] for run in runs])
        keys = [f"rebound_{n}_{s}" for n in ("running", "batch") for s in options.rebound]
        names = {"running": "frozen", "batch": "training"}
        return {
            f"judge % after {k.split('_')[2]} more, {names[k.split('_')[1]]}": _percent(
                [run[k] for run in runs], total
            )
            for k in keys
        }

    runs = result["runs"]
    return [
        line("before", before, {}),
        line("redirect", [run["stop"] for run in runs], back(runs)),
        line("control", [run["stop"] for run in result["control"]], back(result["control"])),
        line("retrained", [result["retrained"]["stop"]], back([result["retrained"]])),
    ]


SHORT = {
    "row": "row",
    "steps": "steps (sd)",
    "never": "never",
    "judge %": "judge %",
    "judge2 %": "judge 2 %",
    "guide %": "guide %",
    "-ELBO": "−ELBO",
    "-ELBO, batch statistics": "−ELBO, batch",
    "FD, guide": "FD guide",
    "FD, judge": "FD judge",
    "frozen": "rebound, frozen %",
    "training": "rebound, training %",
    "seconds": "seconds",
    "gradients per training image": "gradients",
    "retraining steps to this -ELBO": "retraining",
}


def _short(line: dict, options) -> dict[str, str]:
    """The columns that fit a page."""
    last = {
        norm: line.get(f"judge % after {options.rebound[-1]} more, {norm}", "")
        for norm in ("frozen", "training")
    }
    return {name: _text({**line, **last}.get(key, "")) for key, name in SHORT.items()}


def _narrow(row: dict[str, str]) -> dict[str, str]:
    """The columns that fit a terminal."""
    names = ("row", "steps (sd)", "judge %", "guide %", "−ELBO", "rebound, frozen %")
    return {name: row[name] for name in names}


def _text(value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _table(rows: list[dict]) -> str:
    return common.markdown_table([{k: _text(v) for k, v in row.items()} for row in rows]) + "\n"


def _markdown(short, main, digits, facts, options) -> str:
    marks = [
        {"row": line["row"], **{k: v for k, v in line.items() if "% at" in k and "most" not in k}}
        for line in main[1:]
    ]
    facts_text = "\n".join(f"    {key}: {value}" for key, value in facts.items())
    return f"""# Every method from the published MNIST weights

Fractions are of generated samples, pooled over seeds. The judge is a convolutional
network, judge 2 a perceptron; neither guided or stopped anything. The guide is the
published classifier: it stops the gradient methods and guides those with a hat, so its
column says how far it was fooled. −ELBO in nats per retained test digit, with running and
with batch statistics. "+100": judge's fraction after 100 further steps of plain retain
descent. "never": seeds on which the guide did not see fewer than 2 % of 128 samples, decoded in
evaluation mode after the update, within 659 steps; the steps are those of the others, or all if
none did. UNO is as published, without a bound on its penalty. The published figures were counted
in another way and some of them under other names: they stand in [authors.md](authors.md), beside
what ran.
"gradients": per training image, a Hessian-vector product counted twice. "retraining":
steps of retraining from scratch to the same −ELBO.

{_table(short)}
## By steps

{_table(marks)}
## The default on every digit

Control: as many steps of retain descent with the published Adam. Retrained: 5 epochs.

{_table(digits)}
## How this was made

{facts_text}
"""


def _latex(rows) -> str:
    escape = str.maketrans({"%": r"\%", "−": r"$-$", "_": r"\_", ">": r"$>$"})
    body = "\n".join(" & ".join(v.translate(escape) for v in row.values()) + r" \\" for row in rows)
    head = " & ".join(name.translate(escape) for name in rows[0])
    columns = "l" + "r" * (len(rows[0]) - 1)
    return (
        f"\\begin{{tabular}}{{{columns}}}\n\\hline\n{head} \\\\\n\\hline\n{body}\n"
        "\\hline\n\\end{tabular}\n"
    )


def _write_csv(path: Path, rows: list[dict]) -> None:
    if not rows:
        return
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _figures(folder, results, main) -> None:
    report.frontier(
        folder.figure("frontier"),
        {line["row"]: (line["-ELBO"], line["judge %"]) for line in main},
        xlabel="retained test −ELBO (nats)",
        ylabel="samples the judge takes for the digit (%)",
    )
    grids = {}
    for name in ("before", *(r["name"] for r in results if r["name"] in GRID_ROWS)):
        file = folder.path / "samples" / f"{'after' if name == 'redirect' else name}.npz"
        if file.exists():
            grids[name] = np.load(file)["images"][:100].reshape(-1, 28, 28)
    report.sample_grids(folder.figure("samples"), grids)
