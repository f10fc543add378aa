"""The audit as a page to read, to print and to hand on."""

from pathlib import Path
from typing import Any

import numpy as np

from uno_jax import metrics, report
from uno_jax.audit import networks, verdict
from uno_jax.audit.evidence import value_of

TONES = {
    verdict.FORGOTTEN: "good",
    verdict.REBOUNDS: "fair",
    verdict.LOST: "bad",
    verdict.FOOLED: "bad",
    verdict.NOT_FORGOTTEN: "bad",
}
GRID = 100


def percent(proportion: dict) -> str:
    """A counted proportion with its interval, as text."""
    return str(metrics.Proportion(**proportion))


def number(value: float | None) -> str:
    """A number, as text."""
    return "not finite" if value is None else f"{value:.4g}"


def with_interval(figure: dict) -> str:
    """A mean with its interval, as text."""
    if figure["value"] is None:
        return "not finite"
    return f"{figure['value']:.4g} [{number(figure['low'])}, {number(figure['high'])}]"


def summary(found: dict) -> str:
    """The verdict and its criteria as plain text."""
    said = found["verdict"]
    lines = [f"verdict: {said['name']}", said["sentence"], ""]
    for row in _criteria(found):
        ends = f" {row['95 %']}" if row["95 %"] else ""
        lines.append(f"{row['met']:<8} {row['criterion']}: {row['value']}{ends}, {row['limit']}")
    lines += ["", *said["remarks"]]
    lines += [f"not measured: {what} ({why})" for what, why in found["not_measured"].items()]
    return "\n".join(lines).rstrip()


def write(folder: Path, found: dict, samples: dict, alike: dict) -> Path:
    """Writes `audit.html` and its figures.

    Args:
      folder: where.
      found: what `audit.json` holds.
      samples: name to images.
      alike: name to rows of images, see `generation.most_alike`.

    Returns:
      The page.
    """
    said = found["verdict"]
    figures = _figures(folder / "figures", samples, alike, found)
    sections = [
        report.Section(
            "The criteria",
            ("Each with its figure, the 95 % interval, the sample size and the limit.",),
            _criteria(found),
        ),
        report.Section(
            "What is drawn",
            (
                "The fraction of samples that each judge counts as forgotten. The first two were "
                "trained by the audit, on the two sets, and no method has seen them; a judge that "
                "took part guided or stopped a method, and its word counts for nothing.",
            ),
            _drawn(found),
            figures,
        ),
        report.Section("Who judges", ("On real examples.",), _judges(found)),
        report.Section(
            "Quality and distance",
            ("Samples of the forgotten class are left out of quality.",),
            _measures(found),
        ),
        *_attacks(found),
        *_relearned(found),
        *_cost(found),
    ]
    if found["not_measured"]:
        rows = [{"what": what, "why": why} for what, why in found["not_measured"].items()]
        sections.append(report.Section("Not measured", (), rows))
    return report.write_page(
        folder / "audit.html",
        title="Audit of forgetting",
        banner=report.Banner(said["name"].capitalize(), said["sentence"], TONES[said["name"]]),
        summary=said["remarks"],
        sections=sections,
        facts={
            **found["about"],
            "schema": found["schema"],
            **{f"examples, {name}": total for name, total in found["data"].items()},
            **found["settings"],
            **{f"threshold, {name}": value for name, value in found["thresholds"].items()},
        },
    )


def _criteria(found) -> list[dict[str, str]]:
    return [
        {
            "criterion": c["name"],
            "met": "✓ met" if c["passed"] else "✗ not met",
            "value": number(c["value"]),
            "95 %": "" if c["low"] is None else f"{number(c['low'])} to {number(c['high'])}",
            "n": "" if c["total"] is None else str(c["total"]),
            "limit": number(c["limit"]),
            "what": c["what"],
        }
        for c in found["verdict"]["criteria"]
    ]


def _drawn(found) -> list[dict[str, str]]:
    rows = []
    for name, model in found["models"].items():
        drawn = model["generation"]
        row = {"model": name}
        for who, fraction in drawn["fractions"].items():
            part = " (took part)" if found["judges"][who]["took_part"] else ""
            row[f"{who}{part}"] = percent(fraction)
        row["near forget examples"] = percent(drawn["near_forget"])
        if "kl" in drawn:
            row["KL of the classes, nats"] = number(drawn["kl"])
            row["total variation"] = number(drawn["total_variation"])
        rows.append(row)
    return rows


def _judges(found) -> list[dict[str, str]]:
    return [
        {
            "judge": who,
            "forget examples counted as forgotten": percent(row["recall"]),
            "retained ones counted so": percent(row["false_alarms"]),
            "examples": "held out" if row["held_out"] else "of the training sets",
            "took part": "yes" if row["took_part"] else "no",
        }
        for who, row in found["judges"].items()
    ]


