"""Where a step changes its sign: that tells coefficients of rules of which little else can be told.

If a step has the sign of g_t + r_1 g_(t-1) + r_2 g_(t-2) + ..., then after a gradient of 1 and zeros, a gradient of -x gives a
step down or up according to whether x is below r. What is done to the sum after that does not matter: Lion takes its sign, Adam
divides it by something positive, Muon takes the nearest orthogonal matrix. Many x are tried in one run.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from polyak.check.identity import Number
from polyak.check.trial import Array, Subject, Trial

LOWEST, HIGHEST = 1e-7, 1e7
"""What is below the first is taken as 0; what is above the second is not found."""

SIZE = 2.0**20
"""Of gradients: so large that epsilons, what averages start from and coupled decays are as nothing beside them."""


@dataclass(frozen=True)
class Places:
    """How a table of numbers is laid out over parameters, so that each meets its own gradients alone.

    Attributes:
        columns: Of the table. It has as many rows as there are quantities to find.
        spread: The table -> the arrays of the parameters.
        gather: The other way.
        digits: The relative precision that is worth the runs it takes: few columns narrow it down slowly.
    """

    columns: int
    spread: Callable[[Array], dict[str, Array]]
    gather: Callable[[Mapping[str, Array]], Array]
    digits: float = 1e-6


ELEMENTS = Places(1000, lambda table: {"w": table}, lambda arrays: arrays["w"], digits=1e-10)
"""One element each: for rules that take each element by itself."""

VECTORS = Places(
    1000,
    lambda table: {f"w{row}": values for row, values in enumerate(table)},
    lambda arrays: np.stack([arrays[f"w{row}"] for row in range(len(arrays))]),
)
"""The same in tensors of one dimension."""

# A number on the diagonal of a matrix is a singular value with a sign.
DIAGONALS = Places(
    24,
    lambda table: {f"w{row}": np.diag(values) for row, values in enumerate(table)},
    lambda arrays: np.stack([np.diagonal(arrays[f"w{row}"]) for row in range(len(arrays))]),
)
"""One place on the diagonal of a matrix each: for rules that take singular values alike."""


def _whole(table: Array) -> dict[str, Array]:
    return {f"w{row}_{column}": np.full((2, 2), table[row, column]) for row, column in np.ndindex(*table.shape)}


def _wholly(arrays: Mapping[str, Array]) -> Array:
    places = [tuple(int(part) for part in name[1:].split("_")) for name in arrays]
    table = np.zeros((1 + max(row for row, _ in places), 1 + max(column for _, column in places)))
    for place, array in zip(places, arrays.values(), strict=True):
        table[place] = array[0, 0]
    return table


TENSORS = Places(12, _whole, _wholly)
"""A small matrix each: for rules that scale tensors as wholes. All of its elements are the same number."""


def dtype(subject: Subject) -> type[np.floating[Any]]:
    """In which it is measured."""
    return np.float64 if subject.double else np.float32


def tried(subject: Subject, places: Places, gradients: Array, weights: Array | None = None, *, held: bool = True) -> Array:
    """The steps of a trial.

    Args:
        subject: The optimizer.
        places: Where they are.
        gradients: (steps, rows, columns).
        weights: (rows, columns); None for zeros, from which steps are exact.
        held: Whether each step starts from the same weights.

    Returns:
        (steps, rows, columns).
    """
    kind = dtype(subject)
    weights = np.zeros(gradients.shape[1:]) if weights is None else weights
    arrays = places.spread(weights.astype(kind))
    given = [places.spread(table.astype(kind)) for table in gradients]
    trajectory = subject.run(Trial(arrays, given, held=held))
    steps = {name: trajectory.steps(name) for name in arrays}
    return np.stack([places.gather({name: taken[step] for name, taken in steps.items()}) for step in range(len(gradients))])


def crossings(above: Callable[[Array], Array], rows: int, columns: int, precision: float) -> list[Number | None]:
    """As many numbers as there are rows, from comparisons alone.

    Args:
        above: A table of numbers -> whether each of them is above the number that is looked for in its row.
        rows: How many are looked for.
        columns: How many are tried at once.
        precision: Relative, to which they are wanted or beyond which rounding hides them.

    Returns:
        Of each row the number; 0 within `LOWEST` if it is less than that; None where the comparisons contradict each other or
        it is above `HIGHEST`.
    """
    table = np.tile(np.geomspace(LOWEST, HIGHEST, columns), (rows, 1))
    answers = above(table)
    known = np.all(answers[:, 1:] >= answers[:, :-1], axis=1) & answers[:, -1]
    small = answers[:, 0]
    low, high = _brackets(table, answers)
    while np.any(known & ~small & (high - low > precision * high)):
        table = np.linspace(low, high, columns, axis=1)
        width = high - low
        low, high = _brackets(table, above(table))
        if np.all(high - low > width / 2):  # as narrow as rounding allows
            break
    numbers = [Number((a + b) / 2, (b - a) / 2 + 2 * precision * b) for a, b in zip(low.tolist(), high.tolist(), strict=True)]
    return [(Number(0.0, LOWEST) if small[row] else numbers[row]) if known[row] else None for row in range(rows)]


def _brackets(table: Array, answers: Array) -> tuple[Array, Array]:
    """The last number of each row that is not above and the first that is, in order: rounding may make them change places."""
    last = np.where(answers.all(axis=1), 0, answers.shape[1] - 1 - np.argmax(~answers[:, ::-1], axis=1))
    first = np.where(answers.any(axis=1), np.argmax(answers, axis=1), answers.shape[1] - 1)
    rows = np.arange(len(table))
    ends = np.stack([table[rows, last], table[rows, first]])
    return ends.min(axis=0), ends.max(axis=0)


def precision(subject: Subject, places: Places) -> float:
    """Relative, to which numbers are found at these places."""
    return max(places.digits, 4 * float(np.finfo(dtype(subject)).eps))


def past(subject: Subject, places: Places, lags: int) -> list[Number | None]:
    """r_1, r_2, ...: how much the gradient of each earlier step weighs beside that of the step itself.

    It holds if steps have the sign of such a sum, which is for the caller to verify.
    """

    def above(table: Array) -> Array:
        gradients = np.zeros((lags + 1, *table.shape))
        gradients[0] = SIZE
        for row, values in enumerate(table):
            gradients[row + 1, row] = -SIZE * values
        steps = tried(subject, places, gradients)
        rows = np.arange(lags)
        answers: Array = steps[rows + 1, rows] * np.sign(steps[0, 0, 0]) < 0
        return answers

    return crossings(above, lags, places.columns, precision(subject, places))
