"""AggMo in Keras."""

from collections.abc import Sequence
from typing import Unpack

import keras

from polyak.keras.hyperparameters import Common, Number
from polyak.keras.optimizer import Optimizer
from polyak.methods import AGGMO


@keras.saving.register_keras_serializable(package="polyak")
class AggMo(Optimizer):
    """Aggregated momentum: the mean of several velocities, each with a momentum of its own.

    Each step is, with K momenta,

        v_i = momenta[i] * v_i + g
        w = w - learning_rate / K * (v_0 + v_1 + ...)

    and each v_i starts at 0; `polyak.rules.aggmo` has the source.

    Args:
        learning_rate: A number >= 0, a schedule or a callable of the step, as in `Momentum`; as for
            `Momentum` with the middle of the momenta.
        momenta: Numbers in [0, 1), one for each velocity that is kept. Fixed when the optimizer is made.
        **common: weight_decay, decay, cautious, cautious_decay, finite, groups, and what every Keras optimizer takes, as in
            `Momentum`.

    Raises:
        ValueError: A number out of its range, or options of which one would have no effect.
        TypeError: An argument of another type; a callable that does not take the step.

    Example:
        >>> import keras, polyak.keras
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        >>> model.compile(polyak.keras.AggMo(0.1, momenta=(0.0, 0.9, 0.99)), loss="mse")
    """

    _method = AGGMO

    def __init__(
        self,
        learning_rate: Number = 0.01,
        momenta: Sequence[float] = (0.0, 0.9, 0.99),
        **common: Unpack[Common],
    ) -> None:
        super().__init__(learning_rate, {"momenta": momenta}, **common)
