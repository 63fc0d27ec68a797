"""`polyak.jax.signum`: a step along the signs of an average of gradients."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import optax

from polyak.jax.transformation import Number, Schedule, Tree, transformation
from polyak.methods import SIGNUM_METHOD


def signum(
    learning_rate: Number | Schedule,
    momentum: Number | Schedule = 0.9,
    *,
    weight_decay: Number = 0.0,
    decay: Literal["coupled", "decoupled"] | None = None,
    mask: Tree | Callable[[Tree], Tree] | None = None,
    groups: Mapping[str, Mapping[str, Any]] | None = None,
    max_norm: Number | None = None,
    cautious: bool = False,
    cautious_decay: bool = False,
    finite: Literal["error", "skip", "off"] = "off",
    slot_dtype: Any = None,
) -> optax.GradientTransformation:
    """Signum: every weight moves by the learning rate, in the direction in which its average gradient points down.

    With the gradient g of the loss with respect to a weight w, and a velocity v that starts at 0, each step is

        v = v + (1 - momentum) * (g - v)
        w = w - learning_rate * sign(v)

    The sign of 0 is 0. The recursion is that of optax.signum; with momentum 0 it is that of optax.sign_sgd.

    Source: J. Bernstein, Y.-X. Wang, K. Azizzadenesheli, A. Anandkumar, "signSGD: compressed optimisation for non-convex
    problems", ICML 2018, arXiv:1802.04434, algorithm 2.

    Args:
        learning_rate: A number >= 0, or a function of the step: how far each weight moves.
        momentum: In [0, 1): how much of the velocity survives a step. A number, or a function of the step. With the number 0
            this is signSGD, without a velocity in memory.
        weight_decay: For this and the other arguments, see `polyak.jax.momentum`.
        decay: "coupled" or "decoupled".
        mask: Which parameters decay.
        groups: Other numbers for parameters by name.
        max_norm: A bound of the gradients' global norm.
        cautious: Step only where the step goes down the present gradient.
        cautious_decay: Decay only where the step makes the weight smaller too.
        finite: What becomes of a step with a gradient that is not finite.
        slot_dtype: The dtype in which v is kept.

    Returns:
        The transformation, whose state is a `polyak.jax.State` with the slot "velocity".

    Raises:
        ValueError: A number out of its range, or options of which one would have no effect.
        TypeError: An argument of another type. `init` raises it for complex parameters.

    Example:
        >>> optimizer = signum(0.25, 0.5)
        >>> w = jnp.array([4.0])
        >>> state = optimizer.init(w)
        >>> updates, state = optimizer.update(w, state, w)      # the gradient of w**2 / 2
        >>> optax.apply_updates(w, updates), state.slots["velocity"]
        (Array([3.75], dtype=float32), Array([2.], dtype=float32))
    """
    return transformation(
        SIGNUM_METHOD,
        {"learning_rate": learning_rate, "momentum": momentum},
        weight_decay=weight_decay,
        decay=decay,
        mask=mask,
        groups=groups,
        max_norm=max_norm,
        cautious=cautious,
        cautious_decay=cautious_decay,
        finite=finite,
        slot_dtype=slot_dtype,
    )
