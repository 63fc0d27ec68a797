"""The tasks of `polyak train`: built-in ones by name, a person's own by path. One kind a file."""

from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path

from polyak.train.tasks import digits, mnist1d, moons
from polyak.train.tasks.task import Arrays, Batched, Model, Source, Task, TaskError
from polyak.train.words import unknown

__all__ = ["BUILT_IN", "Arrays", "Batched", "Source", "Task", "TaskError", "find", "is_code", "model"]

BUILT_IN: dict[str, Callable[[float, int], Task]] = {
    "digits": lambda _validation, _seed: digits.digits(),
    "mnist1d": mnist1d.mnist1d,
    "two-moons": moons.moons,
}
"""Name -> function of the share and the seed of the validation part."""


def find(name: str, *, target: str | None = None, validation: float = 0.2, seed: int = 0) -> Task:
    """The task of a name or path, with its data read and understood.

    Keras's backend is chosen before this, since a person's code may import Keras. Nothing else here does.

    Args:
        name: digits, mnist1d or two-moons; the path of a table (.csv, .tsv, .parquet), of arrays (.npz) or of a folder of
            pictures; or package.module:function.
        target: The column of a table that is to be learned.
        validation: Share of the examples that is watched and not trained on, in (0, 1). Digits and data with a validation part
            of their own have theirs.
        seed: Of the validation part.

    Raises:
        TaskError: There is no such task, or it cannot be trained on. One message, which says what to do.
    """
    path = Path(name)
    suffix = path.suffix.lower()
    if target is not None and suffix not in TABLES:
        raise TaskError(f"--target names a column of a table, and {name} is none: leave it out.")
    if name in BUILT_IN:
        return BUILT_IN[name](validation, seed)
    if is_code(name):
        from polyak.train.tasks.code import code

        module, _, function = name.partition(":")
        return code(module, function, validation, seed)
    if not path.exists():
        raise TaskError(missing(name))
    if path.is_dir():
        from polyak.train.tasks.pictures import pictures

        return pictures(path, validation, seed)
    if suffix in TABLES:
        from polyak.train.tasks.table import table

        return table(path, target, validation, seed)
    if suffix == ".npz":
        from polyak.train.tasks.arrays import arrays

        return arrays(path, validation, seed)
    raise TaskError(
        f"{name} is a file of a kind that is not read: a table is .csv, .tsv or .parquet, arrays are .npz, and pictures are a "
        "folder with one sub-folder a class."
    )


TABLES = (".csv", ".tsv", ".parquet", ".pq")


def is_code(name: str) -> bool:
    """Whether the task is what a function of a person's own returns."""
    path = Path(name)
    return ":" in name and name not in BUILT_IN and not path.exists() and path.suffix.lower() not in (*TABLES, ".npz")


def missing(name: str) -> str:
    """What is said of a name that is no task, and no path."""
    path = Path(name)
    if path.suffix or len(path.parts) > 1:
        near = path.parent.iterdir() if path.parent.is_dir() else ()
        close = get_close_matches(path.name, [entry.name for entry in near], n=1)
        hint = f" Did you mean {str(path.with_name(close[0]))!r}?" if close else ""
        return f"there is no file or folder {name}.{hint}"
    return unknown(f"unknown task {name!r}, which is no file or folder either", name, BUILT_IN)


def model(task: Task, name: str) -> tuple[str, Callable[[], Model]]:
    """The model of this name that a task has, and for "" its first.

    Returns:
        Its name, and the function that builds it.

    Raises:
        TaskError: With the names that it has.
    """
    name = name or next(iter(task.models))
    if name not in task.models:
        raise TaskError(unknown(f"{task.name} has no model {name!r}", name, task.models))
    return name, task.models[name]
