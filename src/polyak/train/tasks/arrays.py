"""Arrays in a .npz file as a task: x and y, and x_val and y_val where there are such."""

import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polyak.train.models import Ends, choices
from polyak.train.tasks.split import split
from polyak.train.tasks.target import Target, goal, understand
from polyak.train.tasks.task import Arrays, Task, TaskError

SIDE = 8  # (n, a, b) with both sides at least so long are grey pictures; else a sequence of length a with b channels


def arrays(path: Path, validation: float, seed: int) -> Task:
    """The task of a .npz file.

    Args:
        path: With x, one example a row: (n, features), (n, length, channels), (n, height, width) or
            (n, height, width, channels); and y: classes as text, booleans or whole numbers, or values of shape (n,) or
            (n, outputs).
        validation: Share of the examples, where the file has no x_val and y_val.
        seed: Of the split.

    Raises:
        TaskError: Nothing can be learned from it; the message says why.
    """
    found = load(path, ("x", "y"), ("x_val", "y_val"))
    x = numbers(found["x"], f"x in {path}")
    learned = labels(found["y"], f"y in {path}")
    pair(x, found["y"], path, "")
    note = learned.note
    if "x_val" in found:
        x_val = numbers(found["x_val"], f"x_val in {path}")
        pair(x_val, found["y_val"], path, "_val")
        if x_val.shape[1:] != x.shape[1:]:
            raise TaskError(f"examples in {path} have the shape {x.shape[1:]} in x and {x_val.shape[1:]} in x_val.")
        train, watched = np.arange(len(x)), np.arange(len(x_val))
        notes: list[str] = []
        y_val = same_kind(found["y_val"], learned, path)
    else:
        train, watched, notes = split(len(x), validation, seed, labels=learned.labels, names=learned.classes or ())
        x_val, y_val = x, learned.y
    aim = goal(learned, train)
    x, x_val, shape_note, names = shaped(x, x_val)
    return aim.task(
        name=str(path),
        about=f"arrays of {path.name}: {len(x):,} examples of shape {x.shape[1:]}",
        train=Arrays(x[train], learned.y[train]),
        validation=Arrays(x_val[watched], y_val[watched]),
        models=choices(Ends(x.shape[1:], (scaling(x[train]),), aim, x.dtype.name), names),
        notes=(note, shape_note, *notes),
    )


def load(path: Path, wanted: tuple[str, ...], together: tuple[str, ...] = ()) -> dict[str, NDArray[Any]]:
    """Arrays of a file, by name.

    Args:
        path: The file.
        wanted: Which have to be there.
        together: Which may be there, either none of them or all.

    Raises:
        TaskError: It is no such file, or lacks one.
    """
    try:
        with path.open("rb") as file:
            single = file.read(6) == b"\x93NUMPY"
    except OSError as error:
        raise TaskError(f"cannot read {path}: {error.strerror}.") from error
    if single:
        raise TaskError(f"{path} is a single array, as .npy has it: numpy.savez('{path.stem}.npz', x=..., y=...) writes two.")
    if not zipfile.is_zipfile(path):
        raise TaskError(f"{path} is damaged or no .npz file, which numpy.savez writes.")
    try:
        with np.load(path, allow_pickle=False) as archive:
            names = archive.files
            found = {name: archive[name] for name in (*wanted, *together) if name in names}
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise TaskError(f"cannot read {path} as .npz: {error}.") from error
        raise TaskError(
            f"{path} has pickled objects, which could run any code and are not read. An array of dtype object becomes one of "
            "numbers by .astype(float), and of text by .astype(str)."
        ) from error
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, KeyError) as error:
        raise TaskError(f"cannot read {path} as .npz: {error}.") from error
    if any(name in found for name in together):
        wanted += together
    lacking = [name for name in wanted if name not in found]
    if lacking:
        raise TaskError(f"{path} lacks {' and '.join(lacking)}; it has {', '.join(names) or 'nothing'}.")
    return found


def pair(x: NDArray[Any], y: NDArray[Any], path: Path, which: str) -> None:
    """As many examples as labels."""
    if y.ndim < 1 or len(x) != len(y):
        raise TaskError(f"{path} has {len(x):,} examples in x{which} and y{which} of shape {y.shape}: one row each is needed.")


