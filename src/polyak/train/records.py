"""What is written into the folder of a run while it trains: epochs, steps and checkpoints."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from polyak.train import checkpoints
from polyak.train.checkpoints import Every
from polyak.train.job import Job
from polyak.train.metrics import Epoch, MetricsFiles
from polyak.train.position import Position
from polyak.train.recording import Recording

CHECKPOINTS = "checkpoints"


class Records:
    """Writes what `polyak.train.watch.Watch` tells it.

    Args:
        folder: Of the run.
        job: What is trained, built.
        recording: Of its steps.
        written: What the checkpoint said with which the run goes on; None for a new run.
    """

    def __init__(self, folder: Path, job: Job, recording: Recording, written: Mapping[str, Any] | None = None) -> None:
        self._checkpoints = folder / CHECKPOINTS
        self._job = job
        self._recording = recording
        self._metrics = MetricsFiles(folder)
        self._every = Every.parse(job.options.checkpoint)
        self._saved_at = time.monotonic()
        self._thread = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None
        if written:
            self._metrics.cut(written["rows"])
            recording.cut()

    def step(self, epoch: int, step: int, logs: Mapping[str, Any]) -> None:
        """Record a step, if it is one of those that are recorded."""
        self._recording.step(epoch, step, logs)

    def epoch(self, row: Epoch) -> None:
        """Record an epoch. It is on the disk when the checkpoint that comes after it is."""
        self._metrics.append(row)
        self._recording.epoch(row.step, row.values)

    def due(self, step: int) -> bool:
        """Whether a checkpoint is to be made after this step, within an epoch."""
        return self._every.due(step, time.monotonic() - self._saved_at)

    def save(self, position: Position) -> None:
        """Make a checkpoint. It is written while training goes on, for most of that time is spent on waiting for the disk.

        Raises:
            OSError: This one, or the one before, cannot be written.
        """
        self._wait()
        self._recording.flush()
        written = {
            **asdict(position),
            "backend": self._job.options.backend,
            "rows": self._metrics.position(),
            "recording": self._recording.position(),
        }
        fill = self._job.snapshot(self._recording.variables)
        self._writing = self._thread.submit(self._write, position.step, fill, written)
        self._saved_at = time.monotonic()

    def _write(self, step: int, fill: Callable[[Path], None], written: Mapping[str, Any]) -> None:
        # First the rows that the checkpoint says are there.
        self._metrics.sync()
        self._recording.sync()
        checkpoints.write(self._checkpoints, step, fill, written, self._job.options.keep)

    def _wait(self) -> None:
        """Until the last checkpoint is on the disk."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()

    def close(self) -> None:
        """Close the files, when the last checkpoint is on the disk.

        Raises:
            OSError: It cannot be written.
        """
        try:
            self._wait()
        finally:
            self._thread.shutdown()
            self._recording.close()
            self._metrics.close()
