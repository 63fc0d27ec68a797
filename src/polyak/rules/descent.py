"""Gradient descent: momentum 0, which needs no memory of the past."""

from typing import Any

from polyak.ops import Array
from polyak.rules.rule import Rule, Slots


def descent(g: Array, w: Array, slots: Slots, h: Any) -> tuple[Array, Slots]:  # noqa: ARG001  (every rule is given w)
    """w = w - lr g."""
    return h.learning_rate * g, slots


DESCENT = Rule("descent", descent, slots=(), hyperparameters=("learning_rate",))
