"""A person's own model and data: `polyak train package.module:function`.

The function takes no argument and returns a dict

    {"model": model, "data": data, "loss": loss, "metrics": metrics}

or a tuple (model, data), (model, data, loss) or (model, data, loss, metrics). `model` is any keras.Model, compiled or not.
`data` is

    (x, y)                          arrays, or for x a dict of arrays: a part is watched and not trained on, chosen by the seed
    (train, validation)             each of them (x, y), or batches of (x, y): a keras.utils.PyDataset, a tf.data.Dataset, a
                                    torch DataLoader, a list
    batches                         without validation

`loss` and `metrics` are what `model.compile` takes. Of a compiled model, its own stay; only its optimizer is replaced.
"""

import importlib
import inspect
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import numpy as np

from polyak.train.tasks.split import split
from polyak.train.tasks.task import Arrays, Batched, Source, Task, TaskError

RETURNS = "a dict with 'model' and 'data' (and 'loss', 'metrics'), or a tuple in that order"
FIELDS = ("model", "data", "loss", "metrics")
Part = Source | Batched


def code(module: str, function: str, validation: float, seed: int) -> Task:
    """The task that a function returns.

    Args:
        module: As in an import. The present folder is looked through first.
        function: In it.
        validation: Share of the examples, where they are arrays without a validation part.
        seed: Of the split.

    Raises:
        TaskError: There is no such function, it raised something, or returned something else. The cause is chained.
    """
    name = f"{module}:{function}"
    returned = understand(call(module, function), name)
    model, loss, metrics = returned["model"], returned.get("loss"), returned.get("metrics")
    train, watched, notes = parts(returned["data"], name, validation, seed)
    compiled = bool(model.compiled)
    if compiled and (loss is not None or metrics is not None):
        raise TaskError(f"{name} returns a compiled model and a loss or metrics beside it: give them to one of both.")
    if compiled:
        notes.append(
            f"the model is compiled: its loss and metrics stay, its optimizer {type(model.optimizer).__name__} is replaced"
        )
    elif loss is None:
        loss, metrics, why = guess(model, train, name, metrics)
        notes.append(why)
    return Task(
        name=name,
        about=f"{len(train):,} {'batches' if isinstance(train, Batched) else 'examples'} of {name}",
        kind="own",
        train=train,
        validation=watched,
        test=None,
        classes=None,
        models={"own": lambda: model},
        loss=lambda: loss,
        metrics=lambda: metrics,
        main=main_metric(model_metrics(model) if compiled else metrics),
        notes=tuple(notes),
        compiled=compiled,
    )


def call(module: str, function: str) -> Any:
    """What the function returns."""
    found = imported(module)
    build = getattr(found, function, None)
    if not callable(build):
        known = [key for key, value in vars(found).items() if inspect.isfunction(value) and value.__module__ == module]
        raise TaskError(f"{module} has no function {function!r}; it has {', '.join(known) or 'none'}.")
    try:
        return build()
    except (Exception, SystemExit) as error:
        fail(f"{module}:{function}", error)


def imported(module: str) -> ModuleType:
    """A module of the present folder, or an installed one."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and (module == error.name or module.startswith(f"{error.name}.")):
            raise TaskError(
                f"there is no module {module!r}, neither in {here} nor installed. A file src/task.py is src.task, seen from "
                "the folder that src is in."
            ) from error
        fail(f"importing {module}", error)
    except (Exception, SystemExit) as error:
        fail(f"importing {module}", error)


def fail(where: str, error: BaseException) -> NoReturn:
    """An error in a person's code, with the line of it that is nearest."""
    frames = traceback.extract_tb(error.__traceback__)
    library = str(Path(__file__).parents[2])
    own = [frame for frame in frames if "site-packages" not in frame.filename and not frame.filename.startswith((library, "<"))]
    place = f"{own[-1].filename}, line {own[-1].lineno}: " if own else ""
    if isinstance(error, SyntaxError) and error.filename:
        place = f"{error.filename}, line {error.lineno}: "
    first = (str(error).strip().splitlines() or [""])[0]
    raise TaskError(f"{where} failed: {place}{type(error).__name__}: {first} (--debug shows the traceback)") from error


def understand(returned: Any, name: str) -> dict[str, Any]:
    """What the function returned, by field."""
    import keras

    if isinstance(returned, Mapping):
        fields = dict(returned)
    elif isinstance(returned, tuple) and 2 <= len(returned) <= len(FIELDS):
        fields = dict(zip(FIELDS, returned, strict=False))
    else:
        raise TaskError(f"{name} returned {kind(returned)}; {RETURNS} is needed.")
    unknown = [str(key) for key in fields if key not in FIELDS]
    if unknown or not {"model", "data"} <= fields.keys():
        raise TaskError(f"{name} returned a dict with {', '.join(map(str, fields)) or 'nothing'}; {RETURNS} is needed.")
    if not isinstance(fields["model"], keras.Model):
        raise TaskError(f"{name} returned {kind(fields['model'])} as its model; a keras.Model is needed.")
    return fields


