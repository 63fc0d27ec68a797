"""The velocity from one unit into another.

    gradient   v = m v + (1 - d) g       step = lr v
    step       v = m v + lr (1 - d) g    step = v
    average    v = v + (1 - m) (g - v)   step = lr v

A velocity in steps is, at the last step, the learning rate of that step times the velocity in gradients. An average is, while
the momentum is constant and there is no dampening, 1 - m times the velocity in gradients. Each product or quotient is taken in
the dtype of the slot (in float32 for half precision) and rounds once; in one and the same unit not a bit changes.
"""

from typing import Any

import numpy as np

from polyak.state.contents import Array, Group


def refusal(source: Group, target: Group) -> str | None:
    """Why the velocity cannot be converted exactly, or None if it can."""
    units = {source.velocity, target.velocity}
    if source.velocity == target.velocity:
        return None
    if None in units:
        return f"the unit of the velocity is not known: {source.velocity!r} here, {target.velocity!r} in the optimizer"
    if "step" in units and not source.last_learning_rate:
        said = "is not known" if source.last_learning_rate is None else "was 0"
        return (
            f"from velocity={source.velocity!r} to {target.velocity!r} needs the learning rate of the last step, which {said}; "
            f"make the optimizer with velocity={source.velocity!r}"
        )
    if "average" in units:
        reason = None
        if "momentum" not in source.hyperparameters:
            reason = "the momentum is not known"
        elif "momentum" in source.scheduled:
            reason = "the momentum followed a schedule"
        elif source.options.get("dampening") or target.options.get("dampening"):
            reason = "there is dampening"
        if reason:
            return (
                f"from velocity={source.velocity!r} to {target.velocity!r} is exact for a constant momentum without dampening "
                f"only, and {reason}; make the optimizer with velocity={source.velocity!r}"
            )
    return None


def converted(v: Array, source: Group, target: Group) -> Array:
    """The velocity `v` of `source` in the unit of `target`. There must be no `refusal`."""
    if source.velocity == target.velocity:
        return v
    work: Any = v.dtype if v.dtype.itemsize >= 4 else np.dtype(np.float32)  # as the rule does for half precision
    lr = work.type(source.last_learning_rate or 0.0)
    rest = 1 - work.type(source.hyperparameters.get("momentum", 0.0))
    by: list[Any] = []
    if source.velocity == "step":
        by.append((np.divide, lr))
    elif source.velocity == "average":
        by.append((np.divide, rest))
    if target.velocity == "step":
        by.append((np.multiply, lr))
    elif target.velocity == "average":
        by.append((np.multiply, rest))
    result = v.astype(work, copy=False)
    for operation, factor in by:
        result = operation(result, factor)
    return np.asarray(result).astype(v.dtype, copy=False)
