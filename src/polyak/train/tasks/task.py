"""What a task is: examples, models for them, and what is measured."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

# A keras.Model: Keras ships no type information, and may be imported only once its backend is chosen.
Model = Any
Numbers = NDArray[np.int64]

# Decoded examples that may be held in memory, in bytes. What is larger is read again in each epoch.
MEMORY = 256 * 2**20


class TaskError(ValueError):
    """The data or the code that a person named cannot be trained on. The message says what it is and what to do."""


class Source(Protocol):
    """Examples by number. The same number gives the same example, always: this is what going on in mid-epoch rests on."""

    def __len__(self) -> int:
        """How many examples there are."""

    def order(self, rng: np.random.Generator) -> Numbers:
        """All numbers once, in the order of one epoch."""

    def read(self, numbers: Numbers) -> tuple[Any, Any]:
        """The examples of these numbers: x as the model takes it (an array, or a dict of arrays), and y, an array."""


@dataclass(frozen=True)
class Arrays:
    """Examples in memory.

    Attributes:
        x: An array, or a dict of arrays, with one example a row.
        y: An array with one row an example.
    """

    x: Any
    y: NDArray[Any]

    def __len__(self) -> int:
        return len(self.y)

    def order(self, rng: np.random.Generator) -> Numbers:
        """A permutation, each as likely as any other."""
        return rng.permutation(len(self))

    def read(self, numbers: Numbers) -> tuple[Any, NDArray[Any]]:
        """The rows of these numbers."""
        x = {name: array[numbers] for name, array in self.x.items()} if isinstance(self.x, Mapping) else self.x[numbers]
        return x, self.y[numbers]


class Batched:
    """Batches that somebody else makes: a keras.utils.PyDataset, a tf.data.Dataset, a torch DataLoader, a list of batches.

    Each pass gives (x, y) or (x, y, sample_weight) again. How they are made up and in which order they come is the business
    of who makes them.

    Args:
        data: The batches.
        name: What messages call them.
    """

    batched = True

    def __init__(self, data: Any, name: str) -> None:
        self.data = data
        self._name = name
        self._length = self._count()

    def _count(self) -> int:
        try:
            length = len(self.data)
        except TypeError:  # a dataset does not know its length before it was read once
            length = sum(1 for _ in self.data)
        if length < 1:
            raise TaskError(f"{self._name} has no batch.")
        return length

    def __len__(self) -> int:
        """Batches of one pass."""
        return self._length

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        """One pass."""
        if not hasattr(self.data, "on_epoch_end"):
            yield from self.data
            return
        # A PyDataset is read by number: it need not say where it ends. What it does between epochs, it may shuffle, is its own.
        for number in range(self._length):
            yield self.data[number]
        self.data.on_epoch_end()


@dataclass(frozen=True)
class Task:
    """Something to train on.

    Attributes:
        name: As on the command line.
        about: One line for people.
        kind: "classification": the model gives one logit a class, y is the class's number (int32). "regression": the model
            gives the value in its own units, y likewise (float32, shape (n, outputs)). "own": a person's own model and data.
        train: To train on.
        validation: To watch while training. None only for code that gives no such data.
        test: To use once, at the end. None for a person's own data.
        classes: Their names, by number.
        models: Name -> function that builds the model for what `train` gives. The first one is the default.
        loss: Gives what `model.compile` takes.
        metrics: Likewise.
        main: The metric that people look at, by the name that Keras gives it; "" where there is none.
        notes: How the data was understood, one line each: what was left out, filled in, converted.
        compiled: The model comes compiled with its own loss and metrics; only its optimizer is replaced.
    """

    name: str
    about: str
    kind: Literal["classification", "regression", "own"]
    train: Source | Batched
    validation: Source | Batched | None
    test: Source | None
    classes: tuple[str, ...] | None
    models: Mapping[str, Callable[[], Model]]
    loss: Callable[[], Any]
    metrics: Callable[[], Any]
    main: str
    notes: tuple[str, ...] = field(default=())
    compiled: bool = False
