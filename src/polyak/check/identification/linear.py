"""What a linear optimizer is: its rule and its coefficients, if training follows them."""

from dataclasses import replace

import numpy as np

from polyak.check.identification.decay import beside, decayed
from polyak.check.identification.names import Named, named, unnamed
from polyak.check.identification.probes import STEPS, Probes, longer
from polyak.check.identification.rate import Rate, learning_rate, other, rate_of, velocity
from polyak.check.identification.recurrence import STEPS as TRAINING
from polyak.check.identification.recurrence import Recurrence, follows
from polyak.check.identification.start import Start, started
from polyak.check.identification.system import System, fitted
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
    fitting = _systems(subject, probes, sign)
    if not fitting:
        return replace(known, doubts=(*known.doubts, "The steps after an impulse are no sum of a few real exponentials."))
    # Where several rules fit to within the noise, the learning rate that the options say tells which it is.
    rated = [(found, *_rated(subject, probes, found, sign)) for found in fitting]
    found, start, rate = next((each for each in rated if each[2].agrees), rated[0])
    direct, poles, shares = _parts(found)
    kind, doubts = found.rule.kind, (*rate.doubts,)
    if kind in ("qhm", "several") and not rate.agrees:
        doubts = (f"It is {kind} with a learning rate of {rate.learning_rate.value:.4g}, which the options do not say.",)
        kind = "linear"
    asked = Number(option, 0.0) if (option := rate_of(subject)) else None
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
        weight_decay=decay.coefficient(asked if kind == "linear" else rate.learning_rate),
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
    # The loss that a closure computes is 0 from weights that are held at 0, and what depends on it is not seen.
    known = replace(known, decay=kind, weight_decay=coefficient, linear=None if subject.closure else known.linear)
    if probes.operator.any():
        some = "; ".join(
            f"at step {k}: {', '.join(f'{x:.3g}' for x in probes.operator[k : k + 4, k])} ..." for k in (0, 1, 2, STEPS // 2)
        )
        return replace(known, doubts=(f"An impulse is answered by other steps at other times. {some}.",))
    return replace(known, kind="still") if kind == "none" else replace(known, doubts=("Gradients change nothing.",))


def _systems(subject: Subject, probes: Probes, sign: int) -> tuple[Named, ...]:
    """The system with the fewest poles that answers as the optimizer does, by its names if it has any.

    Several poles that are near to each other need a longer response to be told apart.
    """
    short = sign * probes.response, probes.spread
    system = fitted(*short)
    found = named(system, *short, 2 * probes.eps) if system else ()
    if system is None or (len(system.poles) > 1 and (not found or found[0].vague > max(_VAGUE, 4e3 * probes.eps))):
        response, noise = longer(subject, probes, _LONG)
        long = fitted(sign * response, noise)
        if long and not (system and _is_rounding(long, len(system.poles), 1e3 * probes.eps)):
            system = long
            found = named(system, sign * response, noise, 2 * probes.eps) or found
    return found or (unnamed(system) if system else ())


def _is_rounding(system: System, count: int, share: float) -> bool:
    """Whether of more than so many poles one has next to nothing of the response: a pole of its rounding."""
    residues = np.abs(system.residues)
    return len(residues) > count and bool(residues.min() <= share * residues.max())


def _rated(subject: Subject, probes: Probes, found: Named, sign: int) -> tuple[Start, Rate]:
    """How a system starts, and the learning rate."""
    start = started(probes, found.system, sign)
    return start, learning_rate(subject, found, start.times, 32 * probes.eps)


def _parts(found: Named) -> tuple[float, Array, Array]:
    direct, *rest = found.system
    count = len(rest) // 2
    return float(direct), np.array(rest[:count]), np.array(rest[count:])
