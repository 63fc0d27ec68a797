"""What an optimizer does with small probes: is it linear in the gradient, the same at each step, and each element for itself?

All probes are elements of one or two tensors, and so one trial: an impulse at each step, which together are the whole operator
from gradients to steps; impulses of other sizes, a step, random gradients and sums of them; weights without gradients. The
weights are held, so that what earlier steps did to them stays out. At weights of 0 a step is known to the last bit of itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from polyak.check.trial import Array, Refused, Subject, Trial

STEPS = 64
_SHORT = 16
_ALONE = 12  # steps of the trials with few elements
LATE = 2
"""The step of the impulses that stand for all later ones."""
_LOUD = 256
"""Roundings that a rule may add to a step by itself, as one that adds and subtracts the gradient; more is no rounding."""
_ADDED = 16
"""Roundings of a weight in a step: a rule may add each of its velocities and its decay to the weight by itself."""
_ROW = 8  # columns of the matrix


@dataclass(frozen=True)
class Probes:
    """What the probes showed.

    Attributes:
        dtype: Of the measurement.
        unit: The size of an impulse. All gradients of a step have a norm of at most 32 times as much.
        shapes: Of the parameters that the optimizer took: "a" with one dimension, "b" with two.
        operator: The steps after a unit impulse: (step of the response, step of the impulse).
        response: The steps after an impulse of 1 at step `LATE`, the mean of several sizes.
        spread: The standard deviation of `response`, of rounding.
        of_weights: The steps without a gradient, over the weight: the mean of several weights.
        weights_spread: The standard deviation of `of_weights`.
        linear: Whether all probes were what the operator makes of them.
        time_invariant: Whether the impulses after the first step were answered alike.
        elementwise: Whether elements were answered alike in other tensors and beside other elements.
        doubts: What was strange.
    """

    dtype: np.dtype[np.floating]
    unit: float
    shapes: Mapping[str, tuple[int, ...]]
    operator: Array
    response: Array
    spread: Array
    of_weights: Array
    weights_spread: Array
    linear: bool
    time_invariant: bool
    elementwise: bool
    doubts: tuple[str, ...] = ()

    @property
    def eps(self) -> float:
        """Half a unit in the last place of 1: the largest relative error of a rounding."""
        return float(np.finfo(self.dtype).eps) / 2

    @property
    def noise(self) -> float:
        """The level below which a step is rounding, relative to the largest step."""
        largest = float(np.max(np.abs(self.response), initial=0.0))
        return max(self.eps, float(np.max(self.spread, initial=0.0)) / largest if largest else 0.0)

    @property
    def rounding(self) -> float:
        """What a step may lose to rounding, relative to the largest: more than `eps` where a rule adds and subtracts."""
        return min(max(self.eps, 4 * self.noise), _LOUD * self.eps)

    @property
    def level(self) -> float:
        """How far two responses may differ by rounding: by one at each of `STEPS` steps, of the largest value."""
        return STEPS * self.rounding * float(np.max(np.abs(self.operator), initial=0.0))


@dataclass(frozen=True)
class _Plan:
    """The probes, one a column: (steps, columns) of gradients, and a weight each."""

    gradients: Array
    weights: Array
    sizes: Array

    @cached_property
    def columns(self) -> Mapping[str, slice]:
        ends = np.cumsum([0, STEPS, len(self.sizes), 4, 1, _SHORT, 3])
        names = ("impulses", "sizes", "random", "nothing", "weights", "both")
        return {name: slice(int(a), int(b)) for name, a, b in zip(names, ends[:-1], ends[1:], strict=True)}


def measure(subject: Subject, size: float | None = None) -> Probes:
    """Probe an optimizer.

    Args:
        subject: The optimizer.
        size: The largest norm of all gradients of a step in any trial. None for no limit.

    Raises:
        Refused: It takes neither vectors nor matrices.
    """
    dtype: np.dtype[np.floating] = np.dtype(np.float64) if subject.double else np.dtype(np.float32)
    plan = _plan(dtype)
    unit = 1.0 if size is None else float(2.0 ** np.floor(np.log2(size / 32)))
    seen = _taken(subject, plan, dtype, unit)
    first = next(iter(seen.values()))
    probes = _read(plan, first, dtype, unit, {name: _shaped(name, plan.weights).shape for name in seen})
    if not np.all(np.isfinite(first)):
        return replace(probes, linear=False, doubts=("There are steps that are not finite.",))
    alike = all(np.all(np.abs(steps - first) <= _rounding(probes, plan)) for steps in seen.values())
    larger, smaller = (20, -20) if size is None else (-10, -20)
    same = {power: _alone(subject, plan, probes, first, 2.0**power) for power in (larger, smaller)}
    linear = alike and _is_linear(probes, plan, first) and all(same.values())
    elementwise = alike and (linear or _alone(subject, plan, probes, first, 1.0))
    return replace(probes, linear=linear, elementwise=elementwise)


def longer(subject: Subject, probes: Probes, steps: int) -> tuple[Array, Array]:
    """The response to an impulse at step `LATE` and its standard deviation, over so many steps, of a linear optimizer."""
    sizes = _plan(probes.dtype).sizes
    name, shape = next(iter(probes.shapes.items()))
    width = (len(sizes),) if len(shape) == 1 else (2, len(sizes) // 2)
    still, impulse = np.zeros(width, probes.dtype), (probes.unit * sizes).astype(probes.dtype).reshape(width)
    gradients = [{name: impulse if t == LATE else still} for t in range(LATE + steps)]
    seen = subject.run(Trial({name: still}, gradients, held=True)).steps(name).reshape(LATE + steps, -1)
    return _averaged(seen[LATE:] / impulse.reshape(-1).astype(np.float64), probes.eps)


def _plan(dtype: np.dtype[np.floating]) -> _Plan:
    rng = np.random.default_rng(7)
    sizes = _exact(rng.uniform(0.5, 1, _SHORT) * rng.choice([-1, 1], _SHORT), dtype)
    impulses = np.eye(STEPS)
    sized = np.zeros((STEPS, _SHORT))
    sized[LATE] = sizes
    one, two = (_exact(rng.normal(size=STEPS), dtype).clip(-2, 2) for _ in range(2))
    constant = np.ones(STEPS)
    random = np.stack([one, two, one - 3 * two, constant], axis=1)
    none = np.zeros((STEPS, 1 + _SHORT))
    weights = _exact(rng.uniform(1, 2, _SHORT) * 2.0 ** rng.integers(-1, 3, _SHORT) * rng.choice([-1, 1], _SHORT), dtype)
    beside = np.array([1.0, -2.0, 0.25])
    gradients = np.concatenate([impulses, sized, random, none, np.stack([one, two, one], axis=1)], axis=1)
    zeros = np.zeros(STEPS + _SHORT + 4 + 1)
    return _Plan(_exact(gradients, dtype), np.concatenate([zeros, weights, beside]), sizes)


def _exact(values: Array, dtype: np.dtype[np.floating]) -> Array:
    """The values that a number of the dtype has, in float64."""
    exact: Array = values.astype(dtype).astype(np.float64)
    return exact


def _shaped(name: str, values: Array) -> Array:
    """The probes as a tensor: in their order, or as a matrix in the reverse order with zeros at the end."""
    if name == "a":
        return values
    padded = np.concatenate([values[..., ::-1], np.zeros((*values.shape[:-1], -values.shape[-1] % _ROW))], axis=-1)
    return padded.reshape(*values.shape[:-1], -1, _ROW)


def _flat(name: str, steps: Array, count: int) -> Array:
    """The probes of a tensor in their order again: (steps, probes)."""
    return steps if name == "a" else steps.reshape(len(steps), -1)[:, :count][:, ::-1]


def _taken(subject: Subject, plan: _Plan, dtype: np.dtype[np.floating], unit: float) -> dict[str, Array]:
    """The steps of all probes in a vector and in a matrix, or in the one that the optimizer takes."""
    refusals = []
    for names in (("a", "b"), ("b",), ("a",)):
        weights = {name: _shaped(name, plan.weights).astype(dtype) for name in names}
        gradients = [{name: _shaped(name, unit * g).astype(dtype) for name in names} for g in plan.gradients]
        try:
            seen = subject.run(Trial(weights, gradients, held=True))
        except Refused as refused:
            refusals.append(refused)
            continue
        return {name: _flat(name, seen.steps(name), len(plan.weights)) for name in names}
    raise refusals[0]


def _read(
    plan: _Plan, steps: Array, dtype: np.dtype[np.floating], unit: float, shapes: Mapping[str, tuple[int, ...]]
) -> Probes:
    """What the probes of a vector or matrix say if the optimizer is linear."""
    eps = float(np.finfo(dtype).eps) / 2
    columns = plan.columns
    operator = steps[:, columns["impulses"]] / unit
    response, spread = _averaged(steps[LATE:, columns["sizes"]] / (unit * plan.sizes), eps)
    weights = plan.weights[columns["weights"]]
    of_weights = steps[:, columns["weights"]] / weights
    mean, weights_spread = over_weights(of_weights, eps)
    probes = Probes(dtype, unit, shapes, operator, response, spread, mean, weights_spread, True, True, True)
    level = probes.level
    later = all(np.all(np.abs(operator[k:, k] - operator[1 : STEPS - k + 1, 1]) <= level) for k in range(2, STEPS))
    return replace(probes, time_invariant=later)


def over_weights(of_weights: Array, eps: float) -> tuple[Array, Array]:
    """The mean over weights of (steps, weights) of what a weight is stepped by, over it, and the standard deviation of it.

    Each step is rounded to half a unit in the last place of the weight. Over many weights that averages out, but where a step
    is of few such units, which all weights then have alike.
    """
    mean = of_weights.mean(axis=1)
    spread = np.maximum(of_weights.std(axis=1), eps / 2)
    return mean, np.where(np.abs(mean) > 64 * eps, spread / np.sqrt(of_weights.shape[1]), spread)


def _averaged(responses: Array, eps: float) -> tuple[Array, Array]:
    """The mean of responses to impulses of several sizes, which rounding makes differ, and the standard deviation of it."""
    response = responses.mean(axis=1)
    largest = float(np.max(np.abs(response), initial=0.0))
    floor = np.maximum(np.abs(response), 1e-8 * largest)  # below that, float32 loses digits
    return response, np.maximum(np.maximum(responses.std(axis=1) / 2, eps * floor / 2), 1e-300)


def _rounding(probes: Probes, plan: _Plan) -> Array:
    """How far each step of each probe may be off by rounding: some at each step, and a few to the weight's own precision."""
    most = np.abs(probes.operator) @ np.abs(probes.unit * plan.gradients) + np.outer(
        np.abs(probes.of_weights), np.abs(plan.weights)
    )
    bound: Array = 4 * STEPS * probes.rounding * np.maximum.accumulate(most, axis=0) + _ADDED * probes.eps * np.abs(
        plan.weights
    )
    return bound


