"""Which saved tensor goes where, and whether it fits. Nothing is written before all of it is known."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from polyak.state.contents import Array, Contents, Group, Spec, State, numpy_dtype, split
from polyak.state.hyperparameters import differences, taken_over
from polyak.state.names import Rename, renamed
from polyak.state.units import converted, last_learning_rate, refusal

Transform = Mapping[str, Callable[[Array], Array]] | Callable[[str, Array], Array]


@dataclass(frozen=True)
class Values:
    """What an optimizer is to take over.

    Attributes:
        arrays: The numbers of the slots by the tensors' names, in the optimizer's shapes and dtypes.
        hyperparameters: For each group of the optimizer, the numbers that it takes over.
        last_learning_rates: For each group of the optimizer, the learning rate of the last step, None where it is not known.
        count: How many steps were made; None leaves the optimizer's own count.
    """

    arrays: Mapping[str, Array]
    hyperparameters: tuple[Mapping[str, float], ...]
    last_learning_rates: tuple[float | None, ...]
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
    pairs = _Pairs.of(source.contents, target, rename)
    transforms = _transforms(transform, {split(name)[1] for name in target.tensors})
    left = [*pairs.other_methods(), *pairs.without_partner(source.contents, target)]
    fits = []
    for name, spec in pairs.both(target).items():
        saved = source.contents.tensors[pairs.tensors[name]]
        at_rest = source.contents.count == 0 and not source.array(pairs.tensors[name]).any()
        if not at_rest and (why := pairs.refusal(name)):
            left.append(f"{name}: cannot be converted: {why}")
        elif not transforms(split(name)[1]) and (why := _misfit(saved, spec)):
            left.append(f"{name}: {why}")
        else:
            fits.append((name, at_rest))
    moved, counting = _count(source.contents, target)
    left += counting
    _insist(left, strict)

    arrays = {}
    for name, at_rest in fits:
        array = source.array(pairs.tensors[name])
        if not at_rest:
            array = pairs.converted(name, array)
        if change := transforms(split(name)[1]):
            array = _transformed(change, array, name)
        spec = target.tensors[name]
        if why := _misfit(Spec(array.shape, array.dtype.name), spec):
            left.append(f"{name}: {why}, after transform")
        else:
            arrays[name] = array.astype(numpy_dtype(spec.dtype), copy=False)
    _insist(left, strict)

    taken, last, notes = [], [], []
    if source.contents.count is None and target.count is not None:
        notes.append(f"step count: stays {target.count}, not in the saved state")
    for group in target.groups:
        saved_groups = pairs.saved_of(group)
        # Of a number that is one for several groups, what was saved of all of them counts. Those of a Muon and of the
        # optimizer that it has for what is no matrix are of two methods.
        alike = [other for other in target.groups if other.method == group.method]
        of_shared = {
            name: [saved for other in alike if name in other.shared for saved in pairs.saved_of(other)] for name in group.shared
        }
        numbers, said = taken_over(group, saved_groups, of_shared)
        taken.append(numbers)
        notes += [note for note in said + differences(group, saved_groups) if note not in notes]
        rates = {last_learning_rate(saved, group) for saved in saved_groups}
        last.append(rates.pop() if len(rates) == 1 and not left else None)
    return Values(arrays, tuple(taken), tuple(last), moved), Report(tuple(arrays), tuple(left), tuple(notes))


@dataclass(frozen=True)
class _Pairs:
    """What belongs to what.

    Attributes:
        saved: The saved group of each parameter, by the optimizer's name of it.
        own: The optimizer's group of each of its parameters.
        tensors: The saved name of each saved tensor, by the optimizer's name of it.
    """

    saved: Mapping[str, Group]
    own: Mapping[str, Group]
    tensors: Mapping[str, str]

    @classmethod
    def of(cls, source: Contents, target: Contents, rename: Rename | None) -> "_Pairs":
        new = renamed([name for group in source.groups for name in group.names], rename)
        return cls(
            saved={new[name]: group for group in source.groups for name in group.names},
            own={name: group for group in target.groups for name in group.names},
            tensors={f"{slot}/{new[name]}": f"{slot}/{name}" for slot, name in map(split, source.tensors)},
        )

    def other_methods(self) -> list[str]:
        """What is wrong where parameters were saved by another method."""
        by_methods: dict[tuple[str, str], list[str]] = {}
        for name in filter(self._is_of_another, self.own):
            by_methods.setdefault((self.saved[name].method, self.own[name].method), []).append(name)
        return [
            f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: saved by {theirs}, and the optimizer is "
            f"{mine}, whose slots mean something else; make the optimizer with {theirs}"
            for (theirs, mine), names in by_methods.items()
        ]

    def without_partner(self, source: Contents, target: Contents) -> list[str]:
        """What is wrong with tensors that are only here or only there."""
        missing = [
            f"{name}: missing, the optimizer has {spec}"
            for name, spec in target.tensors.items()
            if name not in self.tensors and not self._is_of_another(split(name)[1])
        ]
        unexpected = [
            f"{name}: unexpected, the optimizer has no such slot or parameter ({source.tensors[old]} saved)"
            for name, old in self.tensors.items()
            if name not in target.tensors and not self._is_of_another(split(name)[1])
        ]
        return missing + unexpected

    def both(self, target: Contents) -> dict[str, Spec]:
        """The optimizer's tensors that were saved by its method."""
        return {
            name: spec
            for name, spec in target.tensors.items()
            if name in self.tensors and not self._is_of_another(split(name)[1])
        }

    def saved_of(self, own: Group) -> list[Group]:
        """The saved group of each parameter of a group, where it is of the same method."""
        return [self.saved[name] for name in own.names if name in self.saved and not self._is_of_another(name)]

    def refusal(self, tensor: str) -> str | None:
        """Why the numbers cannot be converted, or None."""
        slot, name = split(tensor)
        return refusal(self.saved[name], self.own[name]) if slot == "velocity" else None

    def converted(self, tensor: str, array: Array) -> Array:
        """The numbers as the optimizer has them."""
        slot, name = split(tensor)
        return converted(array, self.saved[name], self.own[name]) if slot == "velocity" else array

    def _is_of_another(self, name: str) -> bool:
        return name in self.saved and name in self.own and self.saved[name].method != self.own[name].method


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
        return lambda name: None  # noqa: ARG005  (as those of the user are called)
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


def _misfit(saved: Spec, own: Spec) -> str | None:
    if saved.shape != own.shape:
        return f"saved with shape {saved.shape}, the optimizer has {own.shape}"
    if saved.dtype != own.dtype and not np.can_cast(numpy_dtype(saved.dtype), numpy_dtype(own.dtype), "safe"):
        return f"saved as {saved.dtype}, which the optimizer's {own.dtype} cannot hold exactly; a transform may round it"
    return None


def _count(source: Contents, target: Contents) -> tuple[int | None, list[str]]:
    """The count of steps to take over, and what is wrong where there is none."""
    followers = sorted({name for group in target.groups for name in group.scheduled})
    if source.count is None and followers:
        return None, [f"step count: not in the saved state, and the optimizer's {' and '.join(followers)} follows a schedule"]
    return source.count, []
