"""What `polyak train` adds to an epoch of model.fit, and what recording adds to a step.

    python benchmarks/train_overhead.py [--quick] [--backends tensorflow,jax,torch]

All of it takes about 20 minutes on two cores that have nothing else to do.

Three contenders train the same model on the same data with the same optimizer and settings, each in a process of its own, in
turns: `model.fit` with the arrays in memory and validation after each epoch; `polyak train`, which also shuffles by the seed,
records steps and epochs and makes a checkpoint of each epoch; and `polyak train` that records no step. These are runs of 300
steps, in which the default records one in 25, as it does up to 25,000. The time of an epoch is from the end of one to the end
of the next; the first two of a process, which compile and warm up, do not count.

`epoch` is the ratio of medians of `polyak train` and `model.fit`; `recording` that of `polyak train` with recording or without.
Checkpoints are written beside training, and are not to be seen apart from it.

Then, in one process a backend: `recorded`, how much longer a step takes that is recorded than one of an optimizer without a
recorder, and `passed by`, how much longer one that is not recorded. `default` is what follows for a run that records one in 25.
The rule in polyak.train.recording.often rests on that.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

MODELS = [("digits", "cnn"), ("digits", "mlp"), ("mnist1d", "cnn")]
NEVER = 10**9  # a step that no run comes to
WARM_UP = 2
EPOCHS, ROUNDS = 12, 2  # 25 steps an epoch
STEPS, STEP_ROUNDS = 40, 7


def bare(job: Any, epochs: int) -> list[float]:
    """The epochs of model.fit."""
    import keras

    from polyak.keras import FiniteCheck

    job.build()
    ends: list[float] = []
    clock = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: ends.append(time.perf_counter()))
    train, validation = job.task.train, job.task.validation
    job.model.fit(
        train.x,
        train.y,
        batch_size=job.options.batch_size,
        epochs=epochs,
        validation_data=(validation.x, validation.y),
        verbose=0,
        callbacks=[FiniteCheck(), clock],
    )
    return differences(ends)


def command(options: Any, folder: Path) -> list[float]:
    """The epochs of `polyak train`."""
    from polyak.train.run import run

    folder.mkdir()
    run(options, folder, SimpleNamespace(requested=False, deferred=False, defer=lambda: None))
    with (folder / "timing.csv").open(newline="") as file:
        return differences([float(row["seconds"]) for row in csv.DictReader(file)])


def differences(ends: list[float]) -> list[float]:
    """The time of each epoch after the warm-up."""
    return [b - a for a, b in zip(ends[WARM_UP - 1 :], ends[WARM_UP:], strict=False)]


def work(contender: str, backend: str, task: str, model: str, epochs: int) -> None:
    """What a process does: its last line of output is its result."""
    from polyak.train.backends import use
    from polyak.train.job import Job
    from polyak.train.options import Options

    use(backend)
    record = NEVER if contender == "no recording" else 0
    options = Options(task=task, model=model, backend=backend, epochs=epochs, record=record)
    with tempfile.TemporaryDirectory() as folder:
        found = bare(Job(options), epochs) if contender == "fit" else command(options, Path(folder, "run"))
    print(json.dumps(found))


def compare(backend: str, task: str, model: str, epochs: int, rounds: int) -> str:
    """A row of the first table."""
    contenders = ["fit", "train", "no recording"]
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for n in range(rounds):
        for contender in contenders[n % 3 :] + contenders[: n % 3]:
            found[contender] += json.loads(this("--worker", contender, backend, task, model, str(epochs)).splitlines()[-1])
    fit, train, off = (median(found[name]) for name in contenders)
    return f"{backend:10} {task:8} {model:4} {fit * 1e3:9.1f} {train * 1e3:9.1f} {train / fit:8.3f} {train / off:10.3f}"


def this(*arguments: str) -> str:
    """What this file prints with other arguments."""
    done = subprocess.run([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, check=True, text=True)  # noqa: S603  (this file)
    return done.stdout


def step_costs(backend: str, rounds: int, quick: bool) -> None:
    """The second table, by processes that are told apart by whether each step is recorded."""
    from polyak.train.backends import use

    use(backend)
    from timing import race

    from polyak.keras.recorder import Recorder
    from polyak.train.job import Job
    from polyak.train.options import Options
    from polyak.train.recording.often import APART

    for task, model in MODELS[: 1 if quick else None]:
        for batch_size in (32, 256):
            epochs = {}
            for every in (0, 1, NEVER):
                job = Job(Options(task=task, model=model, backend=backend, batch_size=batch_size))
                if every:
                    Recorder(job.optimizer, every)
                job.build()
                x, y = job.task.train.x[: STEPS * batch_size], job.task.train.y[: STEPS * batch_size]
                epochs[every] = lambda job=job, x=x, y=y, b=batch_size: job.model.fit(x, y, batch_size=b, verbose=0)
            times = race(epochs, rounds)
            steps = -(-len(x) // batch_size)
            cost, idle = times[1] / times[0] - 1, times[NEVER] / times[0] - 1
            default = (cost + (APART - 1) * idle) / APART
            row = f"{backend:10} {task:8} {model:4} {batch_size:6} {times[0] / steps * 1e3:9.2f}"
            row += f" {cost:9.1%} {idle:9.1%} {default:9.1%}"
            print(row, flush=True)


def main() -> None:
    """Both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few epochs, to see that it runs")
    parser.add_argument("--backends", default="tensorflow,jax,torch")
    parser.add_argument("--worker", nargs=5, help=argparse.SUPPRESS)
    parser.add_argument("--steps", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    if arguments.worker:
        contender, backend, task, model, epochs = arguments.worker
        work(contender, backend, task, model, int(epochs))
        return
    if arguments.steps:
        step_costs(arguments.steps, 2 if arguments.quick else STEP_ROUNDS, arguments.quick)
        return
    backends = arguments.backends.split(",")
    print(f"{'backend':10} {'task':8} {'':4} {'fit, ms':>9} {'train, ms':>9} {'epoch':>8} {'recording':>10}")
    for backend in backends:
        for task, model in MODELS[: 1 if arguments.quick else None]:
            print(compare(backend, task, model, *((5, 1) if arguments.quick else (EPOCHS, ROUNDS))), flush=True)
    print(f"\n{'backend':10} {'task':8} {'':4} {'batch':>6} {'step, ms':>9} {'recorded':>9} {'passed by':>9} {'default':>9}")
    for backend in backends:
        print(this("--steps", backend, *(["--quick"] if arguments.quick else [])), end="", flush=True)


if __name__ == "__main__":
    main()
