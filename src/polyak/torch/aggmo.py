"""AggMo in PyTorch."""

from collections.abc import Iterable, Sequence
from typing import Any, Unpack

from torch import Tensor

from polyak.arguments import Common
from polyak.methods import AGGMO
from polyak.torch.optimizer import Optimizer


class AggMo(Optimizer):
    """Aggregated momentum: the mean of several velocities, each with a momentum of its own.

    Each step is

        v_i = momenta[i] * v_i + g
        w = w - lr * (v_0 + v_1 + ...) / K

    and v starts at 0; `polyak.rules.aggmo` has the source.

    Args:
        params: Parameters, named parameters or groups, as in `Momentum`.
        lr: The learning rate, >= 0.
        momenta: K numbers in [0, 1), each for one velocity in memory. Fixed when the optimizer is made.
        **common: weight_decay, decay, max_norm, maximize, cautious, cautious_decay and finite, as in `Momentum`.

    Raises:
        ValueError: A number out of its range, or options of which one would have no effect.
        TypeError: An argument of another type.

    Example:
        >>> model = torch.nn.Linear(4, 1)
        >>> optimizer = AggMo(model.parameters(), lr=0.01)
        >>> model(torch.ones(4)).sum().backward()
        >>> optimizer.step()
    """

    _method = AGGMO

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 0.01,
        momenta: Sequence[float] = (0.0, 0.9, 0.99),
        **common: Unpack[Common],
    ) -> None:
        super().__init__(params, lr, {"momenta": momenta}, **common)
