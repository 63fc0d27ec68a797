"""Whether two groups differ by more than their seeds make them differ."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from polyak.report.measures import Series

LEVEL = 0.95
"""Of the intervals of all differences of one table together."""


@dataclass(frozen=True)
class Difference:
    """Another group beside the best one.

    Attributes:
        best, other: Their names.
        mean: The mean of the other minus that of the best.
        low, high: The interval of that difference; NaN where a group has a single run.
        counts: Runs of the best, and of the other.
    """

    best: str
    other: str
    mean: float
    low: float
    high: float
    counts: tuple[int, int]

    @property
    def is_known(self) -> bool:
        """Whether there is a spread to compare with."""
        return min(self.counts) > 1

    @property
    def is_beyond(self) -> bool:
        """Whether 0 is outside the interval."""
        return self.is_known and not self.low <= 0 <= self.high


def differences(values: dict[str, Series], *, smaller_is_better: bool, grain: float = 0.0) -> list[Difference]:
    """Each group against the one with the best mean.

    The intervals are those of Welch's t test, which takes the spread of each group as it is, at a level of 1 - 0.05 / k for k
    differences, so that all of them together hold in 95 of 100 tables (Bonferroni).

    Args:
        values: Of each group, one number a run; NaN where a run has none.
        smaller_is_better: Which mean is the best.
        grain: How far apart two measured numbers are at least, such as the steps of an epoch. Three seeds that arrive in the
            same epoch have a spread all the same, of which nothing was seen: that of a number which was rounded to the grain.

    Example:
        >>> import numpy as np
        >>> one, = differences({"a": np.array([1.0, 1.1, 0.9]), "b": np.array([5.0, 5.2, 4.8])}, smaller_is_better=True)
        >>> one.is_beyond, round(one.mean, 1)
        (True, 4.0)
    """
    known = {name: x[np.isfinite(x)] for name, x in values.items() if np.isfinite(x).any()}
    if len(known) < 2:
        return []
    best = (min if smaller_is_better else max)(known, key=lambda name: float(known[name].mean()))
    others = [name for name in known if name != best]
    level = 1 - (1 - LEVEL) / len(others)
    return [
        Difference(
            best,
            name,
            float(known[name].mean() - known[best].mean()),
            *_interval(known[name], known[best], level, grain),
            (len(known[best]), len(known[name])),
        )
        for name in others
    ]


def _interval(a: Series, b: Series, level: float, grain: float) -> tuple[float, float]:
    """Of the difference of the means. Not scipy.stats.ttest_ind, which gives NaN where a group has no spread."""
    if min(len(a), len(b)) < 2:
        return np.nan, np.nan
    of_a, of_b = (max(float(x.var(ddof=1)), grain**2 / 12) / len(x) for x in (a, b))
    difference = float(a.mean() - b.mean())
    if of_a + of_b == 0:  # seeds make no difference at all
        return difference, difference
    freedom = (of_a + of_b) ** 2 / (of_a**2 / (len(a) - 1) + of_b**2 / (len(b) - 1))
    reach = float(stats.t.ppf((1 + level) / 2, freedom)) * math.sqrt(of_a + of_b)
    return difference - reach, difference + reach


def sentences(what: str, found: Sequence[Difference], number: Callable[[float], str]) -> list[str]:
    """What the differences say, one sentence each.

    Args:
        what: What was measured.
        found: The differences.
        number: How such a number is written.
    """
    said = []
    for each in found:
        pair = f"{what}: {each.other} against {each.best}"
        runs = f"n = {each.counts[1]} and {each.counts[0]}"
        if not each.is_known:
            said.append(f"{pair}: {number(each.mean)} with single runs ({runs}): can't tell, the spread over seeds is unknown.")
            continue
        interval = f"{number(each.mean)}, interval {number(each.low)} to {number(each.high)} ({runs})"
        said.append(f"{pair}: {interval}: {'a difference' if each.is_beyond else 'no difference'} beyond the spread.")
    return said
