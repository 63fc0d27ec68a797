"""Signum in Keras."""

from typing import Unpack

import keras

from polyak.keras.hyperparameters import Common, Hyperparameter, Number
from polyak.keras.optimizer import Optimizer
from polyak.methods import SIGNUM_METHOD


@keras.saving.register_keras_serializable(package="polyak")
class Signum(Optimizer):
    """Steps of one size, in the direction in which the average gradient of each weight points down.

    Each step is

        v = v + (1 - momentum) * (g - v)
        w = w - learning_rate * sign(v)

    and v starts at 0; `polyak.rules.signum` has the source.

    Args:
        learning_rate: A number >= 0, a schedule or a callable of the step, as in `Momentum`; how far each weight moves
            at a step. A tenth to a hundredth of that of `Momentum` is where to start.
        momentum: In [0, 1): how much of the average survives a step. A number, a schedule or a callable of the step. With 0
            this is signSGD, without a velocity in memory.
        **common: weight_decay, decay, cautious, cautious_decay, finite, groups, and what every Keras optimizer takes, as in
            `Momentum`.

    Raises:
        ValueError: A number out of its range, or options of which one would have no effect.
        TypeError: An argument of another type; a callable that does not take the step; complex variables.

    Example:
        >>> import keras, polyak.keras
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        >>> model.compile(polyak.keras.Signum(0.001), loss="mse")
    """

    _method = SIGNUM_METHOD

    momentum = Hyperparameter()

    def __init__(
        self,
        learning_rate: Number = 0.001,
        momentum: Number = 0.9,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(learning_rate, {"momentum": momentum}, **common)
