"""What is recorded of an epoch, and the CSV files that it is recorded in."""

import csv
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Epoch:
    """What was measured in an epoch.

    Attributes:
        epoch: From 1.
        step: Steps made since the start of the run.
        values: By name. `loss` and the metrics are means over the epoch's training examples, each under the weights that it
            met; `val_loss` and so on are those on the validation examples, after the epoch.
        learning_rate: At the end of the epoch.
        momentum: Likewise. None where the optimizer has no single one.
        seconds: Wall clock since the start of training, compilation and validation included, over all sittings.
    """

    epoch: int
    step: int
    values: Mapping[str, float]
    learning_rate: float
    momentum: float | None
    seconds: float


def digits32(value: float) -> str:
    """The shortest decimal that reads back as the same float32. What a run measures is float32."""
    return str(np.float32(value))


class Rows:
    """A CSV file that grows by whole rows, each written in one piece.

    Args:
        path: The file. It is made if it is not there; rows that are there stay.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)

    def append(self, *rows: Sequence[str]) -> None:
        """Add rows."""
        left = memoryview("".join(",".join(cells) + "\n" for cells in rows).encode())
        while left:  # of a disk that is nearly full, a part is taken
            left = left[self._file.write(left) :]

    def sync(self) -> None:
        """Wait until all rows are on the disk."""
        os.fsync(self._file.fileno())

    def size(self) -> int:
        """Bytes in the file."""
        return os.fstat(self._file.fileno()).st_size

    def cut(self, size: int) -> None:
        """Leave the first `size` bytes.

        Raises:
            ValueError: There are fewer.
        """
        if self.size() < size:
            raise ValueError(f"{self._file.name} has {self.size()} bytes, and had {size} when it was written.")
        os.ftruncate(self._file.fileno(), size)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class MetricsFiles:
    """metrics.csv and timing.csv: a header, then one row an epoch.

    They are two, since what the first one has is the same, byte for byte, in every run of the same configuration, however often
    it was stopped. Time never is.

    Args:
        folder: Of the run.
    """

    def __init__(self, folder: Path) -> None:
        self._files = {name: Rows(folder / name) for name in ("metrics.csv", "timing.csv")}

    def append(self, row: Epoch) -> None:
        """Add an epoch."""
        metrics, timing = self._files.values()
        if not metrics.size():
            metrics.append(("epoch", "step", *row.values, "learning_rate", "momentum"))
            timing.append(("epoch", "seconds"))
        momentum = "" if row.momentum is None else digits32(row.momentum)
        values = map(digits32, (*row.values.values(), row.learning_rate))
        metrics.append((str(row.epoch), str(row.step), *values, momentum))
        timing.append((str(row.epoch), f"{row.seconds:.3f}"))

    def sync(self) -> None:
        """Wait until all rows are on the disk."""
        for file in self._files.values():
            file.sync()

    def position(self) -> dict[str, int]:
        """The sizes of the files, to which they can be cut again."""
        return {name: file.size() for name, file in self._files.items()}

    def cut(self, position: Mapping[str, int]) -> None:
        """Leave what there was at a position.

        Raises:
            ValueError: There is less.
        """
        for name, file in self._files.items():
            file.cut(position[name])

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()


def summary(folder: Path) -> dict[str, float | None]:
    """What metrics.csv tells of a run: the validation part of its last row, and its best epoch, the one with the lowest loss on
    the validation examples, or, without any, on those of training. What is not finite is None.
    """
    with (folder / "metrics.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        return {}
    last = {name: float(value) for name, value in rows[-1].items() if name.startswith("val_")}
    loss = "val_loss" if "val_loss" in last else "loss"
    best = min(rows, key=lambda row: float(row[loss]))
    found = {**last, f"best_{loss}": float(best[loss])}
    return {
        "best_epoch": int(best["epoch"]),
        **{name: value if math.isfinite(value) else None for name, value in found.items()},
    }
