"""A table as a task: one column is learned from the others."""

from pathlib import Path

from polyak.train.models import Ends, choices
from polyak.train.tasks import task
from polyak.train.tasks.blocks import Blocks, Store
from polyak.train.tasks.columns import Column, cells
from polyak.train.tasks.describe import describe
from polyak.train.tasks.files import File, read
from polyak.train.tasks.split import listed, split
from polyak.train.tasks.target import goal, understand
from polyak.train.tasks.task import Arrays, Numbers, Source, Task, TaskError
from polyak.train.words import unknown


def table(path: Path, target: str | None, validation: float, seed: int) -> Task:
    """The task of a table file.

    Args:
        path: CSV or Parquet.
        target: The column to be learned.
        validation: Share of the rows.
        seed: Of the split.

    Raises:
        TaskError: Nothing can be learned from it; the message says why.
    """
    file = read(path)
    name = choose(file, target)
    series, _, remark = file.column(name)
    learned = understand(series, f"the target {name!r} of {path}")
    train, watched, notes = split(file.rows, validation, seed, labels=learned.labels, names=learned.classes or ())
    aim = goal(learned, train)
    columns, told = understand_columns(file, name, train)
    notes = [*file.notes, learned.note, *([f"{name}: {remark}"] * bool(remark)), *notes, *told]
    width = sum(column.cells for column in columns)
    parts: tuple[Source, Source]
    if file.rows * width * 4 <= task.MEMORY:
        x = cells(columns, file.rows_of([column.name for column in columns], 0, file.rows))
        parts = Arrays(x[train], learned.y[train]), Arrays(x[watched], learned.y[watched])
    else:
        store = Store(file, columns)
        parts = Blocks(store, train, learned.y), Blocks(store, watched, learned.y)
        notes.append(
            f"read piece by piece: {store.held} of {store.blocks} pieces of {store.size:,} rows are in memory at a time, and "
            "rows are shuffled among those. If the file is sorted, shuffle it once"
        )

    def prepare() -> object:
        from polyak.train.layers import Columns

        return Columns(columns, name="columns")

    return aim.task(
        name=str(path),
        about=f"{file.rows:,} rows of {path.name}: {name!r} from {len(columns)} columns",
        train=parts[0],
        validation=parts[1],
        models=choices(Ends((width,), (prepare,), aim), ("mlp",)),
        notes=tuple(notes),
    )


def choose(file: File, target: str | None) -> str:
    """The target's column."""
    if target is None:
        raise TaskError(f"--target has to say which column of {file.path} is to be learned: one of {listed(file.names, 30)}.")
    if target not in file.names:
        raise TaskError(unknown(f"{file.path} has no column {target!r}", target, file.names))
    return target


def understand_columns(file: File, target: str, train: Numbers) -> tuple[list[Column], list[str]]:
    """All columns that are of use, and notes on them and on the others. One column is in memory at a time."""
    columns: list[Column] = []
    out: list[str] = []
    notes: list[str] = []
    for name in file.names:
        if name == target:
            continue
        series, form, remark = file.column(name)
        column, note = describe(name, series, train, form)
        if column is None:
            out.append(f"{name!r} ({note})")
        else:
            columns.append(column)
        notes += [f"{name}: {told}" for told in (remark, note if column else "") if told]
    if not columns:
        reasons = f": {', '.join(out)}" if out else ""
        raise TaskError(f"{file.path} has no column from which {target!r} could be learned{reasons}.")
    kinds = {kind: sum(column.kind == kind for column in columns) for kind in ("number", "category", "date", "time")}
    plural = {"number": "numbers", "category": "categories", "date": "dates", "time": "times"}
    found = ", ".join(f"{count} {kind if count == 1 else plural[kind]}" for kind, count in kinds.items() if count)
    left = [f"left out: {', '.join(out)}"] * bool(out)
    return columns, [f"columns: {found}", *left, *notes]
