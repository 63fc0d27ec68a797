"""LARS in PyTorch."""

from collections.abc import Iterable
from typing import Any, Unpack

from torch import Tensor

from polyak.arguments import Common
from polyak.methods import LARS_METHOD
from polyak.torch.optimizer import Optimizer


class LARS(Optimizer):
    """Momentum in which every parameter has a learning rate of its own, in proportion to the size of its weights.

    With the Euclidean norm |x| of a whole tensor, over all its shards, each step is

        trust = trust_coefficient * |w| / (|g| + weight_decay * |w|)        1 where |w| or |g| is 0
        v = momentum * v + lr * trust * (g + weight_decay * w)
        w = w - v

    and v starts at 0. Parameters with fewer than two dimensions have trust 1 and no decay. `polyak.rules.lars` has the source.
    Norms are sums of squares in float64, so that elements of float64 beyond about 1e150 are too large for it.

    Args:
        params: Parameters, named parameters or groups, as in `Momentum`.
        lr: The learning rate, >= 0; another one than that of `Momentum`, for a parameter changes by at most
            lr * trust_coefficient of its norm in a step, before momentum.
        momentum: In [0, 1): how much of the velocity survives a step.
        trust_coefficient: Above 0.
        **common: weight_decay, decay, max_norm, maximize, cautious and finite, as in `Momentum`. A decay is "coupled": it is
            part of the trust ratio.

    Raises:
        ValueError: A number out of its range, or options of which one would have no effect; decay="decoupled".
        TypeError: An argument of another type.

    Example:
        >>> model = torch.nn.Linear(4, 1)
        >>> optimizer = LARS(model.parameters(), lr=5.0, weight_decay=1e-4, decay="coupled")
        >>> model(torch.ones(4)).sum().backward()
        >>> optimizer.step()
    """

    _method = LARS_METHOD

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 0.1,
        momentum: float = 0.9,
        *,
        trust_coefficient: float = 0.001,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(params, lr, {"momentum": momentum, "trust_coefficient": trust_coefficient}, **common)
