"""Which saved tensor goes where, and whether it fits. Nothing is written before all of it is known."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from polyak.arguments import check_learning_rate, check_momentum
from polyak.state.contents import HYPERPARAMETERS, OPTIONS, Array, Contents, Group, State, numpy_dtype, split
from polyak.state.names import Rename, renamed
from polyak.state.units import converted, refusal

Transform = Mapping[str, Callable[[Array], Array]] | Callable[[str, Array], Array]

_CHECKS = {"learning_rate": check_learning_rate, "momentum": check_momentum}


@dataclass(frozen=True)
class Values:
    """What an optimizer is to take over.

    Attributes:
        arrays: The numbers of the slots by the tensors' names, in the optimizer's shapes and dtypes.
        hyperparameters: For each group of the optimizer, the numbers that it takes over.
        count: How many steps were made; None leaves the optimizer's own count.
    """

    arrays: Mapping[str, Array]
    hyperparameters: tuple[Mapping[str, float], ...]
    count: int | None


@dataclass(frozen=True)
class Report:
    """What `load` did.

    Attributes:
        loaded: The tensors that the optimizer has taken over, by its own names: `slot/parameter`.
        left: What does not fit, a line each; empty unless `strict=False`.
        notes: What differs without being state, a line each: options of the optimizer that are not those of the saved one, and
            hyperparameters that it keeps.
        state: The new state of an optimizer of JAX, which has nothing to be written into; None for all others.
    """

    loaded: tuple[str, ...]
    left: tuple[str, ...]
    notes: tuple[str, ...]
    state: Any = None

    def with_state(self, state: Any) -> "Report":
        """The same with the new state."""
        return replace(self, state=state)


def matched(
    source: State, target: Contents, *, strict: bool, rename: Rename | None, transform: Transform | None
) -> tuple[Values, Report]:
    """The numbers for each slot of an optimizer.

    Args:
        source: The saved state.
        target: The present state of the optimizer.
        strict: Everything must fit.
        rename: The optimizer's name for each saved parameter.
        transform: What is done to the arrays, by the optimizer's name of the parameter.

    Raises:
        ValueError: All that does not fit, in one error.
    """
    new = renamed([name for group in source.contents.groups for name in group.names], rename)
    groups = [replace(group, names=tuple(new[name] for name in group.names)) for group in source.contents.groups]
    group_of = {name: group for group in groups for name in group.names}
    own_group_of = {name: group for group in target.groups for name in group.names}
    from_name = {f"{slot}/{new[parameter]}": f"{slot}/{parameter}" for slot, parameter in map(split, source.contents.tensors)}
    transforms = _transforms(transform, {split(name)[1] for name in target.tensors})

    left = [f"{name}: missing, the optimizer has {spec}" for name, spec in target.tensors.items() if name not in from_name]
    left += [
        f"{name}: unexpected, the optimizer has no such slot or parameter ({source.contents.tensors[old]} saved)"
        for name, old in from_name.items()
        if name not in target.tensors
    ]
    fits = {}
    for name, spec in target.tensors.items():
        if name not in from_name:
            continue
        slot, parameter = split(name)
        saved = source.contents.tensors[from_name[name]]
        why = refusal(group_of[parameter], own_group_of[parameter]) if slot == "velocity" else None
        if why:
            left.append(f"{name}: cannot be converted: {why}")
        elif not transforms(parameter) and (why := _misfit(saved.shape, saved.dtype, spec.shape, spec.dtype)):
            left.append(f"{name}: {why}")
        else:
            fits[name] = from_name[name]
    moved, counting = _count(source.contents, target)
    left += counting
    _insist(left, strict)

    arrays = {}
    for name, old in fits.items():
        slot, parameter = split(name)
        array = source.array(old)
        if slot == "velocity":
            array = converted(array, group_of[parameter], own_group_of[parameter])
        if change := transforms(parameter):
            array = _transformed(change, array, name)
        spec = target.tensors[name]
        if why := _misfit(array.shape, array.dtype.name, spec.shape, spec.dtype):
            left.append(f"{name}: {why}, after transform")
        else:
            arrays[name] = array.astype(numpy_dtype(spec.dtype), copy=False)
    _insist(left, strict)

    taken, notes = [], []
    if source.contents.count is None and target.count is not None:
        notes.append(f"step count: stays {target.count}, not in the saved state")
    for group in target.groups:
        numbers, said = _hyperparameters(group, [group_of[name] for name in group.names if name in group_of])
        taken.append(numbers)
        notes += said
    return Values(arrays, tuple(taken), moved), Report(tuple(arrays), tuple(left), tuple(notes))


def _insist(left: list[str], strict: bool) -> None:
    if left and strict:
        raise ValueError(
            "The state does not fit the optimizer, which stays as it was:\n  "
            + "\n  ".join(left)
            + "\nrename and transform make names and arrays fit; strict=False loads what does."
        )


def _transforms(transform: Transform | None, names: set[str]) -> Callable[[str], Callable[[Array], Array] | None]:
    """For a parameter's name, what is done to its arrays."""
    if transform is None:
        return lambda name: None  # noqa: ARG005
    if not isinstance(transform, Mapping):
        return lambda name: lambda array: transform(name, array)
    if unknown := sorted(transform.keys() - names):
        raise ValueError(f"transform has names that the optimizer does not have: {unknown}. It has {sorted(names)}.")
    return transform.get


