"""steps.csv and layers.csv: what the optimizer did at every so many steps."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from polyak.train.job import Job
from polyak.train.metrics import Rows, digits32
from polyak.train.recording.events import Events
from polyak.train.recording.often import automatic
from polyak.train.recording.rows import NONE, OF_LAYER, OF_STEP, Values, effective_learning_rate, of_layer, of_layers
from polyak.train.recording.window import Window, has_running_means, is_mean

FILES = {"steps": "steps.csv", "layers": "layers.csv"}


class Passed(NamedTuple):
    """A step of which something is still to be read.

    Attributes:
        epoch: Its epoch, from 1.
        step: Its number, from 1.
        counted: What the means over the epoch so far are taken over.
        logs: These means, as the backend has them.
    """

    epoch: int
    step: int
    counted: int
    logs: Mapping[str, Any]


class Recording:
    """Records the steps of a run. Nothing is read from the device but in `flush`, and then all at once.

    Args:
        folder: Of the run.
        job: What is trained. Its model is not compiled yet.
        position: What `position` said at the checkpoint with which a run goes on; None for a new run.

    Attributes:
        every: Steps from one that is recorded to the next.
    """

    def __init__(self, folder: Path, job: Job, position: Mapping[str, Any] | None = None) -> None:
        from polyak.keras.recorder import Recorder

        updates = job.steps // (job.optimizer.gradient_accumulation_steps or 1)
        was = position or {"every": job.options.record or automatic(updates), "step": 0, "sizes": None, "windows": {}}
        self.every: int = was["every"]
        self._sizes: Mapping[str, int] | None = was["sizes"]
        self._step: int = was["step"]
        self._job = job
        self._recorder = Recorder(job.optimizer, self.every)
        self._period = self._recorder.period
        self._optimizer = {"class": type(job.optimizer).__name__, **job.optimizer.get_config()}
        self._measured = [name for name in ("loss", job.task.main) if name]
        self._windows = {name: Window(was["windows"].get(name)) for name in self._measured}
        self._passed: list[Passed] = []
        self._folder = folder

    # Nothing is made before it is needed: a run that does not begin leaves no folder.

    @cached_property
    def _files(self) -> dict[str, Rows]:
        files = {name: Rows(self._folder / file) for name, file in FILES.items()}
        if not files["steps"].size():
            files["steps"].append(("step", "epoch", *self._measured, *OF_STEP))
            files["layers"].append(("step", "layer", *OF_LAYER))
        return files

    @cached_property
    def _events(self) -> Events | None:
        return Events(self._folder / "tensorboard", self._step) if self._job.options.tensorboard else None

    @property
    def variables(self) -> tuple[Any, ...]:
        """The variables of the optimizer that are the recorder's."""
        return self._recorder.variables

    def step(self, epoch: int, step: int, logs: Mapping[str, Any]) -> None:
        """After a step.

        Args:
            epoch: Its epoch, from 1.
            step: Its number in the run, from 1.
            logs: The means over the epoch so far, as the backend has them: they are not read here.
        """
        self._step = step
        length = self._job.length
        batches = step - (epoch - 1) * length.steps_per_epoch
        recorded = step % self._period == 0
        if recorded or batches == length.steps_per_epoch:
            self._passed.append(Passed(epoch, step, length.counted(batches), logs))
        if recorded and (step // self._period) % self._recorder.capacity == 0:
            self.flush()

    def flush(self) -> None:
        """Write what was recorded."""
        from polyak.train.snapshot import synced

        if self._passed:
            synced(self._job.model)
            self._write(self._recorder.read(), self._means())
            self._passed.clear()
        if self._events:
            self._events.flush()

    def sync(self) -> None:
        """Wait until all rows are on the disk. Another thread may call this."""
        for file in self._files.values():
            file.sync()

    def epoch(self, step: int, values: Mapping[str, float]) -> None:
        """After an epoch.

        Args:
            step: The number of its last step.
            values: What was measured in it and on the validation examples.
        """
        if self._events:
            self._events.epoch(step, values)
            self._events.flush()

    def position(self) -> dict[str, Any]:
        """All that is needed to go on from here, for JSON. `flush` comes before."""
        return {
            "every": self.every,
            "step": self._step,
            "sizes": {name: file.size() for name, file in self._files.items()},
            "windows": {name: window.state() for name, window in self._windows.items()},
        }

    def cut(self) -> None:
        """Leave in the files what was in them at the position with which this was made."""
        for name, size in (self._sizes or {}).items():
            self._files[name].cut(size)

    def close(self) -> None:
        """Write what was recorded last, of a run that failed too, and close the files."""
        self.flush()
        for file in self._files.values():
            file.close()
        if self._events:
            self._events.close()

    def _means(self) -> dict[int, tuple[int, Values]]:
        """For each step that was recorded, its epoch and what was measured since the one before."""
        model = self._job.model
        running = has_running_means(model)
        kept = [name for name in self._measured if not running or name == "loss" or is_mean(model, name)]
        found: dict[int, tuple[int, Values]] = {}
        for passed in self._passed:
            logs = self._job.numbers({name: passed.logs[name] for name in kept if name in passed.logs})
            if passed.step % self._period == 0:
                means = {name: self._windows[name].row(x, passed.counted) if running else x for name, x in logs.items()}
                found[passed.step] = (passed.epoch, {name: means.get(name) for name in self._measured})
            if passed.step == passed.epoch * self._job.steps_per_epoch:
                for name, x in logs.items():
                    self._windows[name].epoch_ends(x, passed.counted)
        return found

    def _write(self, records: Any, means: Mapping[int, tuple[int, Values]]) -> None:
        """Write rows."""
        steps, layers = self._files["steps"], self._files["layers"]
        root = f"{self._job.model.name}/"
        paths = [path.removeprefix(root) for path in self._recorder.paths]
        for number, rates, measures in zip(records.steps, records.rates, records.measures, strict=True):
            step = int(number)
            epoch, measured = means.get(step, (self._passed[-1].epoch, dict.fromkeys(self._measured)))
            # As they are written: 0.9 and not 0.89999998, which would show in 1 / (1 - momentum).
            learning_rate, momentum = (None if x == NONE else float(digits32(x)) for x in rates)
            row: Values = {
                **measured,
                "learning_rate": learning_rate,
                "momentum": momentum,
                "effective_learning_rate": effective_learning_rate(self._optimizer, learning_rate or 0.0, momentum),
                **(of_layers(measures) or {}),
            }
            steps.append((str(step), str(epoch), *_cells(row, (*self._measured, *OF_STEP))))
            each = {path: values for path, m in zip(paths, measures, strict=True) if (values := of_layer(m)) is not None}
            layers.append(*((str(step), _quoted(path), *_cells(values, OF_LAYER)) for path, values in each.items()))
            if self._events:
                self._events.step(step, row)
                for path, values in each.items():
                    self._events.layer(step, path, {name: values[name] for name in OF_LAYER})


def _quoted(name: str) -> str:
    """A name that people choose, as a cell."""
    return name if not set(name) & set(',"\r\n') else '"' + name.replace('"', '""') + '"'


def _cells(values: Mapping[str, float | None], names: Sequence[str]) -> list[str]:
    """The cells of a row: float32 in the fewest digits that give it back, and an empty one where there is nothing."""
    return ["" if (value := values.get(name)) is None else digits32(value) for name in names]
