"""QHM for NumPy arrays."""

from collections.abc import Mapping
from typing import Unpack

from polyak.arguments import Common
from polyak.methods import QHM_METHOD
from polyak.numpy.arrays import Array
from polyak.numpy.optimizer import Hyperparameter, Number, Optimizer


class QHM(Optimizer):
    """Quasi-hyperbolic momentum: part of each step follows the gradient, part an average of gradients.

    Each step is

        v = v + (1 - momentum) * (g - v)
        w = w - lr * ((1 - nu) * g + nu * v)

    and v starts at 0; `polyak.rules.qhm` has the source.

    Args:
        params: The weights by name, as in `Momentum`.
        lr: The learning rate, >= 0; about ten times that of momentum in gradient units with 0.9, since v is an average.
        momentum: In [0, 1): how much of the average survives a step.
        nu: In [0, 1]: the part of the step along the average. 0 is gradient descent, 1 momentum.
        **common: weight_decay, decay, max_norm, maximize, cautious, cautious_decay and finite, as in `Momentum`.

    Raises:
        ValueError: A number out of its range, or options of which one would have no effect.
        TypeError: An argument of another type.

    Example:
        >>> w = np.array([4.0, -2.0])
        >>> optimizer = QHM({"w": w}, lr=0.25)
        >>> optimizer.step({"w": w})       # the gradient of w**2 / 2
        >>> w
        array([ 3.6993 , -1.84965])
    """

    _method = QHM_METHOD
    momentum = Hyperparameter()
    nu = Hyperparameter()

    def __init__(
        self,
        params: Mapping[str, Array],
        lr: Number = 0.1,
        momentum: Number = 0.999,
        nu: Number = 0.7,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(params, lr, {"momentum": momentum, "nu": nu}, **common)
