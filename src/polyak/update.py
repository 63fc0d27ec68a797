"""The pipeline around a rule, defined once: scale of the gradient, coupled decay, the rule, decoupled decay, the new weight."""

from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from polyak.ops import Array, fma
from polyak.rules.rule import Rule, Slots

Decay = Literal["coupled", "decoupled"]


def scaled(g: Array, h: Any) -> Array:
    """The gradient times a number that is the same for all parameters: clipping by the global norm, and -1 to maximize."""
    return h.scale * g


def clip_scale(norm: float, max_norm: float) -> float:
    """The scale with which gradients of this global norm have one of at most `max_norm`; exactly 1 if they have already.

    Infinity gives 0 and NaN gives NaN, as `torch.nn.utils.clip_grad_norm_` has it: the infinite elements become NaN, the others
    have no effect; with NaN all weights do. Neither passes unseen.

    Example:
        >>> clip_scale(4.0, max_norm=1.0), clip_scale(0.5, max_norm=1.0)
        (0.25, 1.0)
    """
    return 1.0 if norm <= max_norm else max_norm / norm


def coupled(g: Array, w: Array, h: Any) -> Array:
    """Weight decay as part of the gradient: g + wd w. The velocity remembers it, as in torch.optim.SGD."""
    return fma(h.weight_decay, w, g)


def decoupled(s: Array, w: Array, h: Any) -> Array:
    """Weight decay beside the step: s + lr wd w. The velocity never sees it, as in Keras and AdamW.

    Source: I. Loshchilov, F. Hutter, "Decoupled weight decay regularization", ICLR 2019, algorithm 1, with the product of
    learning rate and coefficient in place of a coefficient of its own, as all frameworks have it.
    """
    # lr wd w, but as a sum: something of its size that is no product is taken off it and put back. `s` may be a product too,
    # and which product of a sum of two is fused is for each compiler to choose. (To let w lose the decay first is what others
    # do, and rounds it to the last bit of w: of lr wd < 2^-25 nothing is left, and what is left of more is biased.)
    c = h.learning_rate * h.weight_decay
    about = (w + (c + c) * w) - w
    return s + (fma(c, w, -about) + about)


def unscaled(g: Array, h: Any) -> Array:  # noqa: ARG001  (stands in for `scaled`)
    """The gradient as it came."""
    return g


def same_gradient(g: Array, w: Array, h: Any) -> Array:  # noqa: ARG001  (stands in for `coupled`)
    """No decay in the gradient."""
    return g


def same_step(s: Array, w: Array, h: Any) -> Array:  # noqa: ARG001  (stands in for `decoupled`)
    """No decay beside the step."""
    return s


@dataclass(frozen=True)
class Update:
    """A rule with its pipeline.

    Attributes:
        rule: The rule.
        decay: "coupled", "decoupled" or None.
        scale: Whether `h.scale` multiplies the gradient before anything else.
        step: The pure function `(g, w, slots, h) -> (step, new slots)`: the rule's, with scale and decay.
        apply: The pure function `(g, w, slots, h) -> (new w, new slots)`, where the new w is w - step. Both take and give the
            shapes and the dtype of `Rule.step`.
        Hyperparameters: The named tuple that `apply` takes as `h`.
    """

    rule: Rule
    decay: Decay | None
    scale: bool
    step: Callable[[Array, Array, Slots, Any], tuple[Array, Slots]]
    apply: Callable[[Array, Array, Slots, Any], tuple[Array, Slots]]
    Hyperparameters: Any  # a class made by namedtuple(), which has no static type


@cache
def pipeline(rule: Rule, decay: Decay | None = None, *, scale: bool = False) -> Update:
    """Put the pipeline around a rule. The same arguments give the same object, so that what is compiled for it serves again.

    Example:
        >>> from polyak.rules import heavy_ball
        >>> update = pipeline(heavy_ball(), decay="decoupled")
        >>> h = update.Hyperparameters(learning_rate=0.5, momentum=0.5, weight_decay=0.5)
        >>> update.apply(1.0, 8.0, (2.0,), h)
        (5.0, (2.0,))
    """
    scaling = scaled if scale else unscaled
    gradient = coupled if decay == "coupled" else same_gradient
    decaying = decoupled if decay == "decoupled" else same_step
    rule_step = rule.step

    def step(g: Array, w: Array, slots: Slots, h: Any) -> tuple[Array, Slots]:
        s, slots = rule_step(gradient(scaling(g, h), w, h), w, slots, h)
        return decaying(s, w, h), slots

    def apply(g: Array, w: Array, slots: Slots, h: Any) -> tuple[Array, Slots]:
        s, slots = step(g, w, slots, h)
        return w - s, slots

    names = (*rule.hyperparameters, *(["weight_decay"] if decay else []), *(["scale"] if scale else []))
    return Update(rule, decay, scale, step, apply, namedtuple("Hyperparameters", names))
