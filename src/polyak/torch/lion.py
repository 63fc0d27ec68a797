"""Lion in PyTorch."""

from collections.abc import Iterable
from typing import Any, Unpack

from torch import Tensor

from polyak.arguments import Common
from polyak.methods import LION_METHOD
from polyak.torch.optimizer import Optimizer


class Lion(Optimizer):
    """Lion: the sign of an average that leans on the present gradient.

    Each step is

        w = w - lr * sign(g + b1 * (v - g))
        v = g + b2 * (v - g)

    and v starts at 0; `polyak.rules.lion` has the source.

    Args:
        params: Parameters, named parameters or groups, as in `Momentum`.
        lr: The learning rate, >= 0: how far each weight moves. A third to a tenth of AdamW's, with 3 to 10 times its weight
            decay.
        b1: In [0, 1): how much of the average is in the step.
        b2: In [0, 1): how much of the average survives a step.
        **common: weight_decay, decay, max_norm, maximize, cautious, cautious_decay and finite, as in `Momentum`.

    Raises:
        ValueError: A number out of its range, or options of which one would have no effect.
        TypeError: An argument of another type.

    Example:
        >>> model = torch.nn.Linear(4, 1)
        >>> optimizer = Lion(model.parameters(), lr=0.0001)
        >>> model(torch.ones(4)).sum().backward()
        >>> optimizer.step()
    """

    _method = LION_METHOD

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 0.0001,
        b1: float = 0.9,
        b2: float = 0.99,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(params, lr, {"b1": b1, "b2": b2}, **common)
