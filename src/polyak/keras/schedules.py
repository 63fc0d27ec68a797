"""A hyperparameter that follows the step, in Keras."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from polyak import schedules
from polyak.arguments import check_takes_step

# So that models with such schedules can be loaded.
for _schedule in (schedules.cosine, schedules.demon, schedules.piecewise, schedules.piecewise_linear, schedules.sutskever):
    keras.saving.register_keras_serializable(package="polyak")(_schedule)


@keras.saving.register_keras_serializable(package="polyak")
class StepFunction(LearningRateSchedule):
    """A function of the step as a Keras schedule.

    Args:
        function: Takes the step, a float32 scalar that is 0 at the first update, and returns the value at that step. It is
            traced into the compiled step, so it must be written in array operations, without `if` on the step. Every step
            up to 2^24 has a float32 of its own.
    """

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def __call__(self, step: Any) -> Any:
        """The value at `step`, as a float32 scalar."""
        return ops.cast(self.function(ops.cast(step, "float32")), "float32")

    def get_config(self) -> dict[str, Any]:
        """The function, by its registered name or, for a lambda, by its code."""
        return {"function": keras.saving.serialize_keras_object(self.function)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "StepFunction":
        """The schedule that `get_config` describes."""
        return cls(keras.saving.deserialize_keras_object(config["function"]))


def as_schedule(name: str, value: Any) -> LearningRateSchedule | None:
    """`value` as a schedule if it is one, or a callable of the step; None if it is anything else.

    Args:
        name: The argument's name, for the error.
        value: What the user gave.

    Raises:
        TypeError: A callable that does not take the step.
    """
    if isinstance(value, LearningRateSchedule):
        return value
    if isinstance(value, keras.Variable) or not callable(value):
        return None
    # keras.optimizers.SGD takes functions without arguments, which are evaluated once and are then constants of the step.
    check_takes_step(name, value)
    return StepFunction(value)
