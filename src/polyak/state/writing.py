"""Putting a file in place whole: at any moment there is the old one or the new one."""

import os
import platform
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

from polyak.state.contents import State
from polyak.state.file import raw
from polyak.state.header import encoded
from polyak.state.metadata import encode

_numbers = count()  # one for each file, since threads share the process id


def write(path: Path, state: State) -> None:
    """Write a state, one tensor after the other: of each, no copy is made beyond what brings it into host memory."""
    header, order = encoded(state.contents.tensors, encode(state.contents))
    with replaced(path) as file:
        file.write(header)
        for name in order:
            file.write(raw(state.array(name)))


@contextmanager
def replaced(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of `path` at the end of the context and leaves no trace after an error.

    A process that is killed leaves `.<name>.<host>.<process id>.<number>.tmp` beside it. The next save to the same path from
    the same host removes those of processes that are gone.
    """
    path = path.resolve()  # a link stays one
    own = f".{path.name}.{platform.node()}."
    _remove_leftovers(path.parent, own)
    temporary = path.with_name(f"{own}{os.getpid()}.{next(_numbers)}.tmp")
    try:
        with temporary.open("xb") as file:
            if path.exists():
                temporary.chmod(path.stat().st_mode & 0o777)
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _remove_leftovers(folder: Path, own: str) -> None:
    for found in folder.iterdir():
        if found.name.startswith(own) and found.name.endswith(".tmp"):
            process = found.name.removeprefix(own).partition(".")[0]
            if process.isdecimal() and not _is_alive(int(process)):
                with suppress(OSError):
                    found.unlink()


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _sync_folder(folder: Path) -> None:
    """Bring the new name to the disk, where the system can open a folder."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C waits until the end of the context, so that what is changed in it is changed as a whole."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread is interrupted
        yield
        return
    came: list[tuple[int, Any]] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: came.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came and callable(before):
        before(*came[-1])
