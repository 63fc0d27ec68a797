"""The update on PyTorch: the compiled kernel for tensors in host memory, torch operations for all others."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from keras import ops
from keras.src.backend.common.stateless_scope import in_stateless_scope

from polyak.keras.values import new_values
from polyak.torch.tensors import Group
from polyak.update import Update


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
        self._groups = {update: Group(update) for update in updates}

    @torch.no_grad()
    def __call__(self, indices: tuple[int, ...], grads: Sequence[Any], varying: Mapping[str, Any]) -> None:
        """Update the variables at `indices` by `grads`, with the values of the varying hyperparameters at this step."""
        if in_stateless_scope():  # the values are the caller's, and not to be written to
            self._assign(indices, grads, self._constants | dict(varying))
            return
        h = self._constants | {name: _scalar(value) for name, value in varying.items()}
        members: dict[Update, list[tuple[int, Any]]] = defaultdict(list)
        for i, g in zip(indices, grads, strict=True):
            members[self._updates[i]].append((i, g))
        for update, pairs in members.items():
            targets = [self._targets[i] for i, _ in pairs]
            slots = [[ss[k].value for _, ss in targets] for k in range(len(update.rule.slots))]
            self._groups[update].read([w.value for w, _ in targets], [g for _, g in pairs], slots).apply(h)

    def _assign(self, indices: tuple[int, ...], grads: Sequence[Any], hyperparameters: Mapping[str, Any]) -> None:
        for i, g in zip(indices, grads, strict=True):
            w, slots = self._targets[i]
            w_new, slots_new = new_values(self._updates[i], g, w.value, [s.value for s in slots], hyperparameters)
            w.assign(w_new)
            for s, s_new in zip(slots, slots_new, strict=True):
                s.assign(s_new)


def _scalar(value: Any) -> Any:
    """A hyperparameter as a number, or, where to read it would wait for a device, as the tensor that it is."""
    tensor = ops.convert_to_tensor(value)
    return tensor.item() if tensor.device.type == "cpu" else tensor
