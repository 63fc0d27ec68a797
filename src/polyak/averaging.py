"""What ScheduleFree computes from the step alone: its warm-up, and how much of its average the newest weights take.

The weights that are averaged count by the square of their learning rate, as in the authors' code. While the learning rate goes
up along a line to step W, and is constant from there, both the sum of the squares and the part of the newest one have a closed
form; the state needs no such sum.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from polyak.arguments import check_learning_rate
from polyak.ops import Array
from polyak.schedules import piecewise_linear
from polyak.schedules.schedule import Schedule, checked_steps
from polyak.schedules.steps import Operations


@dataclass(frozen=True)
class Averaging(Schedule):
    """The part of the average that the newest weights take: 1 at the first step, about 1 / t at step t.

        value(t) = (t + 1)^2 / (1^2 + 2^2 + ... + (t + 1)^2) = 6 (t + 1) / ((t + 2) (2 t + 3))      for t < W
                   1 / ((1^2 + ... + W^2) / W^2 + (t + 1 - W))                                      from then on

    Args:
        warmup_steps: W, the steps in which the learning rate goes up; 0 for none.

    Example:
        >>> [round(Averaging()(step), 3) for step in range(4)]
        [1.0, 0.5, 0.333, 0.25]
        >>> [round(Averaging(2)(step), 3) for step in range(4)]
        [1.0, 0.8, 0.444, 0.308]
    """

    warmup_steps: int = 0

    def __post_init__(self) -> None:
        self._keep(warmup_steps=checked_steps("warmup_steps", self.warmup_steps, least=0))

    def value(self, step: Array, ops: Operations) -> Array:
        """Both formulas with one division each, of numbers that are no products of a sum."""
        w = self.warmup_steps
        t = ops.real(step + 1)
        if w == 0:
            return 1 / t
        before = ops.real(6 * (step + 1)) / (ops.real(step + 2) * ops.real(2 * step + 3))
        # After the warm-up its W steps count as `sum` full ones, about a third.
        total = (w + 1) * (2 * w + 1) / (6 * w)
        after = 1 / (ops.real(ops.clip(step, w, 2**24) + 1 - w) + float(np.float32(total)))
        return ops.where(step < w, before, after)


Averaging.__module__ = __name__  # where pickles find it: users have no use for it

averaging = cache(Averaging)
"""The same, made once: optimizers ask at each step."""


def warmed_up(learning_rate: Any, warmup_steps: int, calls: int = 1) -> Any:
    """The learning rate with a warm-up: learning_rate * min(1, (t + 1) / warmup_steps), or itself without one.

    Args:
        learning_rate: A number; without a warm-up, whatever the front-end takes.
        warmup_steps: The step at which it is reached.
        calls: How many calls make a step, where gradients are accumulated and schedules are functions of the calls.

    Raises:
        ValueError: A number out of its range, or a warm-up of a learning rate that follows a schedule already.
        TypeError: No number.

    Example:
        >>> [warmed_up(1.0, 4)(step) for step in range(5)]
        [0.25, 0.5, 0.75, 1.0, 1.0]
    """
    if checked_steps("warmup_steps", warmup_steps, least=0) < 2:
        return learning_rate
    if callable(learning_rate):
        raise ValueError(
            f"warmup_steps={warmup_steps} makes a schedule of the learning rate; got {learning_rate!r}, which is one. Give a "
            "number, or warmup_steps=0."
        )
    rate = check_learning_rate(learning_rate)
    return piecewise_linear((calls - 1, calls * warmup_steps - 1), (rate / warmup_steps, rate))


def warmed_up_groups(groups: Any, warmup_steps: int, calls: int = 1) -> Any:
    """Groups by name pattern, with the warm-up in the learning rates that are theirs. What is no such group stays as it is."""
    if not isinstance(groups, Mapping):
        return groups
    return {pattern: _warmed_up_group(given, warmup_steps, calls) for pattern, given in groups.items()}


def _warmed_up_group(given: Any, warmup_steps: int, calls: int) -> Any:
    if not isinstance(given, Mapping) or "learning_rate" not in given:
        return given
    return {**given, "learning_rate": warmed_up(given["learning_rate"], warmup_steps, calls)}
