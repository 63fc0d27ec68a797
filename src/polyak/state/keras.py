"""The state of `polyak.keras.Momentum`, and, to be read, of keras.optimizers.SGD."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras.optimizers.schedules import LearningRateSchedule

from polyak.keras import Momentum
from polyak.keras.values import compute_dtype
from polyak.state.contents import HYPERPARAMETERS, Array, Contents, Group, Spec, State
from polyak.state.matching import Values
from polyak.state.names import unique

_OPTIONS = ("velocity", "nesterov", "dampening", "weight_decay", "decay")


def capture(optimizer: Any, params: Any = None) -> State:
    """The state of an optimizer.

    Args:
        optimizer: A `polyak.keras.Momentum` or a `keras.optimizers.SGD`.
        params: What gives names to the variables, and to an optimizer without a step its variables: a model, or a dict from
            name to variable. It may be left out for an optimizer that has made a step; names then are the variables' paths.
            Those that a model gives are the paths without the model's own name.
    """
    if not isinstance(optimizer, Momentum | keras.optimizers.SGD):
        advice = " Give its inner_optimizer." if hasattr(optimizer, "inner_optimizer") else ""
        raise TypeError(
            "Of the optimizers of Keras, the states of polyak.keras.Momentum and keras.optimizers.SGD are known; got "
            f"{type(optimizer).__module__}.{type(optimizer).__qualname__}.{advice}"
        )
    named = _named(optimizer, params)
    specs = _specs(optimizer, named)
    slots = _slots(optimizer, named) if optimizer.built else {}
    # w += v in Keras, w -= v here.
    negative = isinstance(optimizer, keras.optimizers.SGD)

    def array(name: str) -> Array:
        if name not in slots:
            return np.zeros(specs[name].shape, specs[name].dtype)
        value = _array(slots[name])
        return np.negative(value) if negative and name.startswith("velocity/") else value

    group = _group(optimizer, tuple(named), has_velocity=any(name.startswith("velocity/") for name in specs))
    return State(Contents(specs, (group,), int(keras.ops.convert_to_numpy(optimizer._iterations))), array)


def restore(optimizer: Momentum, params: Any, values: Values) -> None:
    """Assign to the optimizer's variables, which are made if there was no step yet."""
    if not isinstance(optimizer, Momentum):
        raise TypeError(f"The state of {type(optimizer).__qualname__} is read only; load it into a polyak.keras.Momentum.")
    named = _named(optimizer, params)
    optimizer.build(list(named.values()))
    slots = _slots(optimizer, named)
    new = [(slots[name], keras.ops.convert_to_tensor(array, dtype=array.dtype.name)) for name, array in values.arrays.items()]
    for variable, value in new:
        variable.assign(value)
    if values.count is not None:
        optimizer._iterations.assign(values.count)
    for name, number in values.hyperparameters[0].items():
        setattr(optimizer, name, number)


def _named(optimizer: Any, params: Any) -> dict[str, Any]:
    """Each variable of the optimizer by its name, in the optimizer's order."""
    if params is None:
        if not optimizer.built:
            raise ValueError("The optimizer has made no step yet and knows no variables. Give params, the model for example.")
        return unique(((_path(v), v) for v in optimizer._trainable_variables), "variables")
    given = unique(_pairs(params), "variables")
    if not optimizer.built:
        return given
    names = {id(v): name for name, v in given.items()}
    if nameless := [_path(v) for v in optimizer._trainable_variables if id(v) not in names]:
        raise ValueError(f"params gives no name to these variables of the optimizer: {nameless}.")
    return {names[id(v)]: v for v in optimizer._trainable_variables}


def _path(variable: Any) -> str:
    path: str = getattr(variable, "path", variable.name)  # the tf.Variable of a loop of one's own has none
    return path


