"""Schedule-free gradient descent: an average of the weights takes the place of a falling learning rate.

    symbol   argument         meaning
    g        gradient         of the loss with respect to y, the weight that is trained
    lr       learning_rate    size of the step
    b        momentum         in (0, 1]: how far y leans towards the average x
    c        average          in (0, 1]: the part of the average that the newest z takes; 1 at the first step, 1/t at step t
    s        slot "lead"      z - y; 0 before the first step, where x = y = z

As the paper has it, with three sequences:

    y = (1 - b) z + b x        z <- z - lr g        x <- (1 - c) x + c z

The weight in memory is y, for there the gradient is taken. Of the others, the slot keeps z - y, from which both follow:
z = y + s and x = y - s (1 - b) / b. In these terms a step is

    s <- (1 - c) (s - b lr g)        step = lr g + (s_new - s_old)

which is linear in the gradient and needs neither z nor x. What is to be evaluated and used is x, which
`polyak.averaged` gives. Where b changes, y and z stay as they are and x is what follows from them.

The pipeline around the rule moves y alone; z and x, which are kept relative to it, move along. So coupled weight decay is the
authors' (the decay of y in the gradient), while decoupled decay takes the same from all three.

Source: A. Defazio, X. A. Yang, H. Mehta, K. Mishchenko, A. Khaled, A. Cutkosky, "The road less scheduled", NeurIPS 2024,
arXiv:2405.15682, equations (3) to (5), where b is beta and y, z and x have the step as an index.
"""

from typing import Any

from polyak.ops import Array, fma
from polyak.rules.rule import Rule, Slots


def schedule_free(g: Array, w: Array, slots: Slots, h: Any) -> tuple[Array, Slots]:  # noqa: ARG001  (every rule is given w)
    """s' = (1 - c) (s - b lr g); w = w - (lr g + s' - s)."""
    (s,) = slots
    d = fma(-(h.learning_rate * h.momentum), g, s)
    new = fma(-h.average, d, d)
    return fma(h.learning_rate, g, new - s), (new,)


SCHEDULE_FREE = Rule("schedule_free", schedule_free, ("lead",), ("learning_rate", "momentum", "average"))
