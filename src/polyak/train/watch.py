"""What happens after each step and epoch of training: look for a reason to stop, show, record.

A plain class and no keras.callbacks.Callback, so that it can be tested without Keras; `fit` hangs its methods into a callback.
Keras hands it what a step measured as the backend has it. To read a number means to wait until the step is done, so that is
left to the moments at which somebody wants to know.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

from polyak.train.display import Display
from polyak.train.interrupt import Interruption
from polyak.train.metrics import Epoch
from polyak.train.position import Length, Position

# Seconds between two looks at the numbers of a step: the display moves ten times a second.
LOOK = 0.1


class Stopped(Exception):  # noqa: N818  (not always an error)
    """Training ends before its last epoch. The message says where."""


class Interrupted(Stopped):
    """Ctrl-C or SIGTERM."""


class Diverged(Stopped):
    """The loss is NaN or infinite."""


class BadGradient(Stopped):
    """A gradient was not finite; the steps in which it was were left out, so that the weights are those of the steps before."""


class Measures(Protocol):
    """Reads what the model and the optimizer have at this moment."""

    def numbers(self, logs: Mapping[str, Any]) -> dict[str, float]:
        """What Keras measured, as numbers. Those of a step are waited for."""

    def hyperparameters(self) -> tuple[float, float | None]:
        """The learning rate and the momentum."""

    def check(self) -> None:
        """Raise BadGradient if a step was left out because a gradient was not finite."""


class Records(Protocol):
    """What is written while training goes on."""

    def step(self, epoch: int, step: int, logs: Mapping[str, Any]) -> None:
        """Record a step, if it is one of those that are recorded."""

    def epoch(self, row: Epoch) -> None:
        """Record an epoch."""

    def due(self, step: int) -> bool:
        """Whether a checkpoint is to be made after this step, within an epoch."""

    def save(self, position: Position) -> None:
        """Make a checkpoint."""


class Watch:
    """Follows a call of `fit`.

    Args:
        records: Where steps and epochs are recorded, and checkpoints are made.
        display: Where they are shown.
        interruption: Asked after each step.
        measures: What is measured.
        length: Of the run.
        start: Where training begins.

    Attributes:
        position: How far training is.
    """

    def __init__(
        self,
        records: Records,
        display: Display,
        interruption: Interruption,
        measures: Measures,
        length: Length,
        start: Position,
    ) -> None:
        self.position = start
        self._records = records
        self._display = display
        self._interruption = interruption
        self._measures = measures
        self._length = length
        # Steps of the present epoch: those that the display has, and those of earlier sittings.
        self._shown = self._earlier = start.batch
        self._next_look = 0.0
        self._before = start.seconds
        self._started = self._began = time.perf_counter()

    def epoch_begin(self) -> None:
        """Start the clock."""
        self._began = time.perf_counter()

    def step(self, logs: Mapping[str, Any]) -> None:
        """After a step: `logs` has the means over the epoch so far, so one bad loss shows in all that follow."""
        here = self.position = replace(self.position, batch=self.position.batch + 1, step=self.position.step + 1)
        self._records.step(here.epoch + 1, here.step, logs)
        # After the last step of an epoch come validation and the checkpoint of the epoch.
        within = here.batch < self._length.steps_per_epoch
        leave = within and self._interruption.requested
        save = leave or (within and self._records.due(here.step))
        if save or not within or time.perf_counter() >= self._next_look:
            self._look(logs)
        if save:
            self._save()
        if leave:
            raise Interrupted(f"by {self._interruption.name} {self.place()}")

    def epoch_end(self, logs: Mapping[str, Any]) -> None:
        """After an epoch and its validation: record it."""
        values = self._measures.numbers(logs)
        self._check(values)
        now, here = time.perf_counter(), self.position
        speed = (self._length.counted(here.batch) - self._length.counted(self._earlier)) / (now - self._began)
        # Those of training first, and of each part the loss.
        names = sorted(values, key=lambda name: (name.startswith("val_"), name.removeprefix("val_") != "loss"))
        self.position = Position(here.epoch + 1, 0, here.step, here.seconds)
        self._shown = self._earlier = 0
        measured = {name: values[name] for name in names}
        row = Epoch(here.epoch + 1, here.step, measured, *self._measures.hyperparameters(), self._seconds())
        self._records.epoch(row)
        self._display.epoch(row, speed)
        self._save()
        if self._interruption.requested and self.position.epoch < self._length.epochs:
            raise Interrupted(f"by {self._interruption.name} {self.place()}")

    def _seconds(self) -> float:
        """Those of training until now, over all sittings."""
        return self._before + time.perf_counter() - self._started

    def _save(self) -> None:
        self.position = replace(self.position, seconds=self._seconds())
        self._records.save(self.position)

    def _look(self, logs: Mapping[str, Any]) -> None:
        """Check and show what was measured so far."""
        values = self._measures.numbers(logs)
        self._check(values)
        batch = self.position.batch
        examples = self._length.counted(batch) - self._length.counted(self._shown)
        self._shown = batch
        self._display.progress(self.position.epoch + 1, examples, values)
        self._next_look = time.perf_counter() + LOOK

    def _check(self, values: Mapping[str, float]) -> None:
        """Stop where nothing good can come any more."""
        self._measures.check()
        for name, what in (("loss", "the loss"), ("val_loss", "the validation loss")):
            if not math.isfinite(loss := values.get(name, 0.0)):
                raise Diverged(f"{what} became {'NaN' if math.isnan(loss) else 'infinite'} {self.place()}")

    def place(self) -> str:
        """How far training is, for people."""
        here = self.position
        if here.epoch and not here.batch:
            return f"after epoch {here.epoch}"
        return f"in epoch {here.epoch + 1}, step {here.batch} of {self._length.steps_per_epoch}"
