"""Signum in PyTorch."""

from collections.abc import Iterable
from typing import Any, Unpack

from torch import Tensor

from polyak.arguments import Common
from polyak.methods import SIGNUM_METHOD
from polyak.torch.optimizer import Optimizer


class Signum(Optimizer):
    """The sign of momentum: each step moves every weight by the learning rate.

    Each step is

        v = v + (1 - momentum) * (g - v)
        w = w - lr * sign(v)

    and v starts at 0; `polyak.rules.signum` has the source.

    Args:
        params: Parameters, named parameters or groups, as in `Momentum`.
        lr: The learning rate, >= 0: how far each weight moves.
        momentum: In [0, 1): how much of the average survives a step. With 0 this is signSGD, without a velocity.
        **common: weight_decay, decay, max_norm, maximize, cautious, cautious_decay and finite, as in `Momentum`.

    Raises:
        ValueError: A number out of its range, or options of which one would have no effect.
        TypeError: An argument of another type.

    Example:
        >>> model = torch.nn.Linear(4, 1)
        >>> optimizer = Signum(model.parameters(), lr=0.001)
        >>> model(torch.ones(4)).sum().backward()
        >>> optimizer.step()
    """

    _method = SIGNUM_METHOD

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 0.001,
        momentum: float = 0.9,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(params, lr, {"momentum": momentum}, **common)
