"""The state of the optimizers of `polyak.numpy`."""

from typing import Any

import numpy as np

from polyak.numpy.optimizer import Optimizer
from polyak.state.contents import Contents, Group, Spec, State, numbers_of
from polyak.state.matching import Values
from polyak.state.names import unique


def capture(optimizer: Optimizer, params: Any = None) -> State:
    """The state of an optimizer, whose parameters have names already."""
    if params is not None:
        raise TypeError("polyak.numpy knows its parameters by name: leave params out; rename maps names when loading.")
    names = unique(optimizer._params.items(), "parameters")
    slots = {f"{slot}/{name}": array for slot, arrays in optimizer.slots.items() for name, array in arrays.items()}
    method, rule = optimizer._method, optimizer._update.rule
    given = {name: optimizer._values[_key(name)] for name in ("learning_rate", *method.varying)}
    scheduled = tuple(name for name, value in given.items() if callable(value))
    group = Group(
        tuple(names),
        method.name,
        options={
            **{name: optimizer._values[name] for name in (*method.constants, *method.options)},
            "weight_decay": optimizer._weight_decay,
            "decay": optimizer._decay,
            "maximize": optimizer._maximize,
            "cautious": optimizer._cautious,
            "cautious_decay": optimizer._cautious_decay,
        },
        hyperparameters=numbers_of({name: float(x(optimizer.count) if callable(x) else x) for name, x in given.items()}),
        scheduled=scheduled,
        last_learning_rate=optimizer._last_learning_rate,
        assignable=tuple(name for name in given if name not in scheduled and name in rule.hyperparameters),
        slots=rule.slots,
    )
    specs = {name: Spec(array.shape, array.dtype.name) for name, array in slots.items()}
    return State(Contents(specs, (group,), optimizer.count), slots.__getitem__)


def restore(optimizer: Optimizer, params: Any, values: Values) -> None:  # noqa: ARG001  (see capture)
    """Write into the optimizer's arrays, which compiled code knows by their place in memory."""
    for slot, arrays in optimizer.slots.items():
        for name, array in arrays.items():
            if (new := values.arrays.get(f"{slot}/{name}")) is not None:
                np.copyto(array, new)
    (numbers,), (optimizer._last_learning_rate,) = values.hyperparameters, values.last_learning_rates
    optimizer._values |= {_key(name): number for name, number in numbers.items()}
    if values.count is not None:
        optimizer.count = values.count


def _key(hyperparameter: str) -> str:
    return "lr" if hyperparameter == "learning_rate" else hyperparameter
