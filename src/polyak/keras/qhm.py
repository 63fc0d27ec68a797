"""QHM in Keras."""

from typing import Unpack

import keras

from polyak.keras.hyperparameters import Common, Hyperparameter, Number
from polyak.keras.optimizer import Optimizer
from polyak.methods import QHM_METHOD


@keras.saving.register_keras_serializable(package="polyak")
class QHM(Optimizer):
    """Quasi-hyperbolic momentum: part of each step follows the gradient, part an average of gradients.

    Each step is

        v = v + (1 - momentum) * (g - v)
        w = w - learning_rate * ((1 - nu) * g + nu * v)

    and v starts at 0; `polyak.rules.qhm` has the source.

    Args:
        learning_rate: A number >= 0, a schedule or a callable of the step, as in `Momentum`; about ten times
            that of `Momentum` with 0.9, since v is an average.
        momentum: In [0, 1): how much of the average survives a step. A number, a schedule or a callable of the step.
        nu: In [0, 1]: the part of the step along the average. 0 is gradient descent, 1 momentum. Likewise.
        **common: weight_decay, decay, cautious, cautious_decay, finite, groups, and what every Keras optimizer takes, as in
            `Momentum`.

    Raises:
        ValueError: A number out of its range, or options of which one would have no effect.
        TypeError: An argument of another type; a callable that does not take the step.

    Example:
        >>> import keras, polyak.keras
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        >>> model.compile(polyak.keras.QHM(0.1), loss="mse")
    """

    _method = QHM_METHOD

    momentum = Hyperparameter()
    nu = Hyperparameter()

    def __init__(
        self,
        learning_rate: Number = 0.1,
        momentum: Number = 0.999,
        nu: Number = 0.7,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(learning_rate, {"momentum": momentum, "nu": nu}, **common)
