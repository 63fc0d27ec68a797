"""Schedules: pure functions of the step, for the learning rate and for the momentum, in every framework.

    schedule = polyak.schedules.cosine(0.1, 10_000, warmup=500)
    schedule(0)                                     # the value of the first update

A schedule is given to a front-end in the place of a number, which calls it with the step inside the compiled step. The same
step has the same float32 value in all of them. Schedules can be compared, hashed, pickled and printed.
"""

from polyak.schedules.constants import constant, piecewise
from polyak.schedules.drawing import plot
from polyak.schedules.lines import OneCycle, linear, one_cycle, piecewise_linear, warmup_stable_decay
from polyak.schedules.momenta import demon, sutskever
from polyak.schedules.waves import cosine

__all__ = [
    "OneCycle",
    "constant",
    "cosine",
    "demon",
    "linear",
    "one_cycle",
    "piecewise",
    "piecewise_linear",
    "plot",
    "sutskever",
    "warmup_stable_decay",
]
