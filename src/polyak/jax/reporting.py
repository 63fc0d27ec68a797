"""`polyak.jax.check_finite`: which gradients were not finite, said outside of compiled code."""

from typing import Any

import jax
import numpy as np

from polyak.jax.groups import leaf_names
from polyak.jax.others import NoSlot
from polyak.jax.transformation import State

_LISTED = 10


def check_finite(state: Any, params: Any = None) -> None:
    """Raise an error if updates were left out because of gradients that were not finite.

    It waits for the state to be computed: call it as often as a loop looks at its loss, not at every step.

    Args:
        state: The state of a transformation that was made with finite="error", or one with such states in it, as that of
            `optax.chain` or `optax.multi_transform`.
        params: The parameters, for the names of those without a slot, which momentum=0 has none of. Without them, such a
            parameter is named by its place in `jax.tree.leaves`.

    Raises:
        FloatingPointError: Updates were left out; it names the parameters, and says how often each had such a gradient.
        ValueError: There is no state with finite="error".

    Example:
        >>> optimizer = momentum(0.1, finite="error")
        >>> w = {"kernel": jnp.ones(2), "bias": jnp.ones(2)}
        >>> state = optimizer.init(w)
        >>> updates, state = optimizer.update(w | {"bias": jnp.array([1.0, jnp.nan])}, state, w)
        >>> check_finite(state)
        Traceback (most recent call last):
        FloatingPointError: 1 of 1 updates was left out, since gradients had a NaN or an infinity: bias (1).
    """
    inside = [x for x in jax.tree.leaves(state, is_leaf=_is_state) if _is_state(x) and x.nonfinite is not None]
    if not inside:
        raise ValueError(
            'check_finite needs a state with finite="error" in it, which counts for each parameter; there is none.'
        )
    for each in inside:
        if np.any(each.skipped):
            raise FloatingPointError(_report(each, params))


def _is_state(x: Any) -> bool:
    return isinstance(x, State)


def _report(state: State, params: Any) -> str:
    times = np.asarray(state.nonfinite)
    times = times.reshape(-1, times.shape[-1]).sum(axis=0)  # under vmap, of all models
    trees = [*state.slots.values(), params]
    names = leaf_names(trees[0], is_leaf=lambda x: isinstance(x, NoSlot)) or [f"parameter {i}" for i in range(len(times))]
    blamed = [f"{name} ({n})" for name, n in zip(names, times, strict=True) if n]
    more = f" and {len(blamed) - _LISTED} more" if len(blamed) > _LISTED else ""
    skipped, count = (int(np.asarray(x).sum()) for x in (state.skipped, state.count))
    return (
        f"{skipped} of {count} updates {'was' if skipped == 1 else 'were'} left out, since gradients had a NaN or an infinity: "
        f"{', '.join(blamed[:_LISTED])}{more}."
    )
