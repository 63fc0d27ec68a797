"""Small trials that several checks make, and where what came of two of them differs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from polyak.check.identity import Identity
from polyak.check.trial import Array, Gradient, Refused, Subject, Trajectory, Trial

Shapes = Mapping[str, tuple[int, ...]]


def eighths(seed: int, shape: tuple[int, ...], kind: Any) -> Array:
    """Numbers from -2 to 2 without 0, which are exact in every dtype, and short where a trial is written out."""
    rng = np.random.default_rng(seed)
    return np.asarray(rng.integers(1, 17, shape) * rng.choice([-1, 1], shape) / 8).astype(kind)


def trial_of(shapes: Shapes, steps: int, kind: Any, seed: int = 0) -> Trial:
    """Weights and gradients of these shapes. A parameter has the same ones, whatever others are beside it."""

    def numbers(name: str, shape: tuple[int, ...], step: int) -> Array:
        return eighths(1000 * seed + 100 * step + ord(name[0]), shape, kind)

    return Trial(
        {name: numbers(name, shape, 0) for name, shape in shapes.items()},
        [{name: numbers(name, shape, step) for name, shape in shapes.items()} for step in range(1, steps + 1)],
    )


def only(trial: Trial, *names: str) -> Trial:
    """The same with these parameters alone, in this order."""
    return replace(
        trial,
        weights={name: trial.weights[name] for name in names},
        gradients=[{name: step[name] for name in names if name in step} for step in trial.gradients],
    )


def scaled(trial: Trial, factor: float) -> Trial:
    """The same with other gradients, so many times as large."""

    def times(given: Gradient) -> Array:
        return np.asarray(given * np.asarray(factor, given.dtype)) if isinstance(given, np.ndarray) else np.zeros(0)

    return replace(trial, gradients=[{name: times(g) for name, g in step.items()} for step in trial.gradients])


def faint(trial: Trial, *numbers: int) -> Trial:
    """The same with the gradients of some steps so small that it is the state that tells what a sign is."""
    small = scaled(trial, 2.0**-10)
    return replace(trial, gradients=[(small if n in numbers else trial).gradients[n] for n in range(len(trial.gradients))])


def served(subject: Subject, *trials: Trial) -> tuple[Trial, Trajectory]:
    """The first trial that is not refused: there are optimizers of matrices alone.

    Raises:
        Refused: All of them were; the last refusal.
    """
    *others, last = trials
    for trial in others:
        try:
            return trial, subject.run(trial)
        except Refused:
            continue
    return last, subject.run(last)


def taken(
    subject: Subject, vectors: Shapes, matrices: Shapes, steps: int, kind: Any, weak: Iterable[int] = ()
) -> tuple[Trial, Trajectory]:
    """A trial of parameters of these shapes, or of matrices alone where vectors are refused, and what comes of it.

    The gradients of the steps `weak` are `faint`.

    Raises:
        Refused: Both are.
    """
    return served(subject, *(faint(trial_of(shapes, steps, kind), *weak) for shapes in (vectors, matrices)))


@dataclass(frozen=True)
class Difference:
    """The first weight in which two trajectories differ."""

    name: str
    step: int
    index: tuple[int, ...]
    one: float
    other: float

    def __str__(self) -> str:
        at = f"[{', '.join(map(str, self.index))}]" if self.index else ""
        one, other = (f"{x:.6g}" for x in (self.one, self.other))
        if one == other:
            one, other = (f"{x:.17g}" for x in (self.one, self.other))
        return f"after step {self.step + 1}, {self.name}{at} is {other} and not {one}"


def rounding(trajectory: Trajectory, identity: Identity) -> float:
    """How far weights may be from others that are the same but for the order in which sums are taken.

    A hundred thousandth of a step is some ten times what float32 loses in a norm of few elements, and many optimizers of
    float64 weights compute in float32. To it come 64 units in the last place of the weights. Orthogonalised steps are iterates
    in bfloat16: a fiftieth. What is not known may take roots of matrices: a thousandth.
    """
    steps = {"orthogonalised": 0.02, "unknown": 1e-3}.get(identity.kind, 1e-5)
    allowed = 0.0
    for name, after in trajectory.after.items():
        unit = float(np.finfo(after.dtype).eps) if after.dtype.kind == "f" else 2.0**-7
        allowed = max(allowed, steps * _largest(trajectory.steps(name)) + 64 * unit * _largest(after))
    return allowed


def difference(one: Mapping[str, Array], other: Mapping[str, Array], allowed: float = 0.0) -> Difference | None:
    """Where weights differ first, of the names that both have; None where they do not. NaN is equal to NaN."""
    found: list[Difference] = []
    for name in one:
        if name not in other:
            continue
        x, y = one[name].astype(np.float64), other[name].astype(np.float64)
        with np.errstate(invalid="ignore"):
            apart = ~((np.abs(x - y) <= allowed) | (x == y) | (np.isnan(x) & np.isnan(y)))
        if apart.any():
            step, *index = (int(i) for i in np.argwhere(apart)[0])
            found.append(Difference(name, step, tuple(index), float(x[step, *index]), float(y[step, *index])))
    return min(found, key=lambda d: d.step, default=None)


def shortest(subject: Subject, pairs: Iterable[tuple[Trial, Trial]], allowed: float) -> tuple[Difference, tuple[Trial, Trial]]:
    """The first pair of trials whose weights differ. They are given from the smallest on, and the last is known to."""
    for one, other in pairs:
        try:
            where = difference(subject.run(one).after, subject.run(other).after, allowed)
        except Refused:
            continue
        if where:
            return where, (one, other)
    raise AssertionError("The last pair differed before and does not now.")


def _largest(numbers: Array) -> float:
    """The largest absolute value of those that are finite."""
    numbers = np.abs(numbers.astype(np.float64))
    return float(np.max(numbers, initial=0, where=np.isfinite(numbers)))
