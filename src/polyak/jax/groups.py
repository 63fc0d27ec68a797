"""Groups of parameters by name, with numbers of their own."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.tree_util import keystr

from polyak import groups
from polyak.jax import checks
from polyak.methods import Method


def leaf_names(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> list[str]:
    """The names of the parameters in a tree: their keys with "/" between them; of a parameter alone, "params"."""
    return [keystr(path, simple=True, separator="/") or "params" for path, _ in jax.tree.leaves_with_path(tree, is_leaf)]


class Groups(groups.Groups):
    """Patterns of the names of leaves.

    Args:
        given: For each pattern, the numbers that differ.
        method: The method, whose varying arguments may differ.
        decay: Of which kind the weight decay is, which may differ too.

    Raises:
        ValueError: No regular expression, a number that cannot differ or is out of its range.
        TypeError: Another type than these.
    """

    def __init__(self, given: groups.Given | None, method: Method, decay: Any) -> None:
        super().__init__(given, method, decay, _checked)
        self._method = method

    def of(self, tree: Any) -> tuple[int, ...]:
        """The group of each leaf of a tree, counted from 1; 0 for a leaf in none.

        Raises:
            ValueError: A pattern that is the first for no leaf.
        """
        names = leaf_names(tree)
        return self.of_names(names) if names else ()  # optax looks at states with no leaves in them

    def numbers_at(self, step: jax.Array, given: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The hyperparameters at a step: those outside all groups, then those of each group."""

        def now(numbers: Mapping[str, Any]) -> dict[str, Any]:
            return {name: checks.scalar(name, x(step)) if callable(x) else x for name, x in numbers.items()}

        outside = now({name: x for name, x in given.items() if name not in self._method.options})
        everywhere = [outside, *(outside | now(override) for override in self.overrides.values())]
        return [_with_hyperparameters(numbers, self._method, step) for numbers in everywhere]


def _with_hyperparameters(numbers: dict[str, Any], method: Method, step: jax.Array) -> dict[str, Any]:
    own = {name: numbers[name] for name in (*method.varying, *method.constants)}
    common = {name: numbers[name] for name in ("learning_rate", "weight_decay")}
    return common | method.numbers(own) | method.at_step(step, own)


def _checked(name: str, value: Any, check: Any) -> Any:
    if name == "weight_decay":
        return checks.checked_number(value, check)
    return checks.checked_schedule_or_number(name, value, check)
