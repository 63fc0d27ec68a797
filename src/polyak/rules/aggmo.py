"""AggMo: aggregated momentum, the mean of several velocities with a momentum each.

    symbol   argument           meaning
    g        gradient           of the loss with respect to the weight w
    lr       learning_rate      size of the step
    b_i      momenta            K numbers in [0, 1): how much of each velocity survives a step
    v_i      slot "velocity_i"  past gradients, geometrically weighted; 0 before the first step

    v_i <- b_i v_i + g        step = (lr / K) (v_1 + ... + v_K)

The fast velocities damp the oscillations of the slow ones, so that a momentum like 0.999 can be among them. K = 1 is the heavy
ball.

Source: J. Lucas, S. Sun, R. Zemel, R. Grosse, "Aggregated momentum: stability through passive damping", ICLR 2019,
arXiv:1804.00325, equation (3), where the velocities have the other sign: v <- b v - g. Slots are counted from 0.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

from polyak.ops import Array, fma
from polyak.rules.rule import Rule, Slots

# (g, slots, h) -> (sum of the new velocities, new velocities)
Velocities = Callable[[Array, Slots, Any], tuple[Array, Slots]]

_BEFORE = ("learning_rate", "share")


@cache
def aggmo(count: int) -> Rule:
    """The rule with `count` velocities.

    It reads the momenta as `momentum_0`, `momentum_1` ..., and 1 / K as `share`, since not every compiler divides alike.

    Raises:
        ValueError: Fewer than one velocity.

    Example:
        >>> aggmo(2).hyperparameters
        ('learning_rate', 'share', 'momentum_0', 'momentum_1')
    """
    if count < 1:
        raise ValueError(f"AggMo needs at least one velocity; got {count}.")
    velocities: Velocities = _first
    for i in range(1, count):
        velocities = _and_another(velocities, len(_BEFORE) + i)

    def step(g: Array, w: Array, slots: Slots, h: Any) -> tuple[Array, Slots]:  # noqa: ARG001  (every rule is given w)
        """v_i = b_i v_i + g; w = w - (lr / K) sum v_i."""
        total, new = velocities(g, slots, h)
        return (h.learning_rate * h.share) * total, new

    slots, momenta = ([f"{name}_{i}" for i in range(count)] for name in ("velocity", "momentum"))
    return Rule(f"aggmo_{count}", step, (*slots,), (*_BEFORE, *momenta))


def _first(g: Array, slots: Slots, h: Any) -> tuple[Array, Slots]:
    v = fma(h.momentum_0, slots[0], g)
    return v, (v,)


def _and_another(before: Velocities, position: int) -> Velocities:
    """One velocity more, whose momentum is at this position of the hyperparameters: compiled code cannot make up a name."""

    def velocities(g: Array, slots: Slots, h: Any) -> tuple[Array, Slots]:
        total, new = before(g, slots[:-1], h)
        v = fma(h[position], slots[-1], g)
        return total + v, (*new, v)

    return velocities
