"""What a comparison found: the one source of the table, the sentences and the page."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from polyak.compare.differences import differences, sentences
from polyak.compare.goals import Goal, falls, goal, score, score_name, seconds_at
from polyak.compare.groups import Group, grouped
from polyak.report.figures import is_share
from polyak.report.measures import Series
from polyak.report.recorded import Recorded


@dataclass(frozen=True)
class Comparison:
    """Groups of runs, measured.

    Attributes:
        groups: The groups, as they were given.
        goal: What is to be reached; None where nothing was measured.
        score: The name of the score at the end; likewise.
        scores, steps, seconds: Of each group by its name, a number a run; NaN where a run has none.
        said: The differences, in sentences.
    """

    groups: tuple[Group, ...]
    goal: Goal | None
    score: str | None
    scores: dict[str, Series]
    steps: dict[str, Series]
    seconds: dict[str, Series]
    said: tuple[str, ...]

    @property
    def runs(self) -> list[Recorded]:
        """All runs."""
        return [run for group in self.groups for run in group.runs]

    def table(self) -> tuple[list[str], list[list[str]]]:
        """The head, and a row a group: numbers are means, +- their standard deviation over the seeds."""
        head = ["", "runs"]
        if self.score:
            head.append(self.score.replace("_", " "))
        if self.goal:
            head += [f"steps to {self.goal}", "seconds", "reached by"]
        rows = []
        for group in self.groups:
            row = [group.name, _count(group)]
            if self.score:
                row.append(spread(self.scores[group.name], number(self.runs[0], self.score)))
            if self.goal:
                reached = np.isfinite(self.steps[group.name])
                row.append(spread(self.steps[group.name], _whole))
                row.append(spread(self.seconds[group.name], _tenths))
                row.append(f"{reached.sum()} of {len(reached)}")
            rows.append(row)
        return head, rows


def compared(runs: Sequence[Recorded], reach: str | None = None) -> Comparison:
    """Group runs and measure them.

    Args:
        runs: At least one.
        reach: NAME=VALUE, or None for a goal that is chosen from the runs.

    Raises:
        ValueError: Runs of different tasks, one given twice, or a goal that the runs have not.
    """
    groups = grouped(runs)
    target, scored = goal(reach, runs), score_name(runs)

    def each(measure: Callable[[Recorded], float]) -> dict[str, Series]:
        return {group.name: np.array([measure(run) for run in group.runs]) for group in groups}

    scores = each(lambda run: score(run, scored)) if scored else {}
    steps = each(target.step) if target else {}
    seconds = each(target.seconds) if target else {}
    said: list[str] = []
    if scored:
        found = differences(scores, smaller_is_better=falls(scored))
        said += sentences(scored.replace("_", " "), found, number(runs[0], scored))
    # Where a run never gets there, a mean over the others would praise who fails on the hard seeds.
    arrived = {name: x for name, x in steps.items() if np.isfinite(x).all()}
    grain = max(map(target.grain, runs)) if target else 0.0
    said += sentences(f"steps to {target}", differences(arrived, smaller_is_better=True, grain=grain), _whole)
    said += [f"steps to {target}: not every run of {name} gets there." for name in steps if name not in arrived]
    return Comparison(tuple(groups), target, scored, scores, steps, seconds, tuple(said))


def number(run: Recorded, name: str) -> Callable[[float], str]:
    """How a score is written."""
    share = is_share(run, name.removeprefix("test_").removeprefix("val_"))
    return (lambda x: f"{x:.2%}") if share else (lambda x: f"{x:.4g}")


def _whole(x: float) -> str:
    return f"{x:,.0f}"


def _tenths(x: float) -> str:
    return f"{x:,.1f}"


def spread(values: Series, write: Callable[[float], str]) -> str:
    """The mean, and the standard deviation where there are several."""
    known = values[np.isfinite(values)]
    if not len(known):
        return "-"
    return f"{write(known.mean())} +- {write(known.std(ddof=1))}" if len(known) > 1 else write(known[0])


def _count(group: Group) -> str:
    ended = [run.result.get("status", "not ended") for run in group.runs]
    other = [f"{ended.count(status)} {status}" for status in dict.fromkeys(ended) if status != "completed"]
    return f"{len(ended)} ({', '.join(other)})" if other else str(len(ended))


def curve(group: Group, column: str) -> tuple[Series, Series, Series]:
    """A column over the epochs, for each run of a group that ended one.

    Returns:
        The steps, the mean of the seconds until then, and the values, shape (runs, epochs): NaN after the end of a run.
    """
    runs = [run for run in group.runs if column in run.epochs]
    steps = max((run.epochs["step"] for run in runs), key=len, default=np.empty(0))
    values, seconds = (np.full((len(runs), len(steps)), np.nan) for _ in range(2))
    for i, run in enumerate(runs):
        n = len(run.epochs["step"])
        values[i, :n] = run.epochs[column]
        seconds[i, :n] = seconds_at(run, run.epochs["step"])
    some = np.isfinite(seconds).any(axis=0)
    mean = np.full(len(steps), np.nan)
    mean[some] = np.nanmean(seconds[:, some], axis=0)
    return steps, mean, values