def numbers(x: NDArray[Any], name: str) -> NDArray[Any]:
    """Examples as they are stored in memory: uint8 as it is, everything else float32.

    Raises:
        TaskError: They are no numbers, or not finite.
    """
    if x.dtype.kind not in "biuf":
        raise TaskError(f"{name} has the dtype {x.dtype}: it has to be numbers.")
    if x.ndim < 1 or not x.size:
        raise TaskError(f"{name} has the shape {x.shape}: there is no example in it.")
    if not 1 <= x.ndim <= 4:
        raise TaskError(
            f"{name} has the shape {x.shape}: (n, features), (n, length, channels), (n, height, width) or "
            "(n, height, width, channels) is needed; reshape it."
        )
    if x.ndim == 1:
        x = x[:, None]
    if x.dtype == np.uint8:
        return x
    with np.errstate(over="ignore"):
        small = x.astype(np.float32)
    bad = ~np.isfinite(small)
    if bad.any():
        rows = np.flatnonzero(bad.reshape(len(x), -1).any(1))
        raise TaskError(
            f"{name} is NaN or infinite (as float32) in {len(rows):,} of {len(x):,} examples, the first of them x[{rows[0]}]. "
            "Fill them in or take these examples out."
        )
    return small


def labels(y: NDArray[Any], name: str) -> Target:
    """What is learned."""
    import polars as pl

    if y.dtype.kind not in "biufU":
        raise TaskError(f"{name} has the dtype {y.dtype}: numbers, booleans or text (.astype(str)) can be learned.")
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim == 1:
        return understand(pl.Series("y", y.astype(np.float32) if y.dtype == np.float16 else y), name)
    if y.ndim != 2 or not y.size:
        raise TaskError(f"{name} has the shape {y.shape}: (n,) or (n, outputs) is needed.")
    if ((y == 0) | (y == 1)).all() and (y.sum(1) == 1).all():
        raise TaskError(
            f"{name} has the shape {y.shape} with a single 1 in each row: classes are given by number, y.argmax(1)."
        )
    if y.dtype.kind not in "iuf" or not np.isfinite(y).all():
        raise TaskError(f"{name} has the shape {y.shape}: values have to be finite numbers.")
    return Target(name, "regression", y.astype(np.float32), None, f"{name}: {y.shape[1]} values")


def same_kind(y: NDArray[Any], learned: Target, path: Path) -> NDArray[Any]:
    """y_val in the terms of y."""
    if learned.classes is None:
        y = y[:, None] if y.ndim == 1 else y
        if y.dtype.kind not in "iuf" or y.shape[1:] != learned.y.shape[1:] or not np.isfinite(y).all():
            raise TaskError(f"{path}: y_val has to be finite numbers like y, of shape (n, {learned.y.shape[1]}).")
        return y.astype(np.float32)
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    names = [str(value) for value in y.tolist()] if y.dtype.kind != "b" else [str(value).lower() for value in y.tolist()]
    unknown = sorted(set(names) - set(learned.classes))
    if unknown:
        raise TaskError(f"{path}: y_val has classes that y has not: {', '.join(unknown[:8])}.")
    return np.array([learned.classes.index(name) for name in names], np.int32)


def shaped(x: NDArray[Any], x_val: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], str, tuple[str, ...]]:
    """Examples with a place for channels, how they were understood, and the models for them, the default first."""
    if x.ndim == 2:
        return x, x_val, f"x: {x.shape[1]} features", ("mlp", "cnn", "resnet") if x.shape[1] >= SIDE else ("mlp",)
    models = ("cnn", "resnet", "mlp")
    if x.ndim == 3 and min(x.shape[1:]) >= SIDE:
        note = (
            f"x: grey pictures of {x.shape[1]}x{x.shape[2]}. Sequences with many channels look the same: reshape them to "
            "(n, 1, length, channels)"
        )
        return x[..., None], x_val[..., None], note, models
    if x.ndim == 3:
        return x, x_val, f"x: sequences of {x.shape[1]} with {x.shape[2]} channels", models
    return x, x_val, f"x: pictures of {x.shape[1]}x{x.shape[2]} with {x.shape[3]} channels", models


def scaling(x: NDArray[Any]) -> Callable[[], Any]:
    """A function that makes the layer which brings examples near 1: each feature, or channel, less its mean, by its spread."""
    axes = tuple(range(x.ndim - 1))
    mean = x.mean(axes, np.float64)
    spread = x.std(axes, np.float64)
    scale = 1 / np.where(spread > 0, spread, 1.0)

    def layer() -> Any:
        import keras

        return keras.layers.Rescaling(scale.tolist(), (-mean * scale).tolist(), name="scaling")

    return layer
