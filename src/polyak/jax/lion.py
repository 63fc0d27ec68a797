"""`polyak.jax.lion`: a step along the signs of an average that leans on the present gradient."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import optax

from polyak.jax.transformation import Number, Schedule, Tree, transformation
from polyak.methods import LION_METHOD


def lion(
    learning_rate: Number | Schedule,
    b1: Number | Schedule = 0.9,
    b2: Number | Schedule = 0.99,
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
    """Lion: every weight moves by the learning rate, along the sign of an average that leans on the present gradient.

    With the gradient g of the loss with respect to a weight w, and a velocity v that starts at 0, each step is

        w = w - learning_rate * sign(g + b1 * (v - g))
        v = g + b2 * (v - g)

    The step is taken with the old velocity, and the sign of 0 is 0. The recursion is that of optax.lion, whose weight decay
    (0.001 unless another is given) is `weight_decay` with decay="decoupled".

    Source: X. Chen, C. Liang, D. Huang, E. Real, K. Wang, Y. Liu, H. Pham, X. Dong, T. Luong, C.-J. Hsieh, Y. Lu, Q. V. Le,
    "Symbolic discovery of optimization algorithms", NeurIPS 2023, arXiv:2302.06675, algorithm 2.

    Args:
        learning_rate: A number >= 0, or a function of the step: how far each weight moves. The paper takes a third to a tenth
            of AdamW's, with a weight decay that is as much larger.
        b1: In [0, 1): how much of the velocity is in the step. A number, or a function of the step.
        b2: In [0, 1): how much of the velocity survives a step. A number, or a function of the step.
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
        >>> optimizer = lion(0.25, b1=0.5, b2=0.75)
        >>> w = jnp.array([4.0])
        >>> state = optimizer.init(w)
        >>> updates, state = optimizer.update(w, state, w)      # the gradient of w**2 / 2
        >>> optax.apply_updates(w, updates), state.slots["velocity"]
        (Array([3.75], dtype=float32), Array([1.], dtype=float32))
    """
    return transformation(
        LION_METHOD,
        {"learning_rate": learning_rate, "b1": b1, "b2": b2},
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
