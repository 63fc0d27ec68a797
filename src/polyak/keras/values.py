"""One variable's update, on any backend: dtypes around `Update.apply`."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from polyak.ops import Array
from polyak.update import Update


def compute_dtype(dtype: Any) -> str:
    """The dtype of the slots and of the arithmetic for a variable of `dtype`.

    A velocity sums many small gradients, which half precision would lose, so half-precision variables have float32 slots.
    """
    name: str = keras.backend.standardize_dtype(dtype)
    return "float32" if name in ("float16", "bfloat16") else name


def new_values(
    update: Update, g: Array, w: Array, slots: Sequence[Array], hyperparameters: Mapping[str, Any]
) -> tuple[Array, tuple[Array, ...]]:
    """The new weight and the new slots of one variable, each in the dtype in which it is stored."""
    if tuple(g.shape) != tuple(w.shape):
        raise ValueError(f"A gradient of shape {tuple(g.shape)} was given for a weight of shape {tuple(w.shape)}.")
    dtype = compute_dtype(w.dtype)
    h = update.Hyperparameters(*(ops.cast(hyperparameters[name], dtype) for name in update.Hyperparameters._fields))
    w_new, slots_new = update.apply(ops.cast(g, dtype), ops.cast(w, dtype), tuple(slots), h)
    return ops.cast(w_new, w.dtype), slots_new
