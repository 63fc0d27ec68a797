"""The pipeline around a rule, defined once.

In this order: scale of the gradient, coupled decay, the rule, the cautious step, decoupled decay, the new weight.
"""

from collections import namedtuple
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from polyak.ops import Array, fma, sign, where
from polyak.rules.rule import Rule, Slots

Decay = Literal["coupled", "decoupled"]


def scaled(g: Array, h: Any) -> Array:
    """The gradient times a number that is the same for all parameters: clipping by the global norm, and -1 to maximize."""
    return h.scale * g


def clip_scale(norm: Array, max_norm: Array) -> Array:
    """The scale with which gradients of this global norm have one of at most `max_norm`; exactly 1 if they have already.

    Infinity gives 0 and NaN gives NaN, as `torch.nn.utils.clip_grad_norm_` has it: the infinite elements become NaN, the others
    have no effect; with NaN all weights do. Neither passes unseen.

    Example:
        >>> clip_scale(4.0, max_norm=1.0), clip_scale(0.5, max_norm=1.0)
        (0.25, 1)
    """
    within = norm <= max_norm
    return where(within, 1, max_norm / where(within, 1, norm))  # numbers do not divide by a norm of 0


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


def _apart(a: Array, b: Array) -> Array:
    """Where one is positive and the other negative, or one is 0; not at a NaN, which so stays in the step and is seen.

    From the signs, for the product of two small numbers is 0; from both signs, for one more use of a step that is a product
    changes what compilers fuse it with.
    """
    return sign(a) * sign(b) <= 0


def cautious_step(s: Array, g: Array) -> Array:
    """The step where it goes down the present gradient, 0 elsewhere: a velocity that still points uphill has to wait.

    Source: K. Liang, L. Chen, B. Liu, Q. Liu, "Cautious optimizers: improving training with one line of code",
    arXiv:2411.16085, 2024. They also scale the step up by the inverse of the share of a tensor's elements that move; here no
    element's step depends on another element, and the learning rate stays what the user gave.
    """
    return where(_apart(s, g), 0, s)


def cautious_decay(s: Array, w: Array, h: Any) -> Array:
    """`decoupled` where the step makes the weight smaller too, the step alone elsewhere.

    Source: L. Chen, J. Li, K. Liang, B. Su, C. Xie, N. W. Pierse, C. Liang, N. Lao, Q. Liu, "Cautious weight decay",
    arXiv:2510.12402, 2025.
    """
    return where(_apart(s, w), s, decoupled(s, w, h))


def unscaled(g: Array, h: Any) -> Array:  # noqa: ARG001  (stands in for `scaled`)
    """The gradient as it came."""
    return g


def same_gradient(g: Array, w: Array, h: Any) -> Array:  # noqa: ARG001  (stands in for `coupled`)
    """No decay in the gradient."""
    return g


def same_step(s: Array, w: Array, h: Any) -> Array:  # noqa: ARG001  (stands in for `decoupled`)
    """No decay beside the step."""
    return s


def any_step(s: Array, g: Array) -> Array:  # noqa: ARG001  (stands in for `cautious_step`)
    """The step wherever it goes."""
    return s


@dataclass(frozen=True)
class Update:
    """A rule with its pipeline.

    Attributes:
        rule: The rule.
        decay: "coupled", "decoupled" or None.
        scale: Whether `h.scale` multiplies the gradient before anything else.
        cautious: Whether the step waits where it does not go down the gradient; see `cautious_step`.
        cautious_decay: Whether the decoupled decay waits where the step does not go its way; see `cautious_decay`.
        step: The pure function `(g, w, slots, h) -> (step, new slots)`: the rule's, with all stages.
        apply: The pure function `(g, w, slots, h) -> (new w, new slots)`, where the new w is w - step. Both take and give the
            shapes and the dtype of `Rule.step`.
        Hyperparameters: The named tuple that `apply` takes as `h`.
        per_tensor: For a rule of tensors, the function `(h, g_norm, w_norm, dimensions) -> h`. As `Rule.per_tensor`, but for
            the norm of the gradient as it came, and with all that is in `h`; None for all other rules.
    """

    rule: Rule
    decay: Decay | None
    scale: bool
    cautious: bool
    cautious_decay: bool
    step: Callable[[Array, Array, Slots, Any], tuple[Array, Slots]]
    apply: Callable[[Array, Array, Slots, Any], tuple[Array, Slots]]
    Hyperparameters: Any  # a class made by namedtuple(), which has no static type
    per_tensor: Callable[[Mapping[str, Any], Array, Array, Array], dict[str, Any]] | None


def pipeline(
    rule: Rule, decay: Decay | None = None, *, scale: bool = False, cautious: bool = False, cautious_decay: bool = False
) -> Update:
    """Put the pipeline around a rule. The same arguments give the same object, so that what is compiled for it serves again.

    Raises:
        ValueError: Decoupled decay with a rule of tensors.

    Example:
        >>> from polyak.rules import heavy_ball
        >>> update = pipeline(heavy_ball(), decay="decoupled")
        >>> h = update.Hyperparameters(learning_rate=0.5, momentum=0.5, weight_decay=0.5)
        >>> update.apply(1.0, 8.0, (2.0,), h)
        (5.0, (2.0,))
    """
    if rule.per_tensor and decay == "decoupled":
        raise ValueError(
            f'decay="decoupled" has no meaning with {rule.name}, whose learning rate for each tensor is made for the gradient '
            'with the decay in it. Use decay="coupled", or leave weight_decay out.'
        )
    return _pipeline(rule, decay, scale, cautious, cautious_decay)


@cache
def _pipeline(rule: Rule, decay: Decay | None, scale: bool, cautious: bool, careful: bool) -> Update:
    scaling = scaled if scale else unscaled
    gradient = coupled if decay == "coupled" else same_gradient
    agreeing = cautious_step if cautious else any_step
    decaying = same_step if decay != "decoupled" else cautious_decay if careful else decoupled
    rule_step = rule.step

    def step(g: Array, w: Array, slots: Slots, h: Any) -> tuple[Array, Slots]:
        g = scaling(g, h)
        s, slots = rule_step(gradient(g, w, h), w, slots, h)
        return decaying(agreeing(s, g), w, h), slots

    def apply(g: Array, w: Array, slots: Slots, h: Any) -> tuple[Array, Slots]:
        s, slots = step(g, w, slots, h)
        return w - s, slots

    of_rule = rule.per_tensor

    def per_tensor(h: Mapping[str, Any], g_norm: Array, w_norm: Array, dimensions: Array) -> dict[str, Any]:
        g_norm = abs(h["scale"]) * g_norm if scale else g_norm
        h = h if decay else {**h, "weight_decay": 0.0}
        return {**h, **(of_rule(h, g_norm, w_norm, dimensions) if of_rule else {})}

    names = (*rule.hyperparameters, *(["weight_decay"] if decay else []), *(["scale"] if scale else []))
    numbers = namedtuple("Hyperparameters", names)  # type: ignore[misc]
    return Update(rule, decay, scale, cautious, careful, step, apply, numbers, per_tensor if of_rule else None)
