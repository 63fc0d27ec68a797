"""The update of several variables, on any backend: dtypes, and what concerns all gradients together, around `Update.apply`."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import keras
import numpy as np
from keras import ops

from polyak.ops import Array
from polyak.rules.orthogonal import BATCH_BYTES
from polyak.update import Update, clip_scale

Numbers = Mapping[str, Any]  # hyperparameters by name


def compute_dtype(dtype: Any) -> str:
    """The dtype of the slots and of the arithmetic for a variable of `dtype`.

    A velocity sums many small gradients, which half precision would lose, so half-precision variables have float32 slots.
    """
    name: str = keras.backend.standardize_dtype(dtype)
    return "float32" if name in ("float16", "bfloat16") else name


@dataclass(frozen=True)
class Plan:
    """What a step is compiled with, for the variables that take part in it.

    Attributes:
        updates: The update of each variable.
        groups: Each one's group: the place of its hyperparameters.
        indices: Each one's place among all variables of the optimizer.
        max_norm: The bound of the norm of all gradients together, or None.
        guarded: Whether a step is left out in which a gradient is not finite.
        branches: Whether that may be a branch. In host memory it must: put into the loops over the elements, the choice makes
            LLVM fuse another product of a sum, and the last bits change. Elsewhere a branch would wait for the host.
    """

    updates: tuple[Update, ...]
    groups: tuple[int, ...]
    indices: tuple[int, ...]
    max_norm: float | None
    guarded: bool
    branches: bool

    def of(self, indices: tuple[int, ...]) -> "Plan":
        """The plan of a step in which only some of the variables take part."""
        if indices == self.indices:
            return self
        updates = tuple(self.updates[i] for i in indices)
        return replace(self, updates=updates, groups=tuple(self.groups[i] for i in indices), indices=indices)


class Step:
    """The update of an optimizer's variables; each backend has its own.

    Args:
        plan: The plan of a step in which all variables take part.
        variables: The variables.
        slots: The slots of each.
        constants: For each group the hyperparameters that never change.
        counts: The variables that count the steps left out, see `counted`; none without a guard.
    """

    def __init__(
        self,
        plan: Plan,
        variables: Sequence[Any],
        slots: Sequence[Sequence[Any]],
        constants: Sequence[Numbers],
        counts: Sequence[Any],
    ) -> None:
        self._plan = plan
        self._targets = list(zip(variables, slots, strict=True))
        self._constants = constants
        self._counts = counts

    def __call__(self, indices: tuple[int, ...], grads: Sequence[Array], varying: Sequence[Numbers], step: Array) -> None:
        """Update variables and slots.

        Args:
            indices: The places of the variables that have a gradient.
            grads: Their gradients.
            varying: For each group the hyperparameters that may change.
            step: The count of steps, for the guard.
        """
        raise NotImplementedError

    def record(
        self,
        indices: tuple[int, ...],
        period: int,
        buffers: Sequence[Any],
        raw: Sequence[Array],
        grads: Sequence[Array],
        varying: Sequence[Numbers],
        step: Array,
    ) -> Callable[[], None] | None:
        """Before an update: write what `measures.recorded` says to the buffers if the step is one to be recorded.

        Args:
            indices: As for the update.
            period: Every so many steps are recorded.
            buffers: The variables of `measures.Buffers`.
            raw: The gradients before any clipping.
            grads: As for the update.
            varying: Likewise.
            step: Likewise.

        Returns:
            What is left to be done after the update.
        """
        raise NotImplementedError

    def store(self, plan: Plan, results: Sequence[tuple[Array, Sequence[Array]]], counts: Sequence[Array]) -> None:
        """Assign what a step has found to the variables that take part in it."""
        for i, (w_new, slots_new) in zip(plan.indices, results, strict=True):
            w, slots = self._targets[i]
            w.assign(w_new)
            for s, s_new in zip(slots, slots_new, strict=True):
                s.assign(s_new)
        for c, c_new in zip(self._counts, counts, strict=True):
            c.assign(c_new)

    def numbers(self, varying: Sequence[Numbers]) -> list[Numbers]:
        """For each group all hyperparameters."""
        return [{**own, **now} for own, now in zip(self._constants, varying, strict=True)]


Results = list[tuple[Array, tuple[Array, ...]]]  # the new weight and the new slots of each variable


def new_values(
    plan: Plan, grads: Sequence[Array], weights: Sequence[Array], slots: Sequence[Sequence[Array]], numbers: Sequence[Numbers]
) -> tuple[Results, Array | None]:
    """The new values, and which gradients are not finite: None without a guard."""
    for g, w in zip(grads, weights, strict=True):
        check_shape(g, w)
    scale, bad = look(plan, grads)

    def new() -> Results:
        found: dict[int, tuple[Array, tuple[Array, ...]]] = {}
        for places in together(plan.updates, plan.groups, weights):
            update, group = plan.updates[places[0]], plan.groups[places[0]]
            rows = ([row[i] for i in places] for row in (grads, weights, slots))
            new = new_values_of_several(plan, update, {**numbers[group], "scale": scale}, *rows)
            found.update(zip(places, new, strict=True))
        return [found[i] for i in range(len(weights))]

    if bad is None:
        return new(), None
    old = [(w, tuple(ss)) for w, ss in zip(weights, slots, strict=True)]
    return chosen(plan, ops.any(bad), old, new), bad


def chosen(plan: Plan, condition: Array, a: Any, b: Callable[[], Any]) -> Any:
    """Arrays `a` where the condition holds, else those that `b` returns."""
    if plan.branches:
        return ops.cond(condition, lambda: a, b)
    return keras.tree.map_structure(lambda x, y: ops.where(condition, x, y), a, b())


def look(plan: Plan, grads: Sequence[Array]) -> tuple[Array | None, Array | None]:
    """What has to be known of all gradients before a weight may change.

    Returns:
        The factor by which the global norm is at most its bound, and for each gradient whether it is not finite: each None
        where the plan does not ask for it.
    """
    scale = squares = None
    if plan.max_norm is not None:
        squares = reduce(ops.add, [_sum_of_squares(g) for g in grads])
        norm = ops.sqrt(squares)
        scale = clip_scale(norm, plan.max_norm)
    if not plan.guarded:
        return scale, None

    def not_finite() -> Array:
        return ops.stack([ops.logical_not(ops.all(_of_parts(ops.isfinite, ops.logical_and, g))) for g in grads])

    if squares is None:
        return None, not_finite()
    # The squares tell it without another look at the gradients, unless one has overflowed.
    return scale, chosen(plan, ops.isfinite(squares), ops.zeros(len(grads), "bool"), not_finite)


def _sum_of_squares(g: Array) -> Array:
    """Of the absolute values, in the dtype of the arithmetic."""
    return ops.sum(_of_parts(ops.square, ops.add, ops.cast(g, compute_dtype(g.dtype))))


def norm(plan: Plan, x: Array) -> Array:
    """The Euclidean norm of an array, in float32 at least; also of one whose squares are too small or too large."""
    squares = _sum_of_squares(x)

    def rescaled() -> Array:
        dtype = compute_dtype(x.dtype)
        peak = ops.max(ops.abs(ops.cast(x, dtype)), initial=0)
        return peak * ops.sqrt(_sum_of_squares(ops.cast(x, dtype) / ops.cast(ops.where(peak == 0, 1.0, peak), dtype)))

    # Between these bounds squares that vanish are of no account. Else the array is looked at again.
    is_accurate = ops.logical_and(squares > 1e-20, ops.isfinite(squares))
    return chosen(plan, is_accurate, ops.sqrt(squares), rescaled)


def _of_parts(function: Callable[[Array], Array], together: Callable[[Array, Array], Array], g: Array) -> Array:
    """A function of real numbers; for complex ones, of their two parts, put together."""
    return together(function(ops.real(g)), function(ops.imag(g))) if is_complex(g) else function(g)


def is_complex(array: Any) -> bool:
    """Whether an array or a variable is of complex numbers."""
    return "complex" in keras.backend.standardize_dtype(array.dtype)


def together(updates: Sequence[Update], groups: Sequence[int], weights: Sequence[Array]) -> Iterable[list[int]]:
    """The places of the weights, those together whose rule takes several arrays at once: many products at once are faster."""
    alike: dict[Any, list[int]] = defaultdict(list)
    for i, (update, group, w) in enumerate(zip(updates, groups, weights, strict=True)):
        alike[(update, group, w.dtype) if update.rule.whole else i].append(i)
    for places in alike.values():
        count = max(1, BATCH_BYTES // max(1, 4 * math.prod(weights[places[0]].shape)))  # of float32
        yield from (places[i : i + count] for i in range(0, len(places), count))


def new_values_of_several(
    plan: Plan,
    update: Update,
    numbers: Numbers,
    grads: Sequence[Array],
    weights: Sequence[Array],
    slots: Sequence[Sequence[Array]],
) -> Results:
    """The new values of variables of one shape and one update, as of one array if there are several."""
    if len(weights) == 1:
        return [new_values_of_one(plan, update, grads[0], weights[0], slots[0], numbers)]
    kinds = [ops.stack(kind) for kind in zip(*slots, strict=True)]
    w, kinds_new = new_values_of_one(plan, update, ops.stack(grads), ops.stack(weights), kinds, numbers)
    return [(w[i], tuple(kind[i] for kind in kinds_new)) for i in range(len(weights))]


def new_values_of_one(
    plan: Plan, update: Update, g: Array, w: Array, slots: Sequence[Array], numbers: Numbers
) -> tuple[Array, tuple[Array, ...]]:
    """The new weight and the new slots of one variable, each in the dtype in which it is stored."""
    dtype = compute_dtype(w.dtype)
    if update.per_tensor:
        g_norm, w_norm = norm(plan, g), norm(plan, w)
        given = {name: _number(x, w_norm.dtype) for name, x in numbers.items() if x is not None}
        numbers = update.per_tensor(given, ops.cast(g_norm, w_norm.dtype), w_norm, len(w.shape))
    h = update.Hyperparameters(*(_number(numbers[name], dtype) for name in update.Hyperparameters._fields))
    w_new, slots_new = update.apply(ops.cast(g, dtype), ops.cast(w, dtype), tuple(slots), h)
    return ops.cast(w_new, w.dtype), slots_new


def _number(x: Any, dtype: Any) -> Array:
    """A hyperparameter in this dtype. A cast on TensorFlow makes a Python number one of float32 first."""
    return ops.convert_to_tensor(x, dtype) if isinstance(x, int | float) else ops.cast(x, dtype)


def check_shape(g: Array, w: Array) -> None:
    """Refuse a gradient that would be broadcast, and train something else than what was meant."""
    if tuple(g.shape) != tuple(w.shape):
        raise ValueError(f"A gradient of shape {tuple(g.shape)} was given for a weight of shape {tuple(w.shape)}.")


def counted(plan: Plan, counts: Sequence[Array], bad: Array, step: Array) -> tuple[Array, Array]:
    """The counts after a step.

    Args:
        plan: The plan of the step.
        counts: How many steps were left out, and for each variable of the optimizer 1 + the last step in which its gradient was
            not finite, or 0.
        bad: Which gradients of this step are not finite.
        step: The number of this step.
    """
    skipped, last = counts
    places = np.array(plan.indices)[:, None]
    marks = ops.scatter(places, ops.cast(bad, last.dtype) * (ops.cast(step, last.dtype) + 1), tuple(last.shape))
    return skipped + ops.cast(ops.any(bad), skipped.dtype), ops.maximum(last, marks)
