"""What trials have in common, so that a program can show them together."""

import operator
from collections.abc import Mapping, Sequence
from typing import Any

from polyak.check.trial import Trial


def alike(trials: Sequence[Trial], defaults: Mapping[str, Any]) -> bool:
    """Whether trials differ only in numbers, options and changes, so that one body of a loop can stand for all.

    Args:
        trials: The trials.
        defaults: The options that are known where a trial does not give them.
    """

    def kept(trial: Trial) -> tuple[Any, ...]:
        shapes = [(name, w.shape) for name, w in trial.weights.items()]
        return shapes, trial.held, trial.groups, trial.strided, trial.reused

    some = {name for trial in trials for name in trial.options if any(name not in other.options for other in trials)}
    same = all(kept(trial) == kept(trials[0]) for trial in trials)
    return same and some <= defaults.keys() and not any(trial.resume for trial in trials)


def is_stopped_alone(trials: Sequence[Trial]) -> bool:
    """Whether there are two, the second the first that is loaded or copied in the middle, and nothing else is unusual in it."""
    if len(trials) != 2:
        return False
    one, other = trials
    stopped = one.resume is None and other.resume is not None
    more = (x for t in trials for x in (t.held, t.groups, t.strided, t.reused, t.implementation))
    same = one.weights is other.weights and (one.options, one.changes) == (other.options, other.changes)
    alike = len(one.gradients) == len(other.gradients) and all(map(operator.is_, one.gradients, other.gradients))
    return stopped and same and alike and not any(more)
