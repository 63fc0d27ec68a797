"""What a linear optimizer makes of gradients: its impulse response, and the gain at each frequency."""

import math

import numpy as np

from polyak.check.identity import Identity
from polyak.check.trial import Array, Subject, Trial

# Below this share of its first steps an impulse response is at its end: what is cut off changes no gain by more than a pixel.
_END = 1e-3
# As long as it is measured: it covers a momentum of 0.996.
_LONGEST = 2000


def is_known(identity: Identity) -> bool:
    """Whether poles, residues and direct say what the steps are: where it is linear, or clips and is linear below its norm."""
    return bool(identity.linear) or identity.clip is not None


def measured(subject: Subject, identity: Identity) -> Array:
    """The measured impulse response to its end: where it is down to a thousandth, or after 2,000 steps.

    Raises:
        Refused: The optimizer raised an error.
    """
    slowest = float(abs(identity.poles).max(initial=0))
    steps = _LONGEST if slowest >= 1 else math.ceil(math.log(_END) / math.log(slowest)) if slowest > 0 else 1
    if not is_known(identity) or len(identity.impulse) >= min(steps, _LONGEST):
        return identity.impulse
    size = 1.0 if identity.clip is None else identity.clip[0].value / 2
    gradient = np.full(1, size, np.float64 if subject.double else np.float32)
    gradients = [{"w": gradient}] + (min(steps, _LONGEST) - 1) * [{"w": 0 * gradient}]
    # Held, so that the steps are not what is left of a sum, and at 0, so that no weight decay is in them.
    return subject.run(Trial({"w": 0 * gradient}, gradients, held=True)).steps("w")[:, 0] / size


def impulse(identity: Identity, steps: int) -> Array:
    """The steps after one gradient of 1, of the recurrence that was identified: (steps,)."""
    powers = identity.poles ** np.arange(steps)[:, None]  # (steps, poles)
    following: Array = np.real(powers @ identity.residues)
    following[:1] += identity.direct
    return following


def answered(identity: Identity, gradients: Array) -> Array:
    """The steps that the recurrence that was identified makes of gradients, (steps, ...), of weights held at 0."""
    sums = np.zeros((len(identity.poles), *gradients.shape[1:]), np.complex128)
    poles, residues = (np.reshape(x, (-1, *[1] * (gradients.ndim - 1))) for x in (identity.poles, identity.residues))
    steps = []
    for g in gradients:
        sums = poles * sums + g
        steps.append((identity.direct * g + (residues * sums).sum(axis=0)).real)
    return np.array(steps)


def transfer(identity: Identity, frequencies: Array) -> Array:
    """The transfer function of the recurrence that was identified.

    Args:
        identity: A linear one.
        frequencies: In cycles a step, up to 0.5, where the gradient changes its sign at each step.

    Returns:
        At each frequency the complex factor from gradient to step. Its absolute value is the gain.
    """
    z = np.exp(2j * np.pi * frequencies)[:, None]
    found: Array = identity.direct + (identity.residues * z / (z - identity.poles)).sum(axis=1)
    return found


def transform(measured: Array, frequencies: Array) -> Array:
    """The transfer function of a measured impulse response, as if nothing came after its end: its Fourier transform."""
    found: Array = np.exp(-2j * np.pi * frequencies[:, None] * np.arange(len(measured))) @ measured
    return found
