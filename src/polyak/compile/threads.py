"""Several threads, several processes: what has to be done one at a time, and where threads cannot be had.

Numba has three layers of threads, and each has something that it does not survive: "workqueue" ends the process when two
threads start a loop at once; "omp", where it is GNU's, ends a forked child that starts one. So loops are started one at a time,
and a child that was forked after Numba's threads had been started updates on one thread. Compilation is under the same lock,
and a fork waits for it: a child that was forked in the middle would wait for ever for locks whose holder it does not have.
"""

import os
import threading
from collections.abc import Callable
from typing import Any

import numba

lock = threading.RLock()  # held while a loop runs on several threads, and while anything is compiled
_inherited = False  # this process was forked from one that had Numba's threads


def available() -> int:
    """How many threads Numba's own loops would use here."""
    return 1 if _inherited else numba.get_num_threads()


def limit(threads: int) -> int:
    """How many of the `threads` that are wanted can be had."""
    most: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    return 1 if _inherited else max(1, min(threads, most))


def start(loop: Callable[..., None], threads: int, *arguments: Any) -> None:
    """Run a parallel loop on `threads` threads. The number that the caller's own Numba code uses stays as it was."""
    with lock:
        before = numba.get_num_threads()
        numba.set_num_threads(threads)
        try:
            loop(*arguments)
        finally:
            numba.set_num_threads(before)


def _in_child() -> None:
    global lock, _inherited
    lock = threading.RLock()
    try:
        numba.threading_layer()  # type: ignore[attr-defined]
        _inherited = True
    except ValueError:  # there were no threads yet
        pass


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(before=lambda: lock.acquire(), after_in_parent=lambda: lock.release(), after_in_child=_in_child)
