"""A step along a direction that is known already: what is left of Muon's step once its matrices are orthogonal."""

from typing import Any

from polyak.ops import Array
from polyak.rules.rule import Rule, Slots


def directed(g: Array, w: Array, slots: Slots, h: Any) -> tuple[Array, Slots]:  # noqa: ARG001  (the pipeline asks g and w)
    """w = w - lr (f d), with a factor f for the shape. Cautious steps compare with g, the decay with w."""
    (d,) = slots
    return h.learning_rate * (h.factor * d), (d,)


DIRECTED = Rule("directed", directed, slots=("direction",), hyperparameters=("learning_rate", "factor"))
