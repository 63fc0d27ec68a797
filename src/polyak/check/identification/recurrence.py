"""The recurrence of a linear optimizer as numbers, and whether training follows it."""

from dataclasses import dataclass

import numpy as np

from polyak.check.identification.probes import Probes
from polyak.check.trial import Array, Subject, Trial

STEPS = 128
_COLUMNS = 12


@dataclass(frozen=True)
class Recurrence:
    """x = sign g + inside w; v_i = p_i v_i + x; the step is direct x + the sum of r_i v_i + beside w.

    Attributes:
        sign: See above.
        direct: See above.
        poles: The p_i.
        residues: The r_i.
        first: `direct` and the r_i for the x of the first step.
        inside: Weight decay that is added to the gradient.
        beside: Weight decay that is added to the step.
        uncertain: How far the weights may be off for the errors of these numbers, relative to the weights.
    """

    sign: int
    direct: float
    poles: Array
    residues: Array
    first: Array
    inside: float = 0.0
    beside: float = 0.0
    uncertain: float = 0.0

    def train(self, weights: Array, gradients: Array) -> Array:
        """The weights after each step: (steps, *shape), from gradients of that shape."""
        count = len(self.poles)
        later, direct, v = np.array([self.direct, *self.residues]), 0.0, np.zeros((count, *weights.shape))
        after = []
        for t, g in enumerate(gradients):
            direct, *entering = later if t else self.first
            x = self.sign * g + self.inside * weights
            v = v * self.poles.reshape(count, *(1,) * weights.ndim) + np.multiply.outer(np.array(entering), x)
            weights = weights - direct * x - v.sum(axis=0) - self.beside * weights
            after.append(weights)
        return np.array(after)


def follows(subject: Subject, probes: Probes, recurrence: Recurrence) -> str | None:
    """How training with random gradients leaves the recurrence, in words; None if it follows it to within the rounding.

    Weights are not held here: from some of the size of a few steps, with gradients and without.

    Raises:
        Refused: The optimizer refused to.
    """
    rng = np.random.default_rng(11)
    name, shape = next(iter(probes.shapes.items()))
    dtype = probes.dtype
    reach = float(np.sum(np.abs(probes.response))) or 1.0
    w = (4 * probes.unit * reach * rng.choice([-1, 1], _COLUMNS) * rng.uniform(0.5, 1, _COLUMNS)).astype(dtype)
    g = probes.unit * rng.normal(size=(STEPS, _COLUMNS)).clip(-2, 2)
    g[:, : _COLUMNS // 3] = 0
    g[STEPS // 2 : STEPS // 2 + 20] = 0
    g = g.astype(dtype)
    width = (_COLUMNS,) if len(shape) == 1 else (3, _COLUMNS // 3)
    with np.errstate(all="ignore"):  # a large decay makes weights grow without end
        seen = subject.run(Trial({name: w.reshape(width)}, [{name: x.reshape(width)} for x in g])).after[name]
        expected = recurrence.train(w.astype(np.float64), g.astype(np.float64))
        apart = np.abs(seen.reshape(STEPS, _COLUMNS) - expected)
        largest = np.maximum.accumulate(np.maximum(np.abs(expected), np.abs(w)), axis=0)
        # A rounding a step of the weight and of the velocity, and what the numbers themselves may be off.
        bound = (np.arange(1, STEPS + 1)[:, None] * 4 * probes.rounding + 2 * recurrence.uncertain + 8 * probes.rounding) * (
            largest + probes.unit * reach
        )
        wrong = ~(apart <= bound) & np.isfinite(expected) & (np.abs(expected) < np.finfo(dtype).max / 4)
    if not wrong.any():
        return None
    t = int(np.argmax(wrong.any(axis=1)))
    share = float(np.max((apart / largest)[t][wrong[t]]))
    return f"In training it leaves the recurrence that its impulses show, at step {t}, by {share:.1g} of the weight."
