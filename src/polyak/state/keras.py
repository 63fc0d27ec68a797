"""The state of the optimizers of `polyak.keras`, and, to be read, of keras.optimizers.SGD."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras.optimizers.schedules import LearningRateSchedule

from polyak.keras.groups import path_of
from polyak.keras.muon import Muon
from polyak.keras.optimizer import Optimizer
from polyak.keras.values import compute_dtype
from polyak.methods import MOMENTUM
from polyak.state.contents import COMMON, KNOWN, Array, Contents, Group, Spec, State, numbers_of, rate
from polyak.state.frontends import check_trained
from polyak.state.matching import Values
from polyak.state.names import unique


def capture(optimizer: Any, params: Any = None) -> State:
    """The state of an optimizer.

    Args:
        optimizer: An optimizer of `polyak.keras` or a `keras.optimizers.SGD`.
        params: What gives names to the variables, and to an optimizer without a step its variables: a model, or a dict from
            name to variable. It may be left out for an optimizer that has made a step; names then are the variables' paths.
            Those that a model gives are the paths without the model's own name.
    """
    if not isinstance(optimizer, Optimizer | keras.optimizers.SGD):
        advice = " Give its inner_optimizer." if hasattr(optimizer, "inner_optimizer") else ""
        raise TypeError(
            f"Of Keras's optimizers, the states of polyak.keras ({', '.join(KNOWN)}) and keras.optimizers.SGD are known; got "
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

    if isinstance(optimizer, Optimizer):
        groups = tuple(group for one, own in _parts(optimizer, named) for group in _groups(optimizer, one, own))
    else:
        groups = (_group_of_sgd(optimizer, tuple(named)),)
    return State(Contents(specs, groups, int(keras.ops.convert_to_numpy(optimizer._iterations))), array)


def restore(optimizer: Optimizer, params: Any, values: Values) -> None:
    """Assign to the optimizer's variables, which are made if there was no step yet."""
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"The state of {type(optimizer).__qualname__} is read only; load it into a polyak.keras.Momentum.")
    named = _named(optimizer, params)
    optimizer.build(list(named.values()))
    slots = _slots(optimizer, named)
    new = [(slots[name], keras.ops.convert_to_tensor(array, dtype=array.dtype.name)) for name, array in values.arrays.items()]
    for variable, value in new:
        variable.assign(value)
    if values.count is not None:
        optimizer._iterations.assign(values.count)
    each = zip(values.hyperparameters, values.last_learning_rates, strict=True)
    for one, own in _parts(optimizer, named):
        one._last_learning_rate = None
        for i, (numbers, last) in zip(_indices(one, own), each, strict=False):
            for name, number in numbers.items():  # the same for all groups that have it
                setattr(one, name, number)
            if i == 0:
                one._last_learning_rate = last


def _parts(optimizer: Optimizer, named: Mapping[str, Any]) -> list[tuple[Optimizer, Mapping[str, Any]]]:
    """Who updates which variables: the optimizer, and after it the one that a Muon has for what is no matrix."""
    if not isinstance(optimizer, Muon):
        return [(optimizer, named)]
    decided = optimizer._decided(list(named.values()))  # it may not be built yet
    own = {name: v for (name, v), role in zip(named.items(), decided, strict=True) if role.matrices}
    return [(optimizer, own), (optimizer.others, {name: v for name, v in named.items() if name not in own})]


def _named(optimizer: Any, params: Any) -> dict[str, Any]:
    """Each variable of the optimizer by its name, in the optimizer's order."""
    if params is None:
        if not optimizer.built:
            raise ValueError("The optimizer has made no step yet and knows no variables. Give params, the model for example.")
        return unique(((path_of(v), v) for v in optimizer._trainable_variables), "variables")
    given = unique(_pairs(params), "variables")
    if not optimizer.built:
        return given
    names = {id(v): name for name, v in given.items()}
    if nameless := [path_of(v) for v in optimizer._trainable_variables if id(v) not in names]:
        raise ValueError(f"params gives no name to these variables of the optimizer: {nameless}.")
    return {names[id(v)]: v for v in optimizer._trainable_variables}


