"""Lion in Keras."""

from typing import Unpack

import keras

from polyak.keras.hyperparameters import Common, Hyperparameter, Number
from polyak.keras.optimizer import Optimizer
from polyak.methods import LION_METHOD


@keras.saving.register_keras_serializable(package="polyak")
class Lion(Optimizer):
    """Steps of one size along the sign of an average that leans on the present gradient.

    Each step is

        w = w - learning_rate * sign(g + b1 * (v - g))
        v = g + b2 * (v - g)

    and v starts at 0; `polyak.rules.lion` has the source. With its beta_1 and beta_2 for b1 and b2, keras.optimizers.Lion is
    this rule.

    Args:
        learning_rate: A number >= 0, a schedule or a callable of the step, as in `Momentum`; how far each weight moves
            at a step. A third to a tenth of that of AdamW is where to start, with a weight decay larger by as much.
        b1: In [0, 1): how much of the average is in the step. A number, a schedule or a callable of the step.
        b2: In [0, 1): how much of the average survives a step. Likewise.
        **common: weight_decay, decay, cautious, cautious_decay, finite, groups, and what every Keras optimizer takes, as in
            `Momentum`.

    Raises:
        ValueError: A number out of its range, or options of which one would have no effect.
        TypeError: An argument of another type; a callable that does not take the step; complex variables.

    Example:
        >>> import keras, polyak.keras
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        >>> model.compile(polyak.keras.Lion(1e-4, weight_decay=0.1, decay="decoupled"), loss="mse")
    """

    _method = LION_METHOD

    b1 = Hyperparameter()
    b2 = Hyperparameter()

    def __init__(
        self,
        learning_rate: Number = 0.0001,
        b1: Number = 0.9,
        b2: Number = 0.99,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(learning_rate, {"b1": b1, "b2": b2}, **common)
