"""Momentum for NumPy arrays."""

from collections.abc import Mapping
from typing import Literal

from polyak.methods import MOMENTUM
from polyak.numpy.arrays import Array
from polyak.numpy.optimizer import Hyperparameter, Number, Optimizer


class Momentum(Optimizer):
    """Gradient descent with momentum, on arrays that are updated in place.

    With the gradient g of the loss with respect to a weight w, and a velocity v that starts at 0, each step is

        v = momentum * v + g
        w = w - lr * v

    Args:
        params: The weights by name: float32 or float64 arrays of any shape. They are updated in place, so keep using them.
        lr: The learning rate, a number >= 0, or a function of the step, which is 0 at the first one. `optimizer.lr = x` holds
            from the next step on.
        momentum: In [0, 1): how much of the velocity survives a step. Like `lr`, a number or a function of the step, and
            assignable. With 0 this is gradient descent, and there is no velocity.
        nesterov: Step along `momentum * v + g`, with the new v, instead of v.
        velocity: The unit in which v is kept; see `polyak.rules.heavy_ball`.
        dampening: In [0, 1): the part of each gradient, from the first on, that is kept out of the velocity.
        weight_decay: A coefficient >= 0, together with `decay`.
        decay: "coupled" adds weight_decay * w to the gradient; "decoupled" takes lr * weight_decay * w from the weight.
        max_norm: The gradients are scaled so that the norm of all of them together is at most this; see `grad_norm`.
        maximize: Go up the gradient instead of down.
        cautious: Weights move only where the step goes down the present gradient; see `polyak.update.cautious_step`.
        cautious_decay: The decoupled decay acts only where the step goes its way; see `polyak.update.cautious_decay`.
        finite: What becomes of a step with a gradient that has a NaN or an infinity (or whose square overflows float64).
            "skip" leaves it out, so that weights and slots stay as they are, and counts it in `skipped`. "error" raises
            FloatingPointError as well, with the names of the parameters. "off" does not look.

    Raises:
        ValueError: A number out of its range, options of which one would have no effect, an array that cannot be updated.
        TypeError: An argument of another type.

    Example:
        >>> w = np.array([4.0])
        >>> optimizer = Momentum({"w": w}, lr=0.25, momentum=0.5)
        >>> optimizer.step({"w": w})       # the gradient of w**2 / 2
        >>> optimizer.step({"w": w})
        >>> w, optimizer.slots["velocity"]["w"]
        (array([1.75]), array([5.]))
    """

    _method = MOMENTUM
    momentum = Hyperparameter()

    def __init__(
        self,
        params: Mapping[str, Array],
        lr: Number = 0.01,
        momentum: Number = 0.9,
        *,
        nesterov: bool = False,
        velocity: Literal["gradient", "step", "average"] = "gradient",
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        decay: Literal["coupled", "decoupled"] | None = None,
        max_norm: float | None = None,
        maximize: bool = False,
        cautious: bool = False,
        cautious_decay: bool = False,
        finite: Literal["error", "skip", "off"] = "off",
    ) -> None:
        super().__init__(
            params,
            lr,
            {"momentum": momentum, "nesterov": nesterov, "velocity": velocity, "dampening": dampening},
            weight_decay=weight_decay,
            decay=decay,
            max_norm=max_norm,
            maximize=maximize,
            cautious=cautious,
            cautious_decay=cautious_decay,
            finite=finite,
        )
