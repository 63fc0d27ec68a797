"""A recorder: what momentum does at a step, measured inside the compiled step."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from polyak.keras.groups import path_of
from polyak.keras.measures import MEASURES, RATES, Buffers
from polyak.keras.optimizer import Optimizer


class Records(NamedTuple):
    """What a recorder has measured.

    Attributes:
        steps: The number of each step that was recorded, from 1, in order.
        rates: For each, `polyak.keras.measures.RATES`: the learning rate and the momentum, those outside all groups.
        measures: For each, and for each variable, `polyak.keras.measures.MEASURES`; shape (steps, variables, 6).

    What there is not is -1: the momentum of a method that has no single one; for a method without a velocity, its norm and the
    product with it; for a variable that had no gradient, everything.
    """

    steps: NDArray[np.int32]
    rates: NDArray[np.float32]
    measures: NDArray[np.float32]


class Recorder:
    """Measures every so many steps of an optimizer, without a wait for the host and without a change of its bits.

    At a step that is recorded, the step computes for each variable the norms of its gradient, of its velocity before the step,
    of the step itself and of its weight before the step, and the inner products of the gradient with the velocity and the step.
    They go to a row of a buffer on the device; the other steps pass it by. The host looks when `read` is called.

    On JAX, give the optimizer a guard, `finite="skip"` or `"error"`. Without one, XLA lets the update come before the branch in
    which a step is recorded, and copies weights and velocities at every step for that.

    - The gradient is that of the loss: before clipping and without weight decay.
    - The velocity is the slot as it is, in units of the gradient or, with velocity="step" and for LARS, of the weight. AggMo's
      is the mean of its velocities. ScheduleFree has none, nor has a method with momentum 0.
    - The step is what is taken from the weight, decay included, after rounding to its dtype. It is 0 where a guard leaves the
      step out; the norms then show the gradient that is not finite.
    - With `gradient_accumulation_steps`, the gradient is the mean over those of an update, and updates are recorded.

    Sums are taken in float32 (float64 for such variables), so that a norm below 1e-19 is 0 and one above 1e19 infinite.

    Args:
        optimizer: Of `polyak.keras`, alone or in a LossScaleOptimizer. Before its first step: a step that is compiled already
            does not record.
        every: Updates from one that is recorded to the next. That of number `every`, counted from 1, is the first.
        capacity: How many rows there are. What is not read before they are used again is lost.

    Attributes:
        variables: The buffers, which are variables of the optimizer, since JAX has no other way to keep what a step has
            computed. They come after all others and are not saved with it.

    Raises:
        TypeError: Another optimizer.
        ValueError: Numbers below 1; an optimizer that has a recorder already, or that is built under tf.distribute.

    Example:
        >>> import keras, numpy, polyak.keras
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        >>> optimizer = polyak.keras.Momentum(0.1)
        >>> recorder = polyak.keras.Recorder(optimizer, every=2)
        >>> model.compile(optimizer, loss="mse")
        >>> history = model.fit(numpy.ones((64, 4)), numpy.ones((64, 1)), batch_size=8, verbose=0)
        >>> recorder.read().steps
        array([2, 4, 6, 8], dtype=int32)
    """

    def __init__(self, optimizer: Any, every: int, capacity: int = 64) -> None:
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        if not isinstance(inner, Optimizer):
            raise TypeError(f"A recorder is for an optimizer of polyak.keras; got {type(inner).__name__}.")
        if every < 1 or capacity < 1:
            raise ValueError(f"every and capacity must be at least 1; got {every} and {capacity}.")
        if inner._recorder is not None:
            raise ValueError("This optimizer has a recorder already.")
        self.every = every
        self.capacity = capacity
        self.variables: tuple[Any, ...] = ()
        self._optimizer = inner
        self._raw: Any = None
        inner._recorder = self
        if inner.built:
            self._build()

    @property
    def period(self) -> int:
        """Steps from one that is recorded to the next: calls of the optimizer, of which several may make an update."""
        return self.every * (self._optimizer.gradient_accumulation_steps or 1)

    @property
    def paths(self) -> list[str]:
        """The names of the variables that are measured, in their order."""
        return list(map(path_of, self._optimizer._trainable_variables))

    def read(self) -> Records:
        """What was recorded since the last reading. It waits for the device, and frees the rows.

        Within fit() on JAX, `model.jax_state_sync()` has to come before.
        """
        if not self.variables:
            raise ValueError("Nothing is recorded before the optimizer was built: call build(model.trainable_variables).")
        steps, rates, measures = (ops.convert_to_numpy(v.value) for v in self.variables)
        order = np.argsort(steps, kind="stable")
        order = order[steps[order] > 0]
        records = Records(steps[order], rates[order], measures[order])
        self.variables[0].assign(np.zeros_like(steps))
        return records

    # For the optimizer.

    def _build(self) -> None:
        """Make the buffers, after all other variables of the optimizer."""
        if import_module(f"polyak.keras.{keras.backend.backend()}").one_by_one():
            raise ValueError(
                "A recorder cannot follow an optimizer under tf.distribute, which updates copies of the variables."
            )
        shapes = Buffers((self.capacity,), (self.capacity, len(RATES)), (self.capacity, len(self.paths), len(MEASURES)))
        self.variables = tuple(
            self._optimizer.add_variable(shape, dtype="int32" if name == "steps" else "float32", name=f"recorded_{name}")
            for name, shape in shapes._asdict().items()
        )

    def _before_clipping(self, grads: Sequence[Any]) -> None:
        self._raw = grads

    def _record(self, indices: tuple[int, ...], grads: Sequence[Any], varying: Sequence[Any], step: Any) -> Any:
        """Before an update: record it, if it is one to be recorded. What it returns is to be called after it."""
        raw, self._raw = self._raw or grads, None
        given = self._optimizer._given.get("momentum")
        if "momentum" not in varying[0] and given is not None:  # descent, whose rule knows of no momentum
            varying = [{"momentum": given, **varying[0]}, *varying[1:]]
        return self._optimizer._state.step.record(indices, self.period, Buffers(*self.variables), raw, grads, varying, step)

    def _without(self, store: Any) -> dict[str, Any]:
        """What an optimizer has saved, less what is here."""
        count = len(self._optimizer.variables)
        own = {str(i) for i in range(count - len(self.variables), count)}
        return {key: value for key, value in store.items() if key not in own}

    def _with(self, store: Any) -> dict[str, Any]:
        """What an optimizer shall load, with what is here, in its place."""
        first = len(self._optimizer.variables) - len(self.variables)
        own = {str(first + i): ops.convert_to_numpy(v.value) for i, v in enumerate(self.variables)}
        return {**{key: store[key] for key in store.keys()}, **own}  # noqa: SIM118  (no dict)
