"""What is recorded of an epoch, and the CSV file that it is recorded in."""

import os
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Epoch:
    """One row of metrics.csv.

    Attributes:
        epoch: From 1.
        loss: Mean over the epoch's training images, each under the weights that it met.
        accuracy: Share of those images that were right, in [0, 1].
        val_loss: On the validation images, after the epoch.
        val_accuracy: Likewise.
        learning_rate: At the end of the epoch.
        momentum: Likewise.
        seconds: Wall clock, compilation and validation included. The only column in which two runs with one seed differ.
    """

    epoch: int
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    learning_rate: float
    momentum: float
    seconds: float


COLUMNS = tuple(field.name for field in fields(Epoch))


def digits32(value: float) -> str:
    """The shortest decimal that reads back as the same float32. What a run measures is float32."""
    return str(np.float32(value))


class MetricsFile:
    """metrics.csv: a header, then one row an epoch. A row is written in one piece and is on the disk before the next epoch."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb", buffering=0)
        self._write(COLUMNS)

    def append(self, row: Epoch) -> None:
        """Add an epoch."""
        values = [getattr(row, name) for name in COLUMNS]
        self._write([str(values[0]), *map(digits32, values[1:-1]), f"{row.seconds:.3f}"])

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, cells: "tuple[str, ...] | list[str]") -> None:
        self._file.write((",".join(cells) + "\n").encode("ascii"))
        os.fsync(self._file.fileno())