def _is_linear(probes: Probes, plan: _Plan, steps: Array) -> bool:
    """Whether each probe was answered by the sum of what its parts are answered by."""
    expected = probes.operator @ (probes.unit * plan.gradients) + np.outer(probes.of_weights, plan.weights)
    return bool(np.all(np.abs(steps - expected) <= _rounding(probes, plan)))


def _alone(subject: Subject, plan: _Plan, probes: Probes, steps: Array, scale: float) -> bool:
    """Whether few of the probes, with gradients so many times as large, are answered by so much more."""
    columns = plan.columns
    few = [columns["random"].start, columns["nothing"].start, columns["weights"].start, columns["both"].start + 1]
    shape = {"a": (4,), "b": (2, 2)}
    weights = {name: plan.weights[few].reshape(shape[name]).astype(probes.dtype) for name in probes.shapes}
    pushes = (scale * probes.unit) * plan.gradients[:_ALONE, few]
    gradients = [{name: g.reshape(shape[name]).astype(probes.dtype) for name in probes.shapes} for g in pushes]
    try:
        seen = subject.run(Trial(weights, gradients, held=True))
    except Refused:
        return False
    without = np.outer(probes.of_weights[:_ALONE], plan.weights[few])
    expected = without + scale * (steps[:_ALONE, few] - without)
    # The part of a step that is scaled up was rounded to the precision of the weight.
    bound = max(scale, 1.0) * _rounding(probes, plan)[:_ALONE, few]
    return all(bool(np.all(np.abs(seen.steps(name).reshape(_ALONE, 4) - expected) <= bound)) for name in probes.shapes)
