"""What `polyak.arguments` cannot check: numbers that may be traced, and trees of arrays.

A number that is traced is not known yet, and passes. One in a JAX array may be another at the next call, as those of
`optax.inject_hyperparams` are, so that a 0 there makes no option void.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import keystr

from polyak.arguments import check_decay, check_takes_step
from polyak.rules import Rule


def check_number(value: Any, check: Callable[[Any], float]) -> None:
    """A number, checked if it is known."""
    if not isinstance(value, jax.core.Tracer):
        check(value)


def check_schedule_or_number(name: str, value: Any, check: Callable[[Any], float]) -> None:
    """A number, or a function of the step."""
    if callable(value):
        check_takes_step(name, value)
    else:
        check_number(value, check)


def scalar(name: str, value: Any) -> Any:
    """What a function of the step returned: a number."""
    if jnp.shape(value) != ():
        raise ValueError(f"{name} must be a scalar; the function of the step returned an array of shape {jnp.shape(value)}.")
    return value


def check_weight_decay(weight_decay: Any, decay: Any) -> None:
    """As `polyak.arguments.check_decay`, for numbers that may be traced or change."""
    if isinstance(weight_decay, jax.core.Tracer) or (isinstance(weight_decay, jax.Array) and not weight_decay.any()):
        weight_decay = 1.0 if decay else 0.0
    check_decay(weight_decay, decay)


def checked_slot_dtype(slot_dtype: Any, rule: Rule) -> Any:
    """A dtype that the slots of a rule can have."""
    if not rule.slots:
        raise ValueError(f"slot_dtype={slot_dtype!r} has no effect with momentum=0, which keeps no velocity. Leave it out.")
    dtype = jnp.dtype(slot_dtype)
    if not jnp.issubdtype(dtype, jnp.inexact):
        raise TypeError(f"slot_dtype must be a floating dtype, such as jnp.bfloat16 or jnp.float32; got {slot_dtype!r}.")
    if jax.dtypes.canonicalize_dtype(dtype) != dtype:
        raise ValueError(f'slot_dtype={dtype.name!r} needs jax.config.update("jax_enable_x64", True).')
    return dtype


def check_parameters(params: Any, slot_dtype: Any) -> None:
    """Parameters that have gradients, and that slots of this dtype can serve."""
    for path, w in jax.tree.leaves_with_path(params):
        dtype = jnp.result_type(w)
        if not jnp.issubdtype(dtype, jnp.inexact):
            raise TypeError(
                f"params{keystr(path)} is of {dtype}; an optimizer is for floating-point arrays. optax.masked and "
                "optax.multi_transform leave others out."
            )
        if slot_dtype is not None and _is_complex(dtype) and not _is_complex(slot_dtype):
            raise TypeError(f"params{keystr(path)} is of {dtype}; slots of {slot_dtype} would lose its imaginary part.")


def check_gradients(grads: Any, weights: Sequence[Any]) -> None:
    """Gradients that fit the weights, which are in the order of the gradients' leaves."""
    for (path, g), w in zip(jax.tree.leaves_with_path(grads), weights, strict=True):
        if jnp.shape(g) != jnp.shape(w):
            raise ValueError(f"grads{keystr(path)} has shape {jnp.shape(g)}; the parameter has shape {jnp.shape(w)}.")
        if _is_complex(jnp.result_type(g)) and not _is_complex(jnp.result_type(w)):
            raise TypeError(f"grads{keystr(path)} is of {jnp.result_type(g)}; the parameter is of {jnp.result_type(w)}.")


def _is_complex(dtype: Any) -> bool:
    return bool(jnp.issubdtype(dtype, jnp.complexfloating))
