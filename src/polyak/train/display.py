"""What a person sees while a run goes on: a progress bar on a terminal, one plain line an epoch anywhere else.

Only ASCII is printed, apart from the bar itself, which rich draws with what the terminal's encoding has.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from polyak.train.metrics import Epoch
from polyak.train.position import Length

WIDE = 80  # columns from which on there is room for a bar beside the numbers


class Display(Protocol):
    """Shows a run. It is entered while training."""

    def __enter__(self) -> "Display": ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...

    def progress(self, epoch: int, examples: int, values: Mapping[str, float]) -> None:
        """Steps on `examples` more examples were done. The values are means over the epoch so far."""

    def epoch(self, row: Epoch, speed: float) -> None:
        """An epoch was recorded. The speed is in examples a second."""


def say(text: str) -> None:
    """Print a line to standard output. Where nobody reads it any more (`| head`), the run goes on without."""
    try:
        print(text, flush=True)  # noqa: T201  (this is the place that prints)
    except BrokenPipeError:
        # What is still in the buffer would fail again when Python closes it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def display(length: Length, main: str, done: int = 0) -> Display:
    """The display that fits standard output.

    Args:
        length: Of the run.
        main: The metric to show beside the loss, "" for none.
        done: Examples of the run that are over already.
    """
    # Not rich's own guess, which an environment variable can turn against a pipe.
    if sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        return Bar(length, main, done)
    return Lines(length, main)


def shown(values: Mapping[str, float], names: Sequence[str], share: str = ".2%") -> str:
    """Those of the values that are there, as people read them: shares of right answers in per cent."""
    there = [name for name in names if name in values]
    return "  ".join(f"{name} {format(values[name], share if 'accuracy' in name else '.4f')}" for name in there)


class Lines:
    """One line an epoch."""

    def __init__(self, length: Length, main: str) -> None:
        self._length = length
        self._names = [f"{part}{name}" for part in ("", "val_") for name in ("loss", main) if name]

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass

    def progress(self, epoch: int, examples: int, values: Mapping[str, float]) -> None:
        """Nothing: a log has no use for every step."""

    def epoch(self, row: Epoch, speed: float) -> None:
        """Print the epoch."""
        length = self._length
        left = length.count * (length.epochs - row.epoch)
        say(
            f"epoch {row.epoch:{len(str(length.epochs))}}/{length.epochs}  {shown(row.values, self._names)}"
            f"  {speed:,.0f} {length.unit}/s  {left / speed:.0f} s left"
        )


class Speed(ProgressColumn):
    """Examples per second, over the last seconds."""

    def __init__(self, unit: str) -> None:
        super().__init__(one_line())
        self._unit = unit

    def render(self, task: Task) -> Text:
        """The speed, once there is one."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}{self._unit}", style="progress.data.speed")


def one_line() -> Column:
    """A column that a narrow terminal cuts off rather than breaks."""
    return Column(no_wrap=True, overflow="crop")


class Bar:
    """One bar over all epochs. A narrow terminal gets short words and no bar."""

    def __init__(self, length: Length, main: str, done: int) -> None:
        console = Console(force_terminal=True)
        wide = console.width >= WIDE
        self._names = ["loss", *([main] if main and wide else [])]
        columns: list[ProgressColumn] = [
            TextColumn("epoch {task.fields[epoch]}" if wide else "{task.fields[epoch]}", table_column=one_line()),
            TextColumn("{task.fields[numbers]}", table_column=one_line()),
            Speed(f" {length.unit}/s" if wide else "/s"),
            TimeRemainingColumn(compact=True, table_column=one_line()),
            TextColumn("left", table_column=one_line()),
        ]
        if wide:
            columns.insert(1, BarColumn(bar_width=None))
        self._epochs = length.epochs
        self._progress = Progress(*columns, console=console, expand=wide)
        self._task = self._progress.add_task(
            "",
            total=length.epochs * length.count,
            completed=done,
            start=False,
            epoch=f"{done // length.count + 1}/{length.epochs}",
            numbers="compiling",
        )

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def progress(self, epoch: int, examples: int, values: Mapping[str, float]) -> None:
        """Move the bar. The first step compiles, so the clock of the estimates starts at its end."""
        self._progress.start_task(self._task)
        self._progress.update(
            self._task, advance=examples, epoch=f"{epoch}/{self._epochs}", numbers=shown(values, self._names, ".1%")
        )

    def epoch(self, row: Epoch, speed: float) -> None:
        """Nothing more: the bar has shown it."""
