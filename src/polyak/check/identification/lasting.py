"""Whether a rule still holds after as many steps as an option may say: a warm-up, or a start of something else.

Optimizers that begin as momentum and go on as something else say so by an option that is a number of steps. Which options are,
nobody tells: so every whole number is taken for one.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from polyak.check.identity import Identity
from polyak.check.line import line
from polyak.check.response import answered
from polyak.check.trial import Array, Subject, Trial

_LEAST = 3  # numbers below that are of other things, or all probes show what begins after so few steps
_MOST = 2000
_AFTER = 64
# There are rules of matrices that take those of up to 512 elements for vectors. Rows are of other sizes, so that it counts.
_SHAPE = (32, 24)
_LIMIT = 1e-3
"""Of the largest step: rounding is less, in float32 too, and what begins later is another rule."""


def reach(defaults: Mapping[str, Any]) -> int:
    """How many steps go past every whole number among options, up to 2,000. 0 where there is none."""
    return max((round(1.1 * count) + _AFTER for _, count in _counts(defaults) if count <= _MOST), default=0)


def lasting(subject: Subject, identity: Identity) -> Identity:
    """The identity of an optimizer, "unknown" if it's linear and another one later; else with what was not waited for.

    Raises:
        Refused: By the subject.
    """
    if identity.kind in ("unknown", "still"):
        return identity
    steps = reach(subject.defaults)
    if steps and (begin := _another(subject, identity, steps)) is not None:
        doubt = f"In the first {begin} steps it is this, and later it is not: {line(identity)}."
        return Identity(
            "unknown",
            time_invariant=False,
            dtype=identity.dtype,
            noise=identity.noise,
            impulse=identity.impulse,
            doubts=(doubt,),
        )
    if not (longer := [f"{name}={count}" for name, count in _counts(subject.defaults) if count > _MOST]):
        return identity
    doubt = f"If {' or '.join(longer)} is a number of steps, it was not seen what it does after them."
    return replace(identity, seen=max(steps, _AFTER), doubts=(*identity.doubts, doubt))


def _counts(defaults: Mapping[str, Any]) -> list[tuple[str, int]]:
    return [(name, value) for name, value in defaults.items() if type(value) is int and value >= _LEAST]


def _another(subject: Subject, identity: Identity, steps: int) -> int | None:
    """The first step, if any, at which a linear rule is left: weights at 0 are held, gradients are random."""
    if not (identity.linear or identity.clip) or identity.kind == "unknown":
        return None
    kind = np.dtype(identity.dtype).type
    drawn = np.random.default_rng(12).standard_normal((steps, *_SHAPE)).clip(-2, 2) * np.linspace(0.1, 1, _SHAPE[0])[:, None]
    if identity.clip:  # below the norm from which on it does
        drawn *= identity.clip[0].value / (2 * np.linalg.norm(drawn, axis=(1, 2)).max())
    gradients: Array = drawn.astype(kind)
    gradients[0] = 0  # the first step may be another one, which is said elsewhere
    weights = np.zeros(_SHAPE, kind)
    seen = subject.run(Trial({"w": weights}, [{"w": g} for g in gradients], held=True)).steps("w")
    wanted = answered(identity, gradients.astype(np.float64))
    off = np.abs(seen - wanted).reshape(steps, -1).max(axis=1)
    wrong = np.flatnonzero(~(off <= _LIMIT * np.abs(wanted).max()))
    return int(wrong[0]) if len(wrong) else None