def kind(value: Any) -> str:
    """What a value is, for a message."""
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return "None" if value is None else f"an object of type {type(value).__name__}"


def parts(data: Any, name: str, validation: float, seed: int) -> tuple[Part, Part | None, list[str]]:
    """The data to train on, those to watch, and notes."""
    notes: list[str] = []
    if is_pair(data):
        x, y = arrays(data, name)
        labels = y if y.ndim == 1 and y.dtype.kind in "iu" and len(np.unique(y)) < len(y) / 2 else None
        if labels is not None:
            known, labels = np.unique(y, return_inverse=True)
            train, watched, notes = split(
                len(y), validation, seed, labels=labels.astype(np.int32), names=tuple(map(str, known))
            )
        else:
            train, watched, notes = split(len(y), validation, seed)
        whole = Arrays(x, y)
        return Arrays(*whole.read(train)), Arrays(*whole.read(watched)), notes
    if isinstance(data, tuple) and len(data) == 2:
        return part(data[0], f"{name}: the data to train on"), part(data[1], f"{name}: the validation data"), notes
    notes.append("there is no validation data: return (train, validation) to watch how well it generalises")
    return part(data, f"{name}: the data"), None, notes


def part(data: Any, name: str) -> Part:
    """Arrays, or batches."""
    if is_pair(data):
        return Arrays(*arrays(data, name))
    if isinstance(data, str | bytes | Mapping) or not (hasattr(data, "__iter__") or hasattr(data, "__getitem__")):
        raise TaskError(f"{name} is {kind(data)}: (x, y) of arrays or batches of (x, y) are needed.")
    if iter_is_itself(data):
        raise TaskError(f"{name} is a generator, which ends after one pass: return something that can be gone through again.")
    return Batched(data, name)


def iter_is_itself(data: Any) -> bool:
    """A generator, or another iterator: it can be gone through once."""
    return hasattr(data, "__next__")


def is_pair(data: Any) -> bool:
    """(x, y) of arrays, x may be a dict of arrays."""
    return (
        isinstance(data, tuple | list)
        and len(data) == 2
        and is_array(data[1])
        and (is_array(data[0]) or (isinstance(data[0], Mapping) and all(map(is_array, data[0].values()))))
    )


def is_array(value: Any) -> bool:
    """NumPy's, or any framework's."""
    return hasattr(value, "shape") and hasattr(value, "dtype")


def arrays(data: Any, name: str) -> tuple[Any, Any]:
    """(x, y) as NumPy arrays with one example a row."""
    import keras

    x, y = data
    x = (
        {key: keras.ops.convert_to_numpy(value) for key, value in x.items()}
        if isinstance(x, Mapping)
        else keras.ops.convert_to_numpy(x)
    )
    y = keras.ops.convert_to_numpy(y)
    lengths = {len(array) if array.ndim else -1 for array in (*(x.values() if isinstance(x, dict) else (x,)), y)}
    if len(lengths) != 1 or lengths <= {-1, 0}:
        raise TaskError(f"{name} has arrays of different lengths or without examples: one row an example is needed in each.")
    return x, y


def guess(model: Any, train: Part, name: str, metrics: Any) -> tuple[Any, Any, str]:
    """Loss and metrics for a function that names no loss."""
    import keras

    if isinstance(train, Batched):
        raise TaskError(f"{name} returns batches and no loss: return the loss too, what model.compile takes.")
    y = train.y  # type: ignore[attr-defined]  # what is not Batched is Arrays here
    if y.dtype.kind in "iu":
        last = getattr(model.layers[-1], "activation", None) if model.layers else None
        probabilities = getattr(last, "__name__", "") == "softmax"
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=not probabilities)
        what = "probabilities" if probabilities else "logits"
        return loss, metrics or ["accuracy"], f"no loss was returned: cross-entropy of whole numbers, the model giving {what}"
    if y.dtype.kind == "f":
        return "mean_squared_error", metrics or ["mae"], "no loss was returned: the mean squared error"
    raise TaskError(f"{name} returns y of dtype {y.dtype} and no loss: return the loss too, what model.compile takes.")


def model_metrics(model: Any) -> Any:
    """The metrics that a model was compiled with."""
    return (model.get_compile_config() or {}).get("metrics")


def main_metric(metrics: Any) -> str:
    """The name that Keras will give the first metric, or ""."""
    first = next(iter(metrics), None) if isinstance(metrics, tuple | list) else metrics
    if isinstance(first, str):
        return {"acc": "accuracy"}.get(first, first)
    if isinstance(first, Mapping):  # a configuration
        return str(first.get("config", {}).get("name", ""))
    return str(getattr(first, "name", None) or getattr(first, "__name__", "")) if first is not None else ""
