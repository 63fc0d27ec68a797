"""What stands in a file beside the tensors: strings by name, as safetensors has them.

format    polyak.state
version   1
count     how many steps were made, or null
names     of the parameters, one a line: not in JSON, since there can be many of them, and no name has a line feed
groups    in JSON, a list: the first has the first so many of the parameters, and so on
"""

import json
import math
from collections.abc import Callable, Mapping
from itertools import accumulate, pairwise
from typing import Any

from polyak.arguments import check_decay, check_learning_rate
from polyak.methods import Method
from polyak.state.contents import COMMON, KNOWN, Contents, Group, Spec
from polyak.state.names import fault

FORMAT = "polyak.state"
VERSION = 1
KEYS = ("format", "version", "count", "names", "groups")

MOST_STEPS = 2**31 - 1  # JAX counts in int32, and stays at the largest

# What is made of these in memory is many times as long as their text.
MOST_PARAMETERS = 100_000
LONGEST_GROUPS = 1 << 20  # characters: of more than 2,000 groups


def encode(contents: Contents) -> dict[str, str]:
    """The metadata of a file.

    Raises:
        ValueError: A number or an option that the method does not have, so that the file could not be read.
    """
    for i, group in enumerate(contents.groups):
        _check(group, f"groups[{i}]")
    groups = [
        {
            "method": group.method,
            "parameters": len(group.names),
            "options": dict(group.options),
            "hyperparameters": dict(group.hyperparameters),
            "scheduled": list(group.scheduled),
            "last_learning_rate": group.last_learning_rate,
        }
        for group in contents.groups
    ]
    names = [name for group in contents.groups for name in group.names]
    text = json.dumps(groups, allow_nan=False)
    if len(names) > MOST_PARAMETERS or len(text) > LONGEST_GROUPS:
        raise ValueError(
            f"A file can have {MOST_PARAMETERS} parameters, in groups that take {LONGEST_GROUPS} characters; there are "
            f"{len(names)} parameters, and the groups take {len(text)}."
        )
    return {
        "format": FORMAT,
        "version": str(VERSION),
        "count": json.dumps(contents.count),
        "names": "\n".join(names),
        "groups": text,
    }


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
    if missing := [key for key in KEYS if key not in metadata]:
        raise ValueError(f"its metadata has no {' and no '.join(missing)}")
    count = _json(metadata, "count", at_most=100)
    if count is not None and not (_is_whole(count) and 0 <= count <= MOST_STEPS):
        raise ValueError(f"the metadata's count must be a whole number from 0 to {MOST_STEPS}, or null; it is {count!r}")
    names = _names(metadata["names"])
    groups = _json(metadata, "groups", at_most=LONGEST_GROUPS)
    if not isinstance(groups, list):
        raise ValueError(f"the metadata's groups must be a list; it is of type {type(groups).__name__}")
    for i, group in enumerate(groups):
        _check_form(group, f"groups[{i}]")
    ends = list(accumulate((group["parameters"] for group in groups), initial=0))
    if ends[-1] != len(names):
        raise ValueError(f"the metadata has {len(names)} names, and its groups have {ends[-1]} parameters")
    found = tuple(
        _group(group, tuple(names[begin:end]), f"groups[{i}]")
        for i, (group, (begin, end)) in enumerate(zip(groups, pairwise(ends), strict=True))
    )
    known = set(names)
    if len(known) != len(names):
        raise ValueError("the metadata's names are not unique")
    if lost := [name for name in tensors if name.partition("/")[2] not in known]:
        raise ValueError(f"{len(lost)} tensors are of parameters that the metadata's names do not have, {lost[0]!r} first")
    return Contents(tensors, found, count)


def _names(text: str) -> list[str]:
    if text.count("\n") >= MOST_PARAMETERS:
        raise ValueError(f"the metadata has more than {MOST_PARAMETERS} names")
    names = text.split("\n") if text else []
    for name in names:
        if wrong := fault(f"slot/{name}"):
            raise ValueError(f"the name of parameter {name!r} {wrong}")
    return names