def _pairs(params: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(params, Mapping):
        return params.items()
    # The name of the model is not part of the names: whether it is in the paths depends on how the model was made.
    return ((_path(v).removeprefix(f"{params.name}/"), v) for v in params.trainable_variables)


def _kinds(optimizer: Any) -> dict[str, bool]:
    """Each kind of slot that the optimizer keeps, and whether it is in the dtype of the arithmetic."""
    if isinstance(optimizer, Momentum):
        kinds = dict.fromkeys(optimizer._rule.slots, True)
    else:
        kinds = {"velocity": False} if optimizer.momentum else {}
    return (
        kinds
        | ({"average": False} if optimizer.use_ema else {})
        | ({"gradient_sum": False} if optimizer.gradient_accumulation_steps else {})
    )


def _specs(optimizer: Any, named: Mapping[str, Any]) -> dict[str, Spec]:
    return {
        f"{kind}/{name}": Spec(tuple(v.shape), compute_dtype(v.dtype) if computes else keras.backend.standardize_dtype(v.dtype))
        for kind, computes in _kinds(optimizer).items()
        for name, v in named.items()
    }


def _slots(optimizer: Any, named: Mapping[str, Any]) -> dict[str, Any]:
    """The optimizer's variables by the tensors' names."""
    if isinstance(optimizer, Momentum):
        kinds = dict(zip(optimizer._rule.slots, zip(*optimizer._state.slots, strict=True), strict=False))
    else:
        kinds = {"velocity": tuple(optimizer.momentums)} if optimizer.momentum else {}
    if optimizer.use_ema:
        kinds["average"] = tuple(optimizer._model_variables_moving_average)
    if optimizer.gradient_accumulation_steps:
        kinds["gradient_sum"] = tuple(optimizer._accumulated_gradients)
    return {f"{kind}/{name}": slot for kind, slots in kinds.items() for name, slot in zip(named, slots, strict=True)}


def _group(optimizer: Any, names: tuple[str, ...], has_velocity: bool) -> Group:
    if isinstance(optimizer, Momentum):
        options = {name: getattr(optimizer, name) for name in _OPTIONS}
        given_momentum = optimizer._given_momentum
    else:
        decay = "decoupled" if optimizer.weight_decay else None
        options = {"velocity": "step", "nesterov": optimizer.nesterov, "dampening": 0.0, "decay": decay}
        given_momentum = optimizer.momentum
    options |= {
        "velocity": options["velocity"] if has_velocity else None,
        "weight_decay": float(optimizer.weight_decay or 0.0) if isinstance(optimizer.weight_decay, float | int) else 0.0,
    }
    numbers = {name: _number(getattr(optimizer, name)) for name in HYPERPARAMETERS}
    given = {"learning_rate": optimizer._learning_rate, "momentum": given_momentum}
    scheduled = tuple(name for name, value in given.items() if isinstance(value, LearningRateSchedule))
    last = numbers["learning_rate"]
    if "learning_rate" in scheduled:
        last = _number(optimizer._learning_rate(optimizer._iterations - 1))
    return Group(names, options, numbers, scheduled, last)


def _number(value: Any) -> float:
    return float(keras.ops.convert_to_numpy(value))


def _array(variable: Any) -> Array:
    """The numbers of a variable, where they lie if that is host memory: `convert_to_numpy` copies, and JAX keeps the copy."""
    value = variable.value
    if keras.backend.backend() == "torch":
        from polyak.state.torch import array_of

        return array_of(value)
    if keras.backend.backend() == "tensorflow":
        value = keras.ops.convert_to_tensor(value)
    return np.asarray(value)


def of_model(path: Path) -> State:
    """The state of the optimizer in a ".keras" file, from which Keras's loader runs no code that the file brings."""
    path.open("rb").close()  # so that what cannot be read is an OSError
    try:
        model = keras.saving.load_model(path, safe_mode=True)
    except Exception as error:
        raise ValueError(f"{path}: Keras cannot read this as a model: {error}") from error
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None or not optimizer.built:
        raise ValueError(f"{path}: the model was saved without an optimizer that had made a step.")
    return capture(optimizer, model)
