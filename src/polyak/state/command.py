"""`polyak state`: what a file holds, for people."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from polyak.complain import complain
from polyak.state.contents import Contents, Group
from polyak.state.file import read


def state(file: Path, /) -> int:
    """Print what a file of optimizer state holds: method, options, hyperparameters, names, shapes and dtypes.

    Args:
        file: What polyak.state.save wrote.

    Returns:
        The exit code: 0, or 2 for a file that cannot be read as a state.
    """
    try:
        contents = read(file)
    except (ValueError, OSError) as error:
        return complain(error, 2)
    print("\n".join(lines(contents)))  # noqa: T201  (what the command is for)
    return 0


def lines(contents: Contents) -> Iterator[str]:
    """What a state holds, line by line."""
    yield f"steps: {'not counted' if contents.count is None else contents.count}"
    for group in contents.groups:
        yield f"{_plural(len(group.names), 'parameter')}: {group.method}  {'  '.join(_described(group))}"
    width = max(map(len, contents.tensors), default=0)
    for name, spec in contents.tensors.items():
        yield f"{name:{width}}  {spec}"


def _described(group: Group) -> Iterator[str]:
    for name, value in group.hyperparameters.items():
        yield f"{name} {value:g}{' (follows a schedule)' if name in group.scheduled else ''}"
    for name, option in group.options.items():
        yield f"{name} {_word(option)}"


def _word(option: Any) -> str:
    if isinstance(option, tuple):
        return f"({', '.join(map(_word, option))})"
    return "none" if option is None else str(option).lower()


def _plural(n: int, noun: str) -> str:
    return f"{n} {noun}{'s' * (n != 1)}"
