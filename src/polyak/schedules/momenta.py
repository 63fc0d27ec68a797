"""Schedules for the momentum alone: a ramp up, and a decay."""

from dataclasses import dataclass

from polyak.ops import Array
from polyak.schedules.exact import float32
from polyak.schedules.schedule import Schedule, checked_momentum, checked_steps
from polyak.schedules.steps import Operations


@dataclass(frozen=True)
class sutskever(Schedule):  # noqa: N801  (it is used like a function)
    """The momentum ramp of Sutskever, Martens, Dahl and Hinton: 1/2 at first, and nearer to 1 every 250 steps.

        value(t) = min(1 - 2^(-1 - log2(floor(t / 250) + 1)), maximum) = min(1 - 0.5 / (floor(t / 250) + 1), maximum)

    Equation (5) of I. Sutskever, J. Martens, G. Dahl, G. Hinton, "On the importance of initialization and momentum in deep
    learning", ICML 2013, PMLR 28(3), pp. 1139-1147. They used it with Nesterov's momentum and maxima of 0.9 to 0.999.

    Args:
        maximum: The last momentum, in [0.5, 1).

    Raises:
        ValueError: A maximum out of range.

    Example:
        >>> schedule = sutskever(0.96875)
        >>> [schedule(step) for step in (0, 249, 250, 750, 1750, 3750, 1_000_000)]
        [0.5, 0.5, 0.75, 0.875, 0.9375, 0.96875, 0.96875]
    """

    maximum: float = 0.99

    def __post_init__(self) -> None:
        maximum = checked_momentum("maximum", self.maximum)
        if maximum < 0.5:
            raise ValueError(f"maximum must be at least 0.5, where the ramp begins; got {self.maximum!r}. Try constant.")
        self._keep(maximum=maximum)

    def value(self, step: Array, ops: Operations) -> Array:
        """1 - 1 / (2 floor(t / 250) + 2): no product, and a divisor that no compiler can turn into a factor."""
        ramp = 1 - 1 / ops.real(2 * (step // 250) + 2)
        return ops.clip(ramp, 0.0, float(float32(self.maximum)))


@dataclass(frozen=True)
class demon(Schedule):  # noqa: N801  (it is used like a function)
    """A momentum that decays to 0, so that m / (1 - m), what a gradient adds to all later steps, decays along a line.

        value(t) = start r / ((1 - start) + start r)        with r = max(1 - t / steps, 0)

    J. Chen, C. Wolfe, Z. Li, A. Kyrillidis, "Demon: Improved Neural Network Training with Momentum Decay", ICASSP 2022,
    arXiv:1910.04952.

    Args:
        start: The momentum of the first update, in (0, 1). 0.9 is usual.
        steps: The step from which on the momentum is 0.

    Raises:
        ValueError: A number out of range.
        TypeError: steps that is no int.

    Example:
        >>> schedule = demon(0.75, 4)
        >>> [round(schedule(step), 3) for step in range(6)]
        [0.75, 0.692, 0.6, 0.429, 0.0, 0.0]
    """

    start: float
    steps: int

    def __post_init__(self) -> None:
        start = checked_momentum("start", self.start)
        if start == 0:
            raise ValueError(f"start must be above 0, for a momentum of 0 cannot decay; got {self.start!r}. Try 0.9.")
        self._keep(start=start, steps=checked_steps("steps", self.steps))

    def value(self, step: Array, ops: Operations) -> Array:
        """The formula as 1 - c / (left + c), with the steps that are left and c = steps (1 - start) / start."""
        left = ops.real(self.steps - ops.clip(step, 0, self.steps))
        # A tensor of its own: torch divides a number by a tensor as number * (1 / tensor), which rounds twice.
        c = 0 * left + float(float32(self.steps * (1 - self.start) / self.start))
        return 1 - c / (left + c)
