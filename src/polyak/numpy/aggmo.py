"""AggMo for NumPy arrays."""

from collections.abc import Mapping, Sequence
from typing import Unpack

from polyak.arguments import Common
from polyak.methods import AGGMO
from polyak.numpy.arrays import Array
from polyak.numpy.optimizer import Number, Optimizer


class AggMo(Optimizer):
    """Aggregated momentum: the mean of several velocities, each with a momentum of its own.

    Each step is

        v_i = momenta[i] * v_i + g
        w = w - lr * (v_0 + v_1 + ...) / K

    and v starts at 0; `polyak.rules.aggmo` has the source.

    Args:
        params: The weights by name, as in `Momentum`.
        lr: The learning rate, >= 0.
        momenta: K numbers in [0, 1), each for one velocity in memory. Fixed when the optimizer is made.
        **common: weight_decay, decay, max_norm, maximize, cautious, cautious_decay and finite, as in `Momentum`.

    Raises:
        ValueError: A number out of its range, or options of which one would have no effect.
        TypeError: An argument of another type.

    Example:
        >>> w = np.array([4.0, -2.0])
        >>> optimizer = AggMo({"w": w}, lr=0.25)
        >>> optimizer.step({"w": w})       # the gradient of w**2 / 2
        >>> w
        array([ 3. , -1.5])
    """

    _method = AGGMO

    def __init__(
        self,
        params: Mapping[str, Array],
        lr: Number = 0.01,
        momenta: Sequence[float] = (0.0, 0.9, 0.99),
        **common: Unpack[Common],
    ) -> None:
        super().__init__(params, lr, {"momenta": momenta}, **common)
