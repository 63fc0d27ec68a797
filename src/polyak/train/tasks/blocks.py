"""A table that is larger than memory: its rows are read from Parquet in pieces, of which some are kept."""

import threading
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from polyak.train.tasks import task
from polyak.train.tasks.columns import Column, cells
from polyak.train.tasks.files import File
from polyak.train.tasks.task import Numbers

SIZE = 65_536  # rows of a piece. Of a row group that is larger, polars decodes only the pages that it needs


class Store:
    """The rows of a file as numbers, with the pieces that were used last in memory.

    Args:
        file: The table.
        columns: What of it is looked at.
    """

    def __init__(self, file: File, columns: list[Column]) -> None:
        self.size = SIZE
        self.blocks = -(-file.rows // SIZE)
        self.width = sum(column.cells for column in columns)
        self.held = max(1, task.MEMORY // (SIZE * self.width * 4))
        self._file = file
        self._columns = columns
        self._kept: OrderedDict[int, NDArray[np.float32]] = OrderedDict()
        self._lock = threading.Lock()  # training may read ahead while validation reads

    def rows(self, numbers: Numbers) -> NDArray[np.float32]:
        """These rows of the file, in this order."""
        out = np.empty((len(numbers), self.width), np.float32)
        of = numbers // self.size
        with self._lock:
            # Those in memory first: reading another piece may push them out.
            for block in sorted(np.unique(of).tolist(), key=lambda block: block not in self._kept):
                here = of == block
                out[here] = self._block(block)[numbers[here] - block * self.size]
        return out

    def _block(self, block: int) -> NDArray[np.float32]:
        if block not in self._kept:
            while len(self._kept) >= self.held:
                self._kept.popitem(last=False)
            names = [column.name for column in self._columns]
            self._kept[block] = cells(self._columns, self._file.rows_of(names, block * self.size, self.size))
        self._kept.move_to_end(block)
        return self._kept[block]


class Blocks:
    """Some rows of a store, as a source of examples.

    Args:
        store: The rows.
        numbers: Which of them, in ascending order.
        y: What is learned, for all rows of the store.
    """

    def __init__(self, store: Store, numbers: Numbers, y: NDArray[np.generic]) -> None:
        self._store = store
        self._numbers = numbers
        self._y = y[numbers]

    def __len__(self) -> int:
        return len(self._numbers)

    def order(self, rng: np.random.Generator) -> Numbers:
        """Pieces in random order, as many at a time as memory holds, and the rows of these in random order.

        So an epoch reads each piece once.
        """
        store = self._store
        edges = np.searchsorted(self._numbers, np.arange(store.blocks + 1) * store.size)
        pieces = rng.permutation(store.blocks)
        windows = [pieces[start : start + store.held] for start in range(0, store.blocks, store.held)]
        return np.concatenate(
            [rng.permutation(np.concatenate([np.arange(edges[p], edges[p + 1]) for p in window])) for window in windows]
        )

    def read(self, numbers: Numbers) -> tuple[NDArray[np.float32], NDArray[np.generic]]:
        """The rows of these numbers."""
        return self._store.rows(self._numbers[numbers]), self._y[numbers]
