"""The callback by which `polyak.keras.ScheduleFree` is evaluated and saved with its averages."""

from typing import Any

import keras

from polyak.keras.schedule_free import ScheduleFree


class Averaged(keras.callbacks.Callback):
    """Gives the model of a `ScheduleFree` optimizer its averaged weights whenever it is used.

    That is for validation, for what callbacks do at the end of an epoch, and after fit(). The next fit() begins where this one
    stopped, with the same bits; it must have this callback too. evaluate() takes it as well.

    Put it before the callbacks that save the model, such as ModelCheckpoint. At the end of an epoch they then save the
    averages, together with what is needed to train on. What they save within an epoch, by a `save_freq`, are the weights that
    are trained.

    Example:
        >>> callbacks = [polyak.keras.Averaged(), keras.callbacks.ModelCheckpoint("best.keras", save_best_only=True)]
        >>> model.fit(x, y, validation_data=(x_val, y_val), epochs=10, callbacks=callbacks)
        >>> model.predict(x_new)        # by the averages

    Raises:
        TypeError: The model's optimizer is another one.
    """

    def __init__(self) -> None:
        super().__init__()
        self._switched = False  # for evaluate()

    @property
    def _optimizer(self) -> ScheduleFree:
        optimizer = self.model.optimizer
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # that of a LossScaleOptimizer
        if not isinstance(optimizer, ScheduleFree):
            raise TypeError(f"The callback Averaged is for polyak.keras.ScheduleFree; this model's optimizer is {optimizer}.")
        return optimizer

    def on_train_begin(self, logs: Any = None) -> None:  # noqa: ARG002  (as Keras calls these)
        """Tell the optimizer that this fit() is seen to."""
        self._optimizer._seen_to = True

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002  (likewise)
        """Bring back what is trained, in the first epoch too: what the fit() before has trained."""
        self._optimizer._bring_back()

    def on_test_begin(self, logs: Any = None) -> None:  # noqa: ARG002  (likewise)
        """Switch to the averages."""
        self._switched = not self._optimizer._has_aside()
        if self._switched:
            self._optimizer._put_aside()

    def on_test_end(self, logs: Any = None) -> None:  # noqa: ARG002  (likewise)
        """Bring back what there was before."""
        if self._switched:
            self._optimizer._bring_back()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002  (likewise)
        """Switch to the averages, for the callbacks that come after this one."""
        self._optimizer._put_aside()

    def on_train_end(self, logs: Any = None) -> None:  # noqa: ARG002  (likewise)
        """Leave the averages in the model."""
        optimizer = self._optimizer
        if not optimizer._has_aside():
            optimizer._put_aside()
