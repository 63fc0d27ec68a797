"""One parameter: dtypes and shardings around `Update.step`."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.shard_alike import shard_alike

from polyak.jax.guarded import guarded
from polyak.jax.guards import Guard
from polyak.ops import Array
from polyak.update import Update


def compute_dtype(w: Array) -> Any:
    """The dtype of the arithmetic for a parameter, and of its slots unless another was asked for.

    A velocity sums many small gradients, which half precision would lose, so half-precision parameters have float32 slots.
    """
    return jnp.promote_types(jnp.result_type(w), jnp.float32)


def zeros(w: Array, dtype: Any) -> jax.Array:
    """A slot before the first step, sharded like the parameter."""
    slot = jnp.zeros_like(w, dtype=dtype or compute_dtype(w))
    # In traced code zeros depend on nothing, so that without this the compiler would put them all on one device.
    return shard_alike(w, slot)[1] if isinstance(w, jax.core.Tracer) else slot  # type: ignore[no-untyped-call]  # JAX's, without types


def new_values(
    update: Update, g: Array, w: Array, slots: Sequence[Array], given: Mapping[str, Any], guard: Guard
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """The negated step, in the dtype of the arithmetic, and the new slots, each in the dtype in which it is stored.

    Where the guard lets no step pass, the slots are the old ones and the update is -0.0, which changes no weight.
    """
    dtype = compute_dtype(w)
    real = jnp.zeros((), dtype).real.dtype  # that of complex64 is float32
    h = update.Hyperparameters(*(jnp.asarray(given[name], real) for name in update.Hyperparameters._fields))
    g, w, *old = (jnp.asarray(x, dtype) for x in (g, w, *slots))
    if guard.passes is None:
        step, new = update.step(g, w, tuple(old), h)
    else:
        step, new = guarded(update, g, w, tuple(old), h, guard.passes, guard.zero)
    return -step, tuple(n.astype(s.dtype) for n, s in zip(new, slots, strict=True))


def full_mask(mask: Any, params: Any) -> Any:
    """A mask as a tree with a boolean for each parameter.

    Args:
        mask: Such a tree or a prefix of it, or a function of the parameters that returns one.
        params: The parameters.
    """
    is_function = callable(mask) and jax.tree.leaves(mask) == [mask]  # some trees can be called: models of Equinox
    prefix = mask(params) if is_function else mask
    for path, leaf in jax.tree.leaves_with_path(prefix):
        if not isinstance(leaf, bool | np.bool_):
            raise TypeError(f"mask{jax.tree_util.keystr(path)} must be True or False; got {leaf!r}.")
    return jax.tree.broadcast(prefix, params)
