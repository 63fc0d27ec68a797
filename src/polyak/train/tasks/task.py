"""What a task is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# A keras.Model: Keras ships no type information, and may be imported only once its backend is chosen.
Model = Any


class Data(NamedTuple):
    """Images and their labels.

    Attributes:
        images: float32, shape (n, height, width, channels), values in [0, 1].
        labels: int32, shape (n,), values in [0, classes).
    """

    images: NDArray[np.float32]
    labels: NDArray[np.int32]


class Splits(NamedTuple):
    """The three parts of a task's data: to train on, to watch while training, and to use once, at the end."""

    train: Data
    validation: Data
    test: Data


@dataclass(frozen=True)
class Task:
    """Something to train on.

    Attributes:
        name: Its name on the command line.
        about: One line for people.
        train_size: How many images an epoch has. Known without loading anything, so that options are checked at once.
        load: Gives the data. The split is part of the task: it is the same for every seed.
        models: Name -> function that builds the model, which gives one logit a class. The first one is the default.
    """

    name: str
    about: str
    train_size: int
    load: Callable[[], Splits]
    models: dict[str, Callable[[], Model]]
