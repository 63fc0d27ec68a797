"""Raw input for a trained model: read as the model's own first layer says."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polyak.train.layers import Columns, Pictures
from polyak.train.tasks import TABLES
from polyak.train.tasks.arrays import load, numbers
from polyak.train.tasks.columns import cells, check_present
from polyak.train.tasks.files import read
from polyak.train.tasks.picture import SUFFIXES, PictureForm
from polyak.train.tasks.pictures import decoded
from polyak.train.tasks.task import TaskError

ROWS = 8192  # examples that are read at a time

Piece = tuple[list[tuple[str, ...]], Any]


class Raw:
    """The examples of a file or folder, some at a time: what names each of them in the output, and what the model takes.

    Args:
        model: A trained model.
        source: The file or folder.

    Raises:
        TaskError: It is not what the model was trained on.
    """

    def __init__(self, model: Any, source: Path) -> None:
        if not source.exists():
            raise TaskError(f"there is no file or folder {source}.")
        layers = [layer for layer in model.layers if isinstance(layer, Columns | Pictures)]
        self.keys: tuple[str, ...] = ()
        if not layers:
            self._pieces = arrays(model, source)
        elif isinstance(layers[0], Columns):
            self._pieces = rows(layers[0].columns, source)
        else:
            self.keys = ("file",)
            self._pieces = pictures(layers[0].form, source)

    def __iter__(self) -> Iterator[Piece]:
        return self._pieces


def rows(columns: list[Any], source: Path) -> Iterator[Piece]:
    """The rows of a table."""
    if source.suffix.lower() not in TABLES:
        raise TaskError(f"{source} is no table, and the model was trained on one: .csv, .tsv or .parquet is needed.")
    file = read(source)
    check_present(columns, file.names, str(source))
    names = [column.name for column in columns]

    def pieces() -> Iterator[Piece]:
        for start in range(0, file.rows, ROWS):
            x = cells(columns, file.rows_of(names, start, ROWS), start)
            yield [()] * len(x), x

    return pieces()


def pictures(form: PictureForm, source: Path) -> Iterator[Piece]:
    """A picture, or all in a folder and its sub-folders, hidden ones left out."""
    if source.is_dir():
        files = sorted(
            file
            for file in source.rglob("*")
            if file.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in file.relative_to(source).parts)
        )
    else:
        files = [source]
    if not files:
        raise TaskError(f"{source} has no PNG or JPEG file, neither directly nor in a sub-folder.")

    def pieces() -> Iterator[Piece]:
        for start in range(0, len(files), 1024):
            some = files[start : start + 1024]
            yield [(str(file),) for file in some], np.stack(decoded(form.read, some))

    return pieces()


def arrays(model: Any, source: Path) -> Iterator[Piece]:
    """The x of a .npz file; of a model with several named inputs, an array for each."""
    if source.suffix.lower() != ".npz":
        raise TaskError(
            f"{source} is no .npz file, and the model was trained on arrays: numpy.savez('new.npz', x=...) writes one."
        )
    inputs = {tensor.name: tensor for tensor in model.inputs}
    names = ("x",) if len(inputs) == 1 else tuple(inputs)
    found = load(source, names)
    x = {name: fitting(found[name], tensor, f"{name} in {source}") for name, tensor in zip(names, inputs.values(), strict=True)}
    count = {len(array) for array in x.values()}
    if len(count) > 1:
        raise TaskError(f"the arrays in {source} have different lengths.")

    def pieces() -> Iterator[Piece]:
        for start in range(0, count.pop(), ROWS):
            some = {name: array[start : start + ROWS] for name, array in x.items()}
            first = next(iter(some.values()))
            yield [()] * len(first), first if len(inputs) == 1 else some

    return pieces()


def fitting(x: NDArray[Any], tensor: Any, name: str) -> NDArray[Any]:
    """An array as an input of the model takes it."""
    x = numbers(x, name)
    shape = tuple(tensor.shape[1:])
    if x.ndim == len(shape) and shape[-1] == 1:
        x = x[..., None]  # grey pictures have a place for the channel in the model
    if x.ndim - 1 != len(shape) or any(want not in (None, have) for want, have in zip(shape, x.shape[1:], strict=True)):
        want = str(shape).replace("None", "any")
        raise TaskError(f"{name} has examples of shape {x.shape[1:]}; the model takes {want}.")
    if tensor.dtype == "uint8" and x.dtype != np.uint8:
        whole = x.astype(np.uint8)
        if (whole != x).any():
            raise TaskError(f"{name} has the dtype {x.dtype}; the model was trained on uint8, 0 to 255.")
        return whole
    return x
