"""What the state of an optimizer is, whatever framework it came from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
OPTIONS = ("velocity", "nesterov", "dampening", "weight_decay", "decay", "maximize")
HYPERPARAMETERS = ("learning_rate", "momentum")
Unit = str  # of the velocity: "gradient", "step" or "average"


@dataclass(frozen=True)
class Spec:
    """A tensor without its numbers.

    Attributes:
        shape: Its shape.
        dtype: The name of its dtype as NumPy has it: "float32", "bfloat16".
    """

    shape: tuple[int, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Group:
    """Parameters that are updated alike. Most optimizers have one group.

    Attributes:
        names: The names of the parameters.
        options: What was chosen when the optimizer was made: `velocity`, `nesterov`, `dampening`, `weight_decay`, `decay`,
            `maximize`. Those that the source does not tell are absent.
        hyperparameters: The values of the next step: `learning_rate`, `momentum`. Those that the source does not tell are
            absent.
        scheduled: Which of the hyperparameters follow a schedule.
        assignable: Of an optimizer, which of the hyperparameters it can take over.
        last_learning_rate: The learning rate of the last step, or None where it is not known.
    """

    names: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    hyperparameters: Mapping[str, float] = field(default_factory=dict)
    scheduled: tuple[str, ...] = ()
    last_learning_rate: float | None = None
    assignable: tuple[str, ...] = HYPERPARAMETERS

    @property
    def velocity(self) -> Unit | None:
        """The unit of the velocity."""
        return self.options.get("velocity")


@dataclass(frozen=True)
class Contents:
    """The state of an optimizer without its numbers.

    Attributes:
        tensors: Shape and dtype of each tensor by its name, which is `slot/parameter name`.
        groups: The options and hyperparameters of the parameters.
        count: How many steps were made, or None where the source does not count them.
    """

    tensors: Mapping[str, Spec]
    groups: tuple[Group, ...]
    count: int | None


@dataclass(frozen=True)
class State:
    """The state of an optimizer, of which one tensor at a time is brought into host memory.

    Attributes:
        contents: All but the numbers.
        array: The numbers of a tensor by its name. They are only read; they may lie in the optimizer's own memory.
    """

    contents: Contents
    array: Callable[[str], Array]


def split(name: str) -> tuple[str, str]:
    """The slot and the parameter of a tensor's name."""
    slot, _, parameter = name.partition("/")
    return slot, parameter


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The NumPy dtype of this name, with those of the machine-learning frameworks.

    Raises:
        ImportError: It is one of theirs, and their package is not installed.
    """
    try:
        return np.dtype(name)
    except TypeError:
        try:
            import ml_dtypes
        except ImportError:
            raise ImportError(f"NumPy alone has no {name}: pip install ml_dtypes brings it.") from None
        dtype: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
        return dtype
