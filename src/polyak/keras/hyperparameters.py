"""The arguments of the Keras optimizers: those that change from step to step, and those that all optimizers have."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from polyak.arguments import check_learning_rate
from polyak.keras.backend import backend
from polyak.keras.schedules import as_schedule
from polyak.keras.values import compute_dtype
from polyak.methods import Check, Method

if TYPE_CHECKING:
    from polyak.groups import Given


Number = float | LearningRateSchedule | Callable[[Any], Any]
"""A number, a schedule of Keras's, or a function of the step."""


class Hyperparameter:
    """An argument that may change from step to step, as an attribute of its optimizer.

    It gives the variable that holds the number, or the value of the schedule at this step. To assign a number to it has effect
    at the next step.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, optimizer: "Varying | None", owner: type) -> Any:
        return self if optimizer is None else optimizer._now(self._name)

    def __set__(self, optimizer: "Varying", value: Any) -> None:
        optimizer._assign(self._name, value)


class Varying:
    """The part of an optimizer that keeps the numbers that change from step to step."""

    _method: Method
    _iterations: Any
    _learning_rate: Any
    add_variable: Callable[..., Any]

    learning_rate = Hyperparameter()

    def _store_numbers(self, given: Mapping[str, Any], stored: Sequence[str]) -> None:
        """Keep the arguments as they were given, and storage for those that a step reads."""
        self._given = MappingProxyType(given)
        each = {name: self._add_hyperparameter(name, given[name]) for name in stored}
        self._stored = MappingProxyType({"learning_rate": self._learning_rate, **each})
        # The learning rate of the last step, if the step count is what it was then; else it is the present one.
        self._remembered_at = 0
        self._remembered: float | None = None

    def _add_hyperparameter(self, name: str, value: float | LearningRateSchedule) -> Any:
        """Storage for a hyperparameter: a variable, which compiled steps read, or its schedule."""
        if isinstance(value, LearningRateSchedule):
            return value
        # A variable of the optimizer, so that it is saved with it and is an input, not a constant, of steps compiled by JAX.
        return self.add_variable(
            shape=(),
            # Not Constant, whose number goes through float32 on TensorFlow.
            initializer=lambda _, dtype: ops.convert_to_tensor(value, dtype),
            dtype=compute_dtype(keras.config.floatx()),
            aggregation="only_first_replica",
            name=name,
        )

    def _now(self, name: str) -> Any:
        """The value at this step. The count of steps is the one that Keras gives to schedules of the learning rate."""
        stored = self._stored.get(name, self._given.get(name))
        return stored(self._iterations) if isinstance(stored, LearningRateSchedule) else stored

    def _get_current_learning_rate(self) -> Any:
        return self._now("learning_rate")

    def _assign(self, name: str, value: Any) -> None:
        """Change a hyperparameter between steps."""
        if name not in self._stored:
            raise TypeError(
                f"This optimizer was made with {name}=0 and keeps no velocity; {name}={value!r} would need one. "
                f"Make it with the {name} that it shall have."
            )
        stored = self._stored[name]
        if isinstance(stored, LearningRateSchedule):
            raise TypeError(
                f"{name} follows a schedule, which is part of the compiled step; {name}={value!r} could not take its place. "
                f"Make the optimizer with a number for {name} to assign to it."
            )
        x = check_learning_rate(value) if name == "learning_rate" else self._method.varying[name](value)
        if name == "learning_rate" and backend.on_host():
            self._last_learning_rate = self._last_learning_rate
        stored.assign(x)

    @property
    def _last_learning_rate(self) -> float | None:
        """The learning rate of the last step, outside all groups; None if there was none or, after loading, it is not known."""
        count = int(ops.convert_to_numpy(self._iterations))
        if count == self._remembered_at:
            return self._remembered
        now = self._learning_rate
        return float(ops.convert_to_numpy(now(count - 1) if isinstance(now, LearningRateSchedule) else now))

    @_last_learning_rate.setter
    def _last_learning_rate(self, value: float | None) -> None:
        self._remembered_at, self._remembered = int(ops.convert_to_numpy(self._iterations)), value

    def _forget_last_learning_rate(self) -> None:
        if not isinstance(self._learning_rate, LearningRateSchedule):
            self._last_learning_rate = None  # a number may have been assigned after the last step


class Common(TypedDict, total=False):
    """The arguments that every optimizer has, for the signatures."""

    weight_decay: float | None
    decay: Literal["coupled", "decoupled"] | None
    cautious: bool
    cautious_decay: bool
    finite: Literal["error", "skip", "off"]
    groups: "Given | None"
    clipnorm: float | None
    clipvalue: float | None
    global_clipnorm: float | None
    use_ema: bool
    ema_momentum: float
    ema_overwrite_frequency: int | None
    loss_scale_factor: float | None
    gradient_accumulation_steps: int | None
    name: str | None


def checked(name: str, value: Any, check: Check) -> float | LearningRateSchedule:
    """A number that was checked, or a schedule.

    Raises:
        ValueError: A number out of its range.
        TypeError: Neither of them; a callable that does not take the step.
    """
    return as_schedule(name, value) or check(value)
