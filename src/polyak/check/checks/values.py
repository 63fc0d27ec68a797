"""The values with which an option is tried, and the settings of others in which it may count."""

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Any

HOW = re.compile(
    "foreach|fused|capturable|differentiable|^name$|jit_compile|loss_scale|seed|gradient_release|compress|check_numerics|"
    "verbose|debug|^log_|^print_|bf16|kahan|merge_dims"
)
"""Options of how a step is computed, what it is called, what is printed, and of dtypes and shapes that are not tried here."""

# What may be given in place of None. Anything else that is None by default is something that cannot be guessed.
_FOR_NONE: Mapping[str, tuple[Any, ...]] = {
    "momentum": (0.9, 0.5),
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


def pairs(defaults: Mapping[str, Any], name: str, rate: str | None) -> Iterator[dict[str, Any]]:
    """Settings of one other option each, alone and with those that open most; with another learning rate too, if that is 1."""
    most = dict(opening(defaults)[-1]) if opening(defaults) else {}
    if rate is not None and defaults[rate] == 1:
        most[rate] = 0.5
    for other, value in defaults.items():
        known = variations(other, value)
        guessed = [(other, list(_FOR_ANY))] if value is None and not known and not HOW.search(other) else []
        for _, values in known + guessed if other != name else ():
            for base, changed in itertools.product([{}, most] if most else [{}], values[:2]):
                yield {**base, other: changed}
