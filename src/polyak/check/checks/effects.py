"""Has every option the effect that its name says?"""

from dataclasses import replace
from typing import Any

import numpy as np

from polyak.check.checks.measures import (
    LINEAR,
    attempt,
    dtype,
    impulse,
    not_applicable,
    number,
    outcome,
    short,
    small,
    with_options,
)
from polyak.check.finding import Finding, Outcome
from polyak.check.identity import Identity
from polyak.check.trial import Array, Subject, Trial

_CHECK = "options do what their names say"

# Ratios of steps: those of float32 are good to some 1e-6 where no terms cancel, those of float64 to 1e-14.
_TOLERANCE = 1e-4
# Where the momentum was asked for, `asked` compares it to the last digit; here is seen whether it counts in another way.
_ROUGHLY = 0.05


def effects(subject: Subject, identity: Identity) -> Outcome:
    """Of the options that mean the same everywhere, what they change is measured.

    The learning rate multiplies steps, a momentum multiplies what is remembered from one step to the next, maximize turns the
    sign, weight_decay shrinks weights, nesterov and dampening change the response to a gradient as they do by definition.
    """
    findings: list[Finding] = []
    seen: list[str] = []
    for test in (_rate, _momentum, _maximize, _decay, _nesterov, _dampening):
        if (result := test(subject, identity)) is None:
            continue
        said, finding = result
        seen.append(said)
        if finding:
            findings.append(finding)
    if not seen:
        return not_applicable(_CHECK, "It has none of the options that mean the same everywhere, or they cannot be told.")
    return outcome(_CHECK, "Measured: " + "; ".join(seen) + ".", findings)


Result = tuple[str, Finding | None] | None
"""What was measured, and what is wrong with it; None where the test does not apply."""


def _rate(subject: Subject, identity: Identity) -> Result:
    """Twice the learning rate makes twice the step."""
    lr = number(subject, subject.rate)
    if not lr or subject.rate is None or identity.kind not in (*LINEAR, "sign", "adaptive"):
        return None
    options = {"weight_decay": 0.0} if number(subject, "weight_decay") else {}
    trial = with_options(_brief(subject), options)
    powers = []
    for factor in (2.0, 4.0):
        changed = with_options(trial, {subject.rate: lr * factor})
        one, other = _steps(subject, trial), _steps(subject, changed)
        if one is None or other is None:
            return None
        counted = np.abs(one) > 1e-3 * np.abs(one).max(initial=0)  # no rounded differences of weights
        if not counted.any() or not np.all(other[counted] / one[counted] > 0):
            return None
        powers.append(np.log(other[counted] / one[counted]) / np.log(factor))
    all_powers = np.concatenate(powers)
    power = float(np.median(all_powers))
    if np.ptp(all_powers) > 0.01:  # no power of the learning rate, so that it is more than a factor of the step
        if identity.kind not in LINEAR:
            return None
        said = f"steps are not in proportion to {subject.rate}"
    else:
        said = f"steps go with {subject.rate} to the power {power:.3g}"
    good = abs(power - 1) < 0.01 and np.ptp(all_powers) <= 0.01
    # To the power 0 it has no effect, which another check says.
    if good or (abs(power) < 0.01 and np.ptp(all_powers) <= 0.01):
        return said, None
    other_trial = with_options(trial, {subject.rate: 2 * lr})
    return said, _finding(f"{said}; twice the learning rate should make twice the step.", (other_trial, trial), subject.rate)


def _momentum(subject: Subject, identity: Identity) -> Result:
    """What is remembered goes down by the factor m each step."""
    if identity.kind not in ("descent", "momentum", "qhm") or number(subject, "momentum") is None:
        return None
    tolerance = _ROUGHLY if number(subject, "momentum") else _TOLERANCE
    said = []
    for m in (0.5, 0.8):
        if (response := impulse(subject, identity, {"momentum": m})) is None:
            continue
        trial, h = response
        if not np.all(np.abs(h[1:]) > 1e-9 * np.abs(h[0])):  # nothing is remembered: another check says so
            return None
        factor = float(np.median(h[2:] / h[1:-1]))
        said.append(f"with momentum={m} the response goes down by {factor:.4g} a step")
        if abs(factor - m) > tolerance * m:
            return said[-1], _finding(f"{said[-1]}, not by {m}.", (trial,), "momentum")
    return (", ".join(said), None) if said else None


def _maximize(subject: Subject, identity: Identity) -> Result:  # noqa: ARG001  (every test has both)
    """It does with gradients what is done without it with the opposite ones."""
    if not isinstance(subject.defaults.get("maximize"), bool) or subject.closure:
        return None
    plain = with_options(_brief(subject), {"maximize": False})
    opposite = [{name: -g for name, g in step.items()} for step in plain.gradients]  # type: ignore[operator]  # arrays, all of them
    turned = with_options(plain, {"maximize": True})
    down, wanted, up = _steps(subject, plain), _steps(subject, replace(plain, gradients=opposite)), _steps(subject, turned)
    if down is None or wanted is None or up is None or not np.any(down) or np.array_equal(up, down):
        return None
    # The same operations but for signs, so that a few roundings of the weights are all that may differ.
    if np.abs(up - wanted).max() <= 8 * np.finfo(dtype(subject)).eps * max(np.abs(w).max() for w in plain.weights.values()):
        return "maximize turns the sign of every gradient", None
    said = "maximize is not the same as gradients with the other sign"
    return said, _finding(f"{said}.", (turned, replace(plain, gradients=opposite)), "maximize")


