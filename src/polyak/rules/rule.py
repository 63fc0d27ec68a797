"""What a rule is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from polyak.ops import Array

Slots = tuple[Array, ...]


@dataclass(frozen=True)
class Rule:
    """An update rule: it maps a gradient to a step, and the new weight is `w - step`.

    Attributes:
        name: Its name in the registry.
        step: The pure function `(g, w, slots, h) -> (step, slots)`. `g` is the gradient, `w` the weight, `slots` the state,
            `h` has the hyperparameters as attributes. All are of one dtype; `g`, `w` and each slot have one shape, each
            hyperparameter is a scalar. It has no branch on values and changes nothing in place.
        slots: The names of the state arrays, in the order `step` takes them. Each is zero before the first step.
        hyperparameters: The names that `step` reads from `h`, `learning_rate` first.
        per_tensor: Of a rule of tensors, the pure function `(h, g_norm, w_norm, dimensions) -> those of h that a tensor has for
            itself`, by name. `g_norm` and `w_norm` are the norms of its gradient, without decay, and of its weight. They and
            `dimensions` may be arrays with an element for each of several tensors. None: all tensors have the same.
        whole: Whether `step` needs whole arrays, of the one shape that the rule was made for. It then takes several of them
            too, along dimensions before theirs.
    """

    name: str
    step: Callable[[Array, Array, Slots, Any], tuple[Array, Slots]]
    slots: tuple[str, ...]
    hyperparameters: tuple[str, ...]
    per_tensor: Callable[[Mapping[str, Array], Array, Array, Array], dict[str, Array]] | None = None
    whole: bool = False
