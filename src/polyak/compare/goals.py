"""How well and how soon a run learned."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from polyak.report.measures import Series
from polyak.report.recorded import Columns, Recorded

# Of the names of metrics that are better when they are smaller.
_FALLING = ("loss", "error", "mae", "mse", "mape", "msle", "entropy", "divergence", "perplexity")


def falls(name: str) -> bool:
    """Whether a metric is better when it is smaller, by its name."""
    return any(part in name.lower() for part in _FALLING)


@dataclass(frozen=True)
class Goal:
    """A value to reach.

    Attributes:
        column: Of metrics.csv.
        value: To be reached from below, or from above where the metric falls.
        chosen: Whether it was chosen from the runs, for nobody named one.
    """

    column: str
    value: float
    chosen: bool = False

    def __str__(self) -> str:
        return f"{self.column} {'<=' if falls(self.column) else '>='} {self.value:.4g}"

    def step(self, run: Recorded) -> float:
        """The first step after which a run is there; NaN where it never is.

        What is measured on the training data is known at every recorded step, what is validated after each epoch, as is the
        former in a run with more epochs than recorded steps.
        """
        rows = self._rows(run)
        if self.column not in rows:  # it ended before the end of an epoch
            return np.nan
        there = rows[self.column] <= self.value if falls(self.column) else rows[self.column] >= self.value
        return float(rows["step"][there.argmax()]) if there.any() else np.nan

    def grain(self, run: Recorded) -> float:
        """The steps between two at which it is looked."""
        at = self._rows(run).get("step", np.empty(0))
        return float(np.median(np.diff(at))) if len(at) > 1 else 0.0

    def _rows(self, run: Recorded) -> Columns:
        recorded, epochs = (len(rows.get("step", ())) for rows in (run.steps, run.epochs))
        return run.steps if self.column in run.steps and recorded >= epochs else run.epochs

    def seconds(self, run: Recorded) -> float:
        """Likewise, the seconds of training until then."""
        return float(seconds_at(run, np.array([self.step(run)]))[0])


def seconds_at(run: Recorded, steps: Series) -> Series:
    """The clock at some steps, evenly within each epoch."""
    clock = run.clock.get("seconds", np.empty(0))
    epochs = run.epochs.get("step", np.empty(0))
    known = min(len(clock), len(epochs))
    ends, seconds = np.append(0, epochs[:known]), np.append(0, clock[:known])
    at = np.interp(steps, ends, seconds)
    return np.where(steps <= ends[-1], at, np.nan)  # NaN of an unknown step too


def goal(text: str | None, runs: Sequence[Recorded]) -> Goal | None:
    """The goal that was asked for as NAME=VALUE, or a default: the hardest that every run reached.

    Returns:
        None where there is no number to choose one from.

    Raises:
        ValueError: No such column, or no number.
    """
    measured = [run for run in runs if run.epochs]
    columns = [name for name in (measured[0].epochs if measured else ()) if name not in _NO_GOALS]
    columns = [name for name in columns if all(name in run.epochs for run in measured)]
    if text is not None:
        name, _, value = text.partition("=")
        if name.strip() not in columns:
            raise ValueError(f"--reach {text}: no metric {name.strip()!r} in these runs; choose from {', '.join(columns)}.")
        try:
            return Goal(name.strip(), float(value))
        except ValueError:
            raise ValueError(f"--reach {text} has no number after '=': write for example --reach {name.strip()}=0.5.") from None
    main = runs[0].main
    names = [name for name in (f"val_{main}", "val_loss", main, "loss") if name in columns]
    if not names:
        return None
    best = [_best(run.epochs[names[0]], names[0]) for run in measured if run.result.get("status") != "failed"]
    known = [value for value in best if np.isfinite(value)]
    if not known:
        return None
    return Goal(names[0], max(known) if falls(names[0]) else min(known), chosen=True)


_NO_GOALS = frozenset({"epoch", "step", "learning_rate", "momentum"})


def _best(values: Series, name: str) -> float:
    known = values[np.isfinite(values)]
    return float(known.min() if falls(name) else known.max()) if len(known) else np.nan


def score_name(runs: Sequence[Recorded]) -> str | None:
    """The score by which runs are compared: test before validation, the main metric before the loss, and one that all of them
    have that did not fail.
    """
    ended = [run for run in runs if run.result.get("status") != "failed"]
    main = runs[0].main
    names = [f"{part}_{name}" for part in ("test", "val") for name in (main, "loss") if name]
    return next((name for name in names if ended and all(_score(run, name) is not None for run in ended)), None)


def score(run: Recorded, name: str) -> float:
    """A score of a run, NaN where it has none."""
    value = _score(run, name)
    return np.nan if value is None else value


def _score(run: Recorded, name: str) -> float | None:
    value = run.result.get(name)
    if value is None and name in run.epochs and len(run.epochs[name]):
        value = float(run.epochs[name][-1])  # a run that was stopped
    return value
