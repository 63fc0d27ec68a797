"""The update on TensorFlow: XLA programs that assign to the variables."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from polyak.keras.values import new_values
from polyak.update import Update


def _native(variable: Any) -> Any:
    """The tf.Variable: Keras hands over its wrapper or, in a loop of one's own, the variable itself."""
    return variable.value if isinstance(variable, keras.Variable) else variable


_program_of_one = tf.function(new_values, jit_compile=True, autograph=False)


def new_values_of_one(update: Update, g: Any, w: Any, slots: Sequence[Any], hyperparameters: Mapping[str, Any]) -> Any:
    """`new_values` as an XLA program, for tf.distribute: of copies on several devices, those of the present one are read."""
    h = {name: tf.convert_to_tensor(_native(value)) for name, value in hyperparameters.items()}
    return _program_of_one(update, g, tf.convert_to_tensor(_native(w)), [tf.convert_to_tensor(_native(s)) for s in slots], h)


def dense(grads: Iterable[Any]) -> list[Any]:
    """Gradients of embeddings as the tensors that they stand for.

    Clipping and momentum row by row of `tf.IndexedSlices`, which repeat rows and leave others out, would be another
    computation than that of the gradient.
    """
    return [tf.convert_to_tensor(g) if isinstance(g, tf.IndexedSlices) else g for g in grads]


def one_by_one() -> bool:
    """Whether the base class must update variable by variable: a distribution strategy has copies of each to update."""
    return bool(tf.distribute.has_strategy())


class Step:
    """One XLA program that updates all variables in place.

    The program holds its variables; to pass each of them at every step would take longer than the update of a small model.
    """

    def __init__(
        self,
        updates: Sequence[Update],
        variables: Sequence[Any],
        slots: Sequence[Sequence[Any]],
        constants: Mapping[str, float],
    ) -> None:
        self._updates = updates
        self._targets = [(_native(w), [_native(s) for s in ss]) for w, ss in zip(variables, slots, strict=True)]
        self._constants = dict(constants)
        # By the positions of the variables that have a gradient, which can change from step to step.
        self._programs: dict[tuple[int, ...], Any] = {}

    def __call__(self, indices: tuple[int, ...], grads: Sequence[Any], varying: Mapping[str, Any]) -> None:
        """Update the variables at `indices` by `grads`, with the values of the varying hyperparameters at this step."""
        if indices not in self._programs:
            self._programs[indices] = self._program(indices)
        self._programs[indices](list(grads), {name: _native(h) for name, h in varying.items()})

    def _program(self, indices: tuple[int, ...]) -> Any:
        def program(grads: Any, varying: Any) -> None:
            h = self._constants | varying
            for i, g in zip(indices, grads, strict=True):
                w, slots = self._targets[i]
                w_new, slots_new = new_values(self._updates[i], g, w.read_value(), [s.read_value() for s in slots], h)
                w.assign(w_new)
                for s, s_new in zip(slots, slots_new, strict=True):
                    s.assign(s_new)

        return tf.function(program, jit_compile=True, autograph=False)
