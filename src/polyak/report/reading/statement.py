"""What a statement is, and what the questions have in common."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from polyak.report.measures import Series
from polyak.report.recorded import Columns

Verdict = Literal["yes", "no", "can't tell"]

Answer = tuple[Verdict, str, tuple[tuple[str, str], ...]]
"""The verdict, a sentence or two, and what they rest on: names, and values as text."""

# A share of 30 steps is known to about 9 points either way (sqrt(0.25 / 30)): fewer do not tell 40 % from 60 %.
FEWEST_STEPS = 30
# What a run has throughout, such as the relative step of a layer, is known from the median of the second half of 10 steps.
FEWEST_FOR_A_MEDIAN = 10
# Two random directions among 100 weights have a cosine of 0 +- 0.1, among more weights less: below -0.2 it is no accident.
OPPOSED = -0.2


@dataclass(frozen=True)
class Statement:
    """One answer.

    Attributes:
        question: What is answered.
        verdict: In short.
        answer: In a sentence or two.
        numbers: What it rests on: names, and values as text.
        rule: How the verdict follows from them.
    """

    question: str
    verdict: Verdict
    answer: str
    numbers: tuple[tuple[str, str], ...]
    rule: str


def half(steps: Columns, which: int) -> Columns:
    """The first half of the rows, 0, or the second, 1."""
    middle = len(steps["step"]) // 2
    part = slice(middle, None) if which else slice(None, middle)
    return {name: column[part] for name, column in steps.items()}


def known(series: Series) -> Series:
    """What is finite of a series."""
    found: Series = series[np.isfinite(series)]
    return found


def median(series: Series) -> float:
    """The median of what is finite, NaN where nothing is."""
    found = known(series)
    return float(np.median(found)) if len(found) else math.nan
