"""Trials in which options count that do not count in usual ones: gradients of other sizes and directions, weights, shapes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from polyak.check.checks.comparing import served, trial_of
from polyak.check.checks.measures import attempt, dtype, number, usual
from polyak.check.trial import Array, Subject, Trial

STEPS = 12  # more than the number of steps after which something is done, as far as the values tried say it

# For rules that take parameters in pairs.
_PAIR = {"w": (4, 4), "x": (4, 4)}
# With one for rules that leave small matrices alone, the filters of a convolution, and a vector.
_MANY = {**_PAIR, "wide": (6, 10), "filters": (3, 2, 2, 2), "b": (4,)}
# There are rules that leave matrices of fewer than 64 rows alone.
_LARGE = (72, 66)


class _At(NamedTuple):
    """What another gradient is made of: the number of the step, its gradient, the first one, and the first weights."""

    t: int
    g: Array
    first: Array
    w: Array


_Regime = Callable[[_At], Any]
"""Another gradient."""


def uneven(trial: Trial) -> Trial:
    """Gradients that are large at first, elements whose gradients are huge, tiny and 0, and turning signs."""
    return _with(trial, [_uneven])


def sized(trial: Trial, size: float) -> Trial:
    """The same with gradients so many times as large."""
    return _with(trial, [lambda at: at.g * size])


def steady(trial: Trial) -> Trial:
    """The same gradient at each of twice as many steps."""
    return replace(trial, gradients=[trial.gradients[0]] * (2 * len(trial.gradients)))


def beginning(subject: Subject) -> Trial:
    """The trial that the others are made of: the usual one or, where weights do not move in it, a pair, smaller weights, less.

    Raises:
        Refused: By the subject.
    """
    usual_one, _ = usual(subject, STEPS)
    pair = trial_of(_PAIR, STEPS, dtype(subject))
    others = (usual_one, pair, _of_weights(usual_one, 1e-4), sized(pair, 1e-3))
    return next((trial for trial in others if moves(subject, uneven(trial))), usual_one)


def moves(subject: Subject, trial: Trial) -> bool:
    """Whether a weight does."""
    came = attempt(subject, trial)
    return came is not None and any(came.steps(name).any() for name in came.after)


def regimes(subject: Subject, trial: Trial) -> Iterator[Trial]:
    """A trial in other circumstances. For each of them there are options that count in no others."""
    for regime in _REGIMES:
        yield _with(trial, [regime])
    for factor in (1e-4, 1e3):  # for rules that look at the size of weights, or leave small or large ones alone
        yield _of_weights(trial, factor)
    yield changing(subject, trial)
    large = trial_of({"w": _LARGE}, 4, dtype(subject))
    yield from (large, _of_weights(large, 1e-4))
    yield uneven(_many(subject))
    yield everything(subject)


def changing(subject: Subject, trial: Trial) -> Trial:
    """The same with another learning rate from some steps on, if there is one."""
    rate = number(subject, subject.rate)
    if not rate or subject.rate is None:
        return trial
    return replace(trial, changes={3: {subject.rate: rate / 2}, 6: {subject.rate: 2 * rate}})


def everything(subject: Subject) -> Trial:
    """Each of several parameters in other circumstances, over more steps."""
    many = _many(subject)
    return _with(replace(many, gradients=[*many.gradients, *many.gradients[:4]]), _REGIMES)


def _many(subject: Subject) -> Trial:
    return served(subject, *(trial_of(shapes, STEPS, dtype(subject)) for shapes in (_MANY, _PAIR)))[0]


def _of_weights(trial: Trial, factor: float) -> Trial:
    """The same from weights so many times as large."""
    return replace(trial, weights={name: np.asarray(w * factor, w.dtype) for name, w in trial.weights.items()})


def _with(trial: Trial, wanted: Sequence[_Regime]) -> Trial:
    """The same with other gradients: those of each parameter of the next of some regimes."""
    of = {name: wanted[i % len(wanted)] for i, name in enumerate(trial.weights)}

    def given(t: int, name: str, g: Any) -> Array:
        at = _At(t, g, np.asarray(trial.gradients[0][name]), trial.weights[name])
        return np.asarray(of[name](at), g.dtype)

    gradients = [{name: given(t, name, g) for name, g in step.items()} for t, step in enumerate(trial.gradients)]
    return replace(trial, gradients=gradients)


def _uneven(at: _At) -> Any:
    factors = np.resize([1, 1e-9, 1e2, 0, 1e-4], at.g.shape) if at.g.ndim == 1 else 1.0
    return at.g * (10 if at.t < 3 else 0.3) * factors


def _growing(at: _At) -> Any:
    return at.g * 10.0 ** (at.t / 2 - 3)


def _shrinking(at: _At) -> Any:
    return at.g * 10.0 ** (2 - at.t / 2)


def _turning(at: _At) -> Any:
    """To and fro, which is where steps go too far."""
    return np.abs(at.first) * np.sign(at.w) * (-1) ** at.t


def _along(at: _At) -> Any:
    """Nearly along the weights."""
    return at.w * (1 + at.t % 3) + 1e-3 * at.g


def _across(at: _At) -> Any:
    """At right angles to the weights."""
    return at.g - at.w * (np.sum(at.g * at.w) / np.sum(at.w * at.w))


def _spiking(at: _At) -> Any:
    """A few elements far off the others, at a late step."""
    return np.where((np.abs(at.g) > 1) & (at.t % 8 == 6), 1e5 * at.g, at.g)


def _huge(at: _At) -> Any:
    """Squares are infinite."""
    return at.g * float(np.finfo(at.g.dtype).max) ** 0.6


def _infinite(at: _At) -> Any:
    """An element is infinite at a late step."""
    return np.where((at.t % 8 == 6) & (at.g == at.g.max()), np.inf, at.g)


_REGIMES: tuple[_Regime, ...] = (_growing, _shrinking, _turning, _along, _across, _spiking, _huge, _infinite)
