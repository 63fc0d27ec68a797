"""What a person sees while a run goes on: a progress bar on a terminal, one plain line an epoch anywhere else.

Only ASCII is printed, apart from the bar itself, which rich draws with what the terminal's encoding has.
"""

import os
import sys
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from polyak.train.metrics import Epoch

WIDE = 80  # columns from which on there is room for a bar beside the numbers


class Display(Protocol):
    """Shows a run. It is entered while training."""

    def __enter__(self) -> "Display": ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...

    def batch(self, epoch: int, images: int, loss: float, accuracy: float) -> None:
        """A step on `images` images was done. Loss and accuracy are means over the epoch so far."""

    def epoch(self, row: Epoch) -> None:
        """An epoch was recorded."""


def say(text: str) -> None:
    """Print a line to standard output. Where nobody reads it any more (`| head`), the run goes on without."""
    try:
        print(text, flush=True)  # noqa: T201  (this is the place that prints)
    except BrokenPipeError:
        # What is still in the buffer would fail again when Python closes it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def display(epochs: int, images: int) -> Display:
    """The display that fits standard output.

    Args:
        epochs: How many there will be.
        images: Training images an epoch.
    """
    # Not rich's own guess, which an environment variable can turn against a pipe.
    if sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        return Bar(epochs, images)
    return Lines(epochs, images)


class Lines:
    """One line an epoch."""

    def __init__(self, epochs: int, images: int) -> None:
        self._epochs = epochs
        self._images = images

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass

    def batch(self, epoch: int, images: int, loss: float, accuracy: float) -> None:
        """Nothing: a log has no use for every step."""

    def epoch(self, row: Epoch) -> None:
        """Print the epoch."""
        say(
            f"epoch {row.epoch:{len(str(self._epochs))}}/{self._epochs}"
            f"  loss {row.loss:.4f}  accuracy {row.accuracy:.2%}"
            f"  val_loss {row.val_loss:.4f}  val_accuracy {row.val_accuracy:.2%}"
            f"  {self._images / row.seconds:,.0f} images/s"
            f"  {row.seconds * (self._epochs - row.epoch):.0f} s left"
        )


class Speed(ProgressColumn):
    """Images per second, over the last seconds."""

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

    def __init__(self, epochs: int, images: int) -> None:
        console = Console(force_terminal=True)
        wide = console.width >= WIDE
        self._numbers = "loss {:.4f}  accuracy {:.1%}" if wide else "loss {:.4f} acc {:.1%}"
        columns: list[ProgressColumn] = [
            TextColumn("epoch {task.fields[epoch]}" if wide else "{task.fields[epoch]}", table_column=one_line()),
            TextColumn("{task.fields[numbers]}", table_column=one_line()),
            Speed(" images/s" if wide else "/s"),
            TimeRemainingColumn(compact=True, table_column=one_line()),
            TextColumn("left", table_column=one_line()),
        ]
        if wide:
            columns.insert(1, BarColumn(bar_width=None))
        self._epochs = epochs
        self._progress = Progress(*columns, console=console, expand=wide)
        self._task = self._progress.add_task("", total=epochs * images, start=False, epoch=f"1/{epochs}", numbers="compiling")

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def batch(self, epoch: int, images: int, loss: float, accuracy: float) -> None:
        """Move the bar. The first step compiles, so the clock of the estimates starts at its end."""
        self._progress.start_task(self._task)
        self._progress.update(
            self._task, advance=images, epoch=f"{epoch}/{self._epochs}", numbers=self._numbers.format(loss, accuracy)
        )

    def epoch(self, row: Epoch) -> None:
        """Nothing more: the bar has shown it."""
