"""How the first step differs from the later ones, as in torch.optim.SGD, whose dampening does not hold at it."""

from dataclasses import dataclass

import numpy as np

from polyak.check.identification.probes import LATE, STEPS, Probes
from polyak.check.identification.system import residues_of
from polyak.check.identity import Number
from polyak.check.trial import Array


@dataclass(frozen=True)
class Start:
    """The answer to a gradient of the first step.

    Attributes:
        system: (direct, *residues), with the poles of the later steps.
        times: How many times the answer to a later gradient it is; None if it is no multiple of that.
        seen: Its first values.
    """

    system: Array
    times: float | None
    seen: Array

    def words(self, dampening: Number | None) -> str | None:
        """How it differs; None if it does not."""
        if self.times == 1:
            return None
        if self.times is None:
            return f"its gradient is answered by steps of {', '.join(f'{x:.4g}' for x in self.seen[:3])} ..."
        if dampening and abs(self.times * (1 - dampening.value) - 1) <= dampening.error * self.times + 1e-6:
            return "dampening not applied"
        return f"its gradient counts {self.times:.4g} times" if self.times else "its gradient is forgotten"


def started(probes: Probes, system: Array, sign: int) -> Start:
    """The answer to a gradient of the first step.

    Args:
        probes: Of an optimizer that is linear.
        system: (direct, *poles, *residues) of the later steps.
        sign: Of its steps.
    """
    count = len(system) // 2
    direct, poles, residues = system[:1], system[1 : 1 + count], system[1 + count :]
    later = sign * probes.operator[LATE:, LATE]
    first = sign * probes.operator[: STEPS - LATE, 0]
    level = probes.level
    if np.all(np.abs(first - later) <= level):
        return Start(np.concatenate([direct, residues]), 1.0, first)
    times = float(first @ later / (later @ later))
    if np.all(np.abs(first - times * later) <= level * max(1.0, abs(times))):
        times = times if np.any(np.abs(first) > level) else 0.0
        return Start(times * np.concatenate([direct, residues]), times, first)
    own = residues_of(first, np.full(len(first), level), poles)
    return Start(np.concatenate([[first[0] - own.sum()], own]), None, first)
