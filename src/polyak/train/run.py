"""A run, from options to a folder."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from polyak import report
from polyak.complain import complain
from polyak.report.curves import curves
from polyak.train import config
from polyak.train.backends import use
from polyak.train.checkpoints import FORMAT
from polyak.train.display import display, say
from polyak.train.folder import discard, locked, replace, write_json
from polyak.train.interrupt import Interruption
from polyak.train.job import Job
from polyak.train.metrics import summary
from polyak.train.options import Options
from polyak.train.position import Position
from polyak.train.recording import Recording
from polyak.train.records import Records
from polyak.train.watch import Diverged, Interrupted, Stopped, Watch

RESULT, ENVIRONMENT = "result.json", "environment.json"


@dataclass(frozen=True)
class Result:
    """How a run ended. result.json has the same, with what was measured beside the rest.

    Attributes:
        status: "completed", "interrupted" (Ctrl-C or SIGTERM) or "failed" (the loss or a gradient became NaN or infinite).
        epochs: How many were recorded.
        step: How many steps were made.
        stopped: Where it stopped, and None for a run that is complete.
        scores: What was measured at the end: `val_` and `test_` with the names of the loss and the metrics, and the best epoch.
            None for what is not finite. Only a complete run looks at the test examples, once.
        code: The exit code that goes with it.
    """

    status: Literal["completed", "interrupted", "failed"]
    epochs: int
    step: int
    stopped: str | None = None
    scores: Mapping[str, float | None] = field(default_factory=dict)
    code: int = 0


def run(options: Options, folder: Path, interruption: Interruption) -> Result:
    """Train, and record it in a new, empty folder, which is removed if training does not begin.

    Raises:
        ValueError: The data cannot be trained on.
        OSError: The disk is full, say. What was recorded, and the last checkpoint, are kept.
    """
    with locked(folder):
        try:
            use(options.backend)
            job = Job(options)
            recording = Recording(folder, job)
            job.build()
            interruption.defer()
            environment = {"format": FORMAT, **job.environment()}
            config.write(job.options, folder / config.NAME)
            write_json(folder / ENVIRONMENT, environment)  # by which it is known as a run, and so the last
        except BaseException:
            discard(folder)
            raise
        describe(job, environment)
        return train(job, folder, Records(folder, job, recording), interruption, Position())


def describe(job: Job, environment: Mapping[str, Any]) -> None:
    """Say what is trained, on what and how."""
    units = [
        ", ".join(f"{n:,} {name}" for name, (n, _) in parts) + f" {unit}"
        for unit, parts in groupby(job.parts.items(), key=lambda part: part[1][1])
    ]
    optimizer = environment["optimizer"]
    rate = optimizer["learning_rate"]
    shown = f"{rate:g}" if isinstance(rate, float) else "by schedule"
    say(
        f"{environment['task']}: {', '.join(units)}; "
        f"{environment['model']} with {environment['parameters']:,} parameters; "
        f"{environment['backend']}, {optimizer['class']}, learning rate {shown}"
    )
    for note in environment["notes"]:
        say(f"  {note}")


def train(job: Job, folder: Path, records: Records, interruption: Interruption, start: Position) -> Result:
    """Train from a position to the end, or to the reason for which it stops there; then save and draw what there is."""
    length = job.length
    done = start.epoch * length.count + length.counted(start.batch)
    show = display(length, job.task.main, done)
    watch = Watch(records, show, interruption, job, length, start)
    reason: Stopped | None = None
    try:
        try:
            if start.epoch < length.epochs:
                with show:
                    job.fit(watch, start)
            else:  # it was killed after its last epoch, before the rest was done
                job.finalize()
        except Stopped as stopped:
            reason = stopped
        finally:
            records.close()
        return finish(job, folder, watch, reason, interruption)
    except OSError as error:
        raise OSError(
            f"the run stopped {watch.place()}: {error}. What was recorded is in {folder}; once there is room on the disk, "
            f"polyak train --resume {folder} goes on from its last checkpoint."
        ) from error


def finish(job: Job, folder: Path, watch: Watch, reason: Stopped | None, interruption: Interruption) -> Result:
    """Save and draw what there is; test a run that is complete."""
    here = watch.position
    if not isinstance(reason, Diverged):  # weights that are not finite are of no use
        job.save(folder / "model.keras")
    scores = summary(folder)
    if reason is None:
        result = Result("completed", here.epoch, here.step, None, {**scores, **job.test()})
    elif isinstance(reason, Interrupted):
        result = Result("interrupted", here.epoch, here.step, str(reason), scores, interruption.code)
    else:
        result = Result("failed", here.epoch, here.step, str(reason), scores, 1)
    if here.epoch:
        options = job.options
        title = f"{job.task.name}, {job.model_name}, {options.optimizer}, seed {options.seed}"
        replace(folder / "curves.png", lambda path: curves(folder / "metrics.csv", path, title, job.task.main))
    parts = vars(result)
    write_json(folder / RESULT, {name: parts[name] for name in ("status", "epochs", "step", "stopped")} | dict(result.scores))
    try:
        report.write(folder)
    except Exception as error:  # a page about a run is no reason to lose the run
        complain(f"report.html could not be written: {error}")
    return result
