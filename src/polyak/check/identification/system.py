"""An impulse response as a sum of a few exponentials: the poles, residues and direct term of a linear system, with error bars.

    h_k = direct [k = 0] + the sum over the poles p, with a residue r each, of r p^k

The poles are found by the eigensystem realisation algorithm (ERA) of J.-N. Juang, R. S. Pappa, "An eigensystem realization
algorithm for modal parameter identification and model reduction", Journal of Guidance, Control, and Dynamics 8(5), 1985, pp.
620-627: the Hankel matrix of the response has as many singular values above the noise as there are poles, and its shift by one
step has the poles as eigenvalues on their singular vectors. Least squares by Gauss and Newton then refine them.

Pure NumPy: nothing here knows of optimizers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Curve = Callable[[Array], Array]
"""From parameters, real or complex, a response. It is analytic, so that its derivatives are imaginary parts."""

MOST = 6
"""Poles that are looked for."""
WITHIN = 16.0
"""A response fits if each value is within so many standard deviations: of thousands of normal numbers none is past 5, but
rounding is less regular than normal numbers, and floors of it are guessed."""
_ROWS = 48
_BARS = 5.0  # standard deviations that an error bar is long, for the same reason


@dataclass(frozen=True)
class System:
    """A linear system. Its arrays of poles and residues are in step, the largest pole first.

    Attributes:
        direct: What acts at once and is forgotten.
        poles: Complex where they come in pairs.
        residues: Theirs.
        errors: How far (direct, *poles, *residues) may be off.
        singular: The singular values of the Hankel matrix over the level of the noise in them: those above 1 count.
    """

    direct: float
    poles: Array
    residues: Array
    errors: Array
    singular: Array

    def response(self, length: int) -> Array:
        """The first values of the impulse response."""
        return exponentials(np.array([self.direct, *self.poles, *self.residues]), length).real

    @property
    def vague(self) -> float:
        """The largest error of a pole: much of it means that the response was too short to tell poles apart."""
        count = len(self.poles)
        return float(np.max(self.errors[1 : 1 + count], initial=0.0))


def exponentials(parameters: Array, length: int) -> Array:
    """The response of (direct, *poles, *residues)."""
    count = len(parameters) // 2
    poles, residues = parameters[1 : 1 + count], parameters[1 + count :]
    response: Array = np.power(poles[:, None], np.arange(length)).T @ residues if count else np.zeros(length, parameters.dtype)
    response[0] += parameters[0]
    return response


def fitted(response: Array, noise: Array) -> System | None:
    """The system with the fewest poles whose response is the given one to within its noise; None if there is none.

    Args:
        response: The values at the impulse and at the steps after it.
        noise: The standard deviation of each of them.
    """
    singular, found = _realised(response, noise)
    for count in range(min(MOST, len(response) // 4) + 1):
        poles = found(count)
        if not np.all(np.isfinite(poles)) or np.any(np.abs(poles) > 4):
            continue
        start = np.array([0.0, *poles, *residues_of(response, noise, poles)])
        start[0] = (response[0] - start[1 + count :].sum()).real
        level = noise
        if np.iscomplexobj(poles):  # not refined, and without error bars: nothing is named for them
            parameters, errors, level = start, np.full(len(start), np.nan), np.full(len(noise), 3 * np.max(noise))
        else:
            parameters, errors = refined(lambda x: exponentials(x, len(response)), start.real, response, noise)
            level = level + lost(lambda x: exponentials(x, len(response)), parameters)
        if fits(exponentials(parameters, len(response)).real, response, level):
            return _ordered(parameters, errors, count, singular)
    return None


def fits(curve: Array, response: Array, noise: Array) -> bool:
    """Whether a curve is the response to within its noise."""
    return bool(np.all(np.abs(curve - response) <= WITHIN * noise))


def lost(curve: Curve, at: Array) -> Array:
    """The standard deviation of what a curve loses because its parameters, and what it computes of them, are float64."""
    level: Array = 2.0**-53 * (np.abs(_slopes(curve, at, np.ones(len(curve(at))))) @ np.abs(at))
    return level


def refined(curve: Curve, start: Array, response: Array, noise: Array) -> tuple[Array, Array]:
    """The parameters with the least squares over the noise, and how far each may be off.

    Args:
        curve: What is fitted.
        start: Parameters near the best.
        response: What it is fitted to.
        noise: The standard deviation of each value of it.
    """
    best, cost = start, _cost(curve(start), response, noise)
    slopes = _slopes(curve, best, noise)
    for _ in range(20):
        move = _solved(slopes, (response - curve(best)) / noise)
        for share in (1.0, 0.25, 0.0625):
            new = best + share * move
            new_cost = _cost(curve(new), response, noise)
            if new_cost < cost:
                break
        else:
            break
        better, best, cost = cost - new_cost, new, new_cost
        slopes = _slopes(curve, best, noise)
        if better < 1e-3 * len(response) and new_cost < len(response):  # the rest is noise
            break
    return best, bars(curve, best, noise)


def bars(curve: Curve, at: Array, noise: Array, off: Array | None = None) -> Array:
    """How far each parameter may be off for the noise, and for such errors of the curve, one a row, as are no noise."""
    slopes = _slopes(curve, at, noise)
    scale = np.maximum(np.linalg.norm(slopes, axis=0), 1e-300)
    inverse = np.linalg.pinv(slopes / scale, rcond=1e-14) / scale[:, None]
    errors: Array = _BARS * np.linalg.norm(inverse, axis=1) + 2.0**-50 * np.abs(at)
    return errors if off is None else errors + np.abs(inverse @ (off / noise).T).sum(axis=1)


def _realised(response: Array, noise: Array) -> tuple[Array, Callable[[int], Array]]:
    """The singular values of the Hankel matrix over their noise, and the function that finds so many poles.

    The first value is left out: the direct term is in it. A Hankel matrix of independent noise, n by n, has singular values up
    to about 2 sqrt(n) standard deviations.
    """
    tail = response[1:]
    half = len(tail) // 2
    # Any steps may be rows and columns. Of a long response these lie ever farther apart, and so take in fast poles and slow.
    places = np.unique(np.round(np.linspace(0, 1, _ROWS) ** 2 * (half - 1)).astype(int)) if half > _ROWS else np.arange(half)
    places = places[:, None] + places
    left, singular, right = np.linalg.svd(tail[places])
    shifted = tail[places + 1]

    def poles(count: int) -> Array:
        if count == 0:
            return np.zeros(0)
        root = np.sqrt(np.maximum(singular[:count], 1e-300))
        found = np.linalg.eigvals((left[:, :count].T @ shifted @ right[:count].T) / np.outer(root, root))
        return found.real if np.all(np.abs(found.imag) <= 1e-12 * np.abs(found)) else found

    return singular / (2 * np.sqrt(len(places)) * np.max(noise[1:])), poles


def residues_of(response: Array, noise: Array, poles: Array) -> Array:
    """The residues for these poles, by linear least squares."""
    if len(poles) == 0:
        return np.zeros(0)
    powers = np.vander(poles, len(response), increasing=True).T[1:]
    return _solved(powers / noise[1:, None], response[1:] / noise[1:])


def _solved(matrix: Array, values: Array) -> Array:
    """Least squares with columns of one length, so that parameters of any unit may stand beside each other."""
    scale = np.maximum(np.linalg.norm(matrix, axis=0), 1e-300)
    solution: Array = np.linalg.lstsq(matrix / scale, values, rcond=1e-15)[0] / scale
    return solution


def _slopes(curve: Curve, at: Array, noise: Array) -> Array:
    """The derivatives of a curve by its parameters, over the noise."""
    tiny = 1e-30
    moved = [curve(at + 1j * tiny * np.eye(len(at))[i]).imag / tiny for i in range(len(at))]
    slopes: Array = np.array(moved).reshape(len(at), len(noise)).T / noise[:, None]
    return slopes


def _cost(curve: Array, response: Array, noise: Array) -> float:
    with np.errstate(over="ignore", invalid="ignore"):
        cost = float(np.sum(((curve - response) / noise) ** 2))
    return cost if np.isfinite(cost) else np.inf


def _ordered(parameters: Array, errors: Array, count: int, singular: Array) -> System:
    order = np.argsort(-np.abs(parameters[1 : 1 + count]), kind="stable")
    poles, residues = parameters[1 : 1 + count][order], parameters[1 + count :][order]
    bars = np.concatenate([errors[:1], errors[1 : 1 + count][order], errors[1 + count :][order]])
    return System(float(parameters[0].real), poles, residues, bars, singular)