def _transformed(change: Callable[[Array], Array], array: Array, name: str) -> Array:
    try:
        result = change(array)
    except Exception as error:
        raise ValueError(f"transform failed at {name}, an array of {array.dtype} {array.shape}: {error}") from error
    return np.asarray(result)


def _misfit(shape: tuple[int, ...], dtype: str, own_shape: tuple[int, ...], own_dtype: str) -> str | None:
    if shape != own_shape:
        return f"saved with shape {shape}, the optimizer has {own_shape}"
    if dtype != own_dtype and not np.can_cast(numpy_dtype(dtype), numpy_dtype(own_dtype), "safe"):
        return f"saved as {dtype}, which the optimizer's {own_dtype} cannot hold exactly; a transform may round it"
    return None


def _count(source: Contents, target: Contents) -> tuple[int | None, list[str]]:
    """The count of steps to take over, and what is wrong where there is none."""
    followers = sorted({name for group in target.groups for name in group.scheduled})
    if source.count is None and followers:
        return None, [f"step count: not in the saved state, and the optimizer's {' and '.join(followers)} follows a schedule"]
    return source.count, []


def _hyperparameters(own: Group, saved: list[Group]) -> tuple[dict[str, float], list[str]]:
    """The numbers that a group takes over, and a note for each that it does not and for each option that differs."""
    taken, notes = {}, []
    for name in HYPERPARAMETERS:
        values = {group.hyperparameters[name] for group in saved if name in group.hyperparameters}
        mine = own.hyperparameters.get(name)
        if not values or values == {mine}:
            continue
        said = " and ".join(map(str, sorted(values)))
        if name in own.scheduled:
            notes.append(f"{name}: follows the optimizer's schedule, saved {said}")
            continue
        if name == "momentum" and own.velocity is None:
            why = "the optimizer was made with momentum=0 and keeps no velocity"
        elif name not in own.assignable:
            why = "it is fixed when the optimizer is made"
        elif len(values) > 1:
            why = "those of the saved groups differ"
        elif name == "learning_rate" and "average" in (units := {own.velocity, *(group.velocity for group in saved)}) > {
            "average"
        }:
            why = f"beside velocities of the units {sorted(map(str, units))} it means another step"
        else:
            taken[name] = _CHECKS[name](values.pop())
            continue
        notes.append(f"{name}: stays {mine}, saved {said}: {why}")
    for option in OPTIONS:
        if option not in own.options:
            continue
        others = [group.options[option] for group in saved if option in group.options]
        if different := [x for x in others if x != own.options[option]]:
            converts = option == "velocity" and None not in (own.velocity, different[0])
            notes.append(
                f"velocity: converted from {different[0]!r} to {own.velocity!r}"
                if converts
                else f"{option}: the optimizer has {own.options[option]!r}, the saved one had {different[0]!r}"
            )
    return taken, notes
