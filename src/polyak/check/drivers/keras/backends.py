"""What differs between the backends of Keras: how a step is taken, and what a gradient is."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import ml_dtypes  # noqa: F401  (with it, NumPy knows bfloat16 by its name)
import numpy as np
from keras import ops

from polyak.check.trial import Gradient, Rows

BACKEND = keras.backend.backend()

Apply = Callable[[list[Any]], None]
Traced = Callable[[], None]


def _plain(optimizer: Any, variables: list[Any], _: Traced) -> Apply:
    """As in a loop of one's own."""
    return lambda grads: optimizer.apply(grads, variables)


def _torch(optimizer: Any, variables: list[Any], _: Traced) -> Apply:
    """As in a loop of one's own, and in fit()."""
    import torch

    @torch.no_grad()
    def apply(grads: list[Any]) -> None:
        optimizer.apply(grads, variables)

    return apply


def _tensorflow(xla: bool) -> Callable[[Any, list[Any], Traced], Apply]:
    """As in a `tf.function`."""

    def made(optimizer: Any, variables: list[Any], traced: Traced) -> Apply:
        import tensorflow as tf

        def apply(grads: list[Any]) -> None:
            traced()
            optimizer.apply(grads, variables)

        compiled: Apply = tf.function(apply, jit_compile=xla, autograph=False)
        return compiled

    return made


def _jax(optimizer: Any, variables: list[Any], traced: Traced) -> Apply:
    """Compiled without state, as fit() does it."""
    import jax

    def stateless(state: Any, grads: Any, weights: Any) -> Any:
        traced()
        return optimizer.stateless_apply(state, grads, weights)

    compiled = jax.jit(stateless)

    def apply(grads: list[Any]) -> None:
        own = optimizer.variables
        weights, state = compiled([v.value for v in own], grads, [v.value for v in variables])
        for v, value in zip([*variables, *own], [*weights, *state], strict=True):
            v.assign(value)

    return apply


_STEPS: dict[str, dict[str, Callable[[Any, list[Any], Traced], Apply]]] = {
    "tensorflow": {"eager": _plain, "graph": _tensorflow(xla=False), "xla": _tensorflow(xla=True)},
    "jax": {"eager": _plain, "jit": _jax},
    "torch": {"eager": _torch},
}
STEPS = _STEPS[BACKEND]
"""How steps are taken: the first takes least time where there are few."""


@contextlib.contextmanager
def setting(double: bool) -> Iterator[None]:
    """Allow float64 where it is needed."""
    if BACKEND == "jax":
        import jax

        with jax.enable_x64(double):
            yield
    else:
        yield


def gradient(given: Gradient, like: Any) -> Any:
    """A gradient of a variable."""
    if given is None:
        return None
    if isinstance(given, Rows):
        import tensorflow as tf

        return tf.IndexedSlices(tf.constant(given.values), tf.constant(given.rows, "int64"), tf.constant(like.shape, "int64"))
    # A copy: a tensor of torch may share the memory of its array.
    return ops.convert_to_tensor(np.array(given), dtype=given.dtype.name)


def left(grad: Any) -> Gradient:
    """A gradient as it is after the step."""
    if grad is None:
        return None
    if BACKEND == "tensorflow" and hasattr(grad, "indices"):
        return Rows(grad.indices.numpy(), grad.values.numpy())
    return np.array(ops.convert_to_numpy(grad)).astype(np.dtype(keras.backend.standardize_dtype(grad.dtype)))
