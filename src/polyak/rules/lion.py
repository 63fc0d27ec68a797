"""Lion: a step of the learning rate along the sign of an average that leans on the present gradient.

    symbol   argument         meaning
    g        gradient         of the loss with respect to the weight w
    lr       learning_rate    how far each weight moves at a step
    b1       b1               in [0, 1): how much of the velocity is in the step
    b2       b2               in [0, 1): how much of the velocity survives a step
    v        slot "velocity"  the average of past gradients; 0 before the first step

    step = lr sign(g + b1 (v - g))        v <- g + b2 (v - g)

The step is taken with the old velocity. With b1 = b2 it is Signum. The sign of 0 is 0, and that of NaN is NaN.

Source: X. Chen, C. Liang, D. Huang, E. Real, K. Wang, Y. Liu, H. Pham, X. Dong, T. Luong, C.-J. Hsieh, Y. Lu, Q. V. Le,
"Symbolic discovery of optimization algorithms", NeurIPS 2023, arXiv:2302.06675, algorithm 2, whose m is v here. Its weight
decay is decoupled.
"""

from typing import Any

from polyak.ops import Array, fma, sign
from polyak.rules.rule import Rule, Slots


def lion(g: Array, w: Array, slots: Slots, h: Any) -> tuple[Array, Slots]:  # noqa: ARG001  (every rule is given w)
    """w = w - lr sign(g + b1 (v - g)); v = g + b2 (v - g)."""
    (v,) = slots
    difference = v - g
    return h.learning_rate * sign(fma(h.b1, difference, g)), (fma(h.b2, difference, g),)


LION = Rule("lion", lion, ("velocity",), ("learning_rate", "b1", "b2"))
