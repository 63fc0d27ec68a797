"""Long series made short enough to draw, without losing a peak."""

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

POINTS = 2000
"""Of a line: two for each column of pixels of a wide chart."""
COLUMNS = 300
"""Of a heat map."""


def thinned(values: npt.NDArray[np.float64], points: int = POINTS) -> npt.NDArray[np.intp]:
    """Which values of a series to draw: the first and the last, and of each stretch between the smallest and the largest.

    Args:
        values: Shape (n,). NaN is passed over; a stretch of nothing else keeps its first.
        points: At most so many, at least 4.

    Returns:
        Positions in ascending order.

    Example:
        >>> import numpy as np
        >>> thinned(np.array([0.0, 1.0, 9.0, 1.0, 0.0, 0.0, -9.0, 0.0]), 6)
        array([0, 2, 4, 6, 7])
    """
    n = len(values)
    if n <= points:
        return np.arange(n)
    edges = np.linspace(0, n, points // 2).astype(int)  # one stretch less: the two ends need room too
    low, high = np.where(np.isnan(values), np.inf, values), np.where(np.isnan(values), -np.inf, values)
    chosen = [0, n - 1]
    for first, last in pairwise(edges):
        chosen += [first + int(low[first:last].argmin()), first + int(high[first:last].argmax())]
    return np.unique(chosen)


def condensed(values: npt.NDArray[Any], columns: int = COLUMNS) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """A heat map of fewer columns: the median of each stretch of them, where there is a number.

    Args:
        values: Shape (rows, n).
        columns: At most so many.

    Returns:
        The position of the middle of each stretch, and the medians, shape (rows, columns).
    """
    n = values.shape[1]
    if n <= columns:
        return np.arange(n), values
    edges = np.linspace(0, n, columns + 1).astype(int)
    medians = np.full((len(values), columns), np.nan)
    for i, (first, last) in enumerate(pairwise(edges)):
        stretch = values[:, first:last]
        some = np.isfinite(stretch).any(axis=1)
        medians[some, i] = np.nanmedian(np.where(np.isfinite(stretch[some]), stretch[some], np.nan), axis=1)
    return (edges[:-1] + edges[1:] - 1) // 2, medians