def _measures(found) -> list[dict[str, str]]:
    rows = []
    for name, model in found["models"].items():
        quality, row = model["quality"], {"model": name}
        row |= {f"Fréchet, {space}": number(v) for space, v in quality["frechet"].items()}
        row |= {key: f"{quality[key]:.3f}" for key in ("precision", "recall")}
        if "retain_loss" in quality:
            row["retained loss"] = with_interval(quality["retain_loss"])
        for other, far in model["influence"].items():
            row[f"samples, Fréchet to {other}"] = number(far["samples_frechet"])
            if "output_change" in far:
                row[f"change of outputs from {other}"] = number(far["output_change"])
            for key, title in (
                ("retain_gap", "retained loss above"),
                ("forget_gap", "loss on forget examples above"),
                ("encoder_kl", "encoders, KL from"),
            ):
                if key in far:
                    row[f"{title} {other}"] = with_interval(far[key])
        rows.append(row)
    return rows


def _attacks(found) -> list[report.Section]:
    rows = []
    for name, model in found["models"].items():
        for attack, figures in model.get("membership", {}).items():
            auc, tpr = figures["auc_interval"], figures["tpr_interval"]
            rows.append(
                {
                    "model": name,
                    "attack": attack,
                    "area under the curve": f"{figures['auc']:.3f} [{auc[0]:.3f}, {auc[1]:.3f}]",
                    f"hits at {figures['false_positives']:.0%} false alarms": (
                        f"{figures['tpr']:.3f} [{tpr[0]:.3f}, {tpr[1]:.3f}]"
                    ),
                    "examples": f"{figures['members']} and {figures['others']}",
                }
            )
    text = (
        "Can the loss tell a forget example that was trained on from one that was not? 0.5 is "
        "chance. The ratio is taken to models that never saw the examples."
    )
    return [report.Section("Membership", (text,), rows)] if rows else []


def _relearned(found) -> list[report.Section]:
    rows = []
    for name, model in found["models"].items():
        relearned = model.get("relearning")
        if not relearned:
            continue
        row = {"model": name}
        for trainer, marks in relearned["retain"].items():
            row |= {f"retain, {steps} steps, {trainer}": percent(p) for steps, p in marks.items()}
        for examples, marks in relearned["forget"].items():
            last = list(marks)[-1]
            row[f"{examples} forget examples, {last} steps"] = percent(marks[last]["fraction"])
        rows.append(row)
    text = (
        "The fraction drawn after training goes on with a cold optimizer, on retained data alone "
        "and on a few forget examples. The retrained model shows what learning anew takes."
    )
    return [report.Section("Relearning", (text,), rows)] if rows else []


def _cost(found) -> list[report.Section]:
    cost = found["cost"]
    if not cost:
        return []
    rows = [{"cost": name.replace("_", " "), "value": number(v)} for name, v in cost.items()]
    for name in ("gradient_evaluations", "seconds", "joules"):
        if cost.get(name) and f"retraining_{name}" in cost:
            ratio = cost[f"retraining_{name}"] / cost[name]
            rows.append({"cost": f"retraining over method, {name.replace('_', ' ')}",
                         "value": number(ratio)})  # fmt: skip
    return [report.Section("Cost", (), rows)]


def _figures(folder, samples, alike, found) -> dict[str, Path]:
    figures = {}
    shape = networks.picture_shape(np.shape(samples["after"])[1:])
    if shape:
        first = np.nan_to_num(samples["before"])
        low, high = float(first.min()), float(first.max())

        def pictures(images):
            unit = (np.nan_to_num(images) - low) / max(high - low, 1e-9)
            unit = np.clip(unit, 0, 1).reshape(-1, *shape)
            return unit[..., 0] if shape[-1] == 1 else unit

        figures["Samples of equal latents, each model's first hundred."] = report.sample_grids(
            folder / "samples.png",
            {name: pictures(images[:GRID]) for name, images in samples.items()},
        )
        for name, rows in alike.items():
            figures[
                f"The samples of the model {name} that are most like the forget set, and under "
                "each the nearest real examples."
            ] = report.strips(
                folder / f"alike_{name}.png",
                {title: pictures(images) for title, images in rows.items()},
            )
    curves = _curves(found)
    if curves:
        figures[
            "Fraction drawn while training goes on with retained data alone, with 95 % intervals; "
            "step 0 is the model as it was handed in."
        ] = report.fraction_curves(
            folder / "relearning.png", curves, ylabel="samples counted as forgotten"
        )
    return figures


def _curves(found) -> dict[str, list[tuple[int, float, float, float]]]:
    who = next(iter(found["judges"]))

    def point(step: Any, p: dict):
        return int(step), value_of(p), p["low"], p["high"]

    return {
        f"{name}, {trainer}": [
            point(0, model["generation"]["fractions"][who]),
            *(point(step, p) for step, p in marks.items()),
        ]
        for name, model in found["models"].items()
        for trainer, marks in model.get("relearning", {}).get("retain", {}).items()
    }
