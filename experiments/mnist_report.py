"""The report of the MNIST experiment: three figures, one table, one page."""

from pathlib import Path

import uno_jax as uno
from experiments import common
from uno_jax import metrics, report


def write_report(options, folder, results, grids, histories) -> Path:
    """Writes the figures and the page."""
    table = []
    for name, row in results["models"].items():
        judge, second, guide = (
            metrics.Proportion(**row[who]) for who in ("judge", "judge2", "guide")
        )
        table.append(
            {
                "model": name,
                f"judge: {options.forget}s [95 %]": str(judge),
                f"judge 2: {options.forget}s": f"{second.value:.2%}",
                f"guide: {options.forget}s": f"{guide.value:.2%}",
                "retained test −ELBO (nats)": f"{row['negative_elbo']:.1f}",
                "steps": str(row["steps"] or ""),
                "seconds": "" if row["seconds"] is None else f"{row['seconds']:.1f}",
            }
        )
    judged = {
        name: metrics.Proportion(**row["judge"]).value for name, row in results["models"].items()
    }
    figures = {
        "Samples from the same latents before, after each method, and from the model retrained "
        "without the digit.": report.sample_grids(folder.figure("samples"), grids),
        f"Fraction of 2,000 samples that the judge takes for a {options.forget}, by step, "
        "with 95 % Wilson intervals.": report.fraction_curves(
            folder.figure("forgotten_fraction"),
            {
                name: [
                    (r["step"], r["forgotten_fraction"], r["low"], r["high"])
                    for r in rows
                    if "low" in r
                ]
                for name, rows in histories.items()
            },
            ylabel=f"samples judged a {options.forget}",
            levels={"retrained": judged["retrained"]},
        ),
        "Loss of the gradient methods on the two batches, per image.": report.curves(
            folder.figure("losses"),
            {
                f"{name}, {side}": (
                    [r["step"] for r in rows[1:]],
                    [r[f"{side}_loss"] / options.batch_size for r in rows[1:]],
                )
                for name, rows in histories.items()
                if not uno.methods.get_method(name).matches
                for side in ("retain", "forget")
            },
            xlabel="step",
            ylabel="loss (nats per image)",
        ),
    }
    accuracy, second = (
        metrics.Proportion(**results[f"{who}_accuracy"]) for who in ("judge", "judge2")
    )
    summary = [
        f"A VAE trained on {options.data} was made to forget the digit {options.forget}.",
        *(
            f"{name}: the judge sees {judged[name]:.2%} {options.forget}s, from "
            f"{judged['before']:.2%} before; retraining without the digit gives "
            f"{judged['retrained']:.2%}."
            for name in judged
            if name.startswith("after")
        ),
        f"The judge is a convolutional network with test accuracy {accuracy}, judge 2 a "
        f"perceptron with {second}. Neither guided nor stopped any method. The guide stops the "
        "gradient methods, as in the paper; the redirect asks no classifier. retain-descent is the "
        "control: it only goes on training without the digit.",
    ]
    facts = {
        "command": results["command"],
        "versions": results["versions"],
        "device": results["device"],
        "seed": options.seed,
        "seconds, everything": f"{results['seconds']:.0f}",
    }
    page = report.write_page(
        folder.path / "report.html",
        title=f"Forgetting the digit {options.forget}",
        summary=summary,
        rows=table,
        figures=figures,
        facts=facts,
    )
    common.print_table(table)
    common.console.print(f"report: {page}")
    return page
