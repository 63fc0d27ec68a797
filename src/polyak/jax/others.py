"""The parameters that are no matrices, and the transformation that Muon has for them: of Polyak, or any other of optax."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from polyak.jax.guards import Guard
from polyak.jax.momentum import momentum
from polyak.rules.roles import Assigned
from polyak.update import scaled


class NoSlot(optax.MaskedNode):  # type: ignore[misc]  # optax has no types
    """Stands in a slot for a parameter that has none. As a pytree it has no leaves."""


def checked_others(others: Any) -> optax.GradientTransformation:
    """The transformation of the other parameters: by default heavy ball.

    Raises:
        ValueError: One with a guard of its own.
        TypeError: No transformation.
    """
    if others is None:
        return momentum(0.01, 0.9)
    if not isinstance(others, optax.GradientTransformation):
        raise TypeError(f"others must be a transformation, such as polyak.jax.lion(1e-4) or optax.adamw(3e-4); got {others!r}.")
    arguments = getattr(others, "arguments", {})
    if arguments.get("max_norm") is not None or arguments.get("finite", "off") != "off":
        raise ValueError(
            f"others has max_norm={arguments['max_norm']!r} and finite={arguments['finite']!r}, which would look at its own "
            "gradients alone. Give them to muon: there they are for all parameters."
        )
    return others


def part(tree: Any, each: Sequence[Assigned], *, matrices: bool) -> Any:
    """The tree with its matrices alone, or with all others; `optax.MaskedNode` is in the place of the rest. None is None."""
    if tree is None:
        return None
    leaves, structure = jax.tree.flatten(tree)
    kept = [x if (p.role == "orthogonal") is matrices else optax.MaskedNode() for x, p in zip(leaves, each, strict=True)]
    return jax.tree.unflatten(structure, kept)


def update_others(others: optax.GradientTransformation, guard: Guard, grads: Any, state: Any, params: Any) -> tuple[Any, Any]:
    """The updates and the new state of the other parameters under a guard that looks at the gradients of all.

    A transformation of Polyak knows how to leave a step out with the bits of one that cannot be. Around another one the guard
    scales the gradients before it, and afterwards takes -0.0 and the old state where no step passes.
    """
    if under := getattr(others, "under", None):
        return under(guard, grads, state, params)  # type: ignore[no-any-return]
    if guard.is_bounded:
        grads = jax.tree.map(lambda g: scaled(g, guard).astype(g.dtype), grads)
    updates, new = others.update(grads, state, params)
    passes = guard.passes
    if passes is not None:
        updates = jax.tree.map(lambda u: jnp.where(passes, u, -jnp.zeros_like(u)), updates)
        new = jax.tree.map(lambda n, old: jnp.where(passes, n, old), new, state)
    return updates, new
