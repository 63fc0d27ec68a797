"""What a linear optimizer is: its rule and its coefficients, if training follows them."""

from dataclasses import replace

import numpy as np

from polyak.check.identification.decay import beside, decayed
from polyak.check.identification.names import Named, named, unnamed
from polyak.check.identification.probes import STEPS, Probes, longer
from polyak.check.identification.rate import learning_rate, other, rate_of, velocity
from polyak.check.identification.recurrence import STEPS as TRAINING
from polyak.check.identification.recurrence import Recurrence, follows
from polyak.check.identification.start import started
from polyak.check.identification.system import fitted
from polyak.check.identity import Identity, Number
from polyak.check.trial import Array, Subject

_LONG = 512
_VAGUE = 1e-8
"""An error of a coefficient that a longer response is to make smaller."""


def identified(subject: Subject, probes: Probes) -> Identity:
    """What an optimizer is whose probes were answered linearly.

    Raises:
        Refused: It refused what it had taken before.
    """
    known = Identity(
        "unknown",
        linear=True,
        time_invariant=probes.time_invariant,
        elementwise=probes.elementwise,
        impulse=probes.response,
        dtype=probes.dtype.name,
        noise=probes.noise,
    )
    if not probes.time_invariant or not probes.response.any():
        return _other(subject, probes, known)
    sign = -1 if probes.response[np.argmax(np.abs(probes.response))] < 0 else 1
    changed = other(subject, probes)
    decay = decayed(probes, changed, sign)
    known = replace(known, kind="linear", sign=sign, decay=decay.kind, doubts=decay.doubts)
    found = _system(subject, probes, sign)
    if found is None:
        return replace(known, doubts=(*known.doubts, "The steps after an impulse are no sum of a few real exponentials."))
    direct, poles, shares = _parts(found)
    start = started(probes, found.system, sign)
    asked, rate = rate_of(subject), learning_rate(subject, found, start.times, 32 * probes.eps)
    kind, doubts = found.rule.kind, (*rate.doubts,)
    if kind in ("qhm", "several") and not rate.agrees:
        doubts = (f"It is {kind} with a learning rate of {rate.learning_rate.value:.4g}, which the options do not say.",)
        kind = "linear"
    units, strange = velocity(probes, changed)
    identity = replace(
        known,
        kind=kind,
        learning_rate=None if kind == "linear" else rate.learning_rate,
        momenta=found.momenta,
        nesterov=found.rule.nesterov,
        nu=None if found.rule.nu is None or kind == "linear" else found.number(found.rule.nu),
        dampening=rate.dampening,
        velocity=units,
        weight_decay=decay.coefficient(rate.learning_rate if kind != "linear" else Number(asked, 0.0) if asked else None),
        first_step=start.words(rate.dampening),
        poles=poles,
        residues=sign * shares,
        direct=sign * direct,
        doubts=(*known.doubts, *doubts, *strange),
    )
    off = found.uncertain(TRAINING) * np.sqrt(TRAINING)
    reach = float(np.abs(probes.response).sum())
    off += TRAINING * (decay.inside.error * reach + decay.beside.error)
    recurrence = Recurrence(sign, direct, poles, shares, start.system, decay.inside.value, decay.beside.value, float(off))
    wrong = follows(subject, probes, recurrence)
    return replace(known, kind="unknown", doubts=(*known.doubts, wrong)) if wrong else identity


def _other(subject: Subject, probes: Probes, known: Identity) -> Identity:
    """An optimizer without an answer to gradients, or with another at each step."""
    kind, coefficient = beside(subject, probes)
    known = replace(known, decay=kind, weight_decay=coefficient)
    if probes.operator.any():
        some = "; ".join(
            f"at step {k}: {', '.join(f'{x:.3g}' for x in probes.operator[k : k + 4, k])} ..." for k in (0, 1, 2, STEPS // 2)
        )
        return replace(known, doubts=(f"An impulse is answered by other steps at other times. {some}.",))
    return replace(known, kind="still") if kind == "none" else replace(known, doubts=("Gradients change nothing.",))


def _system(subject: Subject, probes: Probes, sign: int) -> Named | None:
    """The system with the fewest poles that answers as the optimizer does, by its name if it has one.

    Several poles that are near to each other need a longer response to be told apart.
    """
    short = sign * probes.response, probes.spread
    system = fitted(*short)
    found = named(system, *short, 2 * probes.eps) if system else None
    if system is None or (len(system.poles) > 1 and (found is None or found.vague > max(_VAGUE, 4e3 * probes.eps))):
        response, noise = longer(subject, probes, _LONG)
        system = fitted(sign * response, noise) or system
        found = (named(system, sign * response, noise, 2 * probes.eps) if system else None) or found
    return found or (unnamed(system) if system else None)


def _parts(found: Named) -> tuple[float, Array, Array]:
    direct, *rest = found.system
    count = len(rest) // 2
    return float(direct), np.array(rest[:count]), np.array(rest[count:])
