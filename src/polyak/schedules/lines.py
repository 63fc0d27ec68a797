"""Schedules of straight lines: linear, warm-up stable decay, one cycle."""

from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from polyak.ops import Array
from polyak.schedules.constants import count, increasing
from polyak.schedules.exact import BITS, exact_sum, float32, pieces
from polyak.schedules.schedule import Schedule, checked_momentum, checked_steps, checked_value
from polyak.schedules.steps import Operations, Table


@cache
def _tables(steps: tuple[int, ...], values: tuple[float, ...]) -> tuple[Table, Table]:
    """A column for each stretch between corners, and for those before the first and from the last on.

    A line is kept as its lower end and the rise at each step away from it. Counted from there nothing cancels, so that small
    values are as accurate as large ones.

    Returns:
        (2, stretches) int32: the step of the lower end, and the direction in which the line rises, 1 or -1.
        (4, stretches) float32: the value of the lower end, and the three pieces of the rise.
    """
    ends = [float(x) for x in float32(values)]
    whole, lows, rises = [(0, 1)], [ends[0]], [0.0]
    for i in range(1, len(steps)):
        low, high = sorted((i - 1, i), key=lambda j: ends[j])
        whole.append((steps[low], 1 if low < high else -1))
        lows.append(ends[low])
        rises.append((ends[high] - ends[low]) / (steps[i] - steps[i - 1]))
    real = np.column_stack([float32([*lows, ends[-1]]), pieces([*rises, 0.0])])
    return np.array([*whole, (0, 1)], np.int32).T, real.T


