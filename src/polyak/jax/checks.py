"""What `polyak.arguments` cannot check: numbers that may be traced, and trees of arrays.

A number that is traced is not known yet, and passes. One in a JAX array may be another at the next call, as those of
`optax.inject_hyperparams` are, so that a 0 there makes no option void.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax.tree_util import keystr

from polyak.arguments import check_decay, check_learning_rate, check_max_norm, check_takes_step
from polyak.methods import Method
from polyak.rules import Rule

if TYPE_CHECKING:
    from polyak.jax.groups import Groups

Check = Callable[[Any], Any]


def checked_number(value: Any, check: Check) -> Any:
    """A number, or a sequence of them. Checked if it is known, and left as it is if it is in a JAX array."""
    parts = jax.tree.leaves(value)
    if any(isinstance(x, jax.core.Tracer) for x in parts):
        return value
    known = check(value)
    return value if any(isinstance(x, jax.Array) for x in parts) else known


def checked_schedule_or_number(name: str, value: Any, check: Check) -> Any:
    """A number, or a function of the step."""
    if callable(value):
        check_takes_step(name, value)
        return value
    return checked_number(value, check)


def checked_arguments(method: Method, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The learning rate and a method's own arguments."""
    checked = {"learning_rate": checked_schedule_or_number("learning_rate", arguments["learning_rate"], check_learning_rate)}
    checked |= {name: checked_schedule_or_number(name, arguments[name], check) for name, check in method.varying.items()}
    checked |= {name: checked_number(arguments[name], check) for name, check in method.constants.items()}
    return checked | {name: arguments[name] for name in method.options}


def chosen_rule(method: Method, arguments: Mapping[str, Any], groups: "Groups") -> Rule:
    """The rule for a method's arguments, which were checked.

    All groups have one rule, so that a number counts as 0 where it is in all of them.
    """
    chosen = {name: arguments[name] for name in method.arguments}
    for name in method.varying:
        chosen[name] = next((x for x in groups.all_values(name, arguments[name]) if not is_zero(x)), 0.0)
    unknown = [name for name in method.constants if _may_be_zero(chosen[name])]
    chosen |= {name: float(x) for name, x in chosen.items() if name in method.constants and _is_known_number(x)}
    if unknown:
        with suppress(ValueError):  # there may be no rule in which it is not 0
            return method.choose(**chosen | dict.fromkeys(unknown, 0.5))
    return method.choose(**chosen | dict.fromkeys(unknown, 0.0))


def is_zero(value: Any) -> bool:
    """Whether a number is 0 for good."""
    return isinstance(value, int | float) and value == 0


def _is_known_number(value: Any) -> bool:
    return isinstance(value, jax.Array) and value.ndim == 0 and not isinstance(value, jax.core.Tracer)


def _may_be_zero(value: Any) -> bool:
    """Whether a number is 0 now, or not known yet, but may be another at the next call."""
    return isinstance(value, jax.Array) and value.ndim == 0 and (isinstance(value, jax.core.Tracer) or not value)


def scalar(name: str, value: Any) -> Any:
    """What a function of the step returned: a number."""
    if jnp.shape(value) != ():
        raise ValueError(f"{name} must be a scalar; the function of the step returned an array of shape {jnp.shape(value)}.")
    return value


def checked_max_norm(value: Any) -> Any:
    """A bound of the norm, or None."""
    return checked_number(value, check_max_norm)


def check_weight_decays(values: Sequence[Any], decay: Any) -> None:
    """As `polyak.arguments.check_decay`, for numbers that may be traced or change, of which one at least is not 0."""
    known = [(1.0 if decay else 0.0) if _may_be_zero(x) else x for x in values]
    for x in known:
        check_decay(x, decay if x else None)
    check_decay(max(known), decay)


def checked_slot_dtype(slot_dtype: Any, rule: Rule) -> Any:
    """A dtype that the slots of a rule can have."""
    if not rule.slots:
        raise ValueError(f"slot_dtype={slot_dtype!r} has no effect with momentum=0, which keeps no velocity. Leave it out.")
    return checked_dtype("slot_dtype", slot_dtype)


def checked_dtype(name: str, value: Any) -> Any:
    """A floating dtype that arrays can have here."""
    dtype = jnp.dtype(value)
    if not jnp.issubdtype(dtype, jnp.inexact):
        raise TypeError(f"{name} must be a floating dtype, such as jnp.bfloat16 or jnp.float32; got {value!r}.")
    if jax.dtypes.canonicalize_dtype(dtype) != dtype:
        raise ValueError(f'{name}={dtype.name!r} needs jax.config.update("jax_enable_x64", True).')
    return dtype


def check_parameters(params: Any, slot_dtype: Any, only_real: str | None) -> None:
    """Parameters that have gradients, and that slots of this dtype and what is for real numbers only can serve."""
    for path, w in jax.tree.leaves_with_path(params):
        dtype = jnp.result_type(w)
        if not jnp.issubdtype(dtype, jnp.inexact):
            raise TypeError(
                f"params{keystr(path)} is of {dtype}; an optimizer is for floating-point arrays. optax.masked and "
                "optax.multi_transform leave others out."
            )
        if only_real is not None and _is_complex(dtype):
            raise TypeError(
                f"params{keystr(path)} is of {dtype}; {only_real} goes by the signs of elements, which complex numbers do "
                "not have. Keep its real and imaginary parts as two parameters, or give it to another method with "
                "optax.multi_transform."
            )
        if slot_dtype is not None and _is_complex(dtype) and not _is_complex(slot_dtype):
            raise TypeError(f"params{keystr(path)} is of {dtype}; slots of {slot_dtype} would lose its imaginary part.")


def check_real_matrices(params: Any) -> None:
    """Matrices of real numbers."""
    for path, w in jax.tree.leaves_with_path(params):
        if _is_complex(jnp.result_type(w)):
            name = keystr(path, simple=True, separator="/")
            raise TypeError(
                f"Muon orthogonalises real matrices; {name!r} is of {jnp.result_type(w)}. Give it another rule: "
                f'roles={{{name!r}: "other"}}.'
            )


def check_gradients(grads: Any, weights: Sequence[Any]) -> None:
    """Gradients that fit the weights, which are in the order of the gradients' leaves."""
    for (path, g), w in zip(jax.tree.leaves_with_path(grads), weights, strict=True):
        if jnp.shape(g) != jnp.shape(w):
            raise ValueError(f"grads{keystr(path)} has shape {jnp.shape(g)}; the parameter has shape {jnp.shape(w)}.")
        if _is_complex(jnp.result_type(g)) and not _is_complex(jnp.result_type(w)):
            raise TypeError(f"grads{keystr(path)} is of {jnp.result_type(g)}; the parameter is of {jnp.result_type(w)}.")


def _is_complex(dtype: Any) -> bool:
    return bool(jnp.issubdtype(dtype, jnp.complexfloating))
