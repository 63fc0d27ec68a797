"""Signum for NumPy arrays."""

from collections.abc import Mapping
from typing import Unpack

from polyak.arguments import Common
from polyak.methods import SIGNUM_METHOD
from polyak.numpy.arrays import Array
from polyak.numpy.optimizer import Hyperparameter, Number, Optimizer


class Signum(Optimizer):
    """The sign of momentum: each step moves every weight by the learning rate.

    Each step is

        v = v + (1 - momentum) * (g - v)
        w = w - lr * sign(v)

    and v starts at 0; `polyak.rules.signum` has the source.

    Args:
        params: The weights by name, as in `Momentum`.
        lr: The learning rate, >= 0: how far each weight moves.
        momentum: In [0, 1): how much of the average survives a step. With 0 this is signSGD, without a velocity.
        **common: weight_decay, decay, max_norm, maximize, cautious, cautious_decay and finite, as in `Momentum`.

    Raises:
        ValueError: A number out of its range, or options of which one would have no effect.
        TypeError: An argument of another type.

    Example:
        >>> w = np.array([4.0, -2.0])
        >>> optimizer = Signum({"w": w}, lr=0.25)
        >>> optimizer.step({"w": w})       # the gradient of w**2 / 2
        >>> w
        array([ 3.75, -1.75])
    """

    _method = SIGNUM_METHOD
    momentum = Hyperparameter()

    def __init__(
        self,
        params: Mapping[str, Array],
        lr: Number = 0.001,
        momentum: Number = 0.9,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(params, lr, {"momentum": momentum}, **common)
