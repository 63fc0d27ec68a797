"""Training the runs of a comparison, one after the other.

Each is `polyak train` in a process of its own: so it has the same bits as the run that a person would start, whatever ran
before it, and one that fails takes none of the others with it.
"""

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from polyak.compare.plan import Planned
from polyak.train import config
from polyak.train.display import say

_COMMAND = (sys.executable, "-c", "from polyak.cli import main; main()", "train")


def train(planned: Sequence[Planned]) -> int:
    """Train what is not complete; what was stopped goes on.

    Args:
        planned: The runs.

    Returns:
        0 when all are complete, 1 when some failed or one was killed, 2 when one could not start, and 130 or 143 after Ctrl-C
        or SIGTERM.

    Raises:
        ValueError: A folder has another run than is planned for it.
    """
    there = [run.is_there for run in planned]  # all of them are looked at before the first is trained
    failed = False
    with _Signals() as signals:
        for i, (run, is_there) in enumerate(zip(planned, there, strict=True), 1):
            if signals.code:
                return signals.code
            before = status(run.folder)
            if before == "completed":
                say(f"{run.name} ({i} of {len(planned)}): trained already")
            elif before != "failed":
                say(f"{run.name} ({i} of {len(planned)}):{' goes on' if is_there else ''}")
                with _words(run, is_there=is_there) as words:
                    code = signals.run([*_COMMAND, *words])
                if code not in (0, 1):
                    return signals.code or max(code, 1)  # below 0 where it was killed
            failed |= status(run.folder) != "completed"
    return 1 if failed else signals.code


def status(folder: Path) -> str | None:
    """How a run ended: "completed", "failed", "interrupted"; None where it did not end, or was never begun."""
    try:
        found: str | None = json.loads((folder / "result.json").read_text(encoding="utf-8")).get("status")
    except (OSError, ValueError):
        return None
    return found


@contextmanager
def _words(run: Planned, *, is_there: bool) -> Iterator[list[str]]:
    """The arguments of `polyak train` for a run."""
    if is_there:
        yield ["--resume", str(run.folder)]
        return
    with tempfile.TemporaryDirectory(prefix="polyak-compare-") as folder:
        file = Path(folder) / config.NAME
        config.write(run.options, file)
        yield ["--config", str(file), "--out", str(run.folder)]


class _Signals:
    """Passes Ctrl-C and SIGTERM on to the process that trains, which ends in its own way: with a checkpoint.

    Attributes:
        code: The exit code that a signal asks for, 0 as long as none came.
    """

    def __init__(self) -> None:
        self.code = 0
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, words: Sequence[str]) -> int:
        """Run a command to its end.

        In a process group of its own: a terminal would send it Ctrl-C too, and the second one means to leave without saving.
        """
        with subprocess.Popen(words, stdin=subprocess.DEVNULL, process_group=0) as self._process:  # noqa: S603  (our command)
            code = self._process.wait()
        self._process = None
        return code

    def __enter__(self) -> "_Signals":
        self._before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number, handler in self._before.items():
            if handler != signal.SIG_IGN:  # a shell that starts a job in the background wants it left alone
                signal.signal(number, self._pass_on)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  (the signature of a handler)
        self.code = 128 + number
        if self._process is not None:
            self._process.send_signal(number)
