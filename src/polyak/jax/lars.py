"""`polyak.jax.lars`: momentum with a learning rate for each array."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import optax

from polyak.jax.transformation import Number, Schedule, Tree, transformation
from polyak.methods import LARS_METHOD


def lars(
    learning_rate: Number | Schedule,
    momentum: Number | Schedule = 0.9,
    *,
    trust_coefficient: Number = 0.001,
    weight_decay: Number = 0.0,
    decay: Literal["coupled"] | None = None,
    mask: Tree | Callable[[Tree], Tree] | None = None,
    groups: Mapping[str, Mapping[str, Any]] | None = None,
    max_norm: Number | None = None,
    cautious: bool = False,
    finite: Literal["error", "skip", "off"] = "off",
    slot_dtype: Any = None,
) -> optax.GradientTransformation:
    """LARS: momentum in which every array has a learning rate of its own, in proportion to the size of its weights.

    With the Euclidean norm |x| of a whole array, sharded or not, each step is

        trust = trust_coefficient * |w| / (|g| + weight_decay * |w|)        1 where |w| or |g| is 0
        v = momentum * v + learning_rate * trust * (g + weight_decay * w)
        w = w - v

    and v starts at 0. Arrays with fewer than two dimensions have trust 1 and no decay. Norms are in float32 at least. Without
    decay this is optax.lars with its trust ratio masked for these arrays; with decay, optax.lars has |g + weight_decay * w| for
    the denominator.

    Source: Y. You, I. Gitman, B. Ginsburg, "Large batch training of convolutional networks", arXiv:1708.03888, 2017.

    Args:
        learning_rate: A number >= 0, or a function of the step; another one than that of `momentum`, for an array changes by at
            most learning_rate * trust_coefficient of its norm in a step, before momentum.
        momentum: In [0, 1): how much of the velocity survives a step. A number, or a function of the step.
        trust_coefficient: Above 0.
        weight_decay: For this and the other arguments, see `polyak.jax.momentum`.
        decay: "coupled": it is part of the trust ratio.
        mask: Which parameters decay.
        groups: Other numbers for parameters by name.
        max_norm: A bound of the gradients' global norm.
        cautious: Step only where the step goes down the present gradient.
        finite: What becomes of a step with a gradient that is not finite.
        slot_dtype: The dtype in which v is kept.

    Returns:
        The transformation, whose state is a `polyak.jax.State` with the slot "velocity". Its `update` needs the parameters.

    Raises:
        ValueError: A number out of its range, or options of which one would have no effect; decay="decoupled".
        TypeError: An argument of another type.

    Example:
        >>> optimizer = lars(0.5, trust_coefficient=0.5)
        >>> w = jnp.array([[4.0, -2.0]])
        >>> state = optimizer.init(w)
        >>> updates, state = optimizer.update(1e6 * w, state, w)      # however long the gradient is
        >>> optax.apply_updates(w, updates)
        Array([[ 3. , -1.5]], dtype=float32)
    """
    return transformation(
        LARS_METHOD,
        {"learning_rate": learning_rate, "momentum": momentum, "trust_coefficient": trust_coefficient},
        weight_decay=weight_decay,
        decay=decay,
        mask=mask,
        groups=groups,
        max_norm=max_norm,
        cautious=cautious,
        cautious_decay=False,
        finite=finite,
        slot_dtype=slot_dtype,
    )
