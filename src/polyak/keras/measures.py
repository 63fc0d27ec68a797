"""What a recorder measures of a step, on any backend: norms and products of gradient, velocity, step and weight."""

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

from keras import ops

from polyak.keras import values
from polyak.keras.values import Numbers, Plan, compute_dtype, is_complex
from polyak.ops import Array
from polyak.rules.rule import Rule, Slots

MEASURES = ("gradient_norm", "velocity_norm", "step_norm", "weight_norm", "gradient_velocity", "gradient_step")
"""Of each variable: four Euclidean norms, then the inner products of the gradient with the velocity and with the step."""

RATES = ("learning_rate", "momentum")
"""Of each step, outside all groups."""

NONE = -1.0
"""In the place of a norm, and of the products with it, that there is none: NaN is what a gradient may really have."""


class Buffers(NamedTuple):
    """The rows that a recorder keeps on the device. Each step that is recorded takes the place of the oldest.

    Attributes:
        steps: The number of each one's step, an int32; 0 in a row that is free.
        rates: `RATES` of each, as float32.
        measures: `MEASURES` of each, for every variable of the optimizer, as float32.
    """

    steps: Array
    rates: Array
    measures: Array


def is_due(step: Array, period: int) -> Array:
    """Whether the step that follows `step` others is recorded."""
    return (step + 1) % period == 0


def recorded(
    plan: Plan,
    period: int,
    buffers: Buffers,
    raw: Sequence[Array],
    grads: Sequence[Array],
    weights: Sequence[Array],
    slots: Sequence[Sequence[Array]],
    numbers: Sequence[Numbers],
    step: Array,
) -> Buffers:
    """The buffers with a row for this step, before it is made.

    The step is what the update takes from the weight as it is stored: 0 if that is too little to change it, and 0 for a step
    that is left out.

    Args:
        plan: The plan of the step.
        period: Every so many steps are recorded.
        buffers: The buffers before.
        raw: The gradients before any clipping.
        grads: The gradients that the update is given.
        weights: The weights before the step.
        slots: The slots before the step.
        numbers: For each group all hyperparameters; those of the first may lack a momentum.
        step: How many steps there were before.
    """
    results, _ = values.new_values(plan, grads, weights, slots, numbers)
    each = zip(plan.updates, raw, weights, slots, results, strict=True)
    rows = [_of_one(update.rule, g, w, tuple(ss), new) for update, g, w, ss, (new, _) in each]
    by_place = dict(zip(plan.indices, rows, strict=True))
    missing = [NONE] * len(MEASURES)  # of a variable that had no gradient
    count = buffers.measures.shape[1]
    measures = ops.stack([x for i in range(count) for x in by_place.get(i, missing)])
    return written(buffers, period, ops.reshape(measures, (count, -1)), numbers, step)


def written(buffers: Buffers, period: int, measures: Array, numbers: Sequence[Numbers], step: Array) -> Buffers:
    """The buffers with a row of these measures of all variables. Other arguments are as for `recorded`."""
    rates = ops.stack([ops.cast(numbers[0].get(name, NONE), "float32") for name in RATES])
    number = ops.cast(step + 1, "int32")
    place = (number // period - 1) % buffers.steps.shape[0]
    return Buffers(
        ops.slice_update(buffers.steps, [place], ops.reshape(number, (1,))),
        ops.slice_update(buffers.rates, [place, 0], rates[None]),
        ops.slice_update(buffers.measures, [place, 0, 0], measures[None]),
    )


def _of_one(rule: Rule, g: Array, w: Array, slots: Slots, new: Array) -> list[Array]:
    dtype = compute_dtype(w.dtype)
    g, w, new = (ops.cast(x, dtype) for x in (g, w, new))
    step = w - new
    v = velocity(rule, slots)
    norms = [NONE if x is None else ops.cast(ops.sqrt(_dot(x, x)), "float32") for x in (g, v, step, w)]
    return [*norms, *(NONE if x is None else ops.cast(_dot(g, x), "float32") for x in (v, step))]


def velocity(rule: Rule, slots: Slots) -> Array | None:
    """The velocity among the slots of a rule; of several, AggMo's, their mean, along which it steps. None if there is none."""
    velocities = [s for name, s in zip(rule.slots, slots, strict=True) if name.startswith("velocity")]
    return reduce(lambda a, b: a + b, velocities) / len(velocities) if velocities else None


def _dot(a: Array, b: Array) -> Array:
    """The inner product of two arrays; of complex ones, as of vectors of real numbers."""
    if is_complex(a):
        return _dot(ops.real(a), ops.real(b)) + _dot(ops.imag(a), ops.imag(b))
    return ops.sum(a * b)
