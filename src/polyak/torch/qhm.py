"""QHM in PyTorch."""

from collections.abc import Iterable
from typing import Any, Unpack

from torch import Tensor

from polyak.arguments import Common
from polyak.methods import QHM_METHOD
from polyak.torch.optimizer import Optimizer


class QHM(Optimizer):
    """Quasi-hyperbolic momentum: part of each step follows the gradient, part an average of gradients.

    Each step is

        v = v + (1 - momentum) * (g - v)
        w = w - lr * ((1 - nu) * g + nu * v)

    and v starts at 0; `polyak.rules.qhm` has the source.

    Args:
        params: Parameters, named parameters or groups, as in `Momentum`.
        lr: The learning rate, >= 0; about ten times that of momentum in gradient units with 0.9, since v is an average.
        momentum: In [0, 1): how much of the average survives a step.
        nu: In [0, 1]: the part of the step along the average. 0 is gradient descent, 1 momentum.
        **common: weight_decay, decay, max_norm, maximize, cautious, cautious_decay and finite, as in `Momentum`.

    Raises:
        ValueError: A number out of its range, or options of which one would have no effect.
        TypeError: An argument of another type.

    Example:
        >>> model = torch.nn.Linear(4, 1)
        >>> optimizer = QHM(model.parameters(), lr=0.1)
        >>> model(torch.ones(4)).sum().backward()
        >>> optimizer.step()
    """

    _method = QHM_METHOD

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 0.1,
        momentum: float = 0.999,
        nu: float = 0.7,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(params, lr, {"momentum": momentum, "nu": nu}, **common)
