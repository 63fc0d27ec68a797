"""Which runs `polyak compare TASK --optimizers ...` trains."""

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from polyak.train import config
from polyak.train.options import Options
from polyak.train.settings import value


@dataclass(frozen=True)
class Planned:
    """A run to be made.

    Attributes:
        name: For people.
        options: All of them, checked.
        folder: Of the run.
    """

    name: str
    options: Options
    folder: Path

    @property
    def is_there(self) -> bool:
        """Whether the folder has this run already, as far as it got.

        Raises:
            ValueError: It has another one.
        """
        file = self.folder / config.NAME
        if not file.exists():
            return False
        found = config.read(file)
        if self.options.batch_size == 0:  # left to the task, which has filled it in
            found = replace(found, batch_size=0)
        if found != self.options:
            raise ValueError(f"{self.folder} has a run with other options than are asked for now: choose another --out.")
        return True


def plan(optimizers: str, seeds: int, file: Path | None, given: Mapping[str, Any], out: Path) -> list[Planned]:
    """Every optimizer with every seed, seed by seed, so that what was stopped half-way still compares like with like.

    Args:
        optimizers: "momentum(lr=0.05), lion".
        seeds: How many: 0, 1, ...
        file: What `--config` names.
        given: Other options, by the names that `Options` has for them.
        out: Where the folders of the runs go.

    Raises:
        ValueError: An option that no run can have, an optimizer that is named twice, or fewer than one seed.
    """
    if seeds < 1:
        raise ValueError(f"--seeds must be at least 1; got {seeds}.")
    chosen = parse(optimizers)
    return [
        Planned(
            f"{text}, seed {seed}",
            config.combined(file, {**given, "optimizer": name, "settings": settings, "seed": seed}),
            out / f"{_file_name(text)}-seed-{seed}",
        )
        for seed in range(seeds)
        for text, name, settings in chosen
    ]


def parse(optimizers: str) -> list[tuple[str, str, dict[str, Any]]]:
    """The text, the name and the settings of each optimizer in a list of names and calls.

    Raises:
        ValueError: It cannot be read, or one is there twice.

    Example:
        >>> parse("momentum(lr=0.05), lion")
        [('momentum(lr=0.05)', 'momentum', {'learning_rate': 0.05}), ('lion', 'lion', {})]
    """
    try:
        nodes = ast.parse(f"[{optimizers}]", mode="eval").body
    except SyntaxError:
        nodes = None
    if not isinstance(nodes, ast.List) or not nodes.elts:
        raise ValueError(
            f'--optimizers takes names, with settings in parentheses, such as "momentum(lr=0.05), lion"; got {optimizers!r}.'
        )
    found = [_optimizer(node) for node in nodes.elts]
    texts = [_file_name(text) for text, _, _ in found]
    for text in texts:
        if texts.count(text) > 1:
            raise ValueError(f"--optimizers names {text} twice, which would be one run in two columns: leave one out.")
    return found


def _optimizer(node: ast.expr) -> tuple[str, str, dict[str, Any]]:
    text = ast.unparse(node)
    match node:
        case ast.Name(id=name):
            return text, name, {}
        case ast.Call(func=ast.Name(id=name), args=[], keywords=keywords) if all(each.arg for each in keywords):
            settings = {str(each.arg): value(ast.unparse(each.value)) for each in keywords}
            if "lr" in settings:
                settings["learning_rate"] = settings.pop("lr")
            return text, name, settings
    raise ValueError(
        f"--optimizers: {text} is neither a name nor a name with settings, such as momentum(lr=0.05, nesterov=True)."
    )


def _file_name(text: str) -> str:
    """A text as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-")
