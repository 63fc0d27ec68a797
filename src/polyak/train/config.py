"""Options in a TOML file: `--config run.toml`, and the config.toml of each run, with which it can be repeated.

A file has the options by the names of their flags, with underscores, and what is set of the optimizer in a table:

    task = "measurements.csv"
    target = "species"
    optimizer = "nesterov"
    epochs = 50

    [set]
    learning_rate = "cosine(0.1, warmup=2 * epoch)"
    weight_decay = 5e-4
    decay = "coupled"
    groups = {"bias|norm" = {weight_decay = 0}}
"""

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from polyak.train.folder import replace
from polyak.train.options import SHORTCUTS, Options, flag_of, of_type
from polyak.train.words import unknown

NAME = "config.toml"
TABLE = "set"  # Options.settings, in a file as on the command line


def combined(path: Path | None, flags: Mapping[str, Any]) -> Options:
    """The options of a run: those that are not given have their defaults, and flags win over the file.

    What a file sets of its optimizer is for that optimizer: with another one among the flags it is left out; see `left_out`.

    Args:
        path: A TOML file, or None.
        flags: Options by the names of their fields, without those that were not given.

    Raises:
        ValueError: A file that cannot be read as options, or options that no run can have.
        TypeError: An option of another type.
        OSError: There is no such file.
    """
    if path is None:
        return Options(**flags)
    given = values_of(path)
    dropped = left_out(given, flags)
    values = {name: x for name, x in given.items() if name not in dropped}
    merged = _merged(values, flags)
    try:
        return Options(**merged)
    except (TypeError, ValueError) as error:
        if _complaint(values) == str(error):  # the flags have no part in it
            raise type(error)(f"{_place(path, values, str(error))}: {error}") from None
        raise


def left_out(values: Mapping[str, Any], flags: Mapping[str, Any]) -> tuple[str, ...]:
    """The options of a file that are for the optimizer that it names, where a flag names another one."""
    if "optimizer" not in values or flags.get("optimizer", values["optimizer"]) == values["optimizer"]:
        return ()
    return tuple(name for name in (*SHORTCUTS, "settings") if name in values)


def _merged(values: Mapping[str, Any], flags: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a file with the flags over them. A setting that has two names is won by either of them."""
    said = dict(flags.get("settings", {}))
    settings = {**values.get("settings", {}), **said}
    merged = {**values, **flags}
    for flag, setting in SHORTCUTS.items():
        if flag in flags and setting not in said:
            settings.pop(setting, None)
        if setting in said and flag not in flags:
            merged.pop(flag, None)
    return {**merged, "settings": settings}


def _complaint(values: Mapping[str, Any]) -> str | None:
    try:
        Options(**values)
    except (TypeError, ValueError) as error:
        return str(error)
    return None


def _place(path: Path, values: Mapping[str, Any], complaint: str) -> str:
    """The file, with the line of the option that a complaint begins with, if it names one."""
    words = re.findall(r"[\w-]+", complaint.partition(";")[0])
    names = {flag_of(name): name for name in values} | {name: name for name in values.get("settings", {})}
    line = next((f", line {line_of(_text(path), names[word])}" for word in words if word in names), "")
    return f"{path}{line}"


def read(path: Path) -> Options:
    """The options in a file.

    Raises:
        ValueError: It cannot be read as options.
        TypeError: An option of another type.
        OSError: There is no such file.
    """
    return combined(path, {})


def values_of(path: Path) -> dict[str, Any]:
    """The options that a file gives, by the names of their fields: each of a name and a type that there is."""
    text = _text(path)
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} cannot be read as TOML: {error}.") from None
    names = [TABLE if field.name == "settings" else field.name for field in fields(Options)]
    values = {}
    for key, value in content.items():
        if key not in names:
            raise ValueError(
                f"{path}, line {line_of(text, key)}: {unknown(f'unknown option {key!r}', key.replace('-', '_'), names)}"
            )
        name = "settings" if key == TABLE else key
        try:
            values[name] = of_type(name, value)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{path}, line {line_of(text, key)}: {error}") from None
    return values


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except IsADirectoryError:
        there = f" Did you mean {path / NAME}?" if (path / NAME).is_file() else ""
        raise IsADirectoryError(f"--config takes a file; {path} is a folder.{there}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no TOML file: byte {error.start} is not UTF-8.") from None
    except OSError as error:
        raise OSError(f"--config {path}: {error.strerror}.") from error


def line_of(text: str, key: str) -> int:
    """The line of a TOML file in which a key at its top level stands."""
    written = rf"""["']?{re.escape(key)}["']?\s*"""
    pattern = re.compile(rf"^\s*(?:{written}[.=]|\[+\s*{written}[.\]])")
    return next((i for i, line in enumerate(text.splitlines(), 1) if pattern.match(line)), 1)


def write(options: Options, path: Path) -> None:
    """Put a file in place whole that gives the same options."""

    def write(temporary: Path) -> None:
        temporary.write_text(to_toml(options), encoding="utf-8")

    replace(path, write)


def to_toml(options: Options) -> str:
    """The file that gives these options: every one that has a value, in the order of `Options`."""
    values = {name: x for name, x in vars(options).items() if x is not None and name != "settings"}
    lines = [f"{name} = {_toml(x)}\n" for name, x in values.items()]
    settings = [f"{_key(name)} = {_toml(x)}\n" for name, x in options.settings.items()]
    return "".join([*lines, *([f"\n[{TABLE}]\n"] if settings else []), *settings])


def _toml(x: Any) -> str:
    match x:
        case bool():
            return str(x).lower()
        case str():
            # The escapes of JSON are those of TOML, which wants one more character escaped.
            return json.dumps(x, ensure_ascii=False).replace("\x7f", "\\u007f")
        case list():
            return f"[{', '.join(map(_toml, x))}]"
        case Mapping():
            return f"{{{', '.join(f'{_key(name)} = {_toml(each)}' for name, each in x.items())}}}"
    return repr(x)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml(name)
