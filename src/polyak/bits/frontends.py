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
from polyak.methods import METHODS

Run = Callable[[Case], Iterator[Array]]


def _flat(trees: Iterable[Iterable[Any]]) -> Array:
    return np.stack([np.concatenate([np.asarray(x).reshape(-1) for x in tree]) for tree in trees])


def numpy(case: Case) -> Iterator[Array]:
    """polyak.numpy."""
    import polyak.numpy

    params = start()
    first = {name: float(values[0]) for name, values in case.numbers.items()}
    optimizer = getattr(polyak.numpy, case.method)(params, float(case.learning_rates[0]), **first, **case.arguments)
    for t, g in enumerate(gradients()):
        optimizer.lr = float(case.learning_rates[t])
        for name, values in case.numbers.items():
            setattr(optimizer, name, float(values[t]))
        optimizer.step(g)
        yield _flat([params.values(), *(slot.values() for slot in optimizer.slots.values())])


def torch(case: Case) -> Iterator[Array]:
    """polyak.torch."""
    import torch

    import polyak.torch

    params = [torch.nn.Parameter(torch.from_numpy(w)) for w in start().values()]
    first = {name: float(values[0]) for name, values in case.numbers.items()}
    optimizer = getattr(polyak.torch, case.method)(params, float(case.learning_rates[0]), **first, **case.arguments)
    (group,) = optimizer.param_groups
    for t, g in enumerate(gradients()):
        group["lr"] = float(case.learning_rates[t])
        for name, values in case.numbers.items():
            group[name] = float(values[t])
        for p, name in zip(params, SHAPES, strict=True):
            p.grad = torch.from_numpy(g[name])
        optimizer.step()
        slots = zip(*(optimizer.state[p].values() for p in params), strict=True)
        yield _flat([[p.detach() for p in params], *slots])


def jax(case: Case) -> Iterator[Array]:
    """polyak.jax, with the update and its application under one jit."""
    import jax
    import jax.numpy as jnp
    import optax

    import polyak.jax

    def given(values: Any) -> Any:
        return float(values[0]) if case.schedule == "constant" else lambda step: jnp.asarray(values)[step]

    varying = {name: given(values) for name, values in case.numbers.items()}
    optimizer = getattr(polyak.jax, METHODS[case.method].function)(given(case.learning_rates), **varying, **case.arguments)

    @jax.jit
    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    params: Any = {name: jnp.asarray(w) for name, w in start().items()}
    state = optimizer.init(params)
    for g in gradients():
        params, state = step(params, state, g)
        yield _flat([[tree[name] for name in SHAPES] for tree in (params, *state.slots.values())])


def keras(case: Case) -> Iterator[Array]:
    """polyak.keras on the backend of this process."""
    import keras
    from keras import ops

    import polyak.keras

    def given(values: Any) -> Any:
        if case.schedule != "linear":
            return float(values[0])
        return lambda step: ops.take(ops.convert_to_tensor(values), ops.cast(step, "int32"))

    varying = {name: given(values) for name, values in case.numbers.items()}
    optimizer = getattr(polyak.keras, case.method)(given(case.learning_rates), **varying, **case.arguments)
    variables = [keras.Variable(w, name=name) for name, w in start().items()]
    before = len(optimizer.variables)
    optimizer.build(variables)
    made = optimizer.variables[before:]  # all slots of the first variable, then those of the next
    count = len(case.update.rule.slots)
    trees = [variables, *(made[i::count] for i in range(count))]
    steps = _KERAS_STEPS[keras.backend.backend()](optimizer, trees)
    # What is not asked for is not computed: TensorFlow makes all steps of a part at once.
    for first, last in pairwise(case.changes if case.schedule == "piecewise" else [0, 100, STEPS]):
        if case.schedule == "piecewise":
            optimizer.learning_rate = float(case.learning_rates[first])
            for name, values in case.numbers.items():
                setattr(optimizer, name, float(values[first]))
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
    place = {id(variable): i for i, variable in enumerate(optimizer.variables)}
    slots = [[place[id(variable)] for variable in tree] for tree in trees[1:]]

    def steps(first: int, last: int) -> Iterator[Array]:
        weights, state = ([v.value for v in variables] for variables in (trees[0], optimizer.variables))
        for grads in _tensors()[first:last]:
            weights, state = apply(state, grads, weights)
            yield _flat([weights, *([state[i] for i in places] for places in slots)])
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
