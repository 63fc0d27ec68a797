"""All that a run is at a moment, in the files of a checkpoint.

    weights.npz             the model's variables, with statistics of batch normalisation and the states of random seeds; what
                            the metrics have summed up in this epoch; the optimizer's own variables beside its slots
    optimizer.safetensors   the optimizer's state, which moves between frameworks: see polyak.state
    random.json             the generators of Python, NumPy, Keras and PyTorch

Imported once Keras's backend is chosen.
"""

import json
import random
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras.src.backend.common.global_state import get_global_attribute
from keras.src.random.seed_generator import GLOBAL_SEED_GENERATOR, global_seed_generator

import polyak.state
from polyak.state.contents import State, numpy_dtype
from polyak.state.frontends import adapter
from polyak.state.keras import _named, _slots
from polyak.state.writing import write

WEIGHTS, OPTIMIZER, RANDOM = "weights.npz", "optimizer.safetensors", "random.json"

Arrays = dict[str, np.ndarray[Any, Any]]


class Misfit(ValueError):  # noqa: N818  (it says what does not fit)
    """A checkpoint is of another model or optimizer."""


def synced(model: Any) -> Any:
    """The model, after its variables have the values of this moment, which in `fit` on JAX are elsewhere."""
    if hasattr(model, "jax_state_sync"):
        model.jax_state_sync()
    return model


class Snapshot:
    """All that a run is at a moment, in memory of its own, so that training can go on while it is written.

    Args:
        model: The model, compiled and built.
        optimizer: Its optimizer, without a wrapper that scales the loss.
        generators: Of random numbers.
        others: Variables of the optimizer that are of no account when training goes on.
    """

    def __init__(self, model: Any, optimizer: Any, generators: "Generators", others: Iterable[Any] = ()) -> None:
        variables = _variables(synced(model), optimizer, others)
        self._weights = {name: np.array(keras.ops.convert_to_numpy(v)) for name, v in variables.items()}
        state: State = adapter(optimizer).capture(optimizer, model)
        slots = {name: np.array(state.array(name)) for name in state.contents.tensors}
        self._optimizer = State(state.contents, slots.__getitem__)
        self._random = json.dumps({"epoch": generators.epoch, "now": random_state()})

    def write(self, folder: Path) -> None:
        """Write the files."""
        with (folder / WEIGHTS).open("wb") as file:
            np.savez(file, **self._weights)  # type: ignore[arg-type]  # the stub takes any name for allow_pickle
        write(folder / OPTIMIZER, self._optimizer)
        (folder / RANDOM).write_text(self._random, encoding="ascii")


def restore(folder: Path, model: Any, optimizer: Any, others: Iterable[Any] = ()) -> Arrays:
    """Give the model and the optimizer the state in the files.

    Returns:
        What the metrics had summed up: `fit` begins an epoch by forgetting it, and `restore_metrics` brings it back after that.

    Raises:
        Misfit: The state is that of another model or optimizer.
    """
    variables = _variables(model, optimizer, others)
    with np.load(folder / WEIGHTS, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    wrong = [f"{name} is missing here" for name in sorted(arrays.keys() - variables.keys())]
    wrong += [f"{name} is new" for name in sorted(variables.keys() - arrays.keys())]
    wrong += [
        f"{name} had the shape {arrays[name].shape} and has {tuple(v.shape)}"
        for name, v in variables.items()
        if name in arrays and arrays[name].shape != tuple(v.shape)
    ]
    if wrong:
        raise Misfit(f"the checkpoint is of another model: {'; '.join(wrong)}")
    try:
        polyak.state.load(folder / OPTIMIZER, optimizer, model)
    except ValueError as error:
        raise Misfit(f"the checkpoint is of another optimizer: {error}") from error
    metrics = {name: arrays[name] for name in variables if name.startswith("metrics/")}
    for name in variables.keys() - metrics.keys():
        _assign(variables[name], arrays[name])
    return metrics


def restore_metrics(model: Any, arrays: Arrays) -> None:
    """Give the metrics what they had summed up."""
    for name, v in _of_metrics(model).items():
        _assign(v, arrays[name])


def _variables(model: Any, optimizer: Any, others: Iterable[Any]) -> dict[str, Any]:
    """Everything that is in weights.npz, by its name there."""
    elsewhere = {id(v) for v in (*_slots(optimizer, _named(optimizer, model)).values(), *others)}
    own = [v for v in model.optimizer.variables if id(v) not in elsewhere]
    return _named_by_path("model", model.variables, model.name) | _of_metrics(model) | _named_by_path("optimizer", own)


def _of_metrics(model: Any) -> dict[str, Any]:
    return _named_by_path("metrics", model.metrics_variables)


def _named_by_path(kind: str, variables: Iterable[Any], root: str = "") -> dict[str, Any]:
    """Variables by their paths, in which the model's own name has no part; of equal paths, all but the first have a number."""
    seen: Counter[str] = Counter()
    named = {}
    for v in variables:
        path = f"{kind}/{v.path.removeprefix(f'{root}/')}"
        seen[path] += 1
        named[path if seen[path] == 1 else f"{path}#{seen[path]}"] = v
    return named


def _assign(variable: Any, array: Any) -> None:
    dtype = keras.backend.standardize_dtype(variable.dtype)
    if array.dtype.kind == "V":  # one that NumPy does not have, such as bfloat16
        array = array.view(numpy_dtype(dtype))
    variable.assign(keras.ops.convert_to_tensor(array, dtype=dtype))


class Generators:
    """The generators of Python, NumPy, Keras and PyTorch.

    Attributes:
        epoch: Their states when the present epoch began.
        now: Those at the checkpoint from which the run goes on.
    """

    def __init__(self) -> None:
        self.epoch = self.now = random_state()

    def epoch_begins(self) -> None:
        """Remember the states of this moment."""
        self.epoch = random_state()

    def read(self, folder: Path) -> None:
        """Take the states from a checkpoint, without giving them to the generators yet."""
        states = json.loads((folder / RANDOM).read_text(encoding="ascii"))
        self.epoch, self.now = states["epoch"], states["now"]

    def as_at_the_beginning_of_the_epoch(self) -> None:
        """See `polyak.train.batches.Generators`."""
        set_random_state(self.epoch)

    def as_now(self) -> None:
        """See `polyak.train.batches.Generators`."""
        set_random_state(self.now)


def random_state() -> dict[str, Any]:
    """The states of all generators, for JSON."""
    version, words, gauss = random.getstate()
    name, keys, place, has_gauss, cached = np.random.get_state()  # noqa: NPY002  (the generator that others' code uses)
    seeds = get_global_attribute(GLOBAL_SEED_GENERATOR)
    state: dict[str, Any] = {
        "python": [version, list(words), gauss],
        "numpy": [name, np.asarray(keys).tolist(), place, has_gauss, cached],
        "keras": None if seeds is None else keras.ops.convert_to_numpy(seeds.state).tolist(),
    }
    if keras.backend.backend() == "torch":
        import torch

        state["torch"] = torch.get_rng_state().numpy().tobytes().hex()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Give the generators their states. PyTorch's stays as it is if the state is from another backend."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    np.random.set_state(tuple(state["numpy"]))  # noqa: NPY002  (likewise)
    if state["keras"] is not None:
        _assign(global_seed_generator().state, np.array(state["keras"]))
    if keras.backend.backend() == "torch" and "torch" in state:
        import torch

        torch.set_rng_state(torch.frombuffer(bytearray.fromhex(state["torch"]), dtype=torch.uint8))
