"""The state of the optimizers of `polyak.numpy`."""

from typing import Any

import numpy as np

from polyak.numpy.muon import Muon
from polyak.numpy.optimizer import Optimizer
from polyak.state.contents import Contents, Group, Spec, State, numbers_of
from polyak.state.matching import Values
from polyak.state.names import unique


def capture(optimizer: Optimizer, params: Any = None) -> State:
    """The state of an optimizer, whose parameters have names already."""
    if params is not None:
        raise TypeError("polyak.numpy knows its parameters by name: leave params out; rename maps names when loading.")
    each = _optimizers(optimizer)
    slots = {f"{slot}/{name}": array for one in each for slot, arrays in one.slots.items() for name, array in arrays.items()}
    specs = {name: Spec(array.shape, array.dtype.name) for name, array in slots.items()}
    return State(Contents(specs, tuple(map(_group, each)), optimizer.count), slots.__getitem__)


def _optimizers(optimizer: Optimizer) -> list[Optimizer]:
    """The optimizer, and after it the one that a Muon has for what is no matrix."""
    others = optimizer.others if isinstance(optimizer, Muon) else None
    return [optimizer, *([others] if others is not None else [])]


def _group(optimizer: Optimizer) -> Group:
    method, rule = optimizer._method, optimizer._update.rule
    given = {name: optimizer._values[_key(name)] for name in ("learning_rate", *method.varying)}
    scheduled = tuple(name for name, value in given.items() if callable(value))
    names = optimizer.slots["velocity"] if isinstance(optimizer, Muon) else optimizer._params
    return Group(
        tuple(unique(names.items(), "parameters")),
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


def restore(optimizer: Optimizer, params: Any, values: Values) -> None:  # noqa: ARG001  (see capture)
    """Write into the optimizer's arrays, which compiled code knows by their place in memory."""
    each = zip(_optimizers(optimizer), values.hyperparameters, values.last_learning_rates, strict=True)
    for one, numbers, last in each:
        for slot, arrays in one.slots.items():
            for name, array in arrays.items():
                if (new := values.arrays.get(f"{slot}/{name}")) is not None:
                    np.copyto(array, new)
        one._values |= {_key(name): number for name, number in numbers.items()}
        one._last_learning_rate = last
        if values.count is not None:
            one.count = values.count


def _key(hyperparameter: str) -> str:
    return "lr" if hyperparameter == "learning_rate" else hyperparameter
