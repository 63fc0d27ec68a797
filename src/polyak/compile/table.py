"""Addresses and lengths of the tensors of a group, cut into chunks."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

# Elements a chunk: long enough that a chunk's own cost vanishes, short enough that threads share the work evenly.
CHUNK = 1 << 16


class Table:
    """Where the weights and slots of a group are, and how the work is cut.

    A table does not hold the memory that it points to: whoever builds one keeps the arrays, and builds another when one moves.
    The gradients, which move at every step, are not in it.

    Attributes:
        addresses: int64, (1 + slots, tensors): the weights' row, then one row for each slot.
        chunks: int64, (chunks, 3): tensor, first element, number of elements. A tensor has at least one chunk, if empty.
        size: The number of elements of all tensors together.
    """

    def __init__(self, lengths: Sequence[int], addresses: Sequence[Sequence[int]]) -> None:
        """Cut the work.

        Args:
            lengths: The number of elements of each tensor.
            addresses: The weights' addresses, then those of each slot. Each points to contiguous elements.
        """
        n = np.asarray(lengths, np.int64)
        self.addresses = np.asarray(addresses, np.int64).reshape(len(addresses), n.size)
        self.size = int(n.sum())
        count = np.maximum(1, -(-n // CHUNK))
        self._first = np.cumsum(count) - count  # the first chunk of each tensor
        tensor = np.repeat(np.arange(n.size), count)
        start = (np.arange(tensor.size) - self._first[tensor]) * CHUNK
        self.chunks = np.stack([tensor, start, np.minimum(CHUNK, n[tensor] - start)], axis=1)
        self._bounds: dict[int, npt.NDArray[np.int64]] = {}

    @cached_property
    def no_sums(self) -> npt.NDArray[np.float64]:
        """What a kernel without sums is given in their place: it takes a row of it for each chunk and leaves it alone."""
        return np.empty((len(self.chunks), 0))

    def bounds(self, threads: int) -> npt.NDArray[np.int64]:
        """Where each thread's run of chunks begins, and the end: runs of about the same number of elements."""
        if threads not in self._bounds:
            done = np.concatenate([[0], np.cumsum(self.chunks[:, 2])])
            cuts = np.searchsorted(done, self.size * np.arange(1, threads) / threads)
            self._bounds[threads] = np.concatenate([[0], cuts, [len(self.chunks)]]).astype(np.int64)
        return self._bounds[threads]

    def by_tensor(self, sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The sums of the chunks, (chunks, columns), added up for each tensor, in the order of the chunks."""
        return np.add.reduceat(sums, self._first, axis=0) if len(sums) else sums


def address(array: npt.NDArray[Any]) -> int:
    """Where a NumPy array's elements begin."""
    return int(array.__array_interface__["data"][0])
