"""What a run recorded, read from the files in its folder."""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

Columns = Mapping[str, npt.NDArray[Any]]
"""A table: float64 columns by name, all of one length, NaN where a cell is empty. The column `layer` has strings."""


class NotARun(ValueError):  # noqa: N818  (it says what is wrong)
    """A folder that no run made, or a file in it that cannot be read."""


@dataclass(frozen=True)
class Recorded:
    """A run.

    Attributes:
        folder: Where it is.
        options: config.toml: every option.
        environment: environment.json: the optimizer, the model's size, the versions.
        result: result.json, and empty for a run that has not ended.
        epochs: metrics.csv, a row an epoch.
        clock: timing.csv, a row an epoch: `seconds` since training began.
        steps: steps.csv, a row a recorded step. No columns where no steps were recorded.
        layers: layers.csv, a row a recorded step and layer. Likewise.
    """

    folder: Path
    options: Mapping[str, Any]
    environment: Mapping[str, Any]
    result: Mapping[str, Any]
    epochs: Columns
    clock: Columns
    steps: Columns
    layers: Columns

    @property
    def main(self) -> str | None:
        """The metric that people look at, such as "accuracy"; None for a task that has the loss alone."""
        name: str | None = self.environment.get("main")
        return name


def read(folder: Path) -> Recorded:
    """Read a run, complete, stopped, or still going on.

    Raises:
        NotARun: With the file, and what was expected of it.
    """
    if not folder.is_dir():
        raise NotARun(f"{folder} is not a folder: give the folder of a run, which polyak train names when it ends.")
    for name in ("config.toml", "environment.json", "metrics.csv"):
        if not (folder / name).is_file():
            raise NotARun(f"{folder} has no {name}: it is no folder of a run, or of one that another version made.")
    try:
        options = tomllib.loads((folder / "config.toml").read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise NotARun(f"{folder / 'config.toml'} cannot be read: {error}.") from None
    result = folder / "result.json"
    return Recorded(
        folder,
        options,
        _json(folder / "environment.json"),
        _json(result) if result.exists() else {},
        _table(folder / "metrics.csv"),
        _table(folder / "timing.csv"),
        _table(folder / "steps.csv"),
        _table(folder / "layers.csv"),
    )


def _json(file: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise NotARun(f"{file} cannot be read: {error}.") from None
    if not isinstance(content, dict):
        raise NotARun(f"{file} should hold an object; it holds {type(content).__name__}.")
    return content


def _table(file: Path) -> Columns:
    if not file.exists():
        return {}
    # A run that was killed, or that goes on at this moment, may have written part of its last row.
    whole, _, _ = file.read_bytes().rpartition(b"\n")
    if not whole:
        return {}
    try:
        frame = pl.read_csv(BytesIO(whole + b"\n"), infer_schema=False).with_columns(
            pl.exclude("layer").cast(pl.Float64)  # "nan" and "inf" are numbers of a run too
        )
    except pl.exceptions.PolarsError as error:
        raise NotARun(f"{file} is no table of numbers: {str(error).splitlines()[0]}.") from None
    return {
        name: frame[name].to_numpy() if name == "layer" else frame[name].fill_null(np.nan).to_numpy() for name in frame.columns
    }
