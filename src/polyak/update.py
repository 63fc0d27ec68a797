"""The pipeline around a rule, defined once: coupled decay, the rule, decoupled decay, the new weight."""

from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from polyak.ops import Array, fma
from polyak.rules.rule import Rule, Slots

Decay = Literal["coupled", "decoupled"]


def coupled(g: Array, w: Array, h: Any) -> Array:
    """Weight decay as part of the gradient: g + wd w. The velocity remembers it, as in torch.optim.SGD."""
    return fma(h.weight_decay, w, g)


def decoupled(w: Array, h: Any) -> Array:
    """Weight decay beside the step: w - lr wd w. The velocity never sees it, as in Keras and AdamW.

    Source: I. Loshchilov, F. Hutter, "Decoupled weight decay regularization", ICLR 2019, algorithm 1, with the product of
    learning rate and coefficient in place of a coefficient of its own, as all frameworks have it.
    """
    return w - (h.learning_rate * h.weight_decay) * w


def same_gradient(g: Array, w: Array, h: Any) -> Array:  # noqa: ARG001  (stands in for `coupled`)
    """No decay in the gradient."""
    return g


def same_weight(w: Array, h: Any) -> Array:  # noqa: ARG001  (stands in for `decoupled`)
    """No decay beside the step."""
    return w


@dataclass(frozen=True)
class Update:
    """A rule with its pipeline.

    Attributes:
        rule: The rule.
        decay: "coupled", "decoupled" or None.
        apply: The pure function `(g, w, slots, h) -> (new w, new slots)`, in the shapes and the dtype of `Rule.step`.
        Hyperparameters: The named tuple that `apply` takes as `h`.
    """

    rule: Rule
    decay: Decay | None
    apply: Callable[[Array, Array, Slots, Any], tuple[Array, Slots]]
    Hyperparameters: Any  # a class made by namedtuple(), which has no static type


def pipeline(rule: Rule, decay: Decay | None = None) -> Update:
    """Put the pipeline around a rule.

    Example:
        >>> from polyak.rules import heavy_ball
        >>> update = pipeline(heavy_ball(), decay="decoupled")
        >>> h = update.Hyperparameters(learning_rate=0.5, momentum=0.5, dampening=0.0, weight_decay=0.5)
        >>> update.apply(1.0, 8.0, (2.0,), h)
        (5.0, (2.0,))
    """
    gradient = coupled if decay == "coupled" else same_gradient
    weight = decoupled if decay == "decoupled" else same_weight
    step = rule.step

    def apply(g: Array, w: Array, slots: Slots, h: Any) -> tuple[Array, Slots]:
        s, slots = step(gradient(g, w, h), w, slots, h)
        return weight(w, h) - s, slots

    names = rule.hyperparameters if decay is None else (*rule.hyperparameters, "weight_decay")
    return Update(rule, decay, apply, namedtuple("Hyperparameters", names))
