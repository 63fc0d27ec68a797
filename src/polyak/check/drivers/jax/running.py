"""A gradient transformation in use."""

import copy
import io
import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from polyak.check.drivers.jax.making import Plan
from polyak.check.drivers.reuse import memory
from polyak.check.drivers.running import asked
from polyak.check.trial import Array, Gradient, NotOffered, Refused, Resume, Trial

Tree = Any
Params = OrderedDict[str, jax.Array]  # unlike a dict, it is flattened in its own order


@contextmanager
def precision(*trials: Trial) -> Iterator[None]:
    """float64 where a trial needs it, and only as long."""
    with jax.enable_x64(any(w.dtype == np.float64 for trial in trials for w in trial.weights.values())):
        yield


class Program:
    """A transformation, and its step with the application of the updates.

    Args:
        made: The transformation.
        compiled: Whether the step is under one `jax.jit`.
        closure: Whether the loss, its gradient and its function are given to `update`.
    """

    def __init__(self, made: Any, *, compiled: bool, closure: bool) -> None:
        self.made = made
        self.closure = closure
        self.traces = 0
        self.compiled = compiled
        self.step: Callable[[Params, Tree, Params], tuple[Params, Tree]] = jax.jit(self._step) if compiled else self._step
        self.memory = memory((made.init, made.update))

    def is_new(self) -> bool:
        """Whether the transformation remembers nothing of what was done with it."""
        return memory((self.made.init, self.made.update)) == self.memory

    def _step(self, params: Params, state: Tree, grads: Params) -> tuple[Params, Tree]:
        self.traces += 1
        extra: dict[str, Any] = {}
        if self.closure:
            extra = {"value": _loss(params, grads), "grad": grads, "value_fn": lambda params: _loss(params, grads)}
        updates, state = self.made.update(grads, state, params, **extra)
        return optax.apply_updates(params, updates), state


def _loss(params: Params, grads: Params) -> jax.Array:
    """A loss that is linear in the weights, which has the same gradients wherever they are taken."""
    return jnp.asarray(sum(jnp.sum(params[name] * g) for name, g in grads.items()))


class Transformation:
    """See `polyak.check.drivers.running.Instance`.

    Args:
        program: Its step.
        plan: How such a transformation is made.
        params: The weights.
        state: Its state.
        another: From the order of the parameters, a program of a new transformation.
    """

    def __init__(self, program: Program, plan: Plan, params: Params, state: Tree, another: Callable[[], Program]) -> None:
        self.program, self.plan, self.params, self.state_tree, self.another = program, plan, params, state, another
        self._grads: Params = OrderedDict()
        self._traced = program.traces

    @property
    def compilations(self) -> int | None:
        """How often the step was compiled, at least once if an earlier trial had it compiled already."""
        return max(self.program.traces - self._traced, min(self._traced, 1)) if self.program.compiled else None

    def weights(self) -> Mapping[str, Array]:
        """See `Instance`."""
        return {name: np.array(w) for name, w in self.params.items()}

    def put(self, weights: Mapping[str, Array]) -> None:
        """See `Instance`."""
        self.params = OrderedDict((name, jnp.asarray(weights[name])) for name in self.params)

    def change(self, options: Mapping[str, object]) -> None:
        """See `Instance`."""
        with asked():
            self.state_tree = changed(self.state_tree, options)

    def step(self, gradients: Mapping[str, Gradient]) -> None:
        """See `Instance`."""
        if missing := [name for name in self.params if gradients.get(name) is None]:
            raise NotOffered(f"In JAX every parameter has a gradient; {missing[0]} has none.")
        self._grads = OrderedDict((name, jnp.asarray(gradients[name])) for name in self.params)
        with asked():
            self.params, self.state_tree = self.program.step(self.params, self.state_tree, self._grads)

    def again(self, resume: Resume) -> "Transformation":
        """See `Instance`. There is no instance but the state."""
        if resume.how == "load":
            params = OrderedDict((name, self.params[name]) for name in resume.order or self.params)
            program = self.another()
            with asked():
                state = loaded(program.made.init(params), on_disk(self.state_tree))
            return Transformation(program, self.plan, params, state, self.another)
        with asked():
            state = copy.deepcopy(self.state_tree) if resume.how == "copy" else pickle.loads(pickle.dumps(self.state_tree))  # noqa: S301  (our own)
        return Transformation(self.program, self.plan, OrderedDict(self.params), state, self.another)

    def left(self) -> Mapping[str, Gradient]:
        """See `Instance`. Nothing can be written to."""
        return {name: np.array(g) for name, g in self._grads.items()}

    def state(self) -> Mapping[str, Mapping[str, Array]]:
        """See `Instance`."""
        found: dict[str, dict[str, Array]] = {name: {} for name in self.params}
        for path, leaf in jax.tree_util.tree_leaves_with_path(self.state_tree):
            keys = [getattr(key, "key", None) for key in path]
            of = next((name for name in self.params if name in keys), "")
            slot = "".join(str(key) for key, name in zip(path, keys, strict=True) if not of or name != of)
            found.setdefault(of, {})[slot.lstrip(".")] = _array(leaf)
        return found


def changed(state: Tree, options: Mapping[str, object]) -> Tree:
    """A state in which hyperparameters of `optax.inject_hyperparams` have other values."""
    for name, value in options.items():
        known = optax.tree.get_all_with_path(state, name)
        if not known:
            raise Refused(f"{name} is no hyperparameter in the state, so it cannot be changed in use.")
        # Of the same dtype: a Python number would be compiled for once more.
        state = optax.tree.set(state, **{name: jnp.asarray(value, known[0][1].dtype)})
    return state


def on_disk(state: Tree) -> dict[str, Array]:
    """The arrays of a state by their paths in it, as checkpoints keep them, from the disk."""
    file = io.BytesIO()
    leaves = jax.tree_util.tree_leaves_with_path(state)
    pickle.dump({jax.tree_util.keystr(path): _array(leaf) for path, leaf in leaves}, file)
    file.seek(0)
    read: dict[str, Array] = pickle.load(file)  # noqa: S301  (our own)
    return read


def loaded(state: Tree, saved: Mapping[str, Array]) -> Tree:
    """A new state with the arrays that were saved."""
    named = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state)}
    if named.keys() != saved.keys():
        raise ValueError(f"the new state has other arrays than the saved one: {sorted(named.keys() ^ saved.keys())}")
    return jax.tree_util.tree_map_with_path(lambda path, leaf: _like(leaf, saved[jax.tree_util.keystr(path)]), state)


def draws(state: Tree) -> bool:
    """Whether a state has a key for random numbers, typed or of integers."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return any(_is_key(leaf) or "rng" in jax.tree_util.keystr(path[-1:]) for path, leaf in leaves)


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _array(leaf: Any) -> Array:
    return np.array(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _like(leaf: Any, saved: Array) -> jax.Array:
    return jax.random.wrap_key_data(jnp.asarray(saved)) if _is_key(leaf) else jnp.asarray(saved)
