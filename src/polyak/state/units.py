"""The velocity of `Momentum` from one unit into another.

    gradient   v = m v + (1 - d) g       step = lr v
    step       v = m v + lr (1 - d) g    step = v
    average    v = v + (1 - m) (g - v)   step = lr v

A velocity in steps is, at the last step, the learning rate of that step times the velocity in gradients, or times the average.
An average is, while the momentum is constant and there is no dampening, 1 - m times the velocity in gradients. Each product or
quotient is taken in the dtype of the slot (in float32 for half precision) and rounds once; in one and the same unit not a bit
changes.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from polyak.rules.heavy_ball import VELOCITIES
from polyak.state.contents import Array, Group, Unit

_FACTORS: dict[tuple[Unit, Unit], list[tuple[Callable[[Any, Any], Any], str]]] = {
    ("gradient", "step"): [(np.multiply, "learning rate")],
    ("average", "step"): [(np.multiply, "learning rate")],
    ("step", "gradient"): [(np.divide, "learning rate")],
    ("average", "gradient"): [(np.divide, "one minus momentum")],
    ("gradient", "average"): [(np.multiply, "one minus momentum")],
    ("step", "average"): [(np.divide, "learning rate"), (np.multiply, "one minus momentum")],
}


def refusal(source: Group, target: Group) -> str | None:
    """Why the velocity cannot be converted exactly, or None if it can."""
    move = source.velocity, target.velocity
    if move[0] == move[1]:
        return None
    if not {*move} <= {*VELOCITIES}:
        return f"the unit of the velocity is not known: {move[0]!r} here, {move[1]!r} in the optimizer"
    if "step" in move and not source.last_learning_rate:
        said = "is not known" if source.last_learning_rate is None else "was 0"
        return (
            f"from velocity={move[0]!r} to {move[1]!r} needs the learning rate of the last step, which {said}; "
            f"make the optimizer with velocity={move[0]!r}"
        )
    if "average" in move and move != ("average", "step"):
        reason = None
        if "momentum" not in source.hyperparameters:
            reason = "the momentum is not known"
        elif "momentum" in source.scheduled:
            reason = "the momentum followed a schedule"
        elif source.options.get("dampening") or target.options.get("dampening"):
            reason = "there is dampening"
        if reason:
            return (
                f"from velocity={move[0]!r} to {move[1]!r} is exact for a constant momentum without dampening "
                f"only, and {reason}; make the optimizer with velocity={move[0]!r}"
            )
    return None


def converted(v: Array, source: Group, target: Group) -> Array:
    """The velocity `v` of `source` in the unit of `target`. There must be no `refusal`."""
    if source.velocity == target.velocity:
        return v
    work: Any = v.dtype if v.dtype.itemsize >= 4 else np.dtype(np.float32)  # as the rule does for half precision
    numbers = {
        "learning rate": work.type(source.last_learning_rate or 0.0),
        "one minus momentum": 1 - work.type(source.hyperparameters.get("momentum", 0.0)),
    }
    result = v.astype(work, copy=False)
    for operation, factor in _FACTORS[str(source.velocity), str(target.velocity)]:
        result = operation(result, numbers[factor])
    return np.asarray(result).astype(v.dtype, copy=False)


def last_learning_rate(source: Group, target: Group) -> float | None:
    """The learning rate of the last step, as `target` means it: that of an average makes other steps."""
    return source.last_learning_rate if (source.velocity == "average") == (target.velocity == "average") else None
