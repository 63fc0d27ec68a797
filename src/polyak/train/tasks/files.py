"""Table files: CSV and Parquet, and what can be wrong with them."""

import csv
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from polyak.train.tasks.task import TaskError
from polyak.train.tasks.text import MISSING, recognise

if TYPE_CHECKING:
    import polars as pl

CSV_LIMIT = 2**30  # bytes. CSV is read whole; half as much again and more is needed while it is
SEPARATORS = ",;\t|"


@dataclass(frozen=True)
class File:
    """A table.

    Attributes:
        path: Where it is.
        frame: Its columns. Of Parquet nothing is read before it is asked for.
        rows: How many it has.
        comma: Numbers may have a decimal comma.
        notes: What happened in reading.
    """

    path: Path
    frame: "pl.LazyFrame"
    names: list[str]
    rows: int
    comma: bool = False
    notes: list[str] = field(default_factory=list)

    def column(self, name: str) -> tuple["pl.Series", str, str]:
        """One column, typed; the form in which its text was written, or ""; and a note or ""."""
        import polars as pl

        # With a name of one's own, for the methods of a polars series take a name like "^a$" for a pattern.
        series = self.rows_of([name], 0, self.rows).to_series().alias("column")
        if series.dtype == pl.String and self.path.suffix.lower() in (".csv", ".tsv"):
            return recognise(series, comma=self.comma)
        return series, "", ""

    def rows_of(self, names: list[str], start: int, count: int) -> "pl.DataFrame":
        """Some rows of these columns, as the file has them."""
        from polars.selectors import by_name

        try:
            # By name alone, likewise.
            return self.frame.select(by_name(names)).slice(start, count).collect()
        except Exception as error:  # polars raises its own kinds, and for some damage a plain one
            raise unreadable(self.path, error) from error


def read(path: Path) -> File:
    """Open a table.

    Args:
        path: .csv, .tsv (any of , ; tab | separates its cells, whatever the name), .parquet or .pq.

    Raises:
        TaskError: It cannot be read, with the place where that can be told; or it has no row.
    """
    try:
        size = path.stat().st_size
        with path.open("rb"):
            pass
    except OSError as error:
        raise TaskError(f"cannot read {path}: {error.strerror}.") from error
    if not size:
        raise TaskError(f"{path} is empty.")
    file = read_csv(path, size) if path.suffix.lower() in (".csv", ".tsv") else read_parquet(path)
    if not file.rows:
        raise TaskError(f"{path} has a header and no row.")
    return file


def read_parquet(path: Path) -> File:
    """Parquet, with the types that it states. Its rows stay on the disk."""
    import polars as pl

    frame = pl.scan_parquet(path, glob=False, hive_partitioning=False)
    try:
        names = frame.collect_schema().names()
        rows = frame.select(pl.len()).collect().item()
    except Exception as error:
        raise unreadable(path, error) from error
    return File(path, frame, names, rows)


def read_csv(path: Path, size: int) -> File:
    """CSV, all of it as text: what its columns are is told later, from all of their cells."""
    import polars as pl

    if size > CSV_LIMIT:
        raise TaskError(
            f"{path} has {size / 2**30:.1f} GiB. CSV is read whole, up to {CSV_LIMIT / 2**30:.0f} GiB; Parquet is read in "
            f"pieces. To convert it: python -c \"import polars; polars.scan_csv('{path}').sink_parquet('{path.stem}.parquet')\""
        )
    with path.open("rb") as file:
        head = file.read(2**16)
    separator, names = header(path, head)
    try:
        frame = pl.read_csv(
            path, separator=separator, infer_schema=False, null_values=MISSING, has_header=True, new_columns=names, glob=False
        )
    except pl.exceptions.PolarsError as error:
        raise TaskError(where_csv_fails(path, separator, len(names), error)) from error
    blank = frame.select(pl.all_horizontal(pl.all().is_null())).to_series() if len(names) > 1 else None
    notes = []
    if blank is not None and blank.any():
        frame = frame.filter(~blank)
        notes.append(f"{int(blank.sum()):,} blank lines are left out")
    return File(path, frame.lazy(), names, len(frame), separator != ",", notes)


def header(path: Path, head: bytes) -> tuple[str, list[str]]:
    """The separator of a CSV file, and the names of its columns.

    Args:
        path: For messages.
        head: The beginning of the file.
    """
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise TaskError(f"{path} is written in UTF-16: save it as UTF-8 (iconv -f utf-16 -t utf-8).")
    if b"\x00" in head:
        raise TaskError(f"{path} has bytes of value 0: it is no text, whatever its name says.")
    if b"\r" in head and b"\n" not in head:
        raise TaskError(f"{path} ends its lines with a carriage return alone, as old Macs did: save it with line feeds.")
    lines = head.decode("utf-8-sig", errors="replace").splitlines(keepends=True)
    # Of a separator that is in no name, the header has one column.
    separator, names = max(
        ((sign, next(csv.reader(lines, delimiter=sign), [])) for sign in SEPARATORS), key=lambda s: len(s[1])
    )
    if len(names) < 2:
        raise TaskError(f"the first line of {path} names one column only, or its cells are not separated by one of , ; tab |.")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise TaskError(f"{path} has more than one column named {', '.join(map(repr, twice))}: rename them.")
    return separator, names


def where_csv_fails(path: Path, separator: str, columns: int, error: Exception) -> str:
    """What is wrong with a CSV file that polars does not read."""
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as bad:
        line = data.count(b"\n", 0, bad.start) + 1
        return f"{path} is not UTF-8, from line {line} on: save it as UTF-8 (from Latin-1: iconv -f latin1 -t utf-8)."
    reader = csv.reader(text.splitlines(keepends=True), delimiter=separator, strict=True)
    begins = 1
    try:
        for row in reader:
            if len(row) > columns:
                return f"line {reader.line_num} of {path} has {len(row)} cells and the header {columns}."
            begins = reader.line_num + 1
    except csv.Error as bad:
        return f"line {begins} of {path} has a quote that is not closed, or closed too early ({bad})."
    return str(unreadable(path, error))


def unreadable(path: Path, error: Exception) -> TaskError:
    """The first line of what polars says: the rest advises on its own options."""
    return TaskError(f"cannot read {path} as a table: {str(error).strip().splitlines()[0]}.")
