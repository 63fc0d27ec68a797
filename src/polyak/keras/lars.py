"""LARS in Keras."""

from typing import Unpack

import keras

from polyak.keras.hyperparameters import Common, Hyperparameter, Number
from polyak.keras.optimizer import Optimizer
from polyak.methods import LARS_METHOD


@keras.saving.register_keras_serializable(package="polyak")
class LARS(Optimizer):
    """Momentum in which every variable has a learning rate of its own, in proportion to the size of its weights.

    With the Euclidean norm |x| of a whole variable, each step is

        trust = trust_coefficient * |w| / (|g| + weight_decay * |w|)        1 where |w| or |g| is 0
        v = momentum * v + learning_rate * trust * (g + weight_decay * w)
        w = w - v

    and v starts at 0. Variables with fewer than two dimensions have trust 1 and no decay. `polyak.rules.lars` has the source.
    Norms are in float32 at least; on PyTorch, of weights in host memory, in float64.

    Args:
        learning_rate: A number >= 0, a schedule or a callable of the step, as in `Momentum`; another one than there, for a
            variable changes by at most learning_rate * trust_coefficient of its norm in a step, before momentum.
        momentum: In [0, 1): how much of the velocity survives a step. A number, a schedule or a callable of the step.
        trust_coefficient: Above 0.
        **common: weight_decay, decay, cautious, finite, groups, and what every Keras optimizer takes, as in `Momentum`. A decay
            is "coupled": it is part of the trust ratio.

    Raises:
        ValueError: A number out of its range, or options of which one would have no effect; decay="decoupled".
        TypeError: An argument of another type; a callable that does not take the step.

    Example:
        >>> import keras, polyak.keras
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        >>> model.compile(polyak.keras.LARS(1.0, weight_decay=1e-4, decay="coupled"), loss="mse")
    """

    _method = LARS_METHOD

    momentum = Hyperparameter()

    def __init__(
        self,
        learning_rate: Number = 0.1,
        momentum: Number = 0.9,
        *,
        trust_coefficient: float = 0.001,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(learning_rate, {"momentum": momentum, "trust_coefficient": trust_coefficient}, **common)
