"""The arguments of the Keras optimizers: those that change from step to step, and those that all optimizers have."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from keras.optimizers.schedules import LearningRateSchedule

from polyak.keras.schedules import as_schedule
from polyak.methods import Check

if TYPE_CHECKING:
    from polyak.groups import Given
    from polyak.keras.optimizer import Optimizer


Number = float | LearningRateSchedule | Callable[[Any], Any]
"""A number, a schedule of Keras's, or a function of the step."""


class Hyperparameter:
    """An argument that may change from step to step, as an attribute of its optimizer.

    It gives the variable that holds the number, or the value of the schedule at this step. To assign a number to it has effect
    at the next step.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, optimizer: "Optimizer | None", owner: type) -> Any:
        return self if optimizer is None else optimizer._now(self._name)

    def __set__(self, optimizer: "Optimizer", value: Any) -> None:
        optimizer._assign(self._name, value)


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
