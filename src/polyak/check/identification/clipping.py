"""Gradients that are scaled down, or cut off, above a size: from which one, and over what it is taken.

Below it the first step is lr g, above it lr c g / |g|: so a tiny and a huge gradient tell lr and c. The norm is that of all
parameters together or of each tensor, or each element is cut off by itself. The answer is given only if it predicts the first
step of random gradients of sizes about c, from other weights too.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np

from polyak.check.identification.probes import Probes
from polyak.check.identity import Number
from polyak.check.trial import Array, Subject, Trial

Over = Literal["all", "tensor", "element"]

SHAPES = {"a": (3, 2), "b": (2, 2)}
TINY, HUGE = 2.0**-20, 2.0**20
"""Norms: clipping to less than the first or more than the second is not found."""
# Usual code divides by the norm + 1e-6, which a threshold of 1e-3 shows by that much.
TOLERANCE = 1e-3


def clip(subject: Subject, probes: Probes) -> tuple[Number, Over] | None:
    """The norm above which gradients are scaled down, and what it is taken over; None if that is not what is done.

    Raises:
        Refused: By the subject.
    """
    direction = _random(0, 1.0)
    still = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    tiny, less, huge = (_flat(_first(subject, probes, still, _times(direction, size))) for size in (TINY, TINY / 8, HUGE))
    flat = _flat(direction)
    rate = float(tiny @ flat) / TINY
    eps = 8 * float(np.finfo(probes.dtype).eps)
    # In proportion to gradients while they are tiny, and not when they are huge.
    if not np.all(np.isfinite(huge)) or rate == 0 or _far(tiny, rate * TINY * flat, eps) or _far(8 * less, tiny, eps):
        return None
    cut = huge / rate
    if not np.any(cut) or np.linalg.norm(cut) > HUGE / 2:
        return None
    parts = _parted(cut)
    norms: dict[Over, float] = {
        "all": float(np.linalg.norm(cut)),
        "tensor": float(np.mean([np.linalg.norm(part) for part in parts.values()])),
        "element": float(np.abs(cut).mean()),
    }
    for over, norm in norms.items():
        if _predicts(subject, probes, rate, norm, over):
            # Norms are often taken less exactly than the steps, and with 1e-7 beside them.
            return Number(norm, (2 * eps + 1e-6) * norm), over
    return None


def clipped(gradient: Mapping[str, Array], norm: float, over: Over) -> dict[str, Array]:
    """What is left of gradients."""
    if over == "element":
        return {name: np.clip(array, -norm, norm) for name, array in gradient.items()}
    total = float(np.linalg.norm(_flat(gradient)))
    lengths = {name: total if over == "all" else float(np.linalg.norm(array)) for name, array in gradient.items()}
    return {name: array * min(1.0, norm / lengths[name]) for name, array in gradient.items()}


def _predicts(subject: Subject, probes: Probes, rate: float, norm: float, over: Over) -> bool:
    for seed, size in enumerate((0.4, 0.9, 1.1, 1.5, 3.0, 40.0), 1):
        gradient = _random(seed, size * norm)
        expected = rate * _flat(clipped(gradient, norm, over))
        # From weights that are small beside the step, so that it is not rounded away, and from large ones, on which the norm
        # might depend; what a decay does is seen alone.
        length = abs(rate) * norm if seed % 2 else 10.0
        weights = _random(100 + seed, length)
        nothing = _flat(_first(subject, probes, weights, _times(gradient, 0.0)))
        rounding = 4 * float(np.finfo(probes.dtype).eps) * length
        if _far(_flat(_first(subject, probes, weights, gradient)) - nothing, expected, TOLERANCE, rounding):
            return False
    return True


def _random(seed: int, size: float) -> dict[str, Array]:
    """Arrays that have this norm together, with elements and tensors of different sizes."""
    random = np.random.default_rng(seed)
    arrays = {name: random.normal(size=shape) * 2.0 ** random.uniform(-1, 1) for name, shape in SHAPES.items()}
    return _times(arrays, size / float(np.linalg.norm(_flat(arrays))))


def _times(arrays: Mapping[str, Array], factor: float) -> dict[str, Array]:
    return {name: factor * array for name, array in arrays.items()}


def _flat(arrays: Mapping[str, Array]) -> Array:
    return np.concatenate([array.reshape(-1) for array in arrays.values()])


def _parted(flat: Array) -> dict[str, Array]:
    first = SHAPES["a"][0] * SHAPES["a"][1]
    return {"a": flat[:first], "b": flat[first:]}


def _far(one: Array, other: Array, tolerance: float, rounding: float = 0.0) -> bool:
    return bool(np.any(np.abs(one - other) > tolerance * np.abs(other).max() + rounding))


def _first(subject: Subject, probes: Probes, weights: Mapping[str, Array], gradient: Mapping[str, Array]) -> dict[str, Array]:
    """The first step."""
    start = {name: array.astype(probes.dtype) for name, array in weights.items()}
    trial = Trial(start, [{name: array.astype(probes.dtype) for name, array in gradient.items()}], held=True)
    trajectory = subject.run(trial)
    return {name: trajectory.steps(name)[0] for name in start}
