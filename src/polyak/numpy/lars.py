"""LARS for NumPy arrays."""

from collections.abc import Mapping
from typing import Unpack

from polyak.arguments import Common
from polyak.methods import LARS_METHOD
from polyak.numpy.arrays import Array
from polyak.numpy.optimizer import Hyperparameter, Number, Optimizer


class LARS(Optimizer):
    """Momentum in which every array has a learning rate of its own, in proportion to the size of its weights.

    With the Euclidean norm |x| of a whole array, each step is

        trust = trust_coefficient * |w| / (|g| + weight_decay * |w|)        1 where |w| or |g| is 0
        v = momentum * v + lr * trust * (g + weight_decay * w)
        w = w - v

    and v starts at 0. Arrays with fewer than two dimensions have trust 1 and no decay. `polyak.rules.lars` has the source.
    Norms are sums of squares in float64, so that elements of float64 beyond about 1e150 are too large for it.

    Args:
        params: The weights by name, as in `Momentum`.
        lr: The learning rate, >= 0; another one than that of `Momentum`, for an array changes by at most
            lr * trust_coefficient of its norm in a step, before momentum.
        momentum: In [0, 1): how much of the velocity survives a step.
        trust_coefficient: Above 0.
        **common: weight_decay, decay, max_norm, maximize, cautious and finite, as in `Momentum`. A decay is "coupled": it is
            part of the trust ratio.

    Raises:
        ValueError: A number out of its range, or options of which one would have no effect; decay="decoupled".
        TypeError: An argument of another type.

    Example:
        >>> w = np.array([[4.0, -2.0]])
        >>> optimizer = LARS({"w": w}, lr=0.5, trust_coefficient=0.5)
        >>> optimizer.step({"w": 1e6 * w})      # however long the gradient is
        >>> w
        array([[ 3. , -1.5]])
    """

    _method = LARS_METHOD
    momentum = Hyperparameter()

    def __init__(
        self,
        params: Mapping[str, Array],
        lr: Number = 0.1,
        momentum: Number = 0.9,
        *,
        trust_coefficient: float = 0.001,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(params, lr, {"momentum": momentum, "trust_coefficient": trust_coefficient}, **common)
