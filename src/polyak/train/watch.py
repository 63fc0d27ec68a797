"""What happens after each step and epoch of training: look for a reason to stop, show, record.

A plain class and no keras.callbacks.Callback, so that it can be tested without Keras; `fit` hangs its methods into a callback.
"""

import math
import time
from collections.abc import Callable

from polyak.train.display import Display
from polyak.train.interrupt import Interruption
from polyak.train.metrics import Epoch, MetricsFile


class Stopped(Exception):  # noqa: N818  (not always an error)
    """Training ends before its last epoch. The message says where."""


class Interrupted(Stopped):
    """Ctrl-C."""


class Diverged(Stopped):
    """The loss is NaN or infinite."""


class BadGradient(Stopped):
    """A gradient was not finite; the steps in which it was were left out, so that the weights are those of the steps before."""


class Watch:
    """Follows a call of `fit`.

    Args:
        metrics: Where epochs are recorded.
        display: Where they are shown.
        interruption: Asked after each step.
        hyperparameters: Gives the learning rate and the momentum of this moment.
        images: Training images an epoch.
        batch_size: Images a step; the last step of an epoch may have fewer.
    """

    def __init__(
        self,
        metrics: MetricsFile,
        display: Display,
        interruption: Interruption,
        hyperparameters: Callable[[], tuple[float, float]],
        images: int,
        batch_size: int,
    ) -> None:
        self.rows: list[Epoch] = []
        self._metrics = metrics
        self._display = display
        self._interruption = interruption
        self._hyperparameters = hyperparameters
        self._images = images
        self._batch_size = batch_size
        self._steps = math.ceil(images / batch_size)
        self._step = 0
        self._began = 0.0

    def epoch_begin(self, epoch: int, logs: object = None) -> None:  # noqa: ARG002  (the signature of a callback)
        """Start the clock."""
        self._began = time.perf_counter()
        self._step = 0

    def batch_end(self, batch: int, logs: dict[str, float]) -> None:
        """After a step: `logs` has the means over the epoch so far, so one bad loss shows at once."""
        self._step = batch + 1
        self._check("the loss", logs["loss"])
        images = min(self._batch_size, self._images - batch * self._batch_size)
        self._display.batch(len(self.rows) + 1, images, logs["loss"], logs["accuracy"])

    def epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """After an epoch and its validation: record it."""
        self._check("the validation loss", logs["val_loss"])
        learning_rate, momentum = self._hyperparameters()
        row = Epoch(
            epoch + 1,
            logs["loss"],
            logs["accuracy"],
            logs["val_loss"],
            logs["val_accuracy"],
            learning_rate,
            momentum,
            time.perf_counter() - self._began,
        )
        self._metrics.append(row)
        self.rows.append(row)
        self._display.epoch(row)

    def _check(self, what: str, loss: float) -> None:
        """Stop where there is a reason to."""
        place = f"in epoch {len(self.rows) + 1}, step {self._step} of {self._steps}"
        if not math.isfinite(loss):
            raise Diverged(f"{what} became {'NaN' if math.isnan(loss) else 'infinite'} {place}")
        if self._interruption.requested:
            raise Interrupted(place)
