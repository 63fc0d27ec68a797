"""`polyak.torch.Schedule`: hyperparameters of a torch optimizer that follow the step."""

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor
from torch.optim import Optimizer

from polyak.arguments import check_takes_step, number

StepFunction = Callable[[int], Any]


class Schedule:
    """Sets hyperparameters of an optimizer before each step: the learning rate, the momentum, or any other by its name.

        schedule = Schedule(optimizer, lr=cosine(0.1, 1000), momentum=demon(0.9, 1000))
        for x, y in data:
            ...
            optimizer.step()
            schedule.step()

    When it is made it sets the values of step 0, for the first `optimizer.step()`. They are Python floats that are exactly a
    float32, so that the step is the one of every other front-end. A hyperparameter that is a tensor is filled.

    Args:
        optimizer: Any torch optimizer.
        **hyperparameters: By the name that they have in the optimizer's parameter groups: `lr`, `momentum`, `weight_decay`
            and so on. Each is a function of the step, of `polyak.schedules` or any other, for all groups; or a list with one
            for each group, where None leaves a group as it is. A function is given the number of steps so far, an int.

    Attributes:
        count: The number of steps so far. The optimizer has the values of this step.

    Raises:
        ValueError: No hyperparameter, a name that a parameter group does not have as a number, or a list that is not as long as
            there are groups.
        TypeError: Something else than a function of the step; one that returns no number.

    Example:
        >>> import torch
        >>> from polyak.schedules import linear
        >>> w = torch.zeros(1, requires_grad=True)
        >>> optimizer = torch.optim.SGD([w], lr=1.0, momentum=0.9)
        >>> schedule = Schedule(optimizer, lr=linear(0.5, 0.0, 2))
        >>> optimizer.param_groups[0]["lr"]
        0.5
        >>> optimizer.step()
        >>> schedule.step()
        >>> optimizer.param_groups[0]["lr"]
        0.25
    """

    def __init__(self, optimizer: Optimizer, **hyperparameters: StepFunction | list[StepFunction | None]) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"Schedule needs a torch optimizer; got {optimizer!r} of type {type(optimizer).__name__}.")
        if not hyperparameters:
            raise ValueError("Schedule needs a hyperparameter to drive, such as lr=polyak.schedules.cosine(0.1, 1000).")
        self.optimizer = optimizer
        self.count = 0
        for name, given in hyperparameters.items():
            for function in given if isinstance(given, list) else [given]:
                if not (function is None and isinstance(given, list)):
                    _check(name, function)
        self._functions = hyperparameters
        self._set(0)

    def step(self) -> None:
        """Set the values of the next step; call it after `optimizer.step()`."""
        self._set(self.count + 1)

    def state_dict(self) -> dict[str, Any]:
        """The number of steps so far, which is all that there is to save: the functions are made by your program."""
        return {"count": self.count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on at the step that `state_dict` was taken at, and set its values. Load the optimizer's state before or after.

        Args:
            state_dict: What `state_dict` returned.

        Raises:
            ValueError: Something else.
        """
        count = state_dict.get("count")
        if state_dict.keys() != {"count"} or not isinstance(count, int) or count < 0:
            raise ValueError(f"This is no state of polyak.torch.Schedule, which is {{'count': steps so far}}: {state_dict!r}.")
        self._set(count)

    def __repr__(self) -> str:
        """The step, and how it was made."""
        functions = "".join(f", {name}={function!r}" for name, function in self._functions.items())
        return f"<Schedule of {type(self.optimizer).__name__} at step {self.count}{functions}>"

    def _set(self, count: int) -> None:
        """Set the values of a step: all of them, or after an error none."""
        new = [
            (group, name, _value(name, function, count))
            for name, functions in self._functions.items()
            for group, function in zip(self.optimizer.param_groups, self._of_groups(name, functions), strict=True)
            if function is not None
        ]
        for group, name, value in new:
            if isinstance(group[name], Tensor):
                group[name].fill_(value)
            else:
                group[name] = value
        self.count = count

    def _of_groups(self, name: str, functions: StepFunction | list[StepFunction | None]) -> list[StepFunction | None]:
        """A function for each group, or None, or an error if they do not fit the groups."""
        groups = self.optimizer.param_groups
        each: list[StepFunction | None] = functions if isinstance(functions, list) else [functions for _ in groups]
        if len(each) != len(groups):
            raise ValueError(
                f"{name} was given {len(each)} functions for {len(groups)} parameter groups. Give one for each, or None."
            )
        for i, (group, function) in enumerate(zip(groups, each, strict=True)):
            if function is not None and not _is_number(group.get(name)):
                known = ", ".join(sorted(key for key, value in group.items() if _is_number(value)))
                has = f"has {name}={group[name]!r}, which is no number" if name in group else f"has no {name!r}"
                raise ValueError(f"Parameter group {i} of {type(self.optimizer).__name__} {has}. It has the numbers {known}.")
        return each


def _check(name: str, function: Any) -> None:
    if not callable(function):
        raise TypeError(
            f"{name} must be a function of the step, or a list of one for each parameter group; got {function!r}. A number "
            f"belongs to the optimizer; as a function it is polyak.schedules.constant."
        )
    check_takes_step(name, function)


def _is_number(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.ndim == 0
    return isinstance(value, int | float) and not isinstance(value, bool)


def _value(name: str, function: StepFunction, count: int) -> float:
    return float(np.float32(number(f"{name} at step {count}", function(count))))
