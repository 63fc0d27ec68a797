"""Steps that are left out because a gradient is not finite: how they are counted and reported."""

from typing import Any

import keras
from keras import ops

from polyak.arguments import not_finite


class Guard:
    """The counts of the steps that were left out.

    Args:
        optimizer: The optimizer, whose variables these become, so that they are saved with it.
        names: The names of the variables that it updates.

    Attributes:
        variables: How many steps were left out, and for each name 1 + the last step in which its gradient was not finite, or 0
            if there was none since the last report.
    """

    def __init__(self, optimizer: Any, names: list[str]) -> None:
        self._names = names
        # The counts are the same in all replicas of a distribution.
        options = {"dtype": "int32", "aggregation": "only_first_replica"}
        self.variables = (
            optimizer.add_variable(shape=(), name="skipped", **options),
            optimizer.add_variable(shape=(len(names),), name="not_finite", **options),
        )

    @property
    def skipped(self) -> int:
        """How many steps were left out."""
        return int(ops.convert_to_numpy(self.variables[0]))

    def report(self) -> None:
        """Raise FloatingPointError, once, if a step was left out since the last report."""
        last = ops.convert_to_numpy(self.variables[1])
        if not last.any():
            return
        self.variables[1].assign(ops.zeros(last.shape, "int32"))
        latest = last.max()
        message = not_finite([name for name, at in zip(self._names, last, strict=True) if at == latest], int(latest) - 1)
        if before := [name for name, at in zip(self._names, last, strict=True) if 0 < at < latest]:
            message += f" In steps before that, those of {before} were not finite."
        raise FloatingPointError(message)


class Guarded:
    """The part of an optimizer that tells of the steps that were left out."""

    finite: str
    _guard: Guard | None

    @property
    def skipped(self) -> int:
        """How many steps were left out because a gradient was not finite; 0 with `finite="off"`.

        Raises:
            FloatingPointError: As `check_finite`.
        """
        self.check_finite()
        return self._guard.skipped if self._guard else 0

    def check_finite(self) -> None:
        """Report steps that were left out since this was last called.

        A loop that is not compiled calls it at each step, and fit() at its end.

        Raises:
            FloatingPointError: With `finite="error"`, if there were some: names the variables whose gradients were not finite.
        """
        if self._guard and self.finite == "error":
            self._guard.report()


class FiniteCheck(keras.callbacks.Callback):
    """Ends fit() after an epoch in which a step was left out by an optimizer with `finite="error"`.

    Without it, fit() reports at its end.

    Raises:
        FloatingPointError: With the names of the variables whose gradients were not finite.

    Example:
        >>> model.compile(polyak.keras.Momentum(0.1, finite="error"), loss="mse")
        >>> model.fit(x, y, epochs=100, callbacks=[polyak.keras.FiniteCheck()])
    """

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002  (as Keras calls it)
        """Look at the counts, which on a device waits for it once an epoch."""
        optimizer = self.model.optimizer
        getattr(optimizer, "inner_optimizer", optimizer).check_finite()  # that of a LossScaleOptimizer
