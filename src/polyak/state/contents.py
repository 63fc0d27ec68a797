"""What the state of an optimizer is, whatever framework it came from."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from polyak.methods import METHODS, MUON_METHOD

Array = npt.NDArray[Any]
KNOWN = {**METHODS, MUON_METHOD.name: MUON_METHOD}  # the methods that a state can be of, by name
COMMON = ("weight_decay", "decay", "maximize", "cautious", "cautious_decay")  # options that every method has
Unit = str  # of the velocity: "gradient", "step" or "average"


@dataclass(frozen=True, slots=True)
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
        method: The name of the optimizer's method, a key of `KNOWN`.
        options: What was chosen when the optimizer was made: the method's constants and options, and `weight_decay`, `decay`,
            `maximize`, `cautious`, `cautious_decay`. Those that the source does not tell are absent.
        hyperparameters: The values of the next step: `learning_rate` and what of the method's may vary. Those that the source
            does not tell are absent.
        scheduled: Which of the hyperparameters follow a schedule.
        last_learning_rate: The learning rate of the last step that was made, or None where it is not known.
        assignable: Of an optimizer, which of the hyperparameters it can take over.
        shared: Of an optimizer, which of them are one number for all the groups that have them here.
        slots: Of an optimizer, the names of the arrays that it keeps for each parameter.
    """

    names: tuple[str, ...]
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    hyperparameters: Mapping[str, float] = field(default_factory=dict)
    scheduled: tuple[str, ...] = ()
    last_learning_rate: float | None = None
    assignable: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    slots: tuple[str, ...] = ()

    @property
    def velocity(self) -> Unit | None:
        """The unit of the velocity, of which `Momentum` has several."""
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


def numbers_of(values: Mapping[str, float]) -> dict[str, float]:
    """Hyperparameters without those that are none: a schedule may end in NaN, and a state of it is saved nevertheless."""
    return {name: value for name, value in values.items() if math.isfinite(value)}


def rate(value: float | None) -> float | None:
    """The learning rate of a step, None where it is none that a velocity can be converted with."""
    return None if value is None or not 0 <= value < math.inf else value


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
