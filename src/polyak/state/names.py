"""Names of parameters: where they come from, and which can stand in a file."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # control characters and halves of characters

Rename = Mapping[str, str] | Callable[[str], str]


def fault(name: str) -> str | None:
    """What is wrong with the name of a tensor, or None.

    Names are not paths, but other programs may take them for paths.
    """
    if _UNPRINTABLE.search(name):
        return "has characters that cannot be printed"
    slot, slash, parameter = name.partition("/")
    if not (slot and slash and parameter):
        return "is not of the form slot/parameter"
    if any(part in (".", "..") for part in name.replace("\\", "/").split("/")) or parameter[0] in "/\\":
        return "looks like a path out of its folder"
    return None


def unique(pairs: Iterable[tuple[str, Any]], what: str) -> dict[str, Any]:
    """Named things as a dict, or an error that lists the names that occur twice or are no names."""
    named: dict[str, Any] = {}
    twice = set()
    for name, thing in pairs:
        if not isinstance(name, str):
            raise TypeError(f"The names of {what} must be strings; got {name!r} of type {type(name).__name__}.")
        if wrong := fault(f"slot/{name}"):
            raise ValueError(f"The name {name!r} of {what} cannot stand in a file: it {wrong}.")
        if name in named:
            twice.add(name)
        named[name] = thing
    if twice:
        raise ValueError(
            f"State is kept by name, and these names are of several {what}: {sorted(twice)}. Give params, a dict from a name "
            "of your choice to each."
        )
    return named


def renamed(names: Iterable[str], rename: Rename | None) -> dict[str, str]:
    """The new name of each parameter.

    Raises:
        ValueError: A mapping has names that are not there, or two parameters would have one name.
        TypeError: The new name is no string.
    """
    old = list(names)
    if isinstance(rename, Mapping):
        if unknown := sorted(rename.keys() - set(old)):
            raise ValueError(f"rename has names that the saved state does not have: {unknown}. It has {sorted(old)}.")
        new = {name: rename.get(name, name) for name in old}
    else:
        new = {name: rename(name) if rename else name for name in old}
    for name, to in new.items():
        if not isinstance(to, str):
            raise TypeError(f"rename must give a string for each name; for {name!r} it gave {to!r}.")
    origins: dict[str, list[str]] = {}
    for name, to in new.items():
        origins.setdefault(to, []).append(name)
    if twice := {to: of for to, of in origins.items() if len(of) > 1}:
        raise ValueError(f"rename gives several parameters one name: {twice}.")
    return new
