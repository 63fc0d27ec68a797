"""QHM: quasi-hyperbolic momentum, a weighted mean of gradient descent and momentum.

    symbol   argument         meaning
    g        gradient         of the loss with respect to the weight w
    lr       learning_rate    size of the step
    b        momentum         in [0, 1): how much of the velocity survives a step
    nu       nu               in [0, 1]: the part of the step that is taken along the velocity
    v        slot "velocity"  the average of past gradients; 0 before the first step

    v <- v + (1 - b) (g - v)        step = lr ((1 - nu) g + nu v)

nu = 0 is gradient descent, nu = 1 is momentum with velocity="average", and nu = b is Nesterov's variant of that.

Source: J. Ma, D. Yarats, "Quasi-hyperbolic momentum and Adam for deep learning", ICLR 2019, arXiv:1810.06801, equations (3) and
(4), where the velocity is g-hat and its coefficient is beta.
"""

from typing import Any

from polyak.ops import Array, fma, one_minus
from polyak.rules.rule import Rule, Slots


def qhm(g: Array, w: Array, slots: Slots, h: Any) -> tuple[Array, Slots]:  # noqa: ARG001  (every rule is given w)
    """v = v + (1 - b) (g - v); w = w - lr (g + nu (v - g))."""
    (v,) = slots
    v = fma(one_minus(h.momentum), g - v, v)
    return h.learning_rate * fma(h.nu, v - g, g), (v,)


QHM = Rule("qhm", qhm, ("velocity",), ("learning_rate", "momentum", "nu"))
