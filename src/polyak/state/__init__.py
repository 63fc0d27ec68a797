"""The state of an optimizer in a file that every front-end of Polyak reads.

    polyak.state.save("state.safetensors", torch_optimizer, model)
    polyak.state.load("state.safetensors", keras_optimizer, other_model)

The file is of the format safetensors: tensors named `slot/parameter name`, such as `velocity/dense/kernel`, in the dtypes that
they have in memory, and metadata in JSON. Reading one executes nothing. docs/state.md shows how a run goes on in another
framework.
"""

from os import PathLike
from pathlib import Path
from typing import Any

from polyak.state import file
from polyak.state.contents import Contents
from polyak.state.frontends import adapter
from polyak.state.loading import source_of
from polyak.state.matching import Report, Transform, matched
from polyak.state.names import Rename
from polyak.state.writing import uninterrupted, write

__all__ = ["Contents", "Report", "load", "read", "save"]


def save(path: str | PathLike[str], optimizer: Any, params: Any = None) -> None:
    """Write the state of an optimizer to a file.

    The file takes the place of one that is there as a whole: whatever happens, there is the old one or the new one. One tensor
    at a time is brought into host memory; those that lie there are not copied.

    Args:
        path: The file. ".safetensors" is its usual suffix.
        optimizer: An optimizer of `polyak.numpy`, `polyak.torch` or `polyak.keras`; for `polyak.jax`, where the state is apart,
            the pair (transformation, state), with the transformation that made the last step, as `polyak.jax.momentum` or
            another function there returned it, and the state of it or of what it is part of. Of other libraries:
            torch.optim.SGD, torch.optim.Muon or a state_dict of them, keras.optimizers.SGD, the state of optax.sgd.
        params: What gives the parameters their names. PyTorch: the model, named parameters or a dict; may be left out where the
            optimizer was made with named parameters. Keras: the model or a dict; names are the variables' paths, without
            the model's own name. JAX: may be left out; names are the keys of the tree. NumPy: none, names are those of the
            optimizer.

    Raises:
        ValueError: Parameters without a name, names that are not unique, or numbers that the method cannot have.
        TypeError: An optimizer that is not known here.
        OSError: The file cannot be written.

    Example:
        >>> optimizer = polyak.numpy.Momentum({"w": np.zeros(3)})
        >>> save("state.safetensors", optimizer)
        >>> read("state.safetensors").tensors
        {'velocity/w': Spec(shape=(3,), dtype='float64')}
    """
    write(Path(path), adapter(optimizer).capture(optimizer, params))


def load(
    path: Any,
    optimizer: Any,
    params: Any = None,
    *,
    strict: bool = True,
    rename: Rename | None = None,
    transform: Transform | None = None,
) -> Report:
    """Give an optimizer the state in a file: its slots, learning rate and other numbers, and the count of steps.

    The optimizer is changed when everything has been read and fits, and is as it was before if there is an error. It must be of
    the method that was saved. Options that it was made with stay, and so do schedules, which go on at the saved step. A
    velocity of `Momentum` in another unit is converted; see `polyak.state.units`. Numbers are kept as they are, or widened to
    the slot's dtype.

    Args:
        path: The file; or a ".keras" file, whose optimizer is taken; or an optimizer, as in `save`.
        optimizer: The one that takes the state over, as in `save`. The optimizers of other libraries cannot.
        params: What gives its parameters their names, as in `save`.
        strict: Everything that is saved must fit, and nothing may be missing. False loads what fits.
        rename: From the saved name of a parameter to the optimizer's: a function, or a dict of those that differ.
        transform: What is done to the saved arrays: a function of the optimizer's name of the parameter and the array,
            or a dict from name to function of the array. For example `{"dense/kernel": np.transpose}`.

    Returns:
        What was loaded, what was left and what differs. For JAX, `.state` is the new state.

    Raises:
        ValueError: The file is broken, or the state does not fit: one error that lists everything.
        TypeError: An optimizer that is not known here or cannot take a state over.
        OSError: The file cannot be read.

    Example:
        >>> report = load("state.safetensors", optimizer)
        >>> report.loaded
        ('velocity/w',)
    """
    front_end = adapter(optimizer)
    target = front_end.capture(optimizer, params)
    with source_of(path) as source:
        values, report = matched(source, target.contents, strict=strict, rename=rename, transform=transform)
    with uninterrupted():
        state = front_end.restore(optimizer, params, values)
    return report if state is None else report.with_state(state)


def read(path: str | PathLike[str]) -> Contents:
    """What a file holds, without its numbers: names, shapes, dtypes, method, options, hyperparameters and the count of steps.

    It takes at most 32 MiB of memory and eight times the length of the file's header, which can have 8 MiB.

    Raises:
        ValueError: The file is broken, or is no state.
        OSError: It cannot be read.
    """
    return file.read(Path(path))
