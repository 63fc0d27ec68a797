"""Lion for NumPy arrays."""

from collections.abc import Mapping
from typing import Unpack

from polyak.arguments import Common
from polyak.methods import LION_METHOD
from polyak.numpy.arrays import Array
from polyak.numpy.optimizer import Hyperparameter, Number, Optimizer


class Lion(Optimizer):
    """Lion: the sign of an average that leans on the present gradient.

    Each step is

        w = w - lr * sign(g + b1 * (v - g))
        v = g + b2 * (v - g)

    and v starts at 0; `polyak.rules.lion` has the source.

    Args:
        params: The weights by name, as in `Momentum`.
        lr: The learning rate, >= 0: how far each weight moves. A third to a tenth of AdamW's, with 3 to 10 times its weight
            decay.
        b1: In [0, 1): how much of the average is in the step.
        b2: In [0, 1): how much of the average survives a step.
        **common: weight_decay, decay, max_norm, maximize, cautious, cautious_decay and finite, as in `Momentum`.

    Raises:
        ValueError: A number out of its range, or options of which one would have no effect.
        TypeError: An argument of another type.

    Example:
        >>> w = np.array([4.0, -2.0])
        >>> optimizer = Lion({"w": w}, lr=0.25)
        >>> optimizer.step({"w": w})       # the gradient of w**2 / 2
        >>> w
        array([ 3.75, -1.75])
    """

    _method = LION_METHOD
    b1 = Hyperparameter()
    b2 = Hyperparameter()

    def __init__(
        self,
        params: Mapping[str, Array],
        lr: Number = 0.0001,
        b1: Number = 0.9,
        b2: Number = 0.99,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(params, lr, {"b1": b1, "b2": b2}, **common)
