"""What the scripts of all frameworks are written with."""

import keyword
import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any

import numpy as np

from polyak.check.trial import Array

# A run of as many equal steps is written as one.
_LONG = 3


def numbers(array: Array) -> str:
    """An array as nested lists, such that reading them into its dtype gives the same numbers.

    Example:
        >>> numbers(np.array([[0.5, 1.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]))
        '[[0.5, 1.0]] + 3 * [[0.0, 0.0]]'
    """
    return joined(map(_nested, array)) if array.ndim else _nested(array)


def joined(items: Iterable[str]) -> str:
    """A list of what is written already, where many in a row that are equal stand once.

    Example:
        >>> joined(["1.0", "None", "None", "None"])
        '[1.0] + 3 * [None]'
    """
    parts: list[str] = []
    plain: list[str] = []
    for item, run in groupby(items):
        count = len(list(run))
        if count < _LONG:
            plain += count * [item]
            continue
        parts += [_listed(plain)] if plain else []
        parts.append(f"{count} * [{item}]")
        plain = []
    parts += [_listed(plain)] if plain or not parts else []
    return " + ".join(parts)


def _listed(items: list[str]) -> str:
    return f"[{', '.join(items)}]"


def _nested(array: Any) -> str:
    if getattr(array, "ndim", 0):
        return _listed([_nested(each) for each in array])
    return number(array)


def number(value: Any) -> str:
    """A number of any dtype in as few digits as say which one it is."""
    given = np.asarray(value)
    plain = given.item()
    if isinstance(plain, float) and not math.isfinite(plain):
        return f"float('{plain}')"
    if given.dtype == np.float32:
        return repr(float(str(given)))
    return repr(plain)


def arguments(options: Mapping[str, Any]) -> str:
    """The arguments of a call, each after a comma.

    Example:
        >>> f"SGD([a]{arguments({'lr': 0.1, 'nesterov': True})})"
        'SGD([a], lr=0.1, nesterov=True)'
    """
    return "".join(f", {name}={written(value)}" for name, value in options.items())


def written(value: Any) -> str:
    """An option."""
    if isinstance(value, np.generic | float):
        return number(value)
    return value.__name__ if callable(value) and hasattr(value, "__name__") else repr(value)


def variables(names: Iterable[str], taken: Iterable[str]) -> dict[str, str]:
    """For each parameter a name that can stand in a program in which others are taken."""
    avoided = {*taken, *keyword.kwlist}
    return {name: name if name.isidentifier() and name not in avoided else f"p{number}" for number, name in enumerate(names)}


def imported(name: str) -> tuple[str, str]:
    """The line that imports "module:name", and how it is called then.

    Example:
        >>> imported("torch.optim:SGD")
        ('from torch.optim import SGD', 'SGD')
    """
    module, _, path = name.partition(":")
    first = path.partition(".")[0]
    if "<" in name or module in ("__main__", "builtins", ""):  # in a function, or typed in: it cannot be imported
        return f"# {path.rpartition('.')[2]}: yours, the one that was checked", path.rpartition(".")[2]
    return f"from {module} import {first}", path


def indented(lines: Iterable[str]) -> Iterator[str]:
    """Lines of a block."""
    return (f"    {line}" for line in lines)
