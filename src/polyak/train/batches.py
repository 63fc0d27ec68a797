"""The batches of a run: a stream that depends on the seed alone and can begin at any batch.

So a run that was stopped goes on with the batches that it would have had. Imported once Keras's backend is chosen.
"""

import operator
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count, islice
from typing import Any, Protocol

import keras
import numpy as np
from keras.src.trainers.data_adapters.data_adapter import DataAdapter

from polyak.train.tasks import Arrays, Batched, Source
from polyak.train.tasks.task import Numbers

# Batches that are read while the model is busy with earlier ones, where reading takes time.
AHEAD = 3

Batch = tuple[Any, ...]


@dataclass(frozen=True)
class Passes:
    """Passes through examples.

    Attributes:
        order: Of a pass, by its number, the numbers of the examples in their order.
        first: The number of the first pass.
        count: How many there are; None without an end.
        over: Batches of the first pass that are over.
    """

    order: Callable[[int], Numbers]
    first: int = 0
    count: int | None = None
    over: int = 0

    def batches(self, size: int) -> Iterator[Numbers]:
        """The numbers of the examples in each batch. The last batch of a pass may have fewer."""
        orders = map(self.order, islice(count(self.first), self.count))
        return islice((order[i : i + size] for order in orders for i in range(0, len(order), size)), self.over, None)


class Generators(Protocol):
    """The generators of random numbers that batches and layers of others may draw from."""

    def as_at_the_beginning_of_the_epoch(self) -> None:
        """Give them the states that they had when the epoch began in which a checkpoint was made."""

    def as_now(self) -> None:
        """Give them the states that they had at the checkpoint."""


def training(
    data: Source | Batched, batch_size: int, seed: int, epoch: int = 0, batch: int = 0, generators: Generators | None = None
) -> DataAdapter:
    """The batches of this and all later epochs, one after the other without an end.

    Args:
        data: The examples. Or batches: of these, all are drawn again from the first one of the run on, so that a shuffle which
            goes on from pass to pass comes to the same order.
        batch_size: Examples a batch. The last batch of an epoch may have fewer.
        seed: Of the orders.
        epoch: Epochs that are over.
        batch: Batches of the next one that are over.
        generators: Of random numbers, which a shuffle of batches may draw from.
    """
    if isinstance(data, Batched):
        return _drawn(data, epoch, batch, generators)

    def order(n: int) -> Numbers:
        return data.order(np.random.default_rng([seed, n]))

    return _of(data, Passes(order, first=epoch, over=batch), batch_size, None)


def _drawn(data: Batched, epoch: int, batch: int, generators: Generators | None) -> DataAdapter:
    def drawn() -> Iterator[Batch]:
        batches = (tuple_of(b) for _ in count() for b in data)
        _pass_by(batches, epoch * len(data))
        if batch and generators:
            generators.as_at_the_beginning_of_the_epoch()
        _pass_by(batches, batch)
        if generators:
            generators.as_now()
        yield from batches

    def dataset() -> Any:
        if generators:
            generators.as_now()
        return data.data.repeat().skip(epoch * len(data) + batch)

    return Stream(drawn, lambda: first_of(data), None, dataset if hasattr(data.data, "element_spec") else None, ahead=0)


def _pass_by(batches: Iterator[Batch], number: int) -> None:
    deque(islice(batches, number), maxlen=0)


