"""What the checks share: a trial that every optimizer takes, trials with other options, and what counts as the same."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from polyak.check.finding import Finding, Outcome
from polyak.check.identity import Identity
from polyak.check.trial import Array, Refused, Subject, Trajectory, Trial

LINEAR = ("descent", "momentum", "qhm", "several", "linear")
"""The kinds whose steps are sums of past gradients with fixed factors."""


def dtype(subject: Subject) -> type[np.floating[Any]]:
    """The finest in which the optimizer computes."""
    return np.float64 if subject.double else np.float32


def number(subject: Subject, option: str | None) -> float | None:
    """An option that is a number, with 0 for None. None where there is no such option, or it isn't a number."""
    if option is None or option not in subject.defaults:
        return None
    value = subject.defaults[option]
    if isinstance(value, bool):
        return None
    if value is None or isinstance(value, int | float):
        return float(value or 0)
    try:  # a tensor or an array of one number
        return float(value)
    except (TypeError, ValueError):
        return None


def usual(subject: Subject, steps: int, *, seed: int = 0) -> tuple[Trial, Trajectory]:
    """A matrix and a vector with random gradients, and what comes of it. The matrix alone, where vectors are refused.

    Raises:
        Refused: The matrix is refused too.
    """
    rng = np.random.default_rng(seed)
    kind = dtype(subject)

    def drawn(shape: tuple[int, ...]) -> Array:
        """Of two digits, so that they can be read where a trial is written out, and none of them 0."""
        x = rng.standard_normal(shape).round(2)
        return np.where(x == 0, 0.01, x).astype(kind)

    shapes = {"w": (4, 3), "b": (5,)}
    weights = {name: drawn(shape) for name, shape in shapes.items()}
    gradients = [{name: drawn(shape) for name, shape in shapes.items()} for _ in range(steps)]
    both = Trial(weights, gradients)
    try:
        return both, subject.run(both)
    except Refused:
        matrix = Trial({"w": weights["w"]}, [{"w": g["w"]} for g in gradients])
        return matrix, subject.run(matrix)


def small(subject: Subject, steps: int) -> Trial:
    """A few steps of a matrix of two elements, to be shown where that is enough."""
    plain, _ = usual(subject, 1)
    kind = plain.weights["w"].dtype
    # Not along one line, which is all that the size of a step can be told from where it is made one.
    gradients = [np.array([[(0.5, -1.0), (0.75, 0.25), (-0.25, 0.5)][t % 3]], kind) for t in range(steps)]
    return Trial({"w": np.array([[1.0, 2.0]], kind)}, [{"w": g} for g in gradients])


def with_options(trial: Trial, options: Mapping[str, Any]) -> Trial:
    """The same with other options."""
    return replace(trial, options={**trial.options, **options})


def attempt(subject: Subject, trial: Trial) -> Trajectory | None:
    """What comes of a trial; None where the optimizer refuses it."""
    try:
        return subject.run(trial)
    except Refused:
        return None


def same(one: Trajectory, other: Trajectory) -> bool:
    """Whether the weights are the same bits after every step."""
    return all(np.array_equal(one.after[name], other.after[name], equal_nan=True) for name in one.after)


def is_more_than_rounding(one: Array, other: Array, times: float = 1.0) -> bool:
    """Whether weights differ by more than 8 units, so many times, in the last place of the largest. NaN is equal to NaN."""
    allowed = (
        8 * times * float(np.finfo(one.dtype).eps) * np.abs(one.astype(np.float64)).max(initial=0.0, where=np.isfinite(one))
    )
    return not np.allclose(one.astype(np.float64), other.astype(np.float64), rtol=0.0, atol=float(allowed), equal_nan=True)


def incomparable(subject: Subject, *, random: bool = False) -> str | None:
    """Why no two trials of an optimizer can be compared step by step; None where they can.

    Args:
        subject: The optimizer.
        random: Whether they may be compared if the same random numbers are drawn.
    """
    if subject.closure:
        return "It asks for the loss as often as it likes, and gradients that are given beforehand do not serve it."
    if subject.random and not random:
        return "It draws random numbers."
    trial, trajectory = usual(subject, 6)
    if not same(trajectory, subject.run(trial)):
        return "Two runs of the same steps come to other weights."
    return None


def impulse(
    subject: Subject, identity: Identity, options: Mapping[str, Any], at: int = 1, steps: int = 6
) -> tuple[Trial, Array] | None:
    """The steps from the `at`-th on, with a gradient of 1 in that step alone, of weights held at 0, where they do not decay.

    It is none where the optimizer refuses these options.
    """
    size = min(1.0, identity.clip[0].value / 20) if identity.clip else 1.0
    w = np.zeros((2, 2), dtype(subject))
    gradients = [{"w": w + size * (t == at)} for t in range(at + steps)]
    trial = Trial({"w": w}, [{"w": g["w"].astype(w.dtype)} for g in gradients], options=options, held=True)
    if (trajectory := attempt(subject, trial)) is None:
        return None
    return trial, trajectory.steps("w")[at:, 0, 0] / size


def outcome(check: str, evidence: str, findings: list[Finding], notes: list[str] | None = None) -> Outcome:
    """That of a check that applies."""
    return Outcome(check, "fail" if findings else "pass", evidence, tuple(findings), tuple(notes or ()))


def not_applicable(check: str, why: str) -> Outcome:
    """That of a check that does not apply."""
    return Outcome(check, "not applicable", why)


def short(value: Any) -> str:
    """A value for a sentence."""
    return f"{value:.4g}" if isinstance(value, float) else repr(value)


def named(subject: Subject, pattern: str) -> bool:
    """Whether the name of the class or function fits a pattern, whatever its case."""
    return re.search(pattern, subject.name.rpartition(":")[2].rpartition(".")[2], re.IGNORECASE) is not None
