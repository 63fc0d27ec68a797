"""The update on JAX: one XLA program that returns all new values."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
from keras import ops

from polyak.keras.values import new_values
from polyak.update import Update


# Inside a step that the user compiles, this is inlined; called from a plain loop, it is the compiled step.
@partial(jax.jit, static_argnums=0)
def _all_new_values(updates: tuple[Update, ...], grads: Any, weights: Any, slots: Any, hyperparameters: Any) -> Any:
    return [new_values(u, g, w, ss, hyperparameters) for u, g, w, ss in zip(updates, grads, weights, slots, strict=True)]


def dense(grads: Iterable[Any]) -> list[Any]:
    """The gradients: on JAX those of embeddings are arrays already."""
    return list(grads)


def one_by_one() -> bool:
    """Whether the base class must update variable by variable."""
    return False


class Step:
    """The update of all variables, whose values may be those of a stateless scope."""

    def __init__(
        self,
        updates: Sequence[Update],
        variables: Sequence[Any],
        slots: Sequence[Sequence[Any]],
        constants: Mapping[str, float],
    ) -> None:
        self._updates = updates
        self._targets = list(zip(variables, slots, strict=True))
        self._constants = dict(constants)

    def __call__(self, indices: tuple[int, ...], grads: Sequence[Any], varying: Mapping[str, Any]) -> None:
        """Update the variables at `indices` by `grads`, with the values of the varying hyperparameters at this step."""
        targets = [self._targets[i] for i in indices]
        results = _all_new_values(
            tuple(self._updates[i] for i in indices),
            list(grads),
            [w.value for w, _ in targets],
            [[s.value for s in slots] for _, slots in targets],
            self._constants | {name: ops.convert_to_tensor(h) for name, h in varying.items()},
        )
        for (w, slots), (w_new, slots_new) in zip(targets, results, strict=True):
            w.assign(w_new)
            for s, s_new in zip(slots, slots_new, strict=True):
                s.assign(s_new)
