"""The coefficients of rules that bring gradients to one size: with a momentum of what was scaled, or scaled after the momentum.

LARS adds up gradients that are scaled each by itself: step_t = lr (u_t + m u_(t-1) + ...) with u = g / |g|. Others scale the
velocity: step_t = lr v_t / |v_t|. Gradients that are at right angles to each other and of different lengths tell them apart:
the step's parts along each show how much of it is left.

Source: Y. You, I. Gitman, B. Ginsburg, "Large batch training of convolutional networks", 2017, arXiv:1708.03888, for LARS.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from polyak.check.identification.flips import SIZE, TENSORS, dtype
from polyak.check.identification.pull import pull
from polyak.check.identity import Identity, Number
from polyak.check.trial import Array, Subject, Trial

STEPS = 8
SHAPE = (6, 4)
# Rounding of weights in float32 beside steps of 1e-3 of them, with room; of decays of the weights, only odd ones are left.
TOLERANCE = 1e-3


def normalised(subject: Subject, identity: Identity) -> Identity | None:
    """An identity of kind "normalised" with what can be told; None if steps are not along the gradients.

    Raises:
        Refused: By the subject.
    """
    found = _fitted(subject, seed=8)
    fresh = _fitted(subject, seed=9)
    if found is None or fresh is None:
        return None
    kind, coefficient, doubts = pull(subject, TENSORS)
    identity = replace(identity, decay=kind, weight_decay=coefficient, doubts=(*identity.doubts, *doubts))
    size, momentum, first = found
    if momentum is None or fresh.momentum is None or abs(momentum - fresh.momentum) > 2 * TOLERANCE:
        return replace(identity, doubts=(*identity.doubts, "What it makes of past gradients was not told."))
    if identity.relative:
        size /= float(np.linalg.norm(_weights()))
    return replace(
        identity,
        learning_rate=Number(size, 2 * TOLERANCE * size),
        momenta=(Number(momentum, TOLERANCE),) if momentum > 2 * TOLERANCE else (),
        scaled_first=first,
    )


def _weights() -> Array:
    weights: Array = 0.05 * np.random.default_rng(0).normal(size=SHAPE)
    return weights


class _Fitted(NamedTuple):
    """The size of a step after one gradient, and the momentum if it is one of the two: of what was scaled first, or not."""

    size: float
    momentum: float | None
    first: bool | None


def _fitted(subject: Subject, seed: int) -> _Fitted | None:
    """What steps say; None if they leave the span of the gradients."""
    random = np.random.default_rng(seed)
    directions = np.linalg.qr(random.normal(size=(SHAPE[0] * SHAPE[1], STEPS)))[0].T
    lengths = SIZE * 2.0 ** random.uniform(-1, 1, STEPS)
    kind = dtype(subject)

    def taken(sign: int) -> Array:
        gradients = [
            {"w": (sign * length * d).reshape(SHAPE).astype(kind)} for length, d in zip(lengths, directions, strict=True)
        ]
        return subject.run(Trial({"w": _weights().astype(kind)}, gradients, held=True)).steps("w").reshape(STEPS, -1)

    # A decay of the weights alone is the same for both.
    steps = (taken(1) - taken(-1)) / 2
    parts = steps @ directions.T
    sizes = np.linalg.norm(steps, axis=1)
    if np.any(np.abs(np.linalg.norm(parts, axis=1) - sizes) > TOLERANCE * sizes) or np.any(
        np.abs(np.triu(parts, 1)) > TOLERANCE * sizes[:, None]
    ):
        return None
    size = float(abs(parts[0, 0]))
    if not size or not np.all(np.diagonal(parts)):
        return None
    lags = np.subtract.outer(np.arange(STEPS), np.arange(STEPS))
    past = lags > 0
    before = parts / np.diagonal(parts)[:, np.newaxis]
    # What each part is of the momentum's, and how long the step is then: with velocities of unit vectors, or of gradients.
    forms = ((True, before, np.abs(np.diagonal(parts))), (False, before * lengths[:, np.newaxis] / lengths, sizes))
    for first, scaled, whole in forms:
        momentum = float(np.median(np.diagonal(scaled, -1)))
        expected = np.where(past, np.abs(momentum) ** np.maximum(lags, 0), 0)
        alike = np.abs(scaled - expected)[past] <= 10 * TOLERANCE
        if momentum > -TOLERANCE and np.all(alike) and np.all(np.abs(whole - size) <= 10 * TOLERANCE * size):
            return _Fitted(size, abs(momentum), first)
    return _Fitted(size, None, None)
