"""Runs that differ in their seed alone are one group; groups have names by what they differ in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from polyak.report.recorded import Recorded

# Options that say where a run computes or what is kept of it: they have no part in what it learns.
_ASIDE = frozenset({"seed", "checkpoint", "keep", "record", "tensorboard"})


@dataclass(frozen=True)
class Group:
    """Runs of one kind.

    Attributes:
        name: What is special about them among the groups that are compared.
        runs: In the order of their seeds.
    """

    name: str
    runs: tuple[Recorded, ...]


def grouped(runs: Sequence[Recorded]) -> list[Group]:
    """Sort runs into groups, in the order in which each came first.

    Raises:
        ValueError: The runs are of different tasks, or one was given twice.
    """
    tasks = {run.environment.get("task"): run.folder for run in runs}
    if len(tasks) > 1:
        named = ", ".join(f"{task} ({folder})" for task, folder in tasks.items())
        raise ValueError(f"these runs are of different tasks: {named}. Compare runs of one task.")
    if len({run.folder.resolve() for run in runs}) < len(runs):
        raise ValueError("one of these runs was given twice, and would be counted as two: give each once.")
    sorted_by: dict[tuple[tuple[str, str], ...], list[Recorded]] = {}
    for run in runs:
        options = {**run.options, "model": run.environment.get("model")}  # by its name, where it was left to the task
        sorted_by.setdefault(tuple(sorted(_plain(options).items())), []).append(run)
    names = _names([dict(key) for key in sorted_by])
    return [
        Group(name, tuple(sorted(members, key=lambda run: int(run.options.get("seed", 0)))))
        for name, members in zip(names, sorted_by.values(), strict=True)
    ]


def _plain(options: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Options as text, those of tables by their own names."""
    found: dict[str, str] = {}
    for name, value in options.items():
        if isinstance(value, Mapping):
            found |= _plain(value, f"{prefix}{name}." if prefix or name == "groups" else "")
        elif name not in _ASIDE:
            found[prefix + name] = f"{value:g}" if isinstance(value, float) else str(value)
    return found


def _names(kinds: Sequence[Mapping[str, str]]) -> list[str]:
    """For each kind its optimizer, and the options that tell it from the others.

    Those are what all kinds have and is not the same in all, and what differs among kinds of the same optimizer. An argument
    that only one optimizer has tells nothing that its name does not.
    """

    def differs(key: str, among: Sequence[Mapping[str, str]]) -> bool:
        return len({kind.get(key) for kind in among}) > 1

    names = []
    for kind in kinds:
        rivals = [other for other in kinds if other.get("optimizer") == kind.get("optimizer")]
        keys = [
            key
            for key in kind
            if key != "optimizer" and ((all(key in k for k in kinds) and differs(key, kinds)) or differs(key, rivals))
        ]
        names.append(" ".join([kind.get("optimizer", "run"), *(f"{key}={kind[key]}" for key in keys)]))
    return names
