"""Choosing what Keras computes with. It reads its backend once, when it is first imported, so this comes before that."""

import logging
import os
import sys
import warnings
from importlib.util import find_spec
from typing import Any

# backend -> the module that it needs. The extra of the package has the name of the backend.
BACKENDS = {"tensorflow": "tensorflow", "jax": "jax", "torch": "torch"}

# TensorFlow's C++ code reports its own internals on standard error, some of them as errors that are none; what really fails
# comes as an exception. Where a person has set one of these, it stays.
QUIET = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "0",  # with it, each start prints a warning that results may differ from run to run
}


class MissingPackage(ImportError):  # noqa: N818  (it says what is missing)
    """A package that an option needs is not installed."""


def check_backend(backend: str) -> None:
    """Look for the packages of a backend without importing them.

    Raises:
        MissingPackage: With the command that installs what is missing.
    """
    for module in (BACKENDS[backend], "keras"):
        if find_spec(module) is None:
            raise MissingPackage(
                f'--backend {backend} needs {module}, which is not installed: pip install "polyak[{backend}]" brings it.'
            )


def check_installed(backend: str) -> None:
    """Look for the packages of a backend and of training without importing them.

    Raises:
        MissingPackage: With the command that installs what is missing.
    """
    check_backend(backend)
    for module in ("sklearn", "matplotlib", "rich"):
        if find_spec(module) is None:
            raise MissingPackage(f'polyak train needs {module}, which is not installed: pip install "polyak[train]" brings it.')


def quieten() -> None:
    """Let the frameworks that are imported later keep to themselves what is no error of the person's."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    logging.getLogger("absl").setLevel(logging.ERROR)


def choose(backend: str) -> None:
    """Import Keras on a backend.

    Raises:
        RuntimeError: Keras was imported before, on another backend.
    """
    os.environ["KERAS_BACKEND"] = backend

    import keras

    if keras.backend.backend() != backend:
        raise RuntimeError(f"Keras runs on {keras.backend.backend()} here already and cannot change to {backend}.")


def use(backend: str) -> None:
    """Import Keras on a backend, quietly, and make it repeat itself bit for bit.

    Raises:
        RuntimeError: Keras was imported before, on another backend.
    """
    quieten()
    if not sys.warnoptions:  # python -W and PYTHONWARNINGS show them
        warnings.simplefilter("ignore")
    choose(backend)
    if backend == "tensorflow":
        import tensorflow

        tensorflow.config.experimental.enable_op_determinism()
    elif backend == "torch":
        import torch

        torch.use_deterministic_algorithms(True)


def leave_tensorflow_out() -> None:
    """Keep Keras from importing TensorFlow on another backend, which takes it longer than all else that a short run does.

    Where it is installed Keras seeds it, and looks for its types in what it saves, on every backend. In a process that has not
    imported it there is nothing to seed and nothing to find. A person's own code may: its data may be shuffled by tf.data.
    """
    from keras.src.utils import module_utils

    lazy: Any = getattr(module_utils, "tensorflow", None)
    if "tensorflow" not in sys.modules and hasattr(lazy, "_available"):  # else it is imported, and all goes on as well
        lazy._available = False
