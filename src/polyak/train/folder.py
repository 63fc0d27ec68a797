"""The folder of a run. Nobody's folder is ever written over, and no file in it is ever half there."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

RUNS = Path("runs")
"""Where the folders of runs are that were given no other place."""


class BusyError(ValueError):
    """Another process has the run."""


def create(out: Path | None, task: str) -> Path:
    """Make a new folder for a run.

    Args:
        out: The folder, which must not exist; its parents may. None makes `runs/<task>-<date>-<time>`.
        task: The task, for the name.

    Raises:
        OSError: It exists, or cannot be made here.
    """
    if out is not None:
        try:
            return _create(out)
        except FileExistsError as error:
            raise OSError(f"{out} exists already, and a run is never written over: choose another --out.") from error
    name = f"{task}-{datetime.now():%Y%m%d-%H%M%S}"
    for n in count(1):
        # Another run may have started in the same second.
        with suppress(FileExistsError):
            return _create(RUNS / (name if n == 1 else f"{name}-{n}"))
    raise AssertionError("count() has no end")


def _create(folder: Path) -> Path:
    """One exclusive mkdir, so that of two runs that ask for one folder only one gets it."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(f"cannot make {folder}: {error.filename} is a file. Choose another --out.") from error
    except OSError as error:
        raise OSError(f"cannot make {error.filename}: {error.strerror}. Choose another --out.") from error
    try:
        folder.mkdir()
    except FileExistsError:
        raise
    except OSError as error:
        raise OSError(f"cannot make {folder}: {error.strerror}. Choose another --out.") from error
    return folder


LOCK = ".lock"


def discard(folder: Path) -> None:
    """Remove the folder of a run that recorded nothing, and `RUNS` with the last one in it."""
    with suppress(OSError):  # something is in it: it stays
        if [path.name for path in folder.iterdir()] == [LOCK]:
            (folder / LOCK).unlink()
        folder.rmdir()
        if folder.parent == RUNS:
            RUNS.rmdir()


def replace(path: Path, write: Callable[[Path], None]) -> None:
    """Put a file in place whole: `write` gets a temporary path in the same folder and with the same suffix."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Put a JSON file in place whole."""
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"

    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8")

    replace(path, write)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Within this context no other process trains in this folder.

    Raises:
        BusyError: One does already.
    """
    try:
        import fcntl
    except ImportError:  # Windows has none, and there it is left to people
        yield
        return
    # The lock is the process's: it is gone with it, however that ends. The file stays.
    with (folder / LOCK).open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(f"another process trains in {folder}: wait for it, or stop it.") from None
        yield
