"""Groups of parameters by patterns of their names, with numbers of their own: for Keras and JAX, which have no such groups."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from polyak.arguments import check_decay, check_learning_rate
from polyak.methods import Check, Method

Given = Mapping[str, Mapping[str, Any]]


class Groups:
    """Patterns of names, and what holds for the parameters that they find.

    Args:
        given: For each pattern, the numbers that differ. A parameter belongs to the first pattern that is found in its name.
        method: The method, whose varying arguments may differ.
        decay: The kind of the weight decay, whose coefficient may differ.
        checked: What becomes of a number, from its name, its value and the check for a plain number: a front-end has schedules
            and traced numbers too.

    Attributes:
        overrides: For each pattern the numbers, checked.

    Raises:
        ValueError: No regular expression, an argument that cannot differ, or a number out of its range.
        TypeError: Another type than these.
    """

    def __init__(self, given: Given | None, method: Method, decay: Any, checked: Callable[[str, Any, Check], Any]) -> None:
        if given is not None and not isinstance(given, Mapping):
            raise TypeError(f'groups must be a dict such as {{r"bias|norm": {{"weight_decay": 0}}}}; got {given!r}.')
        checks: dict[str, Check] = {"learning_rate": check_learning_rate, **method.varying}
        checks["weight_decay"] = lambda x: check_decay(x, decay if x else None)[0]
        self.overrides: dict[str, dict[str, Any]] = {}
        for pattern, numbers in (given or {}).items():
            _check(pattern, numbers, checks, decay)
            try:
                self.overrides[pattern] = {name: checked(name, x, checks[name]) for name, x in numbers.items()}
            except (TypeError, ValueError) as error:
                raise type(error)(f"groups[{pattern!r}]: {error}") from None

    def all_values(self, name: str, value: Any) -> list[Any]:
        """The values of a number: that outside all groups, which is given, and those of the groups."""
        return [value, *(numbers[name] for numbers in self.overrides.values() if name in numbers)]

    def of_names(self, names: Sequence[str]) -> tuple[int, ...]:
        """The group of each parameter, counted from 1; 0 for a parameter in none.

        Raises:
            ValueError: A pattern that is the first for no parameter.
        """
        patterns = list(self.overrides)
        found = tuple(next((i for i, p in enumerate(patterns, 1) if re.search(p, name)), 0) for name in names)
        for i, pattern in enumerate(patterns, 1):
            if i not in found:
                taken = any(re.search(pattern, name) for name in names)
                why = "all that it finds belongs to a pattern before it" if taken else "it is found in no name"
                raise ValueError(f"groups[{pattern!r}] has no parameter: {why}. The names are {', '.join(names)}.")
        return found


def _check(pattern: Any, numbers: Any, checks: Mapping[str, Check], decay: Any) -> None:
    if not isinstance(pattern, str):
        raise TypeError(f"The keys of groups must be regular expressions in strings; got {pattern!r}.")
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"groups[{pattern!r}] is no regular expression: {error}.") from None
    if not isinstance(numbers, Mapping):
        raise TypeError(f"groups[{pattern!r}] must be a dict of numbers; got {numbers!r}.")
    for name in numbers:
        if name not in checks:
            *others, last = checks
            raise ValueError(f"groups[{pattern!r}] may set {', '.join(others)} or {last}; got {name!r}.")
    if "weight_decay" in numbers and decay is None:
        raise ValueError(f'groups[{pattern!r}] sets weight_decay, which needs decay="coupled" or decay="decoupled".')
