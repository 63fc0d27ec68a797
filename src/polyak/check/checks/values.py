"""The values with which an option is tried, and the settings of others in which it may count."""

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Any

import numpy as np

HOW = re.compile(
    "foreach|fused|capturable|differentiable|^name$|jit_compile|loss_scale|seed|gradient_release|compress|check_numerics|"
    "verbose|debug|^log_|^print_|bf16|kahan|merge_dims|^exclude_"
)
"""Options of how a step is computed, what it is called, what is printed, and of dtypes, shapes and names of parameters that are
not tried here."""

# What may be given in place of None. Anything else that is None by default is something that cannot be guessed.
_FOR_NONE: Mapping[str, tuple[Any, ...]] = {
    "momentum": (0.9, 0.5),
    "betas": ((0.9, 0.99), (0.5, 0.99)),
    "nesterov": (True,),
    "weight_decay": (0.1,),
    "clipnorm": (0.1,),
    "clipvalue": (0.01,),
    "global_clipnorm": (0.1,),
    "max_norm": (0.1,),
    "gradient_accumulation_steps": (2,),
    "ema_overwrite_frequency": (2,),
}

# What else may be given in place of None, for other options to count: a number of steps, or a share.
_FOR_ANY = (3, 0.5)

# What must be set for others to count: Nesterov's and dampening need a momentum; all that is said of decay, a decay; what is
# said of averages of the weights, that these become the weights.
_OPENING: tuple[Mapping[str, Any], ...] = (
    {"momentum": 0.9},
    {"weight_decay": 0.1},
    {"weight_decay": 0.1, "decay": "decoupled"},
    {"use_ema": True, "ema_overwrite_frequency": 2},
    {"momentum": 0.9, "weight_decay": 0.1},
    {"momentum": 0.9, "weight_decay": 0.1, "nesterov": False},
)


_SMALL = 0.01
"""Up to which a number may be there to keep a denominator from 0, which blurs what others do."""

_LARGE = 3
"""From which on a whole number may be a count of steps, or of elements, that short trials of small tensors do not reach."""


def is_number(value: Any) -> bool:
    """Whether a value is a number or a boolean, and may be varied."""
    return isinstance(value, bool | int | float) and not isinstance(value, Enum) and not math.isnan(value)


def others(value: float) -> Iterator[float]:
    """Other values than a number, the likeliest to count first."""
    seen = {value}
    if isinstance(value, bool):
        tried: Sequence[float] = (not value,)
    elif value == 0:
        tried = (0.1, 0.5, 0.9, 1, 2, 3, 1e-3)
    elif isinstance(value, int):
        tried = (value + 1, 2, 3, 1, value // 2, 2 * value, 0, value / 2)
    elif math.isinf(value):
        tried = (1.0, 0.1, 10.0)
    else:
        nearer_to_1 = (1 + value) / 2 if 0 < value < 1 else 2 * value
        powers = [value * 10.0**power for power in (3, -3, 6, -6)]
        tried = (value / 2, nearer_to_1, 2 * value, *powers, 0.5, 0.1, 1.0, 0.0)
    for each in tried:
        if each not in seen:
            seen.add(each)
            yield each


def variations(name: str, value: Any) -> list[tuple[str, list[Any]]]:
    """What is varied of an option, in words, each with the values that the option then has; empty where it is not varied."""
    if HOW.search(name):
        return []
    if value is None:
        return [(name, list(_FOR_NONE[name]))] if name in _FOR_NONE else []
    if isinstance(value, Enum):
        return [(name, [member for member in type(value) if member is not value])]
    if is_number(value):
        return [(name, list(others(value)))]
    if isinstance(value, tuple | list):
        return [
            (f"{name}[{i}]", [type(value)((*value[:i], other, *value[i + 1 :])) for other in others(x)])
            for i, x in enumerate(value)
            if is_number(x)
        ]
    return []


def opening(defaults: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The settings that are known to open options, of those that there are."""
    return [dict(options) for options in _OPENING if options.keys() <= defaults.keys()]


def pairs(defaults: Mapping[str, Any], name: str, rate: str | None, each: int = 2) -> Iterator[dict[str, Any]]:
    """Settings of one other option each, alone and with those that open most; with another learning rate too, if that is 1.

    Args:
        defaults: The options.
        name: The one for which they are.
        rate: That of the learning rate.
        each: How many values of each other option.
    """
    most = dict(opening(defaults)[-1]) if opening(defaults) else {}
    if rate is not None and defaults[rate] == 1:
        most[rate] = 0.5
    for other, value in defaults.items():
        known = variations(other, value)
        guessed = [(other, list(_FOR_ANY))] if value is None and not known and not HOW.search(other) else []
        for _, values in known + guessed if other != name else ():
            for base, changed in itertools.product([{}, most] if most else [{}], values[:each]):
                yield {**base, other: changed}


def off(defaults: Mapping[str, Any], name: str, rate: str | None) -> Iterator[dict[str, Any]]:
    """Settings in which another option is 0 that is not."""
    for other, value in defaults.items():
        if other not in (name, rate) and is_number(value) and not isinstance(value, bool) and value and not HOW.search(other):
            yield {other: type(value)(0)}


def few(defaults: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """Settings in which all other options that are large whole numbers are small ones; then all but one of them."""
    large = [
        other
        for other, value in defaults.items()
        if other != name and is_number(value) and isinstance(value, int) and value >= _LARGE and not HOW.search(other)
    ]
    if not large:
        return []
    small = dict.fromkeys(large, 2)
    without = [{other: 2 for other in large if other != left} for left in large]
    return [small, dict.fromkeys(large, 1), *(without if len(large) > 1 else ())]


def smaller(defaults: Mapping[str, Any], name: str, rate: str | None) -> list[dict[str, Any]]:
    """A setting in which other options that are small numbers, as an eps is, are too small to count; none if there are none."""
    small = {
        other: value * 1e-6
        for other, value in defaults.items()
        if other not in (name, rate) and isinstance(value, float) and 0 < value <= _SMALL
    }
    return [small] if small else []


def drawn(defaults: Mapping[str, Any], name: str, count: int) -> Iterator[dict[str, Any]]:
    """Settings in which half of the other options have other values, and whole numbers are small. Always the same ones."""
    random = np.random.default_rng(0)
    varied = {other: values for other in defaults if other != name for _, values in variations(other, defaults[other])}
    small = [{}, *few(defaults, name)[:2]]
    for i in range(count if varied else 0):
        chosen = [other for other in varied if random.random() < 0.5]
        yield {**small[i % len(small)], **{other: varied[other][random.integers(len(varied[other][:4]))] for other in chosen}}


def words(defaults: Mapping[str, Any]) -> list[str]:
    """The options that are words, which may choose among rules."""
    return [name for name, value in defaults.items() if isinstance(value, str) and not HOW.search(name)]