def _pairs(params: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(params, Mapping):
        return params.items()
    # The name of the model is not part of the names: whether it is in the paths depends on how the model was made.
    return ((path_of(v).removeprefix(f"{params.name}/"), v) for v in params.trainable_variables)


def _kinds(optimizer: Any, named: Mapping[str, Any]) -> dict[str, tuple[Mapping[str, Any], bool]]:
    """Each kind of slot that the optimizer keeps: of which variables, and whether it is in the dtype of the arithmetic."""
    kinds: dict[str, tuple[Mapping[str, Any], bool]] = {}
    if isinstance(optimizer, Optimizer):
        for one, own in _parts(optimizer, named):
            for slot in one._rule.slots:
                kinds[slot] = {**kinds.get(slot, ({}, True))[0], **own}, True
    elif optimizer.momentum:
        kinds["velocity"] = dict(named), False
    if optimizer.use_ema:
        kinds["average"] = dict(named), False
    if optimizer.gradient_accumulation_steps:
        kinds["gradient_sum"] = dict(named), False
    return kinds


def _specs(optimizer: Any, named: Mapping[str, Any]) -> dict[str, Spec]:
    return {
        f"{kind}/{name}": Spec(tuple(v.shape), compute_dtype(v.dtype) if computes else keras.backend.standardize_dtype(v.dtype))
        for kind, (of, computes) in _kinds(optimizer, named).items()
        for name, v in of.items()
    }


def _slots(optimizer: Any, named: Mapping[str, Any]) -> dict[str, Any]:
    """The optimizer's variables by the tensors' names."""
    of_all: dict[str, Any] = {}
    found: dict[str, Any] = {}
    if isinstance(optimizer, Optimizer):
        for name, update, slots in zip(named, optimizer._state.updates, optimizer._state.slots, strict=True):
            found |= {f"{kind}/{name}": slot for kind, slot in zip(update.rule.slots, slots, strict=True)}
    elif optimizer.momentum:
        of_all["velocity"] = optimizer.momentums
    if optimizer.use_ema:
        of_all["average"] = optimizer._model_variables_moving_average
    if optimizer.gradient_accumulation_steps:
        of_all["gradient_sum"] = optimizer._accumulated_gradients
    return found | {f"{kind}/{name}": x for kind, each in of_all.items() for name, x in zip(named, each, strict=True)}


def _indices(optimizer: Optimizer, named: Mapping[str, Any]) -> list[int]:
    """The groups of the optimizer that have variables, as it counts them: 0 is what is in none."""
    return sorted(set(optimizer._groups.of(list(named.values()))))


def _groups(whole: Optimizer, optimizer: Optimizer, named: Mapping[str, Any]) -> Iterator[Group]:
    """The groups of an optimizer that is all of `whole`, or a part of it."""
    found = optimizer._groups.of(list(named.values()))
    overrides = [{}, *optimizer._groups.overrides.values()]
    left_out = whole._guard is not None and whole._guard.skipped > 0
    for i in _indices(optimizer, named):
        names = tuple(name for name, j in zip(named, found, strict=True) if i == j)
        yield _group(optimizer, names, overrides[i], None if left_out else _last_learning_rate(optimizer, overrides[i]))


def _group(optimizer: Optimizer, names: tuple[str, ...], override: Mapping[str, Any], last: float | None) -> Group:
    method = KNOWN[optimizer._method.name]  # a Muon's own has options that are no state
    given = {"learning_rate": optimizer._learning_rate, **{name: optimizer._given[name] for name in method.varying}} | {
        name: x for name, x in override.items() if name != "weight_decay"
    }
    scheduled = tuple(name for name, x in given.items() if isinstance(x, LearningRateSchedule))
    own = tuple(name for name in given if name not in override)
    return Group(
        names,
        method.name,
        options={name: getattr(optimizer, name) for name in (*method.constants, *method.options, *COMMON) if name != "maximize"}
        | {"weight_decay": float(override.get("weight_decay", optimizer.weight_decay) or 0.0)},
        hyperparameters=numbers_of(
            {name: _number(getattr(optimizer, name)) for name in own}
            | {name: _at(x, optimizer._iterations) for name, x in given.items() if name not in own}
        ),
        scheduled=scheduled,
        last_learning_rate=rate(last),
        assignable=tuple(name for name in own if name not in scheduled and name in optimizer._rule.hyperparameters),
        shared=own,
        slots=optimizer._rule.slots,
    )


def _last_learning_rate(optimizer: Optimizer, override: Mapping[str, Any]) -> float | None:
    """That of the last step that was made, where it is certain which one that was; no step must have been left out."""
    if "learning_rate" not in override:
        return optimizer._last_learning_rate
    if int(_number(optimizer._iterations)) == optimizer._remembered_at:  # the state was loaded, perhaps from another optimizer
        return None
    return _at(override["learning_rate"], optimizer._iterations - 1)


def _group_of_sgd(optimizer: keras.optimizers.SGD, names: tuple[str, ...]) -> Group:
    """Keras keeps no record of a number that was assigned since the last step, which only a schedule tells."""
    follows = isinstance(optimizer._learning_rate, LearningRateSchedule)
    weight_decay = float(optimizer.weight_decay or 0.0)
    options = {"velocity": "step", "nesterov": optimizer.nesterov, "dampening": 0.0, "cautious": False, "cautious_decay": False}
    return Group(
        names,
        MOMENTUM.name,
        options | {"weight_decay": weight_decay, "decay": "decoupled" if weight_decay else None},
        numbers_of({"learning_rate": _number(optimizer.learning_rate), "momentum": float(optimizer.momentum)}),
        scheduled=("learning_rate",) if follows else (),
        last_learning_rate=rate(_at(optimizer._learning_rate, optimizer._iterations - 1)) if follows else None,
    )


def _at(value: Any, step: Any) -> float:
    return _number(value(step) if isinstance(value, LearningRateSchedule) else value)


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
    check_trained(optimizer)
    return capture(optimizer, model)
