"""Means over the steps since the last row, from the means over the epoch so far that Keras keeps."""

from collections.abc import Mapping
from typing import Any


class Window:
    """The mean of one quantity over the steps since the last row.

    Keras adds up a quantity over an epoch in float32 and gives the mean; the difference of two such sums is that of the steps
    between. The sum is rounded at each step, by at most 2^-24 of itself, so that the mean of a window is wrong by at most

        2^-24 * (the epoch's mean so far / the window's) * (steps of the epoch so far)

    of itself: 0.06 % after 10,000 steps, more if the quantity has become much smaller within the epoch.

    Args:
        state: What `state` gave, to go on from there.
    """

    def __init__(self, state: Mapping[str, str] | None = None) -> None:
        given = state or {}
        # The sum and the count over the epoch when the last row was made, and those of the epoch before that were in no row.
        self._sum, self._count, self._rest, self._rest_count = (
            float(given.get(name, 0)) for name in ("sum", "count", "rest", "rest_count")
        )

    def row(self, mean: float, count: float) -> float:
        """The mean over the window, which ends here.

        Args:
            mean: Over the epoch so far.
            count: Of the examples, or what else is counted, over the epoch so far.
        """
        total = self._rest + (mean * count - self._sum)
        counted = self._rest_count + (count - self._count)
        self._sum, self._count, self._rest, self._rest_count = mean * count, count, 0.0, 0.0
        return total / counted if counted else float("nan")

    def epoch_ends(self, mean: float, count: float) -> None:
        """Keep what was in no row yet: Keras begins its sums anew."""
        self._rest += mean * count - self._sum
        self._rest_count += count - self._count
        self._sum = self._count = 0.0

    def state(self) -> dict[str, str]:
        """All that the object is, exactly, as texts: JSON has no NaN."""
        names = {"sum": self._sum, "count": self._count, "rest": self._rest, "rest_count": self._rest_count}
        return {name: repr(float(value)) for name, value in names.items()}


def has_running_means(model: Any) -> bool:
    """Whether what the model measures at a step are means over the epoch so far: a `train_step` of a person's own may give
    anything, which is then recorded as it is.
    """
    import keras

    return bool(type(model).train_step is keras.Model.train_step)


def is_mean(model: Any, name: str) -> bool:
    """Whether a metric of the model is a mean over examples."""
    import keras

    def flat(metrics: Any) -> list[Any]:
        return [m for metric in metrics for m in (metric, *flat(getattr(metric, "metrics", ())))]

    kinds = (keras.metrics.Mean, keras.metrics.MeanMetricWrapper)
    return any(m.name == name and (type(m) is kinds[0] or isinstance(m, kinds[1])) for m in flat(model.metrics))
