"""`polyak.jax.aggmo`: the mean of several velocities."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import optax

from polyak.jax.transformation import Number, Schedule, Tree, transformation
from polyak.methods import AGGMO


def aggmo(
    learning_rate: Number | Schedule,
    momenta: Sequence[Number] = (0.0, 0.9, 0.99),
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
    """AggMo: aggregated momentum, the mean of several velocities with a momentum each.

    With the gradient g of the loss with respect to a weight w, and K velocities v_i that start at 0, each step is

        v_i = momenta[i] * v_i + g
        w = w - learning_rate / K * (v_1 + ... + v_K)

    The fast velocities damp the oscillations of the slow ones. One alone is the heavy ball.

    Source: J. Lucas, S. Sun, R. Zemel, R. Grosse, "Aggregated momentum: stability through passive damping", ICLR 2019,
    arXiv:1804.00325.

    Args:
        learning_rate: A number >= 0, or a function of the step.
        momenta: Numbers in [0, 1), one for each velocity. They stay as they are.
        weight_decay: For this and the other arguments, see `polyak.jax.momentum`.
        decay: "coupled" or "decoupled".
        mask: Which parameters decay.
        groups: Other numbers for parameters by name.
        max_norm: A bound of the gradients' global norm.
        cautious: Step only where the step goes down the present gradient.
        cautious_decay: Decay only where the step makes the weight smaller too.
        finite: What becomes of a step with a gradient that is not finite.
        slot_dtype: The dtype in which the velocities are kept.

    Returns:
        The transformation, whose state is a `polyak.jax.State` with the slots "velocity_0", "velocity_1" ...

    Raises:
        ValueError: A number out of its range, or options of which one would have no effect.
        TypeError: An argument of another type.

    Example:
        >>> optimizer = aggmo(0.5, momenta=(0.0, 0.5))
        >>> w = jnp.array([4.0])
        >>> state = optimizer.init(w)
        >>> updates, state = optimizer.update(w, state, w)      # the gradient of w**2 / 2
        >>> optax.apply_updates(w, updates), sorted(state.slots)
        (Array([2.], dtype=float32), ['velocity_0', 'velocity_1'])
    """
    return transformation(
        AGGMO,
        {"learning_rate": learning_rate, "momenta": momenta},
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
