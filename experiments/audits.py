"""The audit at the end of an experiment: its case, made once, and what it found."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import uno_jax as uno
from experiments import common, dit_models, dit_settings
from uno_jax import audit, data

FACES = 4000
"""Most faces of a side that an audit looks at: it holds them as floats."""


def audit_or_restore(
    folder: common.RunFolder,
    name: str,
    make_case: Callable[[], audit.Case],
    settings: audit.Settings,
    inception: Path | None = None,
) -> dict:
    """What the audit finds, or what the folder already holds.

    Args:
      folder: of the run; the audit is in `audits/NAME`.
      name: of the model.
      make_case: makes the case, if there is something to be done.
      settings: how much is drawn and trained.
      inception: weights, for FID.

    Returns:
      What `audit.json` holds.
    """
    out = folder.path / "audits" / name
    if not (out / "audit.html").exists():
        case = make_case()
        audit.run(
            case,
            settings=settings,
            out=out,
            features=inception and {"Inception": audit.inception(inception, case.data)},
            report=lambda stage: common.console.print(f"audit of {name}: {stage}"),
        )
    return json.loads((out / "audit.json").read_text())


def _audited(folder, name, make_case, settings, inception=None) -> dict | None:
    """Audits and says the verdict, or why there is none.

    Not every model of an experiment can be audited: one may never have drawn what it is to
    forget. That is no reason to end an experiment with an error after hours.
    """
    try:
        found = audit_or_restore(folder, name, make_case, settings, inception)
    except ValueError as error:
        common.console.print(f"no audit of {name}: {error}", style="yellow", markup=False)
        return None
    said = found["verdict"]
    common.console.print(f"audit of {name}: {said['name']}. {said['sentence']}")
    common.console.print(f"audit: {folder.path / 'audits' / name / 'audit.html'}")
    return found


def of_digits(
    options, lab, folder, models: dict[str, Any], method: str, **about: Any
) -> dict | None:
    """Audits a conditional model of digits that a method was run on.

    It draws every label equally often, guided, as the experiment does.

    Args:
      options: of `experiments.dit`.
      lab: its data, network and judges.
      folder: of the run.
      models: parameters by the names of `audit.Case`.
      method: that was run.
      **about: of `audit.Case`.

    Returns:
      What `audit.json` holds; None if the model cannot be audited, which is said.
    """

    def judge(classify):
        return lambda images: classify(dit_models.to_unit(images))

    def make_case():
        sides = [
            {"image": dit_models.pictures(source)[chosen], "label": source.labels[chosen]}
            for source in (lab.train, lab.test)
            for chosen in (source.labels != options.forget, source.labels == options.forget)
        ]
        eyes = {name: audit.Judge(judge(look), (options.forget,)) for name, look in
                lab.judges.items()}  # fmt: skip
        stopped = dit_settings.setting(options, method).stopped
        eyes["guide"] = audit.Judge(judge(lab.guide), (options.forget,), stopped)
        return audit.Case(
            data=audit.Data(*sides),
            params=models,
            model=audit.denoiser(
                dit_models.process(lab.network),
                dit_models.SHAPE,
                sampler=options.sampler,
                steps=options.sampling_steps,
                guidance=options.guidance,
                clip=dit_models.RANGE,
            ),
            judges=eyes,
            **_about(method, options.forget, about),
        )

    return _audited(folder, method, make_case, _settings(options))


def of_faces(
    options, lab, folder, states: dict[str, uno.TrainState], method: str, **about
) -> dict | None:
    """Audits a VAE of faces that a method was run on.

    Args:
      options: of `experiments.celeba`.
      lab: its faces and eyes.
      folder: of the run.
      states: train states by the names of `audit.Case`.
      method: that was run.
      **about: of `audit.Case`.

    Returns:
      What `audit.json` holds; None if the model cannot be audited, which is said.
    """

    def side(faces, mask):
        rows = np.flatnonzero(mask)
        rows = np.sort(np.random.default_rng(options.seed).permutation(rows)[:FACES])
        return {"image": np.asarray(data.to_floats(faces.images[rows]))} if len(rows) > 1 else None

    def make_case():
        masks = lab.target.mask(lab.train), lab.test_mask
        sides = [
            side(faces, chosen)
            for faces, mask in zip((lab.train, lab.test), masks, strict=True)
            for chosen in (~mask, mask)
        ]
        row = uno.methods.get_method(method)
        eyes = {
            name: audit.Judge(look, (1,), took_part=name == "guide" and not row.matches)
            for name, look in lab.eyes.items()
        }
        return audit.Case(
            data=audit.Data(*sides),
            params={name: audit.variables(state) for name, state in states.items()},
            model=audit.vae(lab.vae, learning_rate=options.learning_rate),
            judges=eyes,
            **_about(method, lab.target.text, about),
        )

    return _audited(folder, method, make_case, _settings(options), options.inception)


def _about(method, forgotten, about) -> dict[str, Any]:
    facts = {"method": method, "forgotten": forgotten, **common.facts()}
    return {**about, "about": {**facts, **about.get("about", {})}}


def _settings(options) -> audit.Settings:
    """Less than the audit's own, as much as goes in minutes on two cores.

    With fewer than 500 samples relearning is hardly looked at.
    """
    count = options.audit_samples
    whole = count >= 500
    return audit.Settings(
        samples=count,
        examples=min(1000, count),
        judge_steps=options.judge_steps,
        retain_steps=(20, 100) if whole else (1,),
        forget_examples=(1, 8, 64) if whole else (1,),
        forget_steps=(20,) if whole else (1,),
        relearn_samples=max(100, count // 4),
        batch_size=options.batch_size,
        seed=options.seed,
    )
