"""`polyak.jax.qhm`: a weighted mean of gradient descent and momentum."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import optax

from polyak.jax.transformation import Number, Schedule, Tree, transformation
from polyak.methods import QHM_METHOD


def qhm(
    learning_rate: Number | Schedule,
    momentum: Number | Schedule = 0.999,
    nu: Number | Schedule = 0.7,
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
    """QHM: quasi-hyperbolic momentum, a weighted mean of gradient descent and momentum.

    With the gradient g of the loss with respect to a weight w, and a velocity v that starts at 0, each step is

        v = v + (1 - momentum) * (g - v)
        w = w - learning_rate * ((1 - nu) * g + nu * v)

    Source: J. Ma, D. Yarats, "Quasi-hyperbolic momentum and Adam for deep learning", ICLR 2019, arXiv:1810.06801, whose
    defaults of momentum and nu these are; its learning rate for them is 1. The velocity is an average of gradients: a step has
    the size of the heavy ball's with a learning rate that is 1 - momentum times this one.

    Args:
        learning_rate: A number >= 0, or a function of the step.
        momentum: In [0, 1): how much of the velocity survives a step. A number, or a function of the step.
        nu: In [0, 1]: the part of the step that is taken along the velocity. 0 is gradient descent, 1 is momentum with
            velocity="average". A number, or a function of the step.
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
        TypeError: An argument of another type.

    Example:
        >>> optimizer = qhm(1.0, momentum=0.5, nu=0.5)
        >>> w = jnp.array([4.0])
        >>> state = optimizer.init(w)
        >>> updates, state = optimizer.update(w, state, w)      # the gradient of w**2 / 2
        >>> optax.apply_updates(w, updates), state.slots["velocity"]
        (Array([1.], dtype=float32), Array([2.], dtype=float32))
    """
    return transformation(
        QHM_METHOD,
        {"learning_rate": learning_rate, "momentum": momentum, "nu": nu},
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
