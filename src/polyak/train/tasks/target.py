"""What is to be learned, from a column of it: classes or values."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from polyak.train.tasks.task import Numbers, Task, TaskError

if TYPE_CHECKING:
    import polars as pl

FEW = 20  # whole numbers with at most so many different values are classes: grades, digits, yes and no
EACH = 3  # if they occur so often on average. Fewer are measurements in a short table
MOST = 1000  # classes. A text column with more is a name or a remark
RESOLUTION = 1e5  # mean / spread: beyond it, float32 has less than three digits left for the spread


@dataclass(frozen=True)
class Target:
    """What is to be learned.

    Attributes:
        name: What messages call it.
        kind: "classification" or "regression".
        y: Numbers of classes, int32, shape (n,); or values in their own units, float32, shape (n, outputs).
        classes: Names by number; None for values.
        note: How it was understood.
    """

    name: str
    kind: Literal["classification", "regression"]
    y: NDArray[Any]
    classes: tuple[str, ...] | None
    note: str

    @property
    def labels(self) -> NDArray[np.int32] | None:
        """What a split is stratified by."""
        return self.y if self.kind == "classification" else None


def understand(column: "pl.Series", name: str) -> Target:
    """Tell classes from values, and make numbers of them.

    Text, booleans and few different whole numbers are classes; decimals and many whole numbers are values.

    Args:
        column: The raw column.
        name: What messages call it: "the target 'species' of iris.csv", say.

    Raises:
        TaskError: Something is missing in it, it has one value only, or it is of a type that neither is.
    """
    import polars as pl

    kind = column.dtype
    if not (kind.is_numeric() or kind in (pl.String, pl.Boolean, pl.Null, pl.Categorical) or isinstance(kind, pl.Enum)):
        raise TaskError(f"{name} is of the type {kind}: numbers, text or booleans can be learned.")
    if kind == pl.Null or column.null_count() == len(column):
        raise TaskError(f"{name} has no value at all.")
    if isinstance(kind, pl.Categorical | pl.Enum):
        column = column.cast(pl.String)
    elif kind.is_decimal():
        column = column.cast(pl.Float64)
    bad = column.is_null()
    if column.dtype.is_float():
        bad = bad | ~column.is_finite().fill_null(value=False)
    if bad.any():
        rows = bad.arg_true()
        where = ", ".join(str(row + 1) for row in rows[:8]) + (", ..." if len(rows) > 8 else "")
        raise TaskError(
            f"{name} is missing or not finite in {len(rows):,} of {len(bad):,} rows: {where}, where 1 is the first. "
            "Fill them in, or take these rows out."
        )
    distinct = column.n_unique()
    if distinct < 2:
        raise TaskError(f"{name} is {column[0]!r} in every row: there is nothing to learn. Is it the right one?")
    if column.dtype == pl.String:
        if distinct > MOST or distinct > max(len(column) / 2, 2):
            raise TaskError(
                f"{name} has {distinct:,} different texts in {len(column):,} rows: names or remarks rather than classes. "
                "Choose another column, or write numbers as numbers."
            )
        return classes(column, name, "text")
    if column.dtype == pl.Boolean:
        return classes(column.cast(pl.String), name, "true or false")
    if column.dtype.is_integer():
        if distinct <= FEW and distinct * EACH <= len(column):
            return classes(column, name, f"{distinct} different whole numbers; with decimals, 3.0 for 3, they would be values")
        return values(column.cast(pl.Float64).to_numpy()[:, None], name, f"{distinct:,} different whole numbers")
    return values(column.cast(pl.Float64).to_numpy()[:, None], name, "decimals")


def classes(column: "pl.Series", name: str, why: str) -> Target:
    """Classes in the order of their names, or of their numbers."""
    known = column.unique().sort()
    y = known.search_sorted(column).to_numpy().astype(np.int32)
    names = tuple(str(value) for value in known)
    return Target(name, "classification", y, names, f"{name}: {len(names)} classes ({why})")


def values(y: NDArray[np.float64], name: str, why: str) -> Target:
    """Values: finite float64, shape (n, outputs)."""
    return Target(name, "regression", y.astype(np.float32), None, f"{name}: values ({why})")


@dataclass(frozen=True)
class Goal:
    """What a model is trained to give: its last layers, its loss and its metrics.

    Attributes:
        kind: As in a Task. So are classes, loss, metrics and main.
        width: How many numbers the last layer of weights gives.
        after: Functions that make the layers after it.
    """

    kind: Literal["classification", "regression"]
    classes: tuple[str, ...] | None
    width: int
    after: tuple[Callable[[], Any], ...]
    loss: Callable[[], Any]
    metrics: Callable[[], Any]
    main: str

    def task(self, **parts: Any) -> Task:
        """A task with this goal, and these parts."""
        return Task(
            kind=self.kind, classes=self.classes, loss=self.loss, metrics=self.metrics, main=self.main, **{"test": None} | parts
        )


def goal(target: Target, train: Numbers) -> Goal:
    """The goal for a target.

    Args:
        target: What is to be learned.
        train: The rows that are trained on: the mean and the spread of values are theirs.

    Raises:
        TaskError: On these rows there is nothing to learn.
    """
    y = target.y[train]
    if target.classes is not None:
        present = np.unique(y)
        if len(present) < 2:
            raise TaskError(f"{target.name} has one class only to train on, {target.classes[present[0]]!r}. Add examples.")
        return classification(target.classes)
    mean, spread = y.mean(0, np.float64), y.std(0, np.float64)
    flat = np.flatnonzero(spread <= np.abs(mean) / RESOLUTION)
    if len(flat):
        raise TaskError(
            f"{target.name} hardly differs from {mean[flat[0]]:g} on the rows to train on, too little for float32. "
            "Subtract that number first."
        )
    return regression(mean.tolist(), spread.tolist())


def classification(classes: tuple[str, ...]) -> Goal:
    """One logit a class; the saved model knows their names."""

    def names() -> Any:
        from polyak.train.layers import Classes

        return Classes(list(classes), name="classes")

    def loss() -> Any:
        import keras

        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    return Goal("classification", classes, len(classes), (names,), loss, lambda: ["accuracy"], "accuracy")


def regression(mean: list[float], spread: list[float]) -> Goal:
    """Values in their own units. Inside, the model computes standard deviations from the mean, and so does the loss."""

    def units() -> Any:
        import keras

        return keras.layers.Rescaling(spread, mean, name="units")

    def loss() -> Any:
        from polyak.train.layers import ScaledSquaredError

        return ScaledSquaredError(spread)

    return Goal("regression", None, len(mean), (units,), loss, lambda: ["mae"], "mae")