@dataclass(frozen=True)
class piecewise_linear(Schedule):  # noqa: N801  (it is used like a function)
    """Straight lines between corners, as numpy.interp draws them.

    Args:
        steps: Where the corners are, increasing, from 0 on. Before the first and after the last, the value is theirs.
        values: One for each corner, at least 0.

    Raises:
        ValueError: Steps that do not increase, another number of values, a value out of range.
        TypeError: A step that is no int.

    Example:
        >>> schedule = piecewise_linear((0, 4, 8), (0.0, 1.0, 0.5))
        >>> [schedule(step) for step in range(10)]
        [0.0, 0.25, 0.5, 0.75, 1.0, 0.875, 0.75, 0.625, 0.5, 0.5]
    """

    steps: tuple[int, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        steps = increasing("steps", self.steps, least=0)
        values = tuple(checked_value(f"values[{i}]", x) for i, x in enumerate(self.values))
        if len(values) != len(steps) or not steps:
            raise ValueError(f"piecewise_linear needs a value for each step, and at least one; got {steps} and {values}.")
        self._keep(steps=steps, values=values)

    def value(self, step: Array, ops: Operations) -> Array:
        """The value of the line that the step is on."""
        return on_lines(self.steps, self.values, step, ops)


def on_lines(steps: tuple[int, ...], values: tuple[float, ...], step: Array, ops: Operations) -> Array:
    """The value at a step of straight lines between corners: the lower end of one, plus the rise since."""
    whole, real = _tables(steps, values)
    stretch = count(steps, step, ops)
    origin, direction = ops.look_up(whole, stretch)
    low, rise1, rise2, rise3 = ops.look_up(real, stretch)
    distance = (step - origin) * direction
    upper = (distance // 2**BITS) * 2**BITS
    a, b = ops.real(upper), ops.real(distance - upper)  # of 12 bits each, like the pieces of the rise
    return exact_sum([low, a * rise1, b * rise1], (a * rise3 + b * rise3) + (a * rise2 + b * rise2))


def linear(start: float, end: float, steps: int) -> piecewise_linear:
    """A straight line from `start` at step 0 to `end` at step `steps`, and `end` from then on.

        value(t) = start + (end - start) min(t / steps, 1)

    Args:
        start: The value of the first update, at least 0.
        end: The last value, at least 0.
        steps: How many steps the line takes.

    Raises:
        ValueError: A number out of range.
        TypeError: steps that is no int.

    Example:
        >>> schedule = linear(1.0, 0.0, 4)
        >>> [schedule(step) for step in range(6)]
        [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    """
    start, end = checked_value("start", start), checked_value("end", end)
    return piecewise_linear((0, checked_steps("steps", steps)), (start, end))


def warmup_stable_decay(
    peak: float, steps: int, *, warmup: int, decay: int, start: float = 0.0, end: float = 0.0
) -> piecewise_linear:
    """A linear warm-up, a constant value, and a linear decay at the end.

        value(t) = start + (peak - start) t / warmup              for t < warmup
                   peak                                           up to t = steps - decay
                   end + (peak - end) (steps - t) / decay         up to t = steps
                   end                                            from then on

    S. Hu et al., "MiniCPM: Unveiling the Potential of Small Language Models with Scalable Training Strategies", 2024,
    arXiv:2404.06395, who let the decay be exponential. The linear one: A. Hägele, E. Bakouch, A. Kosson, L. Ben Allal,
    L. von Werra, M. Jaggi, "Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations", NeurIPS 2024,
    arXiv:2405.18392.

    Args:
        peak: The constant value, at least 0.
        steps: All steps, warm-up and decay included.
        warmup: Steps of the warm-up; 0 for none.
        decay: Steps of the decay, at least 1. A tenth to a fifth of all steps is usual.
        start: The value of the first update. With 0 it moves no weight; peak / warmup is the next of the line.
        end: The last value.

    Raises:
        ValueError: A number out of range, warmup and decay that together are longer than steps, start without warmup.
        TypeError: A number of steps that is no int.

    Example:
        >>> schedule = warmup_stable_decay(1.0, 10, warmup=2, decay=4)
        >>> [schedule(step) for step in range(11)]
        [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]
    """
    peak, start, end = checked_value("peak", peak), checked_value("start", start), checked_value("end", end)
    steps, decay = checked_steps("steps", steps), checked_steps("decay", decay)
    warmup = checked_warmup(warmup, start)
    if warmup + decay > steps:
        raise ValueError(f"warmup and decay are part of steps; got {warmup} + {decay} > {steps}. Give more steps.")
    # Without warm-up, or with nothing between it and the decay, two corners are one.
    corners = {0: start, warmup: peak, steps - decay: peak, steps: end}
    return piecewise_linear(tuple(corners), tuple(corners.values()))


def checked_warmup(warmup: Any, start: float) -> int:
    """The steps of a warm-up, with a start only where there is one."""
    n = checked_steps("warmup", warmup, least=0)
    if start and not n:
        raise ValueError(f"start={start!r} has no effect with warmup=0: give the steps of a warm-up, or leave start out.")
    return n


class OneCycle(NamedTuple):
    """The two schedules of `one_cycle`.

    Attributes:
        learning_rate: Up, down, and down to the end.
        momentum: Down, up, and constant.
    """

    learning_rate: piecewise_linear
    momentum: piecewise_linear


def one_cycle(
    peak: float,
    steps: int,
    *,
    momentum: tuple[float, float] = (0.85, 0.95),
    start: float | None = None,
    end: float = 0.0,
    tail: int | None = None,
) -> OneCycle:
    """One cycle: the learning rate goes up while the momentum goes down, and back.

        step          0              (steps - tail) // 2     steps - tail    steps
        learning rate start          peak                    start           end
        momentum      momentum[1]    momentum[0]             momentum[1]     momentum[1]

    with straight lines between. L. N. Smith, N. Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large
    Learning Rates", 2017, arXiv:1708.07120; L. N. Smith, "A disciplined approach to neural network hyper-parameters: Part 1 --
    learning rate, batch size, momentum, and weight decay", 2018, arXiv:1803.09820. torch.optim.lr_scheduler.OneCycleLR is by
    default another shape: cosines instead of lines, the peak at 30% of the steps, and no tail.

    Args:
        peak: The highest learning rate, at least 0.
        steps: All steps, those of the tail included; at least 3.
        momentum: The lowest and the highest momentum, in [0, 1).
        start: The learning rate of the first update, below the peak; a tenth of the peak by default.
        end: The last learning rate, at most `start`.
        tail: Steps at the end, in which the learning rate goes from `start` to `end`; a tenth of all steps by default.

    Returns:
        The named tuple (learning_rate, momentum) of two schedules.

    Raises:
        ValueError: A number out of range, or a tail that leaves less than two steps to the cycle.
        TypeError: A number of steps that is no int, a momentum that is no pair.

    Example:
        >>> cycle = one_cycle(1.0, 10, momentum=(0.5, 0.75), tail=2)
        >>> [round(cycle.learning_rate(step), 3) for step in range(11)]
        [0.1, 0.325, 0.55, 0.775, 1.0, 0.775, 0.55, 0.325, 0.1, 0.05, 0.0]
        >>> cycle.momentum(4)
        0.5
    """
    peak, end = checked_value("peak", peak), checked_value("end", end)
    start = peak / 10 if start is None else checked_value("start", start)
    if not (end <= start <= peak):
        raise ValueError(f"one_cycle goes from start up to peak and down to end <= start; got {start=}, {peak=}, {end=}.")
    steps = checked_steps("steps", steps, least=3)
    tail = max(1, steps // 10) if tail is None else checked_steps("tail", tail)
    if tail > steps - 2:
        raise ValueError(f"tail is a part of steps and leaves at least 2 to the cycle; got tail={tail} of {steps} steps.")
    if not isinstance(momentum, tuple | list) or len(momentum) != 2:
        raise TypeError(f"momentum must be the pair (lowest, highest), such as (0.85, 0.95); got {momentum!r}.")
    low, high = (checked_momentum(f"momentum[{i}]", m) for i, m in enumerate(momentum))
    if low > high:
        raise ValueError(f"momentum must be the pair (lowest, highest), such as (0.85, 0.95); got {momentum!r}.")
    top = (steps - tail) // 2
    return OneCycle(
        learning_rate=piecewise_linear((0, top, steps - tail, steps), (start, peak, start, end)),
        momentum=piecewise_linear((0, top, steps - tail), (high, low, high)),
    )
