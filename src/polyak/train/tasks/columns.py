"""The columns of a table: what each is, and how its cells become numbers. A saved model carries this with it.

Compiled models take no text, so a table is brought in in two parts. `cells` turns raw columns into numbers on the host: the
number of a category, days of a date, a number as its distance from the median, in float64 before it is rounded. The layer
`polyak.train.layers.Columns` does the rest inside the model: it scales, marks what is missing and parts the categories.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from polyak.train.tasks.task import TaskError
from polyak.train.tasks.text import parse

if TYPE_CHECKING:
    import polars as pl

Kind = Literal["number", "category", "date", "time"]

YEAR, WEEK = 365.2425, 7.0  # days


@dataclass(frozen=True)
class Column:
    """One column that a model looks at.

    Attributes:
        name: In the header.
        kind: "number" (booleans are 0 and 1, durations days), "category", "date" (with or without a time of day) or "time".
        form: How text of it is read, see `polyak.train.tasks.text`; "" for categories and where files are typed.
        missing: Some cells were missing in training, so that the model has learned what that means. Where none was, a missing
            number is the median and a missing category is none.
        centre: The median, of numbers, days since 1970 or hours.
        spread: Their standard deviation.
        categories: Those that the model tells apart, in order.
        other: There were more, which share one place. Without it, a category that is not known is none.
        clock: Dates have a time of day.
    """

    name: str
    kind: Kind
    form: str = ""
    missing: bool = False
    centre: float = 0.0
    spread: float = 1.0
    categories: tuple[str, ...] = ()
    other: bool = False
    clock: bool = False

    @property
    def cells(self) -> int:
        """How many numbers a cell becomes: a date is days, and where it stands in year, week and day (sine, cosine)."""
        return {"number": 1, "category": 1, "time": 3, "date": 7 if self.clock else 5}[self.kind]

    @property
    def slots(self) -> tuple[str, ...]:
        """What the numbers of a category stand for."""
        return (*self.categories, *("other",) * self.other, *("missing",) * self.missing)


def columns_to(columns: Iterable[Column]) -> list[dict[str, Any]]:
    """Plain values, for a file."""
    return [asdict(column) for column in columns]


def columns_from(plain: Iterable[Any]) -> list[Column]:
    """The columns again, from plain values as a file gives them, or as they are."""
    return [item if isinstance(item, Column) else Column(**{**item, "categories": tuple(item["categories"])}) for item in plain]


def check_present(columns: list[Column], names: list[str], where: str) -> None:
    """Raise TaskError if a table with columns of these names lacks one that a model needs."""
    lacking = [column.name for column in columns if column.name not in names]
    if lacking:
        raise TaskError(
            f"{where} lacks {', '.join(map(repr, lacking))} of the {len(columns)} columns that the model was trained with."
        )


def cells(columns: list[Column], frame: "pl.DataFrame", start: int = 0) -> NDArray[np.float32]:
    """The cells of a table as numbers: float32, (rows, sum of column.cells), NaN for what is missing or not known.

    Args:
        columns: What to take from it. Other columns are not looked at.
        frame: Raw columns, typed or as text.
        start: Number of its first row in the file, for messages.

    Raises:
        TaskError: A column has a cell that it cannot have.
    """
    out = np.empty((len(frame), sum(column.cells for column in columns)), np.float32)
    place = 0
    for column in columns:
        raw = frame[column.name].alias("column")
        out[:, place : place + column.cells] = codes(column, raw) if column.kind == "category" else numbers(column, raw, start)
        place += column.cells
    return out


def codes(column: Column, series: "pl.Series") -> NDArray[np.float32]:
    """Numbers of categories, (rows, 1)."""
    import polars as pl

    text = series.cast(pl.String)
    found = text.cast(pl.Enum(column.categories), strict=False).to_physical().cast(pl.Float64)
    unknown = found.is_null().to_numpy()
    missing = text.is_null().to_numpy()
    code = found.fill_null(np.nan).to_numpy().copy()
    if column.other:
        code[unknown & ~missing] = len(column.categories)
    if column.missing:
        code[missing] = len(column.slots) - 1
    return code.astype(np.float32)[:, None]


def numbers(column: Column, series: "pl.Series", start: int) -> NDArray[np.float64]:
    """A number less its median, or a date, or a time of day, (rows, column.cells)."""
    raw, clock = raw_numbers(parse(series, column.form, column.name, start), column)
    main = raw - column.centre
    if column.kind == "number":
        return main[:, None]
    periods = [(clock, 24.0)] if column.kind == "time" else [(raw, YEAR), (raw, WEEK)] + [(clock, 24.0)] * column.clock
    angles = [2 * np.pi * value / period for value, period in periods]
    return np.stack([main, *(np.nan_to_num(f(a)) for a in angles for f in (np.sin, np.cos))], axis=1)


def raw_numbers(series: "pl.Series", column: Column) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A typed column as float64, NaN for what is missing, in the unit of its kind; and hours of the day."""
    import polars as pl

    kind = series.dtype
    hours = np.zeros(len(series))
    if kind == pl.Null:
        return np.full(len(series), np.nan), hours
    if column.kind == "time":
        if kind != pl.Time:
            raise TaskError(f"column {column.name!r} has the type {kind}: it was a time of day in training.")
        hours = series.cast(pl.Int64).cast(pl.Float64).fill_null(np.nan).to_numpy() / 3.6e12  # nanoseconds
        return hours, hours
    if column.kind == "date":
        if not isinstance(kind, pl.Date | pl.Datetime):
            raise TaskError(f"column {column.name!r} has the type {kind}: it was a date in training.")
        days = series.cast(pl.Datetime("us")).cast(pl.Int64).cast(pl.Float64).fill_null(np.nan).to_numpy() / 8.64e10
        return days, 24 * (days % 1)
    if isinstance(kind, pl.Duration):
        series = series.dt.total_microseconds().cast(pl.Float64) / 8.64e10
    elif not (kind.is_numeric() or kind == pl.Boolean):
        raise TaskError(f"column {column.name!r} has the type {kind}: it was a number in training.")
    value = series.cast(pl.Float64).fill_null(np.nan).to_numpy()
    return np.where(np.isfinite(value), value, np.nan), hours
