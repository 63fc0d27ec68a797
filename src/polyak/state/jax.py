"""The state of `polyak.jax.momentum`, and, to be read, of optax.sgd.

A transformation and its state are two objects in JAX: the first has the options, the second the numbers. They are given as a
pair.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from polyak.jax import MomentumState
from polyak.jax.momentum import Transformation
from polyak.state.contents import HYPERPARAMETERS, Array, Contents, Group, Spec, State
from polyak.state.matching import Values
from polyak.state.names import unique


def capture(optimizer: Any, params: Any = None) -> State:
    """The state of a pair (transformation, state), or in a state of optax.sgd.

    Args:
        optimizer: The transformation that `polyak.jax.momentum` returned, and the state of it, or of what it is part of
            (`optax.chain`, `masked`, `inject_hyperparams`). Or a state that has one `optax.TraceState` in it.
        params: The parameters, for names where there is no velocity. Names are their keys with "/" between them.
    """
    transformation, state = _pair(optimizer)
    if transformation is None:
        return _of_trace(state)
    found = _found(state)
    velocity = _named(found.state.velocity)
    names = tuple(velocity) or tuple(_named(params))
    numbers = {name: _at(transformation, found, name, 0) for name in HYPERPARAMETERS}
    group = Group(
        names,
        options=_options(transformation.arguments, remembers=found.state.velocity is not None),
        hyperparameters=numbers,
        scheduled=tuple(name for name in HYPERPARAMETERS if callable(transformation.arguments[name])),
        last_learning_rate=_at(transformation, found, "learning_rate", -1),
        assignable=tuple(found.injected),
    )
    return _state(velocity, group, int(found.state.count))


def _in_place_of(old: jax.Array, new: Array) -> jax.Array:
    """On the devices of `old`, and free to move to others if it is, so that what is compiled for it serves."""
    return jax.device_put(new, old.sharding) if old.committed else jnp.asarray(new)


def _options(arguments: Mapping[str, Any], *, remembers: bool) -> dict[str, Any]:
    options = {name: arguments[name] for name in ("velocity", "nesterov", "decay")}
    options |= {name: float(arguments[name]) for name in ("dampening", "weight_decay")}
    return options if remembers else options | {"velocity": None}


def restore(optimizer: Any, params: Any, values: Values) -> Any:  # noqa: ARG001  (names are those of the state)
    """The new state, in the structure, dtypes and shardings of the old one."""
    transformation, state = _pair(optimizer)
    if transformation is None:
        raise TypeError("A state of optax is read only; load it into that of a transformation of polyak.jax.")
    found = _found(state)
    leaves, structure = jax.tree.flatten(found.state.velocity)
    arrays = [values.arrays.get(f"velocity/{name}") for name in _named(found.state.velocity)]
    placed = [old if new is None else _in_place_of(old, new) for old, new in zip(leaves, arrays, strict=True)]
    old = found.state.count
    count = old if values.count is None else _in_place_of(old, np.asarray(values.count, old.dtype))
    return found.rebuilt(MomentumState(count, jax.tree.unflatten(structure, placed)), values.hyperparameters[0])


@dataclass(frozen=True)
class _Found:
    """The momentum in a state that may have others around it.

    Attributes:
        state: Its own state.
        injected: The hyperparameters that `optax.inject_hyperparams` keeps beside it.
        rebuilt: The whole state with another one in its place, and other values of the injected hyperparameters.
    """

    state: MomentumState
    injected: Mapping[str, Any]
    rebuilt: Callable[[MomentumState, Mapping[str, float]], Any]


def _found(tree: Any) -> _Found:
    """The only state of momentum in a tree."""
    leaves, treedef = jax.tree.flatten(tree, is_leaf=lambda x: _is_momentum(x) or _is_injecting(x))
    inside = [i for i, leaf in enumerate(leaves) if _is_momentum(leaf) or _is_injecting(leaf)]
    if len(inside) != 1:
        raise ValueError(
            f"The state must have one momentum in it; this one has {len(inside)}. Of several, as optax.multi_transform has "
            "them, save and load each MomentumState by itself."
        )
    (i,) = inside
    inner = _Found(leaves[i], {}, lambda new, _: new) if _is_momentum(leaves[i]) else _injected(leaves[i])

    def rebuilt(new: MomentumState, numbers: Mapping[str, float]) -> Any:
        return jax.tree.unflatten(treedef, [*leaves[:i], inner.rebuilt(new, numbers), *leaves[i + 1 :]])

    return _Found(inner.state, inner.injected, rebuilt)


def _is_momentum(x: Any) -> bool:
    return isinstance(x, MomentumState)


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

    def rebuilt(new: MomentumState, numbers: Mapping[str, float]) -> Any:
        now = {
            name: jnp.asarray(numbers[name], old.dtype) if name in numbers else old for name, old in state.hyperparams.items()
        }
        count = jnp.asarray(new.count, state.count.dtype)
        return state._replace(count=count, hyperparams=now, inner_state=inner.rebuilt(new, numbers))

    return _Found(inner.state, {**state.hyperparams, **inner.injected}, rebuilt)


def _at(transformation: Transformation, found: _Found, name: str, shift: int) -> float:
    """The value of a hyperparameter at the next step, or `shift` steps from it."""
    value = found.injected.get(name, transformation.arguments[name])
    return float(value(jnp.maximum(found.state.count + shift, 0)) if callable(value) else value)


def _pair(optimizer: Any) -> tuple[Transformation | None, Any]:
    """The transformation and the state; of optax, the state alone."""
    if isinstance(optimizer, tuple) and len(optimizer) == 2 and isinstance(optimizer[0], Transformation):
        return optimizer
    if any(map(_is_momentum, jax.tree.leaves(optimizer, is_leaf=_is_momentum))):
        raise TypeError(
            "This state of polyak.jax does not tell how it was made. Give the pair (transformation, state), with the "
            "transformation that polyak.jax.momentum returned; the state may be that of a chain it is part of."
        )
    return None, optimizer


def _of_trace(tree: Any) -> State:
    """A state of optax.sgd, in which neither the options nor the hyperparameters are found."""

    def is_trace(x: Any) -> bool:
        return isinstance(x, optax.TraceState)

    traces = [x for x in jax.tree.leaves(tree, is_leaf=is_trace) if is_trace(x)]
    if len(traces) != 1:
        raise ValueError(f"The state must have one optax.TraceState in it, as that of optax.sgd has; it has {len(traces)}.")
    velocity = _named(traces[0].trace)
    return _state(velocity, Group(tuple(velocity), {"velocity": "gradient", "dampening": 0.0}), count=_count(tree))


def _count(tree: Any) -> int | None:
    """The count of steps that a schedule keeps, if one does."""
    counts = {int(x) for path, x in jax.tree.leaves_with_path(tree) if getattr(path[-1], "name", None) == "count"}
    return counts.pop() if len(counts) == 1 else None


def _named(tree: Any) -> dict[str, Any]:
    """The arrays of a tree by their keys."""
    leaves = jax.tree.leaves_with_path(tree)
    return unique(((jax.tree_util.keystr(path, simple=True, separator="/") or "params", x) for path, x in leaves), "arrays")


def _state(velocity: Mapping[str, Any], group: Group, count: int | None) -> State:
    specs = {f"velocity/{name}": Spec(x.shape, x.dtype.name) for name, x in velocity.items()}

    def array(name: str) -> Array:
        return np.asarray(velocity[name.removeprefix("velocity/")])

    return State(Contents(specs, (group,), count), array)
