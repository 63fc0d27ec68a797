"""A case in each framework, written as a user of that framework would.

Each function yields, after every step, the weights and then each slot, flat in the order of `SHAPES`: (1 + slots, elements).
Constant numbers are given as numbers. Others are assigned where a front-end has assignment, and given as a function of the step
where it has that; Keras, which has both, is assigned "piecewise" and given "linear" as a function.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np

from polyak.bits.cases import SHAPES, STEPS, Array, Case, gradients, start

Run = Callable[[Case], Iterator[Array]]


def _flat(trees: Iterable[Iterable[Any]]) -> Array:
    return np.stack([np.concatenate([np.asarray(x).reshape(-1) for x in tree]) for tree in trees])


def _number(values: Any) -> float:
    """The first of the values of a hyperparameter; 0 for a momentum that the rule does not have."""
    return 0.0 if values is None else float(values[0])


def numpy(case: Case) -> Iterator[Array]:
    """polyak.numpy."""
    from polyak.numpy import Momentum

    params = start()
    optimizer = Momentum(params, _number(case.learning_rates), _number(case.momenta), **case.arguments)
    for t, g in enumerate(gradients()):
        optimizer.lr = float(case.learning_rates[t])
        if case.momenta is not None:
            optimizer.momentum = float(case.momenta[t])
        optimizer.step(g)
        yield _flat([params.values(), *(slot.values() for slot in optimizer.slots.values())])


def torch(case: Case) -> Iterator[Array]:
    """polyak.torch."""
    import torch

    from polyak.torch import Momentum

    params = [torch.nn.Parameter(torch.from_numpy(w)) for w in start().values()]
    optimizer = Momentum(params, _number(case.learning_rates), _number(case.momenta), **case.arguments)
    (group,) = optimizer.param_groups
    for t, g in enumerate(gradients()):
        group["lr"] = float(case.learning_rates[t])
        if case.momenta is not None:
            group["momentum"] = float(case.momenta[t])
        for p, name in zip(params, SHAPES, strict=True):
            p.grad = torch.from_numpy(g[name])
        optimizer.step()
        slots = [[optimizer.state[p]["momentum_buffer"] for p in params]] if case.momenta is not None else []
        yield _flat([[p.detach() for p in params], *slots])


def jax(case: Case) -> Iterator[Array]:
    """polyak.jax, with the update and its application under one jit."""
    import jax
    import jax.numpy as jnp
    import optax

    from polyak.jax import momentum

    def given(values: Any) -> Any:
        if case.schedule == "constant" or values is None:
            return _number(values)
        return lambda step: jnp.asarray(values)[step]

    optimizer = momentum(given(case.learning_rates), given(case.momenta), **case.arguments)

    @jax.jit
    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    params: Any = {name: jnp.asarray(w) for name, w in start().items()}
    state = optimizer.init(params)
    for g in gradients():
        params, state = step(params, state, g)
        slots = [[state.velocity[name] for name in SHAPES]] if case.momenta is not None else []
        yield _flat([[params[name] for name in SHAPES], *slots])


def keras(case: Case) -> Iterator[Array]:
    """polyak.keras on the backend of this process."""
    import keras
    from keras import ops

    from polyak.keras import Momentum

    def given(values: Any) -> Any:
        if case.schedule != "linear" or values is None:
            return _number(values)
        return lambda step: ops.take(ops.convert_to_tensor(values), ops.cast(step, "int32"))

    optimizer = Momentum(given(case.learning_rates), given(case.momenta), **case.arguments)
    variables = [keras.Variable(w, name=name) for name, w in start().items()]
    optimizer.build(variables)
    trees = [variables] if case.momenta is None else [variables, optimizer.variables[-len(variables) :]]
    steps = _KERAS_STEPS[keras.backend.backend()](optimizer, trees)
    for first, last in pairwise(case.changes if case.schedule == "piecewise" else [0, STEPS]):
        if case.schedule == "piecewise":
            optimizer.learning_rate = float(case.learning_rates[first])
            if case.momenta is not None:
                optimizer.momentum = float(case.momenta[first])
        yield from steps(first, last)


KerasSteps = Callable[[int, int], Iterator[Array]]


def _torch_steps(optimizer: Any, trees: list[list[Any]]) -> KerasSteps:
    """Steps of a loop of one's own."""

    def steps(first: int, last: int) -> Iterator[Array]:
        for grads in _tensors()[first:last]:
            optimizer.apply(grads, trees[0])
            yield _flat([[v.value.detach() for v in tree] for tree in trees])

    return steps


def _jax_steps(optimizer: Any, trees: list[list[Any]]) -> KerasSteps:
    """Steps that are compiled, as in fit()."""
    import jax

    apply = jax.jit(optimizer.stateless_apply)

    def steps(first: int, last: int) -> Iterator[Array]:
        weights, state = ([v.value for v in variables] for variables in (trees[0], optimizer.variables))
        for grads in _tensors()[first:last]:
            weights, state = apply(state, grads, weights)
            yield _flat([weights, state[-len(weights) :]][: len(trees)])
        for variable, value in zip([*trees[0], *optimizer.variables], [*weights, *state], strict=True):
            variable.assign(value)

    return steps


@cache
def _tensors() -> list[list[Any]]:
    from keras import ops

    return [[ops.convert_to_tensor(g[name]) for name in SHAPES] for g in gradients()]


def _tensorflow_steps(optimizer: Any, trees: list[list[Any]]) -> KerasSteps:
    """Steps of a loop in a `tf.function`."""
    import tensorflow as tf

    signature = [[tf.TensorSpec(shape) for shape in SHAPES.values()] for _ in trees]

    def step(grads: Any) -> Any:
        optimizer.apply(grads, trees[0])
        return [[v.value.read_value() for v in tree] for tree in trees]

    def loop(grads: Any) -> Any:
        return tf.map_fn(step, grads, fn_output_signature=signature, parallel_iterations=1)

    each_of = [tf.TensorSpec((None, *shape)) for shape in SHAPES.values()]
    compiled = tf.function(loop, autograph=False, input_signature=[each_of])
    stacked = [np.stack([g[name] for g in gradients()]) for name in SHAPES]

    def steps(first: int, last: int) -> Iterator[Array]:
        states = compiled([tf.constant(grads[first:last]) for grads in stacked])
        columns = [np.concatenate([x.numpy().reshape(last - first, -1) for x in tree], axis=1) for tree in states]
        yield from np.stack(columns, axis=1)

    return steps


_KERAS_STEPS = {"tensorflow": _tensorflow_steps, "jax": _jax_steps, "torch": _torch_steps}
