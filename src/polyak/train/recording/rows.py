"""From what a recorder measured to the rows of steps.csv and layers.csv. Pure functions of NumPy arrays."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

TOTALS = ("gradient_norm", "velocity_norm", "step_norm", "weight_norm", "cosine", "predicted_change")
OF_STEP = ("learning_rate", "momentum", "effective_learning_rate", *TOTALS)
OF_LAYER = TOTALS[:-1]

# Where these are in polyak.keras.measures.MEASURES, and what stands there for nothing; that module needs Keras.
GRADIENT, VELOCITY, STEP, WEIGHT, GRADIENT_VELOCITY, GRADIENT_STEP = range(6)
NONE = -1

Values = dict[str, float | None]  # None where there is no such thing


def of_layers(measures: NDArray[Any]) -> Values | None:
    """What is written of some variables at a step, as if they were one vector. Sums are taken in float64.

    The cosine is that between gradient and velocity; there is none while one of them is 0. The predicted change is that of the
    loss, if it were linear: minus the inner product of gradient and step.

    Args:
        measures: Of each variable; shape (variables, 6).

    Returns:
        `TOTALS`, or None if none of the variables took part in the step.
    """
    rows = measures[measures[:, GRADIENT] != NONE].astype(np.float64)
    if not len(rows):
        return None
    moving = rows[rows[:, VELOCITY] != NONE]
    lengths = _norm(moving, GRADIENT) * _norm(moving, VELOCITY)
    return {
        "gradient_norm": _norm(rows, GRADIENT),
        "velocity_norm": _norm(moving, VELOCITY) if len(moving) else None,
        "step_norm": _norm(rows, STEP),
        "weight_norm": _norm(rows, WEIGHT),
        "cosine": float(np.clip(moving[:, GRADIENT_VELOCITY].sum() / lengths, -1, 1)) if lengths else None,
        "predicted_change": -float(rows[:, GRADIENT_STEP].sum()),
    }


def of_layer(measures: NDArray[Any]) -> Values | None:
    """The same of one variable."""
    return of_layers(measures[None])


def _norm(rows: NDArray[Any], column: int) -> float:
    return float(np.sqrt(np.square(rows[:, column]).sum()))


def effective_learning_rate(optimizer: Mapping[str, Any], learning_rate: float, momentum: float | None) -> float | None:
    """The learning rate of the gradient descent that takes the same steps where the gradient stays the same.

    Heavy ball and LARS: lr (1 - dampening) / (1 - momentum); for LARS each tensor has that times its trust. AggMo: lr times the
    mean of 1 / (1 - momentum). Methods whose velocity is an average, and those that step by signs or by directions: lr.

    Args:
        optimizer: "class" and the arguments it was made with.
        learning_rate: At the step.
        momentum: Likewise; None where there is no single one.
    """
    kind = optimizer["class"]
    if kind == "AggMo":
        return learning_rate * float(np.mean([1 / (1 - m) for m in optimizer["momenta"]]))
    if kind == "LARS" or (kind == "Momentum" and optimizer["velocity"] != "average"):
        return None if momentum is None else learning_rate * (1 - optimizer.get("dampening", 0)) / (1 - momentum)
    return learning_rate
