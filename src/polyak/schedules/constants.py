"""Schedules that jump: constant between boundaries."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from polyak.ops import Array
from polyak.schedules.exact import float32
from polyak.schedules.schedule import Schedule, checked_steps, checked_value
from polyak.schedules.steps import Operations, Table


def increasing(name: str, steps: Iterable[int], *, least: int) -> tuple[int, ...]:
    """Steps in strictly increasing order, or an error that shows the two that are not."""
    checked = tuple(checked_steps(f"{name}[{i}]", step, least=least) for i, step in enumerate(steps))
    for i in range(1, len(checked)):
        if checked[i] <= checked[i - 1]:
            raise ValueError(f"{name} must increase; got {checked[i]} after {checked[i - 1]} in {checked}.")
    return checked


def count(steps: tuple[int, ...], step: Array, ops: Operations) -> Array:
    """How many of `steps` are not after the step."""
    return sum((ops.integer(step >= boundary) for boundary in steps), start=step * 0)


@cache
def _table(values: tuple[float, ...]) -> Table:
    return float32(values)[None]


@dataclass(frozen=True)
class piecewise(Schedule):  # noqa: N801  (it is used like a function)
    """A constant value between boundaries.

    The step `boundaries[i]` is the first with `values[i + 1]`, and `boundaries[i] - 1` the last with `values[i]`. So do
    optax.piecewise_constant_schedule and torch's MultiStepLR; in keras.optimizers.schedules.PiecewiseConstantDecay a boundary
    still has the value before.

    Args:
        boundaries: Steps at which the value changes, increasing, from 1 on.
        values: One more than boundaries, each at least 0.

    Raises:
        ValueError: Boundaries that do not increase, another number of values, a value out of range.
        TypeError: A boundary that is no int.

    Example:
        >>> schedule = piecewise((100, 200), (0.5, 0.25, 0.125))
        >>> [schedule(step) for step in (0, 99, 100, 199, 200, 10_000)]
        [0.5, 0.5, 0.25, 0.25, 0.125, 0.125]
    """

    boundaries: tuple[int, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        boundaries = increasing("boundaries", self.boundaries, least=1)
        values = tuple(checked_value(f"values[{i}]", x) for i, x in enumerate(self.values))
        if len(values) != len(boundaries) + 1:
            raise ValueError(
                f"piecewise needs one value more than boundaries, the first for the steps before all of them; got "
                f"{len(values)} values and {len(boundaries)} boundaries: {values}, {boundaries}."
            )
        self._keep(boundaries=boundaries, values=values)

    def value(self, step: Array, ops: Operations) -> Array:
        """The value whose boundaries the step is between."""
        (value,) = ops.look_up(_table(self.values), count(self.boundaries, step, ops))
        return value


def constant(value: float) -> piecewise:
    """The same value at every step: `piecewise` without boundaries.

    Args:
        value: At least 0.

    Raises:
        ValueError: A value out of range.

    Example:
        >>> constant(0.5)
        piecewise(boundaries=(), values=(0.5,))
    """
    return piecewise((), (checked_value("value", value),))
