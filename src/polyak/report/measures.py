"""What follows from the recorded numbers of a run: ratios, and how much of the promised fall of the loss came true."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from polyak.report.recorded import Columns

Series = npt.NDArray[np.float64]


def ratio(above: Series, below: Series) -> Series:
    """The quotient, NaN where it is none: a layer whose weights are all 0 has no relative step."""
    with np.errstate(divide="ignore", invalid="ignore"):
        quotient: Series = np.where(below > 0, above / below, np.nan)
        return quotient


def relative_step(rows: Columns) -> Series:
    """|step| / |w|: the share of its size by which a step changes the weights."""
    return ratio(rows["step_norm"], rows["weight_norm"])


def fullness(steps: Columns) -> Series:
    """|step| / (lr |g| / (1 - m)): a step beside the one to which momentum grows where the gradient does not change.

    1 for such a gradient; `fullness_of_noise` where no gradient has anything to do with the one before.
    """
    return ratio(steps["step_norm"], steps["effective_learning_rate"] * steps["gradient_norm"])


def fullness_of_noise(momentum: Series, *, nesterov: bool) -> Series:
    """What `fullness` is where gradients are of one length and independent of each other.

    The velocity is a sum of them with the weights 1, m, m^2 ..., whose squares add up to 1 / (1 - m^2); with Nesterov's
    look-ahead the weights are 1 + m, m^2, m^3 ...
    """
    squares = 1 / (1 - momentum**2)
    if nesterov:
        squares = (1 + momentum) ** 2 + momentum**4 / (1 - momentum**2)
    return (1 - momentum) * np.sqrt(squares)


def is_a_sum(config: Mapping[str, Any]) -> bool:
    """Whether steps are sums of the gradients as they were recorded, weighted by powers of one momentum.

    Signs, orthogonal matrices, several velocities are none; a clipped gradient is another one than was recorded, and in groups
    the numbers differ.
    """
    changed = ("clipnorm", "clipvalue", "global_clipnorm", "groups", "cautious", "gradient_accumulation_steps")
    return config["class"] == "Momentum" and not any(config.get(name) for name in changed)


def own_share(config: Mapping[str, Any], momentum: Series) -> Series | None:
    """The part of a step that is the step's own gradient, in units of lr g. None where `is_a_sum` says no.

    Args:
        config: Of the optimizer, with its `class`.
        momentum: At each step.
    """
    if not is_a_sum(config):
        return None
    share: Series = 1 - momentum if config["velocity"] == "average" else np.full_like(momentum, 1 - config["dampening"])
    return share * (1 + momentum) if config["nesterov"] else share


@dataclass(frozen=True)
class Fall:
    """How the loss changed over a stretch of a run, beside what the gradients promised for it.

    Attributes:
        change: Of the loss, from the first recorded windows of the stretch to the last. NaN where a loss was not finite.
        error: About how far noise takes `change` from what it would be without: one standard error.
        promised: The sum of -g . step over the steps between. As g is the batch's gradient, each step counts its own noise as a
            gain, so that this is too much of a promise where batches are small.
        carried: The same without each step's own gradient: what the velocity from before promised, in which the batch's noise
            has no part. NaN where a step cannot be divided so, or has no velocity.
    """

    change: float
    error: float
    promised: float
    carried: float


def fall(steps: Columns, own: Series | None) -> Fall:
    """Change and promise over consecutive recorded steps, at least four.

    A recorded loss is the mean over the steps since the one recorded before, so its place is the middle of those, and the
    promise of a recorded step stands for the steps between that middle and the next. As all stretches are of one length, the
    middles are as far apart as the recorded steps. The losses of the first quarter are compared one by one with those of the
    last.

    Args:
        steps: Rows of steps.csv.
        own: `own_share` of them.
    """
    at, loss, promise = steps["step"], steps["loss"], steps["predicted_change"]
    if not (np.isfinite(loss).all() and np.isfinite(promise).all()):
        return Fall(math.nan, math.nan, math.nan, math.nan)
    group = max(1, len(at) // 4)
    # Second differences leave out any even fall; of a constant with noise of variance 1 they have the variance 6. The median,
    # which single leaps do not move, is 0.6745 of a normal deviation.
    noise = float(np.median(np.abs(np.diff(loss, 2)))) / 0.6745 / math.sqrt(6)
    between = np.diff(at)

    def summed(rates: Series) -> float:
        to_here = np.concatenate([[0.0], np.cumsum(rates[:-1] * between)])
        return float((to_here[-group:] - to_here[:group]).mean())

    carried = math.nan
    if own is not None and np.any(steps["momentum"] > 0):
        carried = summed(promise + own * steps["learning_rate"] * steps["gradient_norm"] ** 2)
    change = float((loss[-group:] - loss[:group]).mean())
    return Fall(change, noise * math.sqrt(2 / group), summed(promise), carried)
