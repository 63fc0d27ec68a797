"""Ctrl-C and SIGTERM, at any moment.

An exception out of nowhere is not safe inside the frameworks: raised while they load, or in a callback from their compiled
code, it is swallowed, printed or turned into another one. So it is never raised at first. Before a run has recorded anything,
either leaves the process at once, for there is nothing to keep. After that it is noted, and training looks at the note after
each step. Who presses Ctrl-C again does not want to wait: then it is raised. SIGTERM again is no news.
"""

import os
import signal
from collections.abc import Callable
from types import FrameType, TracebackType

EXIT = 130  # 128 + SIGINT, as shells report it

NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}

Handler = signal.Handlers | Callable[[int, FrameType | None], object] | int | None


class Interruption:
    """Catches Ctrl-C and SIGTERM while it is entered.

    Attributes:
        signal: The one that came first while deferred, or None.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._leave: Callable[[], None] | None = lambda: None
        self._before: dict[signal.Signals, Handler] = {}

    @property
    def requested(self) -> bool:
        """Whether one came while deferred."""
        return self.signal is not None

    @property
    def deferred(self) -> bool:
        """Whether training has begun, so that there is something to keep."""
        return self._leave is None

    @property
    def code(self) -> int:
        """The exit code of a process that ended because of it, as shells report it: 130 or 143."""
        return 128 + (self.signal or signal.SIGINT)

    @property
    def name(self) -> str:
        """What people call it."""
        return NAMES[self.signal or signal.SIGINT]

    def leave_at_once(self, cleanup: Callable[[], None]) -> None:
        """From here on either cleans up, and ends the process without another line of anybody's code."""
        self._leave = cleanup

    def defer(self) -> None:
        """From here on either is noted, and Ctrl-C is raised as KeyboardInterrupt when it comes again."""
        self._leave = None

    def __enter__(self) -> "Interruption":
        for number in NAMES:
            self._before[number] = signal.getsignal(number)
            if self._before[number] != signal.SIG_IGN:  # a shell that starts a job in the background wants it left alone
                signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  (the signature of a handler)
        if self._leave is not None:
            self._leave()
            os.write(2, b"\npolyak: interrupted before training began; nothing was recorded.\n")
            os._exit(128 + number)
        if self.signal is None:
            self.signal = signal.Signals(number)
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
