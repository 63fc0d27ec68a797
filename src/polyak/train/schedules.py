"""Schedules that people write as calls, such as `cosine(0.1, warmup=2 * epoch)`, made for the length of a run."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from polyak import schedules
from polyak.methods import Check
from polyak.schedules.lines import OneCycle
from polyak.schedules.schedule import MOST_STEPS, Schedule
from polyak.train.settings import Call, call, is_call
from polyak.train.words import choice

NAMES = [name for name in schedules.__all__ if name not in ("OneCycle", "plot")]

UNKNOWN = schedules.constant(0.0)
"""Stands for a schedule that cannot be made before the length of the run is known."""


class Length(NamedTuple):
    """How long a run is, which is known once its data are there."""

    steps: int
    steps_per_epoch: int


def number_or_schedule(name: str, value: Any, check: Check, length: Length | None) -> Any:
    """A number that was checked, or the schedule that a call names.

    Args:
        name: Of the setting.
        value: What was given for it.
        check: For a plain number.
        length: Of the run. None if it is not known yet: what depends on it is not looked at then.

    Raises:
        ValueError: A number out of its range, or a call of which no schedule can be made.
        TypeError: Neither of them.
    """
    if isinstance(value, Schedule):  # one of the two of a cycle
        schedule = value
    elif is_call(value):
        schedule = made(name, call(value), length)
    else:
        return check(value)
    if isinstance(schedule, OneCycle):
        raise ValueError(f"{name}={value}: one_cycle is for the learning_rate of all parameters, and gives the momentum too.")
    if name != "learning_rate" and schedule is not UNKNOWN:
        _check_range(f"{name}={value}", schedule, check, length.steps if length else MOST_STEPS)
    return schedule


def made(name: str, written: Call, length: Length | None) -> Any:
    """The schedule that a call names; where it does not say how many steps there are, those of the run.

    Raises:
        ValueError: There is no such schedule, or its arguments are wrong.
    """
    choice(f"schedule in {name}={written.text}:", written.name, NAMES)
    function: Callable[..., Any] = getattr(schedules, written.name)
    signature = inspect.signature(function)
    if length is not None:
        written = written.in_steps(length.steps_per_epoch)
    try:
        given = signature.bind_partial(*written.args, **written.kwargs).arguments
        if length is None and written.counts_epochs:
            return UNKNOWN
        # In piecewise_linear, steps are its corners.
        if "steps" in signature.parameters and "steps" not in given and signature.parameters["steps"].annotation is int:
            return function(*written.args, steps=length.steps if length else MOST_STEPS, **written.kwargs)
        return function(*written.args, **written.kwargs)
    except TypeError as error:
        takes = str(signature).partition(" ->")[0]
        raise ValueError(f"{name}={written.text}: {error}. It is {written.name}{takes}.") from None
    except ValueError as error:
        raise ValueError(f"{name}={written.text}: {error}") from None


def _check_range(what: str, schedule: Schedule, check: Check, steps: int) -> None:
    """Check the values that a run may meet: at many of its steps, the first and the last among them."""
    at = np.concatenate([np.linspace(0, steps, 1000), np.geomspace(1, steps, 1000)]).astype(np.int64)
    values = schedule(at)
    for value in (float(values.min()), float(values.max())):
        try:
            check(value)
        except ValueError as error:
            raise ValueError(f"{what}: {error}") from None
