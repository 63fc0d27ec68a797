"""A run, from options to a folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from polyak.report.curves import curves
from polyak.train.backends import use
from polyak.train.display import display, say
from polyak.train.folder import discard, replace, write_json
from polyak.train.interrupt import Interruption
from polyak.train.job import Job
from polyak.train.metrics import MetricsFile
from polyak.train.options import Options
from polyak.train.watch import Diverged, Interrupted, Stopped, Watch


@dataclass(frozen=True)
class Result:
    """How a run ended: result.json.

    Attributes:
        status: "completed", "interrupted" (Ctrl-C) or "failed" (the loss or a gradient became NaN or infinite).
        epochs: How many were recorded.
        stopped: Where it stopped, and None for a run that is complete.
        test_loss: On the test images, which only a complete run looks at, once.
        test_accuracy: Likewise, in [0, 1].
    """

    status: Literal["completed", "interrupted", "failed"]
    epochs: int
    stopped: str | None = None
    test_loss: float | None = None
    test_accuracy: float | None = None


def run(options: Options, folder: Path, interruption: Interruption) -> Result:
    """Train, and record it in a new, empty folder, which is removed if training does not begin."""
    try:
        use(options.backend)
        job = Job(options)
        interruption.defer()
        configuration = job.configuration()
        write_json(folder / "config.json", configuration)
    except BaseException:
        discard(folder)
        raise
    say(
        f"{options.task}: {', '.join(f'{n:,} {part}' for part, n in configuration['images'].items())} images; "
        f"{options.model} with {configuration['parameters']:,} parameters; "
        f"{options.backend}, lr {options.lr:g}, momentum {options.momentum:g}"
    )
    watch, stopped = fit(job, folder, interruption)
    result = finish(job, folder, len(watch.rows), stopped)
    write_json(folder / "result.json", vars(result))
    return result


def fit(job: Job, folder: Path, interruption: Interruption) -> tuple[Watch, Stopped | None]:
    """Train while recording and showing it, to the end or to the reason for which it stopped."""
    images = len(job.data.train.labels)
    metrics = MetricsFile(folder / "metrics.csv")
    show = display(job.options.epochs, images)
    watch = Watch(metrics, show, interruption, job.hyperparameters, images, job.options.batch_size)
    try:
        with show:
            job.fit(watch)
    except Stopped as reason:
        return watch, reason
    finally:
        metrics.close()
    return watch, None


def finish(job: Job, folder: Path, epochs: int, stopped: Stopped | None) -> Result:
    """Save and draw what there is; test a run that is complete."""
    if not isinstance(stopped, Diverged):  # weights that are not finite are of no use
        job.save(folder / "model.keras")
    if epochs:
        options = job.options
        title = f"{options.task}, {options.model}: lr {options.lr:g}, momentum {options.momentum:g}, seed {options.seed}"
        replace(folder / "curves.png", lambda path: curves(folder / "metrics.csv", path, title))
    if stopped is None:
        return Result("completed", epochs, None, *job.test())
    return Result("interrupted" if isinstance(stopped, Interrupted) else "failed", epochs, str(stopped))
