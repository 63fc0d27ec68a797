"""How `model.fit` calls a watch. Imported once Keras's backend is chosen."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import keras

from polyak.train.watch import Watch


class Following(keras.callbacks.Callback):  # type: ignore[misc]  # Keras ships no type information
    """Tells a watch of steps and epochs.

    Args:
        watch: The watch.
        steps: Of an epoch. The first epoch of a run that goes on has fewer left.
        begin: Called when an epoch begins, after Keras has reset the metrics.
    """

    def __init__(self, watch: Watch, steps: int, begin: Callable[[], None]) -> None:
        super().__init__()
        self._watch = watch
        self._steps = steps
        self._begin = begin

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002  (as Keras calls these)
        """Start the clock."""
        self._begin()
        self._watch.epoch_begin()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002  (likewise)
        """After a step. The batches have no end, so that it is here that an epoch ends."""
        self._watch.step(logs)
        if self._watch.position.batch == self._steps:
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002  (likewise)
        """After an epoch, which Keras now takes for the last one."""
        self._watch.epoch_end(logs)
        self.model.stop_training = False


class Callbacks(keras.callbacks.CallbackList):  # type: ignore[misc]  # likewise
    """The callbacks of a call of fit, which get what a step measured as the backend has it.

    Keras's own list makes numbers of it first, and so waits until each step is done before it begins the next one.
    """

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """After a step."""
        for callback in self.callbacks:
            callback.on_train_batch_end(batch, logs)


def numbers(logs: Mapping[str, Any]) -> dict[str, float]:
    """What Keras measured, as numbers; what is none is left out."""
    found: dict[str, float] = {}
    for name, value in logs.items():
        if isinstance(value, Mapping):
            found |= numbers(value)
        elif (array := keras.ops.convert_to_numpy(value)).size == 1:
            with suppress(TypeError, ValueError):  # what a train_step of a person's own may give
                found[name] = float(array.item())
    return found
