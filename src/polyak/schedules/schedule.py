"""What every schedule is: a value, made from a few numbers, that can be called with the step."""

import dataclasses
import math
import operator
from typing import Any, Self

import numpy as np

from polyak.arguments import number
from polyak.ops import Array
from polyak.schedules.steps import Operations, operations

# Each whole number up to here has a float32 of its own, and two factors of 12 bits (see `exact`).
MOST_STEPS = 2**24
# In a schedule of the smallest values, what they are summed from are normal numbers still, for XLA counts others as 0.
SMALLEST = 1e-15


@dataclasses.dataclass(frozen=True)
class Schedule:
    """A function of the step. Two that were made from the same numbers are equal, and `repr` shows how to make another."""

    def __init_subclass__(cls) -> None:
        # Where users find it. Pickles name this place, so that files here may be moved.
        cls.__module__ = "polyak.schedules"

    def __call__(self, step: Any) -> Any:
        """The value at a step.

        Args:
            step: The number of updates before this one, so 0 at the first. A Python number, or a NumPy, JAX, TensorFlow or
                PyTorch array of any shape, traced or not. The values of steps up to 2^24 as float32, or 2^31 - 1 as int32, are
                told apart.

        Returns:
            A float32 array of the same framework and shape, or, for a Python number, a float that has the same value.

        Raises:
            TypeError: A step of another type.
        """
        value = operations(step).evaluate(self, step)
        return float(value) if type(step) in (int, float) else value

    def evaluate(self, step: Array) -> Array:
        """The value at a step, an array or not, by the operations of its framework."""
        ops = operations(step)
        return self.value(ops.integer(step), ops)

    def value(self, step: Array, ops: Operations) -> Array:
        """The float32 value at a step of whole numbers, by operators and `ops`, without `if` on the step."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """The numbers that it was made from, as JSON has them, by which Keras saves it."""
        made_from = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: list(x) if isinstance(x, tuple) else x for name, x in made_from.items()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The schedule that `get_config` describes."""
        return cls(**config)

    def _keep(self, **arguments: Any) -> None:
        """Put checked arguments in the place of those that were given."""
        for name, value in arguments.items():
            object.__setattr__(self, name, value)


def checked_value(name: str, value: Any) -> float:
    """A value that a schedule takes: finite as a float32, and not negative."""
    x = number(name, value)
    if not (x == 0 or SMALLEST <= x <= float(np.finfo(np.float32).max)):
        raise ValueError(f"{name} must be 0, or from {SMALLEST} up and finite in float32; got {value!r}.")
    return x


def checked_momentum(name: str, value: Any) -> float:
    """A momentum that a schedule takes: in [0, 1), also when it has been rounded to float32."""
    x = number(name, value)
    if not (0 <= x < 1 and np.float32(x) < 1):
        raise ValueError(f"{name} must be a momentum in [0, 1), and below 1 in float32; got {value!r}. 0.9 is usual.")
    return x


def checked_steps(name: str, value: Any, *, least: int = 1) -> int:
    """A number of steps."""
    try:
        if isinstance(value, bool):
            raise TypeError
        n = operator.index(value)
    except TypeError:
        hint = f" Write {int(value)}." if isinstance(value, float) and math.isfinite(value) else ""
        raise TypeError(
            f"{name} counts steps, so it must be an int; got {value!r} of type {type(value).__name__}.{hint}"
        ) from None
    if not (least <= n <= MOST_STEPS):
        raise ValueError(f"{name} must be from {least} to 2^24 steps (that many a float32 can count); got {value!r}.")
    return n
