"""The update on PyTorch: the rule in torch operations, variable by variable."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from keras import ops

from polyak.keras.values import new_values
from polyak.update import Update


@torch.no_grad()
def new_values_of_one(update: Update, g: Any, w: Any, slots: Sequence[Any], hyperparameters: Mapping[str, Any]) -> Any:
    """`new_values` of tensors."""
    return new_values(update, g, ops.convert_to_tensor(w), [ops.convert_to_tensor(s) for s in slots], hyperparameters)


def dense(grads: Iterable[Any]) -> list[Any]:
    """The gradients: those of Keras layers on PyTorch are dense."""
    return list(grads)


def one_by_one() -> bool:
    """Whether the base class must update variable by variable."""
    return False


class Step:
    """The update of all variables."""

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

    @torch.no_grad()
    def __call__(self, indices: tuple[int, ...], grads: Sequence[Any], varying: Mapping[str, Any]) -> None:
        """Update the variables at `indices` by `grads`, with the values of the varying hyperparameters at this step."""
        h = self._constants | dict(varying)
        for i, g in zip(indices, grads, strict=True):
            w, slots = self._targets[i]
            w_new, slots_new = new_values(self._updates[i], g, w.value, [s.value for s in slots], h)
            w.assign(w_new)
            for s, s_new in zip(slots, slots_new, strict=True):
                s.assign(s_new)
