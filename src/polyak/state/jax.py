"""The state of the transformations of `polyak.jax`, and, to be read, of optax.sgd.

A transformation and its state are two objects in JAX: the first has the options, the second the numbers. They are given as a
pair.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from polyak.jax.groups import Groups
from polyak.jax.orthogonalised import Muon
from polyak.jax.transformation import State as JaxState
from polyak.jax.transformation import Transformation
from polyak.methods import MOMENTUM
from polyak.state.contents import COMMON, Array, Contents, Group, Spec, State, numbers_of, rate
from polyak.state.matching import Values
from polyak.state.names import unique


def capture(optimizer: Any, params: Any = None) -> State:
    """The state of a pair (transformation, state), or in a state of optax.sgd.

    Args:
        optimizer: The transformation that a function of `polyak.jax` returned, and the state of it, or of what it is part of
            (`optax.chain`, `masked`, `inject_hyperparams`). Or a state that has one `optax.TraceState` in it.
        params: The parameters, for names where there are no slots. Names are their keys with "/" between them.
    """
    transformation, state = _pair(optimizer)
    if transformation is None:
        return _of_trace(state)
    found = _found(state)
    arrays: dict[str, Any] = {}
    groups: list[Group] = []
    for one, of_one, injected in _parts(transformation, found):
        tree = next(iter(of_one.slots.values()), params)
        taken = {name for group in groups for name in group.names}
        names = tuple(name for name in _named(tree) if name not in taken)  # of a Muon, `params` has its matrices too
        groups += _groups(one, of_one, injected, names)
        arrays |= _arrays(of_one.slots)
    return _state(arrays, tuple(groups), int(found.state.count))


def _parts(transformation: Transformation, found: "_Found") -> list[tuple[Transformation, JaxState, Mapping[str, Any]]]:
    """The transformation with its state and what is injected into it; after it that of a Muon for what is no matrix."""
    parts = [(transformation, found.state, found.injected)]
    if isinstance(transformation, Muon):
        others, of_others = transformation.others, found.state.others
        if not isinstance(others, Transformation):
            if jax.tree.leaves(of_others):
                raise TypeError(
                    "Of a Muon, the state can be saved if its `others` is a transformation that a function of polyak.jax "
                    f"returned, by itself and not in a chain; it is {others!r}."
                )
            return parts
        parts.append((others, of_others, {}))
    return parts


def _groups(
    transformation: Transformation, state: JaxState, injected: Mapping[str, Any], names: tuple[str, ...]
) -> Iterator[Group]:
    """The groups of the transformation that have parameters of these names."""
    arguments = transformation.arguments
    of_names = Groups(arguments["groups"], transformation.method, arguments["decay"])
    indices = of_names.of_names(list(names)) if names else ()
    overrides: list[Mapping[str, Any]] = [{}, *(arguments["groups"] or {}).values()]
    for i in sorted(set(indices)) or [0]:
        own = tuple(name for name, j in zip(names, indices, strict=True) if i == j)
        yield _group(transformation, state, injected, own, overrides[i])


def _group(
    transformation: Transformation,
    state: JaxState,
    injected: Mapping[str, Any],
    names: tuple[str, ...],
    override: Mapping[str, Any],
) -> Group:
    method = transformation.method
    arguments = {**transformation.arguments, **injected, **override}
    given = {name: arguments[name] for name in ("learning_rate", *method.varying)}
    shared = tuple(name for name in given if name in injected and name not in override)
    options = {name: arguments[name] for name in (*method.constants, *method.options, *COMMON) if name != "maximize"}
    scheduled = tuple(name for name, value in given.items() if callable(value))
    return Group(
        names,
        method.name,
        options={name: _plain(x) for name, x in options.items()},
        hyperparameters=numbers_of({name: _at(value, state.count) for name, value in given.items()}),
        scheduled=scheduled,
        last_learning_rate=rate(_last(given["learning_rate"], state, is_injected="learning_rate" in shared)),
        assignable=shared,
        shared=shared,
        slots=tuple(state.slots),
    )


def _plain(value: Any) -> Any:
    """An option as a file has it: of arrays, their number."""
    if isinstance(value, tuple | list):
        return tuple(map(_plain, value))
    return value if isinstance(value, bool | int | str | None) else float(value)


def _last(learning_rate: Any, state: JaxState, *, is_injected: bool) -> float | None:
    """That of the last step, where it is certain: not if it may have been injected anew, or if steps were left out."""
    was_skipped = state.skipped is not None and int(state.skipped) > 0
    if is_injected or int(state.count) == 0 or (callable(learning_rate) and was_skipped):
        return None
    return _at(learning_rate, state.count - 1)


def _in_place_of(old: jax.Array, new: Array) -> jax.Array:
    """On the devices of `old`, and free to move to others if it is, so that what is compiled for it serves."""
    return jax.device_put(new, old.sharding) if old.committed else jnp.asarray(new)


def restore(optimizer: Any, params: Any, values: Values) -> Any:  # noqa: ARG001  (names are those of the state)
    """The new state, in the structure, dtypes and shardings of the old one."""
    transformation, state = _pair(optimizer)
    if transformation is None:
        raise TypeError("A state of optax is read only; load it into that of a transformation of polyak.jax.")
    found = _found(state)
    own, *others = (_restored(of_one, values) for _, of_one, _ in _parts(transformation, found))
    numbers = {name: x for of_group in values.hyperparameters for name, x in of_group.items()}  # the same for all that have it
    return found.rebuilt(own._replace(others=others[0]) if others else own, numbers)


def _restored(state: JaxState, values: Values) -> JaxState:
    slots = {}
    for slot, tree in state.slots.items():
        leaves, structure = jax.tree.flatten(tree)
        arrays = [values.arrays.get(f"{slot}/{name}") for name in _named(tree)]
        placed = [old if new is None else _in_place_of(old, new) for old, new in zip(leaves, arrays, strict=True)]
        slots[slot] = jax.tree.unflatten(structure, placed)
    old = state.count
    count = old if values.count is None else _in_place_of(old, np.asarray(values.count, old.dtype))
    return state._replace(count=count, slots=slots)


@dataclass(frozen=True)
class _Found:
    """The momentum in a state that may have others around it.

    Attributes:
        state: Its own state.
        injected: The hyperparameters that `optax.inject_hyperparams` keeps beside it.
        rebuilt: The whole state with another one in its place, and other values of the injected hyperparameters.
    """

    state: JaxState
    injected: Mapping[str, Any]
    rebuilt: Callable[[JaxState, Mapping[str, float]], Any]


def _found(tree: Any) -> _Found:
    """The only state of momentum in a tree."""
    leaves, treedef = jax.tree.flatten(tree, is_leaf=lambda x: _is_momentum(x) or _is_injecting(x))
    inside = [i for i, leaf in enumerate(leaves) if _is_momentum(leaf) or _is_injecting(leaf)]
    if len(inside) != 1:
        raise ValueError(
            f"The state must have one polyak.jax.State in it; this one has {len(inside)}. Of several, as optax.multi_transform "
            "has them, save and load each by itself."
        )
    (i,) = inside
    inner = _Found(leaves[i], {}, lambda new, _: new) if _is_momentum(leaves[i]) else _injected(leaves[i])

    def rebuilt(new: JaxState, numbers: Mapping[str, float]) -> Any:
        return jax.tree.unflatten(treedef, [*leaves[:i], inner.rebuilt(new, numbers), *leaves[i + 1 :]])

    return _Found(inner.state, inner.injected, rebuilt)


def _is_momentum(x: Any) -> bool:
    return isinstance(x, JaxState)


def _is_injecting(x: Any) -> bool:
    """Whether this is a state of `optax.inject_hyperparams` around momentum."""
    return hasattr(x, "hyperparams_states") and any(map(_is_momentum, jax.tree.leaves(x, is_leaf=_is_momentum)))


def _injected(state: Any) -> _Found:
    if state.hyperparams_states:
        raise ValueError(
            f"optax.inject_hyperparams has schedules for {sorted(state.hyperparams_states)}, whose steps it counts itself. "
            "Give schedules to polyak.jax.momentum, which counts its steps in its state."
        )
    inner = _found(state.inner_state)

    def rebuilt(new: JaxState, numbers: Mapping[str, float]) -> Any:
        now = {
            name: jnp.asarray(numbers[name], old.dtype) if name in numbers else old for name, old in state.hyperparams.items()
        }
        count = jnp.asarray(new.count, state.count.dtype)
        return state._replace(count=count, hyperparams=now, inner_state=inner.rebuilt(new, numbers))

    return _Found(inner.state, {**state.hyperparams, **inner.injected}, rebuilt)


def _at(value: Any, step: jax.Array) -> float:
    return float(value(step) if callable(value) else value)


def _pair(optimizer: Any) -> tuple[Transformation | None, Any]:
    """The transformation and the state; of optax, the state alone."""
    if isinstance(optimizer, tuple) and len(optimizer) == 2 and isinstance(optimizer[0], Transformation):
        return optimizer
    if any(map(_is_momentum, jax.tree.leaves(optimizer, is_leaf=_is_momentum))):
        raise TypeError(
            "This state of polyak.jax does not tell how it was made. Give the pair (transformation, state), with the "
            "transformation that polyak.jax.momentum, say, returned; the state may be that of a chain it is part of."
        )
    return None, optimizer


def _of_trace(tree: Any) -> State:
    """A state of optax.sgd, in which neither the options nor the hyperparameters are found."""

    def is_trace(x: Any) -> bool:
        return isinstance(x, optax.TraceState)

    traces = [x for x in jax.tree.leaves(tree, is_leaf=is_trace) if is_trace(x)]
    if len(traces) != 1:
        raise ValueError(f"The state must have one optax.TraceState in it, as that of optax.sgd has; it has {len(traces)}.")
    options = {"velocity": "gradient", "dampening": 0.0}
    group = Group(tuple(_named(traces[0].trace)), MOMENTUM.name, options)
    return _state(_arrays({"velocity": traces[0].trace}), (group,), count=_count(tree))


def _count(tree: Any) -> int | None:
    """The count of steps that a schedule keeps, if one does."""
    counts = {int(x) for path, x in jax.tree.leaves_with_path(tree) if getattr(path[-1], "name", None) == "count"}
    return counts.pop() if len(counts) == 1 else None


def _named(tree: Any) -> dict[str, Any]:
    """The arrays of a tree by their keys."""
    leaves = jax.tree.leaves_with_path(tree)
    return unique(((jax.tree_util.keystr(path, simple=True, separator="/") or "params", x) for path, x in leaves), "arrays")


def _arrays(slots: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays of the slots by the tensors' names."""
    return {f"{slot}/{name}": x for slot, tree in slots.items() for name, x in _named(tree).items()}


def _state(arrays: Mapping[str, Any], groups: tuple[Group, ...], count: int | None) -> State:
    specs = {name: Spec(x.shape, x.dtype.name) for name, x in arrays.items()}
    return State(Contents(specs, groups, count), lambda name: np.asarray(arrays[name]))
