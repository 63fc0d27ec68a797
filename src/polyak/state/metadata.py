"""What stands in a file beside the tensors: strings by name, as safetensors has them, those of several parts in JSON."""

import json
import math
from collections.abc import Mapping
from typing import Any

from polyak.rules.heavy_ball import VELOCITIES
from polyak.state.contents import HYPERPARAMETERS, Contents, Group, Spec

FORMAT = "polyak.state"
VERSION = 1

# name -> is it a value that this option can have?
_OPTIONS: dict[str, Any] = {
    "velocity": lambda x: x in (*VELOCITIES, None),
    "nesterov": lambda x: isinstance(x, bool),
    "dampening": lambda x: _is_number(x),
    "weight_decay": lambda x: _is_number(x),
    "decay": lambda x: x in ("coupled", "decoupled", None),
    "maximize": lambda x: isinstance(x, bool),
}


def encode(contents: Contents) -> dict[str, str]:
    """The metadata of a file."""
    groups = [
        {
            "rule": _rule(group),
            "names": list(group.names),
            "options": dict(group.options),
            "hyperparameters": dict(group.hyperparameters),
            "scheduled": list(group.scheduled),
            "last_learning_rate": group.last_learning_rate,
        }
        for group in contents.groups
    ]
    return {
        "format": FORMAT,
        "version": str(VERSION),
        "count": json.dumps(contents.count),
        "groups": json.dumps(groups, allow_nan=False, ensure_ascii=False),
    }


def _rule(group: Group) -> str:
    """The name in `polyak.rules.RULES`, for people who read the file; what counts is the options."""
    if group.velocity is None:
        return "descent"
    return f"{group.velocity}_nesterov" if group.options.get("nesterov") else group.velocity


def decode(metadata: Mapping[str, str] | None, tensors: Mapping[str, Spec]) -> Contents:
    """What `encode` wrote.

    Raises:
        ValueError: It is not that; the place in it, and the reason.
    """
    if not metadata or metadata.get("format") != FORMAT:
        raise ValueError(
            "its metadata does not name the format polyak.state. It may hold the weights of a model; a state is what "
            "polyak.state.save wrote"
        )
    if metadata.get("version") != str(VERSION):
        raise ValueError(f"it is of version {metadata.get('version')!r}; this polyak reads version {VERSION}")
    count = _json(metadata, "count")
    if count is not None and not (_is_whole(count) and count >= 0):
        raise ValueError(f"the metadata's count must be a whole number >= 0 or null; it is {count!r}")
    groups = _json(metadata, "groups")
    if not isinstance(groups, list):
        raise ValueError(f"the metadata's groups must be a list; it is of type {type(groups).__name__}")
    contents = Contents(tensors, tuple(_group(group, f"groups[{i}]") for i, group in enumerate(groups)), count)
    names = [name for group in contents.groups for name in group.names]
    if len(set(names)) != len(names):
        raise ValueError("the metadata's groups name a parameter twice")
    known = set(names)
    if lost := sorted(name for name in tensors if name.partition("/")[2] not in known):
        raise ValueError(f"these tensors are of parameters that the metadata's groups do not name: {lost}")
    return contents


def _group(value: Any, place: str) -> Group:
    def check(ok: Any, part: str, expected: str) -> None:
        if not ok:
            raise ValueError(f"the metadata's {place}{part} must be {expected}")

    check(isinstance(value, dict), "", "an object")
    names, options, numbers = (value.get(key) for key in ("names", "options", "hyperparameters"))
    scheduled, last = value.get("scheduled"), value.get("last_learning_rate")
    check(isinstance(names, list) and all(isinstance(name, str) for name in names), ".names", "a list of strings")
    check(isinstance(options, dict), ".options", "an object")
    for name, option in options.items():
        check(
            name in _OPTIONS and _OPTIONS[name](option), f".options.{name}", "an option of momentum, with a value it can have"
        )
    check(isinstance(numbers, dict), ".hyperparameters", "an object")
    for name, number in numbers.items():
        check(
            name in HYPERPARAMETERS and _is_number(number), f".hyperparameters.{name}", "a learning_rate or momentum, a number"
        )
    check(
        isinstance(scheduled, list) and all(x in HYPERPARAMETERS for x in scheduled), ".scheduled", "names of hyperparameters"
    )
    check(last is None or _is_number(last), ".last_learning_rate", "a number or null")
    return Group(tuple(names), options, numbers, tuple(scheduled), last)


def _json(metadata: Mapping[str, str], key: str) -> Any:
    try:
        return json.loads(metadata[key])
    except KeyError:
        raise ValueError(f"its metadata has no {key}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the metadata's {key} is no JSON that can be read: {error}") from None


def _is_whole(x: Any) -> bool:
    return isinstance(x, int) and not isinstance(x, bool)


def _is_number(x: Any) -> bool:
    return (isinstance(x, float) or _is_whole(x)) and math.isfinite(x) and x >= 0