_FORM: dict[str, tuple[Callable[[Any], bool], str]] = {
    "method": (lambda x: isinstance(x, str), "a string"),
    "parameters": (lambda x: _is_whole(x) and x >= 0, "a whole number >= 0"),
    "options": (lambda x: isinstance(x, dict), "an object"),
    "hyperparameters": (lambda x: isinstance(x, dict) and all(map(_is_number, x.values())), "an object of numbers"),
    "scheduled": (lambda x: isinstance(x, list) and all(isinstance(name, str) for name in x), "a list of strings"),
    "last_learning_rate": (lambda x: x is None or _is_number(x), "a number or null"),
}


def _check_form(value: Any, place: str) -> None:
    if not isinstance(value, dict):
        raise ValueError(f"the metadata's {place} must be an object")
    for name, (is_right, expected) in _FORM.items():
        if name not in value or not is_right(value[name]):
            raise ValueError(f"the metadata's {place}.{name} must be {expected}")


def _group(value: Mapping[str, Any], names: tuple[str, ...], place: str) -> Group:
    options = {name: tuple(x) if isinstance(x, list) else x for name, x in value["options"].items()}
    scheduled, last = tuple(value["scheduled"]), value["last_learning_rate"]
    group = Group(names, value["method"], options, value["hyperparameters"], scheduled, last)
    _check(group, place)
    return group


def _check(group: Group, place: str) -> None:
    """That it is a state of its method.

    Raises:
        ValueError: What is wrong, and where.
    """
    if group.method not in KNOWN:
        raise ValueError(f"{place} is of the method {group.method!r}; this polyak has {', '.join(KNOWN)}")
    method = KNOWN[group.method]
    numbers = {"learning_rate": check_learning_rate, **method.varying}
    _insist_on(group.options.keys() <= {*method.constants, *method.options, *COMMON}, group.options, f"{place}.options", method)
    _insist_on(group.hyperparameters.keys() <= numbers.keys(), group.hyperparameters, f"{place}.hyperparameters", method)
    _insist_on(set(group.scheduled) <= numbers.keys(), group.scheduled, f"{place}.scheduled", method)
    try:
        for name, value in group.hyperparameters.items():
            if name not in group.scheduled:  # a schedule may end anywhere
                numbers[name](value)
        if group.last_learning_rate is not None:
            check_learning_rate(group.last_learning_rate)
        _check_options(method, group.options)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{place}, of {group.method}: {error}") from None


def _insist_on(ok: bool, names: Any, place: str, method: Method) -> None:
    if not ok:
        raise ValueError(f"{place} has {', '.join(map(repr, names))}, which {method.name} does not have all of")


def _check_options(method: Method, options: Mapping[str, Any]) -> None:
    for name, check in method.constants.items():
        if name in options:
            check(options[name])
    own = {name: options[name] for name in (*method.constants, *method.options) if name in options}
    if len(own) == len(method.constants) + len(method.options):
        method.choose(**own, **dict.fromkeys(method.varying))  # None: of a varying argument, only a 0 that stays 0 counts
    weight_decay, decay = options.get("weight_decay", 0.0), options.get("decay")
    # Of a group without decay, the optimizer's kind of it may be told.
    check_decay(weight_decay, None if not weight_decay and decay in ("coupled", "decoupled") else decay)
    for name in ("maximize", "cautious", "cautious_decay"):
        if not isinstance(options.get(name, False), bool):
            raise TypeError(f"{name} must be true or false; got {options[name]!r}.")


def _json(metadata: Mapping[str, str], key: str, *, at_most: int) -> Any:
    text = metadata[key]
    if len(text) > at_most:
        raise ValueError(f"the metadata's {key} has {len(text)} characters; the longest that is read has {at_most}")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the metadata's {key} is no JSON that can be read: {error}") from None


def _is_whole(x: Any) -> bool:
    return isinstance(x, int) and not isinstance(x, bool)


def _is_number(x: Any) -> bool:
    return (isinstance(x, float) and math.isfinite(x)) or (_is_whole(x) and abs(x) <= 2**53)
