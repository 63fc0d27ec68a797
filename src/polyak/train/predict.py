"""`polyak predict`: a trained model on raw input, as CSV."""

import csv
import io
import json
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from polyak.complain import complain
from polyak.train.tasks.task import TaskError

if TYPE_CHECKING:
    from polyak.train.options import Options

__all__ = ["predictions"]

BATCH = 1024

Row = Sequence[str]


def predict(
    run: Path,
    input: Path,  # noqa: A002  (its name in the help)
    /,
    *,
    out: Path | None = None,
    backend: str | None = None,
    debug: bool = False,
) -> int:
    """Apply the model of a run to new data, and write CSV.

    Args:
        run: The folder of a run, complete or stopped.
        input: Raw data of the kind that it was trained on: a table with the same columns (the target is not needed), a
            picture or a folder of them, a .npz file with x.
        out: The CSV file. Else: standard output.
        backend: One of tensorflow, jax, torch. Else: the run's.
        debug: Show the traceback of an error.

    Returns:
        The exit code: 0, or 2 for a run or an input that cannot be used.
    """
    from polyak.train.backends import BACKENDS, check_installed, use
    from polyak.train.config import read
    from polyak.train.words import choice

    try:
        if not (run / "config.toml").exists():
            raise TaskError(f"{run} is no run of `polyak train`: it has no config.toml.")
        if out is not None and (out.is_dir() or not out.parent.is_dir()):
            raise TaskError(f"cannot write {out}: " + ("it is a folder." if out.is_dir() else f"{out.parent} is no folder."))
        options = read(run / "config.toml")
        backend = choice("--backend", options.backend if backend is None else backend, BACKENDS)
        check_installed(backend)
        use(backend)
        write(predictions(load(run, options), input), out)
    except (ValueError, ImportError, OSError) as error:
        if debug:
            traceback.print_exception(error)
        return complain(error, 2)
    return 0


def predictions(model: Any, source: Path) -> Iterator[list[Row]]:
    """The rows of the CSV, some at a time, the header first.

    Args:
        model: A trained model.
        source: The raw data.

    Raises:
        ValueError: The data is not of the kind that it was trained on.
    """
    from polyak.train.raw import Raw

    raw = Raw(model, source)
    first: list[Row] = [(*raw.keys, *header(model))]  # goes out with the first rows, after which little can be wrong
    for keys, x in raw:
        found = answers(model, applied(model, x))
        yield first + [(*key, *row) for key, row in zip(keys, found, strict=True)]
        first = []


def load(run: Path, options: "Options") -> Any:
    """The model of a run: as it was saved, or as the newest checkpoint has it where the run was killed.

    Raises:
        TaskError: There is none that can be read.
    """
    import keras

    import polyak.train.layers  # noqa: F401  (so that Keras knows them)

    module, colon, _ = options.task.partition(":")
    if colon and not Path(options.task).exists():
        from polyak.train.tasks.code import imported

        imported(module)  # so that Keras knows the layers of a person's own code
    path = run / "model.keras"
    if not path.exists():
        return from_checkpoint(run, options)
    try:
        return keras.models.load_model(path, compile=False)
    except Exception as error:  # zipfile, h5py and Keras each raise their own
        first = str(error).strip().splitlines()[0].split(". ")[0]  # what follows is Keras's whole configuration of it
        raise TaskError(
            f"cannot read {path}: {first}. Layers of your own are known by @keras.saving.register_keras_serializable()."
        ) from error


def from_checkpoint(run: Path, options: "Options") -> Any:
    """The model of a run that was killed or failed, made again from its data, with the weights of its newest checkpoint.

    Raises:
        TaskError: There is no checkpoint, or the data is not what it was.
    """
    from polyak.train.checkpoints import newest
    from polyak.train.job import Job

    found = newest(run / "checkpoints", lambda _damaged: None)
    if found is None:
        raise TaskError(f"{run} has no model.keras and no checkpoint: the run ended before its first epoch did.")
    job = Job(options)
    job.build()
    then = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    now = json.loads(json.dumps(job.environment()))
    if any(now[name] != then[name] for name in ("classes", "notes", "data")):
        raise TaskError(f"{run} has no model.keras, and the data from which its model would be made again has changed since.")
    job.restore(found.path, (), within=False)
    print(f"{run} has no model.keras; this is the model of step {found.position['step']:,}.", file=sys.stderr)  # noqa: T201
    job.averaged().__enter__()  # for good: the model is not trained on
    return job.model


def applied(model: Any, x: Any) -> Any:
    """What the model gives, in batches. Not `model.predict`, which on TensorFlow reports its own internals as errors."""
    several = isinstance(x, dict)
    count = len(next(iter(x.values()))) if several else len(x)
    parts = (slice(start, start + BATCH) for start in range(0, count, BATCH))
    given = [model.predict_on_batch({k: v[part] for k, v in x.items()} if several else x[part]) for part in parts]
    return np.concatenate(given)


def header(model: Any) -> list[str]:
    """The columns that the model's answers have."""
    from polyak.train.layers import Classes

    last = model.layers[-1]
    if isinstance(last, Classes):
        return ["prediction", *(f"probability_{name}" for name in last.names)]
    shape = model.output_shape
    if not isinstance(shape, tuple) or len(shape) != 2:
        raise TaskError(f"the model gives {shape} for a batch: rows of CSV are made of (batch, numbers) only.")
    names = "prediction" if last.name == "units" else "output"
    return [names] if shape[1] == 1 else [f"{names}_{k}" for k in range(shape[1])]


def answers(model: Any, given: NDArray[np.floating[Any]]) -> list[Row]:
    """What the model gave for some examples, a row each: the class and the probability of each, or numbers."""
    from polyak.train.layers import Classes

    last = model.layers[-1]
    if not isinstance(last, Classes):
        return [[str(value) for value in row] for row in given]
    odds = np.exp(given.astype(np.float64) - given.max(1, keepdims=True))
    shares = (odds / odds.sum(1, keepdims=True)).astype(np.float32)
    return [[last.names[row.argmax()], *map(str, row)] for row in shares]


def write(rows: Iterator[list[Row]], out: Path | None) -> None:
    """Write CSV to a file, which is put in place whole, or to standard output."""
    from polyak.train.folder import replace

    if out is not None:

        def whole(path: Path) -> None:
            with path.open("w", encoding="utf-8", newline="") as file:
                for some in rows:
                    csv.writer(file, lineterminator="\n").writerows(some)

        replace(out, whole)
        return
    for some in rows:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(some)
        try:
            print(text.getvalue(), end="", flush=True)  # noqa: T201  (this is what was asked for)
        except BrokenPipeError:  # nobody reads on (`| head`)
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return
