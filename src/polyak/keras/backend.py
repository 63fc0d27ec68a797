"""The steps of the backend that this process uses: those in `tensorflow.py`, `jax.py` or `torch.py`, as `backend`."""

from importlib import import_module
from typing import Any

import keras

NAME = keras.backend.backend()
if NAME not in ("tensorflow", "jax", "torch"):
    raise ImportError(
        f"polyak.keras runs on the Keras backends tensorflow, jax and torch; this process uses {NAME!r}. "
        "Set the environment variable KERAS_BACKEND before keras is first imported."
    )
backend: Any = import_module(f"polyak.keras.{NAME}")
