"""What the columns of a table are, told from the rows that are trained on; and which are of no use."""

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from polyak.train.tasks.columns import Column, raw_numbers
from polyak.train.tasks.task import Numbers

if TYPE_CHECKING:
    import polars as pl

CATEGORIES = 100  # that a model tells apart in one column, the commonest; the others share one place
FEW = 20  # rows or texts below which a column is not called an identifier
IDENTIFIER = re.compile(r"(^|[\W_])(id|index|uuid|key)$|^$", re.IGNORECASE)  # "" is how pandas writes its index


def describe(name: str, series: "pl.Series", train: Numbers, form: str) -> tuple[Column | None, str]:
    """What a column is.

    Args:
        name: In the header.
        series: All of its rows, typed.
        train: The rows that are trained on: categories, median and spread are theirs.
        form: How its text was written.

    Returns:
        The column, or None for one of no use; and a note or "". Of a column without use the note is the reason.
    """
    import polars as pl

    kind = series.dtype
    if isinstance(kind, pl.Categorical | pl.Enum):
        series = series.cast(pl.String)
    elif kind.is_nested() or isinstance(kind, pl.Binary | pl.Object):
        return None, f"{kind}, neither numbers nor text nor dates"
    reason = identifier(name, series)
    if reason:
        return None, reason
    seen = series.gather(train)
    missing = seen.null_count()
    if missing == len(seen):
        return None, "no value at all"
    if seen.drop_nulls().n_unique() == 1 and not missing:
        return None, "the same in every row"
    if series.dtype == pl.String:
        return category(name, seen, missing)
    if kind == pl.Time:
        return number(Column(name, "time", form), seen)
    if isinstance(kind, pl.Date | pl.Datetime):
        clock = isinstance(kind, pl.Datetime) and bool((seen.dt.truncate("1d") != seen).any())
        return number(Column(name, "date", form, clock=clock), seen)
    return number(Column(name, "number", form), seen)


def identifier(name: str, series: "pl.Series") -> str:
    """Why a column only says which row it is, or "": with it, a model learns rows by heart."""
    import polars as pl

    rows, kind = len(series), series.dtype
    if rows < FEW or series.null_count():
        return ""
    if kind == pl.String:
        different = series.n_unique()
        return f"{different:,} different texts in {rows:,} rows" if different > max(rows / 2, FEW) else ""
    if kind.is_integer() and series.n_unique() == rows:
        low, high = series.min(), series.max()
        if int(high) - int(low) == rows - 1:  # type: ignore[arg-type]  # both are integers
            return "counts the rows"
        if IDENTIFIER.search(name):
            return "another number in every row"
    return ""


def rows(count: int) -> str:
    """A number of rows, in words."""
    return f"{count:,} row{'s' * (count != 1)}"


def category(name: str, seen: "pl.Series", missing: int) -> tuple[Column, str]:
    """A column of text."""
    counts = seen.drop_nulls().alias("value").value_counts(name="rows").sort(["rows", "value"], descending=[True, False])
    kept = counts["value"][:CATEGORIES].sort().to_list()
    notes = [f"missing in {rows(missing)}, which is a category of its own"] * (missing > 0)
    if len(counts) > CATEGORIES:
        notes.append(f"the {CATEGORIES} commonest of {len(counts):,} categories are told apart")
    return (
        Column(name, "category", missing=missing > 0, categories=tuple(kept), other=len(counts) > CATEGORIES),
        "; ".join(notes),
    )


def number(column: Column, seen: "pl.Series") -> tuple[Column | None, str]:
    """A column of numbers, dates or times."""
    raw, _ = raw_numbers(seen, column)
    known = raw[~np.isnan(raw)]
    if not len(known):
        return None, "no finite value"
    missing = len(raw) - len(known)
    infinite = missing - seen.null_count()
    notes = []
    if missing:
        what = f"missing in {rows(missing)}" + f" ({infinite:,} of them NaN or infinite)" * (infinite > 0)
        notes.append(f"{what}, where the median stands and a mark")
    spread = float(known.std())
    return (
        replace(column, missing=missing > 0, centre=float(np.median(known)), spread=spread if spread > 0 else 1.0),
        "; ".join(notes),
    )
