"""Half a cosine, with a warm-up before it, without a transcendental function in the step.

The cosine functions of the frameworks differ in their last bits, and near the end of the decay, where 1 + cos cancels, in more.
Here the angle of a step is the sum of a coarse one and a fine one, whose sines and cosines stand in two tables of about
sqrt(steps / 2) columns each, computed when the schedule is first used. Their sum follows from the addition theorem

    V(a + b) = V(a) + cos(a) V(b) + sin(a) sin(b)        with V(x) = 1 - cos(x)

in which nothing cancels for angles up to a right one. The second half of the decay is the first turned by half a circle.
"""

import math
from dataclasses import KW_ONLY, dataclass
from functools import cache

import numpy as np

from polyak.ops import Array
from polyak.schedules.exact import exact_sum, float32, pieces, product
from polyak.schedules.lines import checked_warmup, on_lines
from polyak.schedules.schedule import Schedule, checked_steps, checked_value
from polyak.schedules.steps import Operations, Table


@cache
def _tables(peak: float, end: float, steps: int) -> tuple[Table, Table]:
    """Sines and cosines of the angles pi m / steps, m <= steps / 2, m being the distance from the nearer end of the wave.

    Returns:
        (9, 2 * coarse angles) float32: the value of the nearer end; V in two numbers, cos and sin in three pieces each, times
        half of the way from there to the other end. First all angles from the peak, then all from the end.
        (6, fine angles) float32: V and sin in three pieces each. There are as many as one coarse angle is long.
    """
    peak, end = (float(x) for x in float32([peak, end]))
    width = math.isqrt(steps // 2) + 1
    unit = math.pi / steps
    a, b = unit * np.arange(0, steps // 2 + 1, width), unit * np.arange(width)
    coarse = []
    for near, way in ((peak, end - peak), (end, peak - end)):
        v = way * np.sin(a / 2) ** 2  # way / 2 times 1 - cos(a), which would cancel
        v_upper = float32(v)
        columns = [v_upper, float32(v - v_upper), pieces(way / 2 * np.cos(a)), pieces(way / 2 * np.sin(a))]
        coarse.append(np.column_stack([np.full(len(a), near, np.float32), *columns]))
    return np.concatenate(coarse).T, np.column_stack([pieces(2 * np.sin(b / 2) ** 2), pieces(np.sin(b))]).T


@dataclass(frozen=True)
class cosine(Schedule):  # noqa: N801  (it is used like a function)
    """A linear warm-up, then a decay along half a cosine.

        value(t) = start + (peak - start) t / warmup                  for t < warmup
                   end + (peak - end) (1 + cos(pi u)) / 2             up to t = steps, u = (t - warmup) / (steps - warmup)
                   end                                                from then on

    The cosine: equation (5) of I. Loshchilov, F. Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017,
    arXiv:1608.03983, without restarts. The warm-up: P. Goyal et al., "Accurate, Large Minibatch SGD: Training ImageNet in 1
    Hour", 2017, arXiv:1706.02677.

    Args:
        peak: The value at step `warmup`, at least 0.
        steps: All steps, those of the warm-up included.
        warmup: Steps of the warm-up, less than `steps`; 0 for none.
        end: The last value.
        start: The value of the first update, if there is a warm-up. With 0 it moves no weight; peak / warmup is the next of the
            line.

    Raises:
        ValueError: A number out of range, start without warmup.
        TypeError: A number of steps that is no int.

    Example:
        >>> schedule = cosine(1.0, 6, warmup=2)
        >>> [round(schedule(step), 3) for step in range(8)]
        [0.0, 0.5, 1.0, 0.854, 0.5, 0.146, 0.0, 0.0]
    """

    peak: float
    steps: int
    _: KW_ONLY
    warmup: int = 0
    end: float = 0.0
    start: float = 0.0

    def __post_init__(self) -> None:
        start, steps = checked_value("start", self.start), checked_steps("steps", self.steps)
        warmup = checked_warmup(self.warmup, start)
        if warmup >= steps:
            raise ValueError(f"warmup is a part of steps; got warmup={warmup} of {steps} steps. Give more steps.")
        peak, end = checked_value("peak", self.peak), checked_value("end", self.end)
        self._keep(peak=peak, steps=steps, warmup=warmup, end=end, start=start)

    def value(self, step: Array, ops: Operations) -> Array:
        """The line before the end of the warm-up, the wave after it."""
        wave = self._wave(ops.clip(step - self.warmup, 0, self.steps - self.warmup), ops)
        if not self.warmup:
            return wave
        line = on_lines((0, self.warmup), (self.start, self.peak), step, ops)
        return ops.where(step < self.warmup, line, wave)

    def _wave(self, k: Array, ops: Operations) -> Array:
        """The value k steps after the warm-up: that of the nearer end, and how far the wave has gone from it."""
        steps = self.steps - self.warmup
        coarse, fine = _tables(self.peak, self.end, steps)
        past_middle = k > steps - k
        m = ops.where(past_middle, steps - k, k)
        width, angles = fine.shape[1], coarse.shape[1] // 2
        near, v_upper, v_lower, *a = ops.look_up(coarse, m // width + ops.integer(past_middle) * angles)
        b = [*ops.look_up(fine, m % width)]
        from_cos, rest_cos = product(a[:3], b[:3])
        from_sin, rest_sin = product(a[3:], b[3:])
        return exact_sum([near, v_upper, from_sin, from_cos], v_lower + (rest_sin + rest_cos))
