"""The update on TensorFlow: XLA programs that assign to the variables."""

from collections.abc import Iterable, Sequence
from typing import Any

import keras
import tensorflow as tf

from polyak.keras import measures, values
from polyak.keras.values import Numbers, Plan
from polyak.update import Update


def _native(variable: Any) -> Any:
    """The tf.Variable: Keras hands over its wrapper or, in a loop of one's own, the variable itself."""
    return variable.value if isinstance(variable, keras.Variable) else variable


def dense(grads: Iterable[Any]) -> list[Any]:
    """Gradients of embeddings as the tensors that they stand for.

    Clipping and momentum row by row of `tf.IndexedSlices`, which repeat rows and leave others out, would be another
    computation than that of the gradient.
    """
    return [tf.convert_to_tensor(g) if isinstance(g, tf.IndexedSlices) else g for g in grads]


def one_by_one() -> bool:
    """Whether the base class must update variable by variable: a distribution strategy has copies of each to update."""
    return bool(tf.distribute.has_strategy())


def on_host() -> bool:
    """Whether the values of variables can be read: this is no code that is being traced, nor that of a replica."""
    return tf.executing_eagerly() and not one_by_one()


def branches() -> bool:
    """Whether a step is computed in host memory, where it may contain branches: see `values.Plan`."""
    return not tf.config.list_physical_devices("GPU")


def product_dtype(variable: Any) -> str | None:  # noqa: ARG001  (the same for all)
    """The dtype in which matrices of float32 are multiplied: bfloat16 where it is faster, else None, for their own."""
    details = map(tf.config.experimental.get_device_details, tf.config.list_physical_devices("GPU"))
    capabilities = [found.get("compute_capability", (0, 0)) for found in details]
    return "bfloat16" if capabilities and min(capabilities) >= (8, 0) else None


class Step(values.Step):
    """One XLA program that updates all variables in place.

    The program holds its variables; to pass each of them at every step would take longer than the update of a small model.
    """

    def __init__(self, plan: Any, variables: Any, slots: Any, constants: Any, counts: Any) -> None:
        native = [[_native(s) for s in ss] for ss in slots]
        super().__init__(plan, list(map(_native, variables)), native, constants, list(map(_native, counts)))
        # By the positions of the variables that have a gradient, which can change from step to step.
        self._programs: dict[tuple[int, ...], Any] = {}
        self._recordings: dict[tuple[int, ...], Any] = {}
        # For tf.distribute.
        self._look = tf.function(values.look, jit_compile=True, autograph=False)
        self._update_copy = tf.function(_new_values_of_copy, jit_compile=True, autograph=False)

    def __call__(self, indices: tuple[int, ...], grads: Sequence[Any], varying: Sequence[Numbers], step: Any) -> None:
        """See the base class."""
        if indices not in self._programs:
            self._programs[indices] = self._program(indices)
        native = [{name: _native(h) for name, h in now.items()} for now in varying]
        # Not as a variable, which the program could not read while it is assigned to by others.
        self._programs[indices](list(grads), native, *([tf.convert_to_tensor(_native(step))] if self._counts else []))

    def _program(self, indices: tuple[int, ...]) -> Any:
        plan, targets = self._plan.of(indices), [self._targets[i] for i in indices]

        def program(grads: Any, varying: Any, *step: Any) -> None:
            weights = [w.read_value() for w, _ in targets]
            slots = [[s.read_value() for s in ss] for _, ss in targets]
            results, bad = values.new_values(plan, grads, weights, slots, self.numbers(varying))
            self.store(plan, results, [] if bad is None else self._counted(plan, bad, *step))

        return tf.function(program, jit_compile=True, autograph=False)

    def _counted(self, plan: Plan, bad: Any, step: Any) -> Any:
        return values.counted(plan, [c.read_value() for c in self._counts], bad, step)

    def record(
        self, indices: tuple[int, ...], period: int, buffers: Any, raw: Any, grads: Any, varying: Sequence[Numbers], step: Any
    ) -> None:
        """See the base class."""
        native = [{name: _native(h) for name, h in now.items()} for now in varying]
        count = tf.convert_to_tensor(_native(step))
        if indices not in self._recordings:
            self._recordings[indices] = self._recording(indices, period, measures.Buffers(*map(_native, buffers)))
        program = self._recordings[indices]
        # A branch outside the program, so that steps that are not recorded do not start one.
        tf.cond(measures.is_due(count, period), lambda: program(list(raw), list(grads), native, count), lambda: None)

    def _recording(self, indices: tuple[int, ...], period: int, buffers: Any) -> Any:
        plan, targets = self._plan.of(indices), [self._targets[i] for i in indices]

        def program(raw: Any, grads: Any, varying: Any, step: Any) -> None:
            weights = [w.read_value() for w, _ in targets]
            slots = [[s.read_value() for s in ss] for _, ss in targets]
            old = measures.Buffers(*(b.read_value() for b in buffers))
            new = measures.recorded(plan, period, old, raw, grads, weights, slots, self.numbers(varying), step)
            for b, b_new in zip(buffers, new, strict=True):
                b.assign(b_new)

        return tf.function(program, jit_compile=True, autograph=False)

    def update_copies(
        self, strategy: Any, indices: tuple[int, ...], grads: Any, variables: Any, varying: Sequence[Numbers], step: Any
    ) -> None:
        """Update the copies of each variable that a distribution strategy keeps, by gradients that it has summed."""
        plan = self._plan.of(indices)
        # The sums are the same for all copies.
        scale, bad = self._look(plan, [strategy.experimental_local_results(g)[0] for g in grads])
        skip = None if bad is None else tf.reduce_any(bad)
        native = [{name: tf.convert_to_tensor(_native(h)) for name, h in now.items()} for now in varying]
        numbers = [{**h, "scale": scale} for h in self.numbers(native)]
        for i, group, update, g, w in zip(indices, plan.groups, plan.updates, grads, variables, strict=True):

            def of_copy(
                w: Any, g: Any, update: Any = update, h: Any = numbers[group], slots: Any = self._targets[i][1]
            ) -> None:
                values.check_shape(g, w)
                # Converted, since of copies on several devices those of the present one are meant.
                old = tf.convert_to_tensor(w), tuple(map(tf.convert_to_tensor, slots))
                w_new, slots_new = self._update_copy(plan, update, g, old, h, skip)
                w.assign(w_new)
                for s, s_new in zip(slots, slots_new, strict=True):
                    s.assign(s_new)

            strategy.extended.update(w, of_copy, args=(g,), group=False)
        if bad is not None:
            self.store(plan.of(()), [], self._counted(plan, bad, tf.convert_to_tensor(_native(step))))


def _new_values_of_copy(plan: Plan, update: Update, g: Any, old: Any, numbers: Numbers, skip: Any) -> Any:
    w, slots = old

    def new() -> Any:
        return values.new_values_of_one(plan, update, g, w, slots, numbers)

    return new() if skip is None else values.chosen(plan, skip, old, new)
