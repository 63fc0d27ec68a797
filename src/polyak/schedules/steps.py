"""The step and the few operations on it, in the framework that it comes from.

A schedule is given the step as each framework counts it: an int in torch and NumPy, a traced int32 in JAX, a float32 tensor in
Keras. It computes with operators (`+ - * / // % > >=`) and the functions here. Only the framework of the step is imported.
"""

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from polyak.ops import Array

Table = npt.NDArray[Any]


class Operations(NamedTuple):
    """What a schedule may use beyond operators, all of it elementwise.

    Attributes:
        integer: An array as whole numbers of at least 32 bits; true is 1.
        real: An array as float32.
        clip: (x, lowest, highest) -> x within bounds.
        where: (condition, x, y) -> x where it holds, else y.
        look_up: (table, i) -> one array for each row of a two-dimensional NumPy array, of its entries `row[i]`.
        evaluate: (schedule, step) -> `schedule.evaluate(step)`, computed as it is written.
    """

    integer: Callable[[Array], Array]
    real: Callable[[Array], Array]
    clip: Callable[[Array, float, float], Array]
    where: Callable[[Array, Array, Array], Array]
    look_up: Callable[[Table, Array], Iterable[Array]]
    evaluate: Callable[[Any, Array], Array] = lambda schedule, step: schedule.evaluate(step)


@cache
def _python() -> Operations:
    """Of a single number. Python's own int and NumPy's float32 take a tenth of the time of arrays without dimensions."""
    return Operations(
        integer=int,
        real=np.float32,
        clip=lambda x, lowest, highest: min(max(x, lowest), highest),
        where=lambda condition, x, y: x if condition else y,
        look_up=lambda table, i: table[:, i],
    )


@cache
def _numpy() -> Operations:
    # Of an array without dimensions, [()] makes a scalar, on which NumPy is several times as fast.
    return Operations(
        integer=lambda x: np.asarray(x).astype(np.int64)[()],
        real=lambda x: np.asarray(x).astype(np.float32)[()],
        clip=lambda x, lowest, highest: np.minimum(np.maximum(x, lowest), highest),  # np.clip takes ten times as long
        where=lambda condition, x, y: np.asarray(np.where(condition, x, y))[()],
        look_up=lambda table, i: table[:, i],
    )


@cache
def _jax() -> Operations:
    import jax.numpy as jnp

    return Operations(
        integer=lambda x: jnp.asarray(x).astype(jnp.int32),
        real=lambda x: jnp.asarray(x).astype(jnp.float32),
        clip=jnp.clip,
        where=jnp.where,
        look_up=lambda table, i: jnp.take(table, i, axis=1, mode="clip"),  # "fill", the default, would compare and select
    )


@cache
def _tensorflow() -> Operations:
    import tensorflow as tf

    @cache
    def compiled(schedule: Any) -> Any:
        # Without XLA, a tf.function leaves its graph to Grappler, which collects sums and factors in an order of its own.
        return tf.function(schedule.evaluate, jit_compile=True, autograph=False)

    return Operations(
        integer=lambda x: tf.cast(x, tf.int32),
        real=lambda x: tf.cast(x, tf.float32),
        clip=tf.clip_by_value,
        where=tf.where,
        look_up=lambda table, i: tf.unstack(tf.gather(table, i, axis=1)),
        evaluate=lambda schedule, step: compiled(schedule)(tf.convert_to_tensor(step)),
    )


@cache
def _torch() -> Operations:
    import torch

    def look_up(table: Table, i: torch.Tensor) -> torch.Tensor:
        # table[:, i] would fetch an index without dimensions from the device.
        return torch.from_numpy(table).to(i.device).index_select(1, i.reshape(-1)).reshape(-1, *i.shape)

    return Operations(
        integer=lambda x: x.to(torch.int64),
        real=lambda x: x.to(torch.float32),
        clip=torch.clamp,
        where=torch.where,
        look_up=look_up,
    )


_FRAMEWORKS = {
    "numpy": _numpy,
    "jax": _jax,
    "jaxlib": _jax,
    "tensorflow": _tensorflow,
    "torch": _torch,
}


def operations(step: Any) -> Operations:
    """The operations for a step, by its type.

    Raises:
        TypeError: A step that is no number and no array of a known framework.
    """
    if type(step) in (int, float):
        return _python()
    if isinstance(step, int | float):  # True, np.float64
        return _numpy()
    for kind in type(step).__mro__:  # subclasses may come from elsewhere
        framework = kind.__module__.partition(".")[0]
        if framework in _FRAMEWORKS:
            return _FRAMEWORKS[framework]()
    raise TypeError(
        f"A step must be a number, or an array of NumPy, JAX, TensorFlow or PyTorch; got {step!r} of type "
        f"{type(step).__name__}. Several steps at once are an array, such as numpy.arange(100)."
    )
