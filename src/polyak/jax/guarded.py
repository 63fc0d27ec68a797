"""A step that may be left out, with the bits of one that may not, and at no more memory traffic."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import jaxpr_as_fun

from polyak.ops import Array
from polyak.update import Update


def guarded(
    update: Update, g: Array, w: Array, slots: tuple[Array, ...], h: Any, passes: Array, zero: Array
) -> tuple[Array, tuple[Array, ...]]:
    """`update.step`; where `passes` is False, a step of 0.0 and the old slots.

    What is chosen are the arguments of the arithmetic. A choice between a product and the sum in `optax.apply_updates` would
    keep XLA from fusing the two, and so change the bits of the steps that are taken. The new slots are chosen before the
    step is computed from them: were it after, XLA would compute them twice, to store them and for the weights, and the weights
    would need the old slots too, which then could not be overwritten in place.

    Args:
        update: The rule with its pipeline.
        g: The gradient.
        w: The weight.
        slots: The old slots.
        h: The hyperparameters.
        passes: Whether the step is taken, a boolean scalar.
        zero: A scalar that is 0 without the compiler's knowing. It would put `lr * where(passes, g, 0)` with a 0 that it knows
            into the form `where(passes, lr * g, 0)`, in which the choice comes after the product.
    """
    traced: Any = jax.make_jaxpr(update.step)(g, w, slots, h)
    step, *new = traced.jaxpr.outvars
    makes_slots = [any(v in new for v in equation.outvars) for equation in traced.jaxpr.eqns]
    rest = [equation for equation, makes in zip(traced.jaxpr.eqns, makes_slots, strict=True) if not makes]
    new_slots = jaxpr_as_fun(traced.replace(jaxpr=traced.jaxpr.replace(outvars=new)))
    step_with = jaxpr_as_fun(
        traced.replace(jaxpr=traced.jaxpr.replace(invars=[*traced.jaxpr.invars, *new], outvars=[step], eqns=rest))
    )

    def chosen(x: Array) -> Array:
        return jnp.where(passes, x, zero.astype(x.dtype))

    # The zeros in this line do not matter to the result. With them the velocity has the place among the inputs of the compiled
    # loop in which XLA fuses the first product of m v + lr g, as it does without a guard.
    found = new_slots(*jax.tree.leaves((g, w, [jnp.where(passes, s, 0) for s in slots], h)))
    kept = [jnp.where(passes, n, s) for n, s in zip(found, slots, strict=True)]
    (taken,) = step_with(*jax.tree.leaves((chosen(g), chosen(w), [chosen(s) for s in slots], h)), *map(chosen, kept))
    return taken, tuple(kept)
