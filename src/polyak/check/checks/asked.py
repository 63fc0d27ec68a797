"""Is what was identified what was asked for?"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from polyak.check.checks.measures import LINEAR, attempt, impulse, not_applicable, number, outcome, small
from polyak.check.finding import Finding, Outcome
from polyak.check.identity import Identity, Number
from polyak.check.trial import Subject, Trial

_CHECK = "it follows the options that were given"
_KNOWN = ("descent", "momentum", "qhm", "several", "sign")
"""The kinds whose coefficients have the same names everywhere."""


def asked(subject: Subject, identity: Identity) -> Outcome:
    """The learning rate, momentum, dampening, Nesterov's momentum and direction that were identified against the options."""
    findings = list(_direction(subject, identity))
    notes = []
    if identity.kind in _KNOWN:
        for part in (_rate, _momentum, _nesterov):
            findings += part(subject, identity)
        if _averages(subject, identity):
            notes.append("Past gradients are averaged, not added: of a gradient, the velocity takes the share 1 - m.")
    elif not findings and _progress(subject) is None:
        return not_applicable(_CHECK, f"What was identified ({identity.kind}) has no coefficients to compare.")
    compared = "learning rate, momentum, Nesterov's, dampening and direction" if identity.kind in _KNOWN else "direction"
    return outcome(_CHECK, f"Compared with the options: {compared}.", findings, notes)


def agrees(measured: Number, expected: float, identity: Identity) -> bool:
    """Whether a measured number is the one that was asked for, with the rounding that options go through on their way."""
    rounding = 1e-6 if identity.dtype == "float64" else 1e-3  # what identification promises
    return abs(measured.value - expected) <= max(measured.error, rounding * max(abs(expected), 1e-3))


def _rate(subject: Subject, identity: Identity) -> Iterator[Finding]:
    """What a gradient is multiplied by: of a velocity, the learning rate times the share 1 - d of a gradient that it takes."""
    lr, found = number(subject, subject.rate), identity.learning_rate
    d = number(subject, "dampening")
    if lr is None or subject.rate is None or found is None:
        return
    if d is None or identity.kind != "momentum":
        m = identity.momenta[0].value if identity.momenta else 0.0
        averages = identity.dampening is None and agrees(found, lr * (1 - m), identity)
        if not agrees(found, lr, identity) and not averages:
            yield _wrong_rate(subject, identity, lr, found.value)
        return
    product = found.value * (1 - (identity.dampening.value if identity.dampening else 0))
    wanted = (1 - d, 1 - identity.momenta[0].value) if _average_asked(subject) else (1 - d,)
    if any(agrees(Number(product, found.error), lr * share, identity) for share in wanted):
        return
    # Which of the two it is, their other values tell: where the dampening is wrong, a gradient makes a step of lr without one,
    # or one that is twice as long with twice the learning rate.
    undamped = d != 0 and _first_of(subject, identity, {"dampening": 0.0}, lr)
    other = identity.dampening is not None and not agrees(identity.dampening, d, identity)
    doubled = other and _first_of(subject, identity, {subject.rate: 2 * lr}, 2 * product)
    if undamped or doubled:
        said = f"dampening={d:.6g} was asked for; the velocity takes {product / lr:.6g} of a gradient, not {1 - d:.6g}."
        yield Finding("dampening-differs", said, _responses(subject, identity), "dampening")
    else:
        yield _wrong_rate(subject, identity, lr, product / (1 - d) if d != 1 else product)


def _wrong_rate(subject: Subject, identity: Identity, lr: float, found: float) -> Finding:
    said = f"{subject.rate}={lr:.6g} was asked for; steps are those of a learning rate of {found:.6g}."
    return Finding("learning-rate-differs", said, _responses(subject, identity), subject.rate)


def _first_of(subject: Subject, identity: Identity, options: dict[str, float], wanted: float) -> bool:
    """Whether the first step after a gradient is so long, with other options. Nesterov's is 1 + m times as long."""
    response = impulse(subject, identity, options)
    m = identity.momenta[0].value if identity.nesterov and identity.momenta else 0.0
    return response is not None and bool(abs(response[1][0] - wanted * (1 + m)) <= 1e-3 * abs(wanted))


