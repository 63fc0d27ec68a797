"""The state of `polyak.numpy.Momentum`."""

from typing import Any

import numpy as np

from polyak.numpy import Momentum
from polyak.state.contents import Contents, Group, Spec, State
from polyak.state.matching import Values
from polyak.state.names import unique


def capture(optimizer: Momentum, params: Any = None) -> State:
    """The state of an optimizer, whose parameters have names already."""
    if params is not None:
        raise TypeError("polyak.numpy.Momentum knows its parameters by name: leave params out; rename maps names when loading.")
    names = unique(optimizer._params.items(), "parameters")
    slots = {f"{slot}/{name}": array for slot, arrays in optimizer.slots.items() for name, array in arrays.items()}
    group = Group(
        tuple(names),
        options={
            **optimizer._options,
            "velocity": optimizer._options["velocity"] if slots else None,
            "weight_decay": optimizer._weight_decay,
            "decay": optimizer._decay,
            "maximize": optimizer._maximize,
        },
        hyperparameters={"learning_rate": optimizer.lr, "momentum": optimizer.momentum},
        last_learning_rate=optimizer.lr,
    )
    specs = {name: Spec(array.shape, array.dtype.name) for name, array in slots.items()}
    return State(Contents(specs, (group,), count=None), slots.__getitem__)


def restore(optimizer: Momentum, params: Any, values: Values) -> None:  # noqa: ARG001  (see capture)
    """Write into the optimizer's arrays, which compiled code knows by their place in memory."""
    (numbers,) = values.hyperparameters
    for slot, arrays in optimizer.slots.items():
        for name, array in arrays.items():
            if (new := values.arrays.get(f"{slot}/{name}")) is not None:
                np.copyto(array, new)
    optimizer._lr = numbers.get("learning_rate", optimizer._lr)
    optimizer._momentum = numbers.get("momentum", optimizer._momentum)
