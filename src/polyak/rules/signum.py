"""Signum: every weight moves by the learning rate, in the direction in which its average gradient points down.

    symbol   argument         meaning
    g        gradient         of the loss with respect to the weight w
    lr       learning_rate    how far each weight moves at a step
    m        momentum         in [0, 1): how much of the velocity survives a step
    v        slot "velocity"  the average of past gradients; 0 before the first step

    v <- v + (1 - m) (g - v)        step = lr sign(v)

With momentum 0 this is signSGD, which needs no slot. The sign of 0 is 0, and that of NaN is NaN.

Source: J. Bernstein, Y.-X. Wang, K. Azizzadenesheli, A. Anandkumar, "signSGD: compressed optimisation for non-convex problems",
ICML 2018, PMLR 80, pp. 560-569, arXiv:1802.04434, algorithm 2.
"""

from typing import Any

from polyak.ops import Array, fma, one_minus, sign
from polyak.rules.rule import Rule, Slots

# ruff: noqa: ARG001  (every rule is given w)


def signum(g: Array, w: Array, slots: Slots, h: Any) -> tuple[Array, Slots]:
    """v = v + (1 - m) (g - v); w = w - lr sign(v)."""
    (v,) = slots
    v = fma(one_minus(h.momentum), g - v, v)
    return h.learning_rate * sign(v), (v,)


def sign_descent(g: Array, w: Array, slots: Slots, h: Any) -> tuple[Array, Slots]:
    """w = w - lr sign(g)."""
    return h.learning_rate * sign(g), slots


SIGNUM = Rule("signum", signum, ("velocity",), ("learning_rate", "momentum"))
SIGN_DESCENT = Rule("sign_descent", sign_descent, (), ("learning_rate",))
