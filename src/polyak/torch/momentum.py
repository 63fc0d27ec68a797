"""Momentum in PyTorch."""

from collections.abc import Iterable
from typing import Any, Literal

from torch import Tensor

from polyak.methods import MOMENTUM
from polyak.torch.optimizer import Optimizer


class Momentum(Optimizer):
    """Gradient descent with momentum.

    With the gradient g of the loss with respect to a weight w, and a velocity v that starts at 0, each step is

        v = momentum * v + g
        w = w - lr * v

    It takes the place of torch.optim.SGD, whose state_dict it loads. Weights of float32 and float64 in host memory are updated
    in one pass by compiled code; all others by the same rule in torch operations. For float16 and bfloat16 the velocity is
    float32 and so is the arithmetic. Gradients are never written to; parameters without one are left alone.

    Args:
        params: Parameters, named parameters, or dicts with "params" and options of their own for a group. Every option below
            but `max_norm` and `finite` may differ between groups. All are read anew at each step, so that schedulers may change
            them.
        lr: The learning rate, >= 0; a number or a tensor without dimensions.
        momentum: In [0, 1): how much of the velocity survives a step. With 0 this is gradient descent, without a velocity.
        nesterov: Step along `momentum * v + g`, with the new v, instead of v.
        velocity: The unit in which v is kept; see `polyak.rules.heavy_ball`.
            "gradient": v = m v + (1 - dampening) g, w = w - lr v. As in torch.optim.SGD.
            "step": v = m v + lr (1 - dampening) g, w = w - v. Past steps keep the learning rate that they were taken with.
            "average": v = v + (1 - m) (g - v), w = w - lr v. An average of gradients.
        dampening: In [0, 1): the part of each gradient that is kept out of the velocity. From the first gradient on, of which
            torch.optim.SGD takes the whole.
        weight_decay: A coefficient >= 0, together with `decay`. A group may set it to 0.
        decay: "coupled" adds weight_decay * w to the gradient, as torch.optim.SGD does with its weight_decay. "decoupled"
            takes lr * weight_decay * w from the weight beside the step, as AdamW does.
        max_norm: The gradients are scaled so that the norm of all of them together, over all groups and all shards, is at most
            this. `grad_norm` tells what it was. A norm that is not finite is not hidden: see `polyak.update.clip_scale`.
        maximize: Go up the gradient instead of down.
        cautious: Weights move only where the step goes down the present gradient; see `polyak.update.cautious_step`.
        cautious_decay: The decoupled decay acts only where the step goes its way; see `polyak.update.cautious_decay`.
        finite: What becomes of a step in which a gradient, of whatever group, has a NaN or an infinity (or a square that
            overflows float64). "skip" leaves it out, so that weights and slots stay as they are, and counts it in `skipped`.
            "error" raises FloatingPointError as well, with the names of the parameters. "off" does not look.

    Attributes:
        grad_norm: The norm of all gradients together at the last step, before it was limited; None without `max_norm`.
        skipped: How many steps were left out.

    Raises:
        ValueError: A number out of its range, weight_decay without decay, or options of which one would have no effect.
        TypeError: An argument of another type.

    Example:
        >>> model = torch.nn.Linear(4, 1)
        >>> optimizer = Momentum(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
        >>> model(torch.ones(4)).sum().backward()
        >>> optimizer.step()
    """

    _method = MOMENTUM

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 0.01,
        momentum: float = 0.9,
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
