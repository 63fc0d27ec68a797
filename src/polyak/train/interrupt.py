"""Ctrl-C, at any moment.

An exception out of nowhere is not safe inside the frameworks: raised while they load, or in a callback from their compiled
code, it is swallowed, printed or turned into another one. So it is never raised at first. Before a run has recorded anything,
Ctrl-C leaves the process at once, for there is nothing to keep. After that it is noted, and training looks at the note after
each step. Who presses it again does not want to wait: then it is raised.
"""

import os
import signal
from collections.abc import Callable
from types import FrameType, TracebackType

EXIT = 130  # 128 + SIGINT, as shells report it


class Interruption:
    """Catches Ctrl-C while it is entered.

    Attributes:
        requested: Ctrl-C came while deferred.
    """

    def __init__(self) -> None:
        self.requested = False
        self._leave: Callable[[], None] | None = lambda: None
        self._before: signal.Handlers | Callable[[int, FrameType | None], object] | int | None = None

    def leave_at_once(self, cleanup: Callable[[], None]) -> None:
        """From here on Ctrl-C cleans up, and ends the process without another line of anybody's code."""
        self._leave = cleanup

    def defer(self) -> None:
        """From here on Ctrl-C is noted in `requested`, and raised as KeyboardInterrupt when it comes again."""
        self._leave = None

    def __enter__(self) -> "Interruption":
        self._before = signal.getsignal(signal.SIGINT)
        if self._before != signal.SIG_IGN:  # a shell that starts a job in the background wants it left alone
            signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  (the signature of a handler)
        if self._leave is not None:
            self._leave()
            os.write(2, b"\npolyak: interrupted before training began; nothing was recorded.\n")
            os._exit(EXIT)
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
