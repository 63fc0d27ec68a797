"""Columns of text, as CSV has them: are they numbers, booleans, dates or times, and written how?

A way of writing is a short text, its form: "." and "," for numbers by their decimal sign, "true/false", or a format of
strptime. A saved model keeps the form of each column, so that a file of one row is read as the file of a thousand was.
"""

from typing import TYPE_CHECKING, Any

from polyak.train.tasks.task import TaskError

if TYPE_CHECKING:
    import polars as pl

# What stands for a cell without a value: the strings of pandas and R that are not plain words.
MISSING = ["", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "NULL", "null", "None", "<NA>"]

BOOLEAN = "true/false"
TIMES = ["%H:%M:%S", "%H:%M"]
DATES = ["%Y-%m-%d", "%Y/%m/%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%Y%m%d"]
MOMENTS = [
    "%Y-%m-%d %H:%M",
    "%Y-%m-%d %H:%M:%S",
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M",
    "%Y-%m-%dT%H:%M:%S",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.fZ",
    "%Y-%m-%d %H:%M:%S%.f%:z",
    "%Y-%m-%dT%H:%M:%S%.f%:z",
    "%d.%m.%Y %H:%M",
    "%d.%m.%Y %H:%M:%S",
    "%d/%m/%Y %H:%M",
    "%d/%m/%Y %H:%M:%S",
    "%m/%d/%Y %H:%M",
    "%m/%d/%Y %H:%M:%S",
]


def recognise(series: "pl.Series", *, comma: bool) -> tuple["pl.Series", str, str]:
    """The typed column, its form, and a note or "".

    Args:
        series: Text; missing cells are null.
        comma: A comma may be the decimal sign, as it can where cells are separated by something else.

    Returns:
        Text stays what it is where not every cell has one form.
    """
    cells = series.drop_nulls()
    if not len(cells):
        return series, "", ""
    for form in (".", *((",",) * comma), BOOLEAN):
        typed = attempt(series, form)
        if typed.null_count() == series.null_count():
            return typed, form, ""
    # Text that is a date begins with a digit. This spares a column of words thirty attempts.
    if cells.str.contains(r"^\s*\d").all():
        fit = [form for form in (*DATES, *MOMENTS, *TIMES) if attempt(series, form).null_count() == series.null_count()]
        if fit:
            both = "%d/%m" in fit[0] and any("%m/%d" in form for form in fit)
            note = "read as day/month/year, though month/day/year would fit too" if both else ""
            return attempt(series, fit[0]), fit[0], note
    almost = attempt(series, ".")
    numbers = len(series) - almost.null_count()
    if numbers > 0.9 * len(cells):
        odd = series.filter(almost.is_null() & series.is_not_null())
        row = int((almost.is_null() & series.is_not_null()).arg_true()[0]) + 1
        return (
            series,
            "",
            f"text, since {len(odd):,} of {len(cells):,} cells are no numbers ({odd[0]!r} in row {row})",
        )
    return series, "", ""


def attempt(series: "pl.Series", form: str) -> "pl.Series":
    """Text read in a form; null where it is not written so."""
    import polars as pl

    text = series.str.strip_chars()
    if form in (".", ","):
        if form == ",":
            text = text.str.replace(",", ".", literal=True, n=1)
        integers = text.cast(pl.Int64, strict=False)
        if integers.null_count() == series.null_count():
            return integers
        return text.cast(pl.Float64, strict=False)
    if form == BOOLEAN:
        return text.str.to_lowercase().replace_strict({"true": True, "false": False}, default=None, return_dtype=pl.Boolean)
    kind: Any = pl.Time if form in TIMES else pl.Date if form in DATES else pl.Datetime("us")
    return text.str.strptime(kind, form, strict=False)


def parse(series: "pl.Series", form: str, name: str, start: int) -> "pl.Series":
    """Read text in the form that it had in training. A column that has a type already is left as it is.

    Raises:
        TaskError: With the first cell that is not written so.
    """
    import polars as pl

    if series.dtype != pl.String:
        return series
    if not form:  # the file of the training was typed, and this one is text
        if series.null_count() == len(series):
            return series.cast(pl.Null)
        typed, form, _ = recognise(series, comma=False)
        if not form:
            raise TaskError(f"column {name!r} has text, {series.drop_nulls()[0]!r}: it had none in training.")
        return typed
    typed = attempt(series, form)
    bad = typed.is_null() & series.is_not_null()
    if bad.any():
        row = int(bad.arg_true()[0])
        want = {".": "a number", ",": "a number with a decimal comma", BOOLEAN: BOOLEAN}.get(form, f"a date or time as {form}")
        raise TaskError(f"column {name!r} has {series[row]!r} in row {start + row + 1}: it was {want} in training.")
    return typed