def _decay(subject: Subject, identity: Identity) -> Result:
    """With a decay, weights are nearer to 0 after a step than without."""
    asked = number(subject, "weight_decay")
    if asked is None or identity.kind in ("unknown", "still"):
        return None
    brief = _brief(subject)
    still = [{name: np.zeros_like(g) for name, g in step.items()} for step in brief.gradients[:1]]
    for gradients in (still, brief.gradients[:1]):
        plain = replace(brief, gradients=gradients, options={"weight_decay": 0.0})
        decayed = with_options(plain, {"weight_decay": asked or 0.1})
        one, other = attempt(subject, plain), attempt(subject, decayed)
        if one is None or other is None:
            return None
        difference = other.after["w"][0] - one.after["w"][0]
        if not np.all(np.isfinite(difference)) or not np.any(difference):
            continue
        towards = -np.sign(plain.weights["w"]) * difference
        # More than half of it, by size: a decay that is one of terms that are normalised moves weights of both kinds.
        if towards.sum() > 0:
            return "weight_decay draws weights towards 0", None
        if gradients is still:
            said = f"weight_decay={short(asked or 0.1)} drives weights away from 0"
            return said, _finding(f"{said} where the gradient is 0.", (decayed,), "weight_decay")
    return None


def _nesterov(subject: Subject, identity: Identity) -> Result:
    """The first step after a gradient is 1 + m times as long as without, every later one m times."""
    if identity.kind not in ("descent", "momentum", "qhm") or not isinstance(subject.defaults.get("nesterov"), bool | None):
        return None
    if "nesterov" not in subject.defaults or number(subject, "momentum") is None:
        return None
    m = number(subject, "momentum") or 0.9
    options: dict[str, Any] = {"momentum": m}
    if number(subject, "dampening"):
        options["dampening"] = 0.0
    without = impulse(subject, identity, {**options, "nesterov": False})
    with_it = impulse(subject, identity, {**options, "nesterov": True})
    if without is None or with_it is None or np.array_equal(without[1], with_it[1]) or not _decays(without[1], m):
        return None
    wanted = m * without[1]
    wanted[0] += without[1][0]
    if _near(with_it[1], wanted):
        return "nesterov adds the gradient to m times the new velocity", None
    said = f"with nesterov and m = {m} the response to a gradient is {_listed(with_it[1])}, not {_listed(wanted)}"
    return said, _finding(f"{said}; without it is {_listed(without[1])}.", (with_it[0], without[0]), "nesterov")


def _dampening(subject: Subject, identity: Identity) -> Result:
    """Every step after a gradient is 1 - dampening times as long as without."""
    if identity.kind not in ("descent", "momentum") or number(subject, "dampening") is None:
        return None
    m = number(subject, "momentum") or 0.9
    options: dict[str, Any] = {"momentum": m}
    if subject.defaults.get("nesterov"):
        options["nesterov"] = False
    d = number(subject, "dampening") or 0.5
    without = impulse(subject, identity, {**options, "dampening": 0.0})
    with_it = impulse(subject, identity, {**options, "dampening": d})
    if without is None or with_it is None or np.array_equal(without[1], with_it[1]) or not _decays(without[1], m):
        return None
    if _near(with_it[1], (1 - d) * without[1]):
        return "dampening takes its share from what enters the velocity", None
    said = f"with dampening = {d} the response to a gradient is {_listed(with_it[1])}, not {_listed((1 - d) * without[1])}"
    return said, _finding(f"{said}.", (with_it[0], without[0]), "dampening")


def _brief(subject: Subject) -> Trial:
    """Three steps of held weights."""
    return replace(small(subject, 3), held=True)


def _steps(subject: Subject, trial: Trial) -> Array | None:
    """The steps of all elements: (steps, elements)."""
    if (trajectory := attempt(subject, trial)) is None:
        return None
    return np.concatenate([trajectory.steps(name).reshape(len(trial.gradients), -1) for name in trial.weights], axis=1)


def _decays(response: Array, m: float) -> bool:
    """Whether it is that of heavy ball, so that what an option makes of it is known."""
    return _near(response[1:], m * response[:-1]) and bool(response[0])


def _near(one: Array, other: Array) -> bool:
    return bool(np.abs(one - other).max() <= _TOLERANCE * np.abs(other).max())


def _listed(values: Array) -> str:
    return ", ".join(f"{x:.4g}" for x in values[:4]) + " ..."


def _finding(what: str, trials: tuple[Trial, ...], option: str) -> Finding:
    said = what if what.startswith(option) else what[0].upper() + what[1:]
    return Finding("option-effect", said, trials, option)