def evaluation(data: Source | Batched, batch_size: int) -> DataAdapter:
    """The batches of one pass, in the order that the data has."""
    if isinstance(data, Batched):
        dataset = (lambda: data.data) if hasattr(data.data, "element_spec") else None
        return Stream(lambda: map(tuple_of, data), lambda: first_of(data), len(data), dataset, ahead=0)
    return _of(data, Passes(lambda _: np.arange(len(data)), count=1), batch_size, -(-len(data) // batch_size))


def _of(data: Source, passes: Passes, batch_size: int, length: int | None) -> DataAdapter:
    if isinstance(data, Arrays):
        return InMemory(data, passes, batch_size, length)

    full = batch_size if len(data) % batch_size == 0 else None
    return Stream(lambda: ahead(data.read, passes.batches(batch_size)), lambda: first_of(data), length, full=full)


def tuple_of(batch: Any) -> Batch:
    """A batch as `fit` takes it: a tuple of what there is of x, y and sample weights."""
    parts = batch if isinstance(batch, tuple | list) else (batch,)
    return tuple(part for part in parts if part is not None)


def first_of(data: Source | Batched) -> Batch:
    """A batch that tells what the others are like."""
    return tuple_of(next(iter(data))) if isinstance(data, Batched) else data.read(np.arange(1))


def ahead(read: Callable[[Numbers], Batch], numbers: Iterable[Numbers]) -> Iterator[Batch]:
    """Batches in this order, read by one thread in the background."""
    left = iter(numbers)
    with ThreadPoolExecutor(1) as thread:
        waiting = deque(thread.submit(read, n) for n in islice(left, AHEAD))
        while waiting:
            batch = waiting.popleft().result()
            waiting.extend(thread.submit(read, n) for n in islice(left, 1))
            yield batch


class Stream(DataAdapter):  # type: ignore[misc]  # Keras ships no type information
    """Batches as `fit` and `evaluate` take them, in the same order on every backend.

    Args:
        batches: Begins the batches, tuples of arrays.
        first: Gives one that tells what the others are like, however far on they begin.
        length: How many there are; None without an end.
        dataset: Gives them as a dataset of TensorFlow, where they come from one.
        ahead: Batches that TensorFlow may draw before they are needed. A shuffle that draws from a generator which others draw
            from too must not be ahead of them.
        full: Examples a batch, where all have as many; else None.
    """

    def __init__(
        self,
        batches: Callable[[], Iterator[Batch]],
        first: Callable[[], Batch],
        length: int | None,
        dataset: Callable[[], Any] | None = None,
        ahead: int = AHEAD,
        full: int | None = None,
    ) -> None:
        self._batches = batches
        self._first = first
        self._length = length
        self._dataset = dataset
        self._ahead = ahead
        self._full = full

    @property
    def num_batches(self) -> int | None:
        """How many batches there are."""
        return self._length

    @property
    def batch_size(self) -> None:
        """Not the same for all batches."""
        return

    def get_numpy_iterator(self) -> Iterator[Any]:
        """The batches as arrays of NumPy."""
        return (_each(np.asarray, batch) for batch in self._batches())

    def get_jax_iterator(self) -> Iterator[Any]:
        """The batches for JAX, which takes NumPy's arrays."""
        return self.get_numpy_iterator()

    def get_torch_dataloader(self) -> Iterator[Any]:
        """The batches as tensors of PyTorch."""
        return (_each(keras.ops.convert_to_tensor, batch) for batch in self._batches())

    def get_tf_dataset(self) -> Any:
        """The batches as a dataset of TensorFlow."""
        if self._dataset is not None:
            return self._dataset()
        import tensorflow as tf

        first = _each(np.asarray, self._first())
        # A number of examples that is known makes the graph of the model faster.
        signature = _each(lambda a: tf.TensorSpec((self._full, *a.shape[1:]), a.dtype), first)
        batches = tf.data.Dataset.from_generator(self.get_numpy_iterator, output_signature=signature)
        return batches.prefetch(self._ahead) if self._ahead else batches


class InMemory(Stream):
    """Batches of arrays that are in memory, taken out of them by the backend's own means.

    Args:
        data: The arrays.
        passes: Through them.
        batch_size: Examples a batch.
        length: How many batches there are; None without an end.
    """

    def __init__(self, data: Arrays, passes: Passes, batch_size: int, length: int | None) -> None:
        super().__init__(lambda: map(data.read, passes.batches(batch_size)), lambda: first_of(data), length)
        self._data = data
        self._passes = passes
        self._size = batch_size

    def get_torch_dataloader(self) -> Iterator[Any]:
        """The batches as tensors of PyTorch, from tensors."""
        import torch

        data = _each(keras.ops.convert_to_tensor, (self._data.x, self._data.y))
        return (_each(operator.itemgetter(torch.as_tensor(n)), data) for n in self._passes.batches(self._size))

    def get_tf_dataset(self) -> Any:
        """The batches as a dataset of TensorFlow. Python is asked once a pass."""
        import tensorflow as tf

        size, passes, examples = self._size, self._passes, len(self._data)
        data = _each(tf.convert_to_tensor, (self._data.x, self._data.y))

        def order(n: Any) -> Any:
            return tf.ensure_shape(tf.numpy_function(passes.order, [n], tf.int64), (examples,))

        def batched(order: Any) -> Any:
            whole = examples // size * size
            full = tf.data.Dataset.from_tensor_slices(tf.reshape(order[:whole], (-1, size)))
            return full if whole == examples else full.concatenate(tf.data.Dataset.from_tensors(order[whole:]))

        # All sizes are known before the first batch, for that makes the graphs faster, those of the model too. A dataset from a
        # generator would make the model's a third slower.
        last = np.iinfo(np.int64).max if passes.count is None else passes.first + passes.count
        orders = tf.data.Dataset.range(passes.first, last).map(order).prefetch(1)
        numbers = orders.flat_map(batched).skip(passes.over)
        batches = numbers.map(lambda n: _each(lambda a: tf.gather(a, n), data), tf.data.AUTOTUNE)
        options = tf.data.Options()
        # As Keras does for arrays: to make the graph smaller would take longer than it saves.
        options.experimental_optimization.apply_default_optimizations = False
        return batches.with_options(options).prefetch(tf.data.AUTOTUNE)


def _each(change: Callable[[Any], Any], batch: Any) -> Any:
    """Change every array of a batch."""
    return keras.tree.map_structure(change, batch)