def _momentum(subject: Subject, identity: Identity) -> Iterator[Finding]:
    option = next((name for name in ("momenta", "betas", "momentum", "beta") if name in subject.defaults), None)
    if identity.kind == "sign" and identity.nu is not None:
        yield from _lion(subject, identity)
        return
    if option is None or number(subject, "nu") == 0:  # without a share of it in the step, a velocity cannot be seen
        return
    value = subject.defaults[option]
    if isinstance(value, tuple | list):
        # Beside the coefficients of several velocities, a pair is Adam's, of which one is for squares.
        if not all(isinstance(m, int | float) for m in value) or (option != "momenta" and identity.kind != "several"):
            return
        wanted = sorted((float(m) for m in value if m), reverse=True)
    else:
        m = number(subject, option)
        if m is None:
            return
        wanted = [m] if m else []
    found = [m for m in identity.momenta if abs(m.value) > max(m.error, 1e-6)]
    if len(found) == len(wanted) and all(agrees(f, w, identity) for f, w in zip(found, wanted, strict=True)):
        return
    said = ", ".join(f"{m.value:.6g}" for m in found) or "none"
    yield Finding(
        "momentum-differs",
        f"{option}={value!r} was asked for; the momentum that was found is {said}.",
        _responses(subject, identity),
        option,
    )


def _lion(subject: Subject, identity: Identity) -> Iterator[Finding]:
    """Lion's two coefficients: of the step, and of what is remembered."""
    wanted = next((subject.defaults[name] for name in ("betas",) if name in subject.defaults), None)
    for names in (("b1", "b2"), ("beta_1", "beta_2"), ("beta1", "beta2")):
        if set(names) <= subject.defaults.keys():
            wanted = tuple(subject.defaults[name] for name in names)
    if wanted is None or len(wanted) != 2 or not all(isinstance(b, int | float) for b in wanted):
        return
    for found, b, which in zip((identity.nu, identity.momenta[0]), wanted, ("of the step", "of the velocity"), strict=True):
        # Where a sign flips is found by halving, which the error states.
        if found is not None and not agrees(found, float(b), identity):
            yield Finding(
                "momentum-differs",
                f"The coefficient {which} was asked to be {b}; the one that was found is {found.value:.6g}.",
                (small(subject, 3),),
                "betas",
            )


def _nesterov(subject: Subject, identity: Identity) -> Iterator[Finding]:
    flag = subject.defaults.get("nesterov")
    if not isinstance(flag, bool) or not identity.momenta or "nu" in subject.defaults:
        return
    found = identity.nesterov if identity.kind in ("momentum", "sign") else False if identity.kind == "qhm" else None
    if found is None or found == flag:
        return
    has, was = ("was asked for", "was not found") if flag else ("was not asked for", "was found")
    trials = _responses(subject, identity)
    yield Finding("nesterov-differs", f"Nesterov's momentum {has}, and {was}.", trials, "nesterov")


def _average_asked(subject: Subject) -> bool:
    """Whether an option says that the velocity is an average."""
    return any(isinstance(value, str) and value.lower() in ("average", "ema") for value in subject.defaults.values())


def _averages(subject: Subject, identity: Identity) -> bool:
    """Whether the velocity is an average though nothing was said of it."""
    if identity.kind != "momentum" or not identity.momenta or "dampening" in subject.defaults:
        return False
    m, lr = identity.momenta[0].value, number(subject, subject.rate)
    if identity.dampening is not None and agrees(identity.dampening, m, identity):
        return True
    return lr is not None and identity.learning_rate is not None and agrees(identity.learning_rate, lr * (1 - m), identity)


def _direction(subject: Subject, identity: Identity) -> Iterator[Finding]:
    """Weights that are given gradients and the opposite ones end farther down where these point up."""
    measured = _progress(subject)
    if measured is None:
        return
    progress, trial = measured
    wants_up = bool(subject.defaults.get("maximize", False))
    up = progress < 0 if identity.sign is None else identity.sign < 0
    if progress and up and not wants_up:
        yield Finding("ascent", "Weights go up the gradient: a positive gradient makes a weight larger.", (trial,))


def _progress(subject: Subject) -> tuple[float, Trial] | None:
    """How far weights go down a gradient that stays the same, against the opposite one; and the trial."""
    plain = small(subject, 1)
    gradient = {name: np.array([[1.0, -1.0]], w.dtype) for name, w in plain.weights.items()}
    trial = replace(plain, gradients=[gradient] * 10)
    down = attempt(subject, trial)
    up = attempt(subject, replace(trial, gradients=[{name: -g for name, g in gradient.items()}] * 10))
    if down is None or up is None:
        return None
    away = sum(float(((up.after[name][-1] - down.after[name][-1]) * g).sum()) for name, g in gradient.items())
    return (away if np.isfinite(away) else 0.0), replace(trial, gradients=[gradient] * 3)


def _responses(subject: Subject, identity: Identity) -> tuple[Trial, ...]:
    """A trial in which the coefficients can be read off: a gradient of 1, then none."""
    if identity.kind not in LINEAR:
        return (small(subject, 3),)
    response = impulse(subject, identity, {}, at=0, steps=4)
    return (response[0],) if response else ()
