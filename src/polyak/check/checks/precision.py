"""What bfloat16 weights lose."""

from dataclasses import replace
from typing import Any

import numpy as np
from ml_dtypes import bfloat16

from polyak.check.checks.comparing import taken
from polyak.check.checks.measures import not_applicable, outcome
from polyak.check.finding import Finding, Outcome
from polyak.check.identity import Identity
from polyak.check.trial import Array, Refused, Subject, Trial

# Between bfloat16 numbers near 1 are 1/128 above and 1/256 below: what changes a weight by less than 1/512 is rounded away.
_HALF_A_UNIT = 1 / 512
_STEPS = 8


def bfloat(subject: Subject, identity: Identity) -> Outcome:
    """With bfloat16 weights, steps that they can hold are those of float32; it is said what becomes of smaller ones.

    Plain bfloat16 weights lose small steps whatever the optimizer: that is a note. It takes float32 weights beside them, a
    compensation or rounding by lot to keep them.
    """
    check = "bfloat16 weights"
    trial, came = taken(subject, {"w": (2,)}, {"w": (2, 2)}, 3, np.float32)
    step = _mean(came.steps("w"))
    if not step:
        return not_applicable(check, "The weights do not move.")
    coarse, fine = (_from(trial, times * step) for times in (4, 8192))
    try:
        as_float, as_bfloat = subject.run(coarse).steps("w"), subject.run(_in_bfloat16(coarse)).steps("w")
    except Refused as refused:
        return not_applicable(check, f"They are refused: {refused}")
    evidence = "Three steps that are a quarter of the weights were compared with those in float32, and smaller ones followed."
    findings: list[Finding] = []
    notes: list[str] = []
    # Weights, velocities and their factors are rounded to 8 bits at each step; what is wrong by half is not rounded.
    large = np.abs(as_float).max(axis=0) >= 8 * _HALF_A_UNIT * np.abs(coarse.weights["w"])
    if not large.all():  # as where steps are in proportion to the weights
        evidence = "Steps are too small for bfloat16 weights, however small these are."
    elif not np.linalg.norm((as_bfloat - as_float).sum(0)) <= np.linalg.norm(as_float.sum(0)) / 2:
        what = f"Three steps move bfloat16 weights by {_shown(as_bfloat)}, and float32 weights by {_shown(as_float)}."
        if identity.kind == "unknown" and np.isfinite(as_bfloat).all():  # roots of matrices, say, lose far more
            notes.append(what)
        else:
            findings.append(Finding("implementations-differ", what, (_in_bfloat16(coarse), coarse)))
    long = replace(fine, gradients=[trial.gradients[0]] * _STEPS)
    notes += _small_steps(subject, long, "Steps")
    still = {name: np.zeros_like(w) for name, w in trial.weights.items()}
    decaying = Trial({name: np.ones_like(w) for name, w in trial.weights.items()}, [still] * _STEPS)
    notes += _small_steps(subject, decaying, "Weight decay")
    return outcome(check, evidence, findings, notes)


def _small_steps(subject: Subject, trial: Trial, of: str) -> list[str]:
    """What becomes of changes that are less than half a unit in the last place; nothing if these are not so small."""
    weights = np.abs(trial.weights["w"])
    should = np.abs(subject.run(trial).steps("w"))
    each = float((should / weights).max())
    if not 0 < each < _HALF_A_UNIT:
        return []
    moved = float((np.abs(subject.run(_in_bfloat16(trial)).steps("w").sum(0)) / should.sum(0)).mean())
    size = f"{of} of {each:.1g} of a weight, less than half a unit in the last place of bfloat16,"
    if moved < 0.05:
        return [f"{size} are lost: {_STEPS} of them changed nothing."]
    return [f"{size} are not lost: {_STEPS} of them moved weights {moved:.1f} times as far as in float32."]


def _from(trial: Trial, size: float) -> Trial:
    """The same from weights that are a power of two, of about this size."""
    size = 2.0 ** round(np.log2(size))
    return replace(trial, weights={name: np.full_like(w, size) for name, w in trial.weights.items()})


def _in_bfloat16(trial: Trial) -> Trial:
    def cast(arrays: Any) -> dict[str, Array]:
        return {name: x.astype(bfloat16) for name, x in arrays.items()}

    return replace(trial, weights=cast(trial.weights), gradients=[cast(step) for step in trial.gradients])


def _mean(steps: Array) -> float:
    return float(np.abs(steps[np.isfinite(steps)]).mean()) if np.isfinite(steps).any() else 0.0


def _shown(steps: Array) -> str:
    return f"{steps.sum(0).ravel()[0]:.4g}"
