"""Runs that are killed and go on, each in a process forked from one that has imported a backend and computed nothing yet.

python resume_worker.py BACKEND FOLDER: reads jobs from standard input, a line of JSON each, and answers each with a line that
has the exit code, and the step of the run's newest checkpoint.
"""

import json
import os
import resource
import signal
import sys
import time
import traceback
import warnings
from functools import partial
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from polyak.train.backends import QUIET


def tiny(_validation, _seed):
    """A task that takes no time, whose model has all kinds of state: statistics of batches, and seeds that move on."""
    import keras

    from polyak.train.tasks import Arrays, Task

    def model():
        layers = keras.layers
        parts = [layers.Dense(16), layers.BatchNormalization(), layers.Activation("relu"), layers.Dropout(0.3), layers.Dense(3)]
        return keras.Sequential([keras.Input((8,)), *parts])

    rng = np.random.default_rng(0)
    x = rng.normal(size=(360, 8)).astype(np.float32)
    y = np.argmax(x[:, :3], axis=1).astype(np.int32)
    train, rest = Arrays(x[:300], y[:300]), Arrays(x[300:], y[300:])  # the last of ten batches of 32 has 12
    return Task(
        name="tiny",
        about="",
        kind="classification",
        train=train,
        validation=rest,
        test=rest,
        classes=("a", "b", "c"),
        models={"mlp": model},
        loss=lambda: keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=lambda: ["accuracy"],
        main="accuracy",
    )


def begin(folder, options, full_at=None):
    """A run. From the step `full_at` on, the system takes no file of more than 1,000 bytes."""
    from polyak.train import checkpoints
    from polyak.train.interrupt import Interruption
    from polyak.train.options import Options
    from polyak.train.run import run

    def save(folder, step, *arguments):
        if step >= full_at:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        write(folder, step, *arguments)

    if full_at is not None:
        write, checkpoints.write = checkpoints.write, save
    folder.mkdir()
    with Interruption() as interruption:
        code = run(Options(task="tiny", batch_size=32, **options), folder, interruption).code
    # Keras would import it on every backend, and take longer for that than for all the rest.
    assert options["backend"] == "tensorflow" or "tensorflow" not in sys.modules
    return code


def go_on(folder, changes):
    """The same run again."""
    from polyak.train.interrupt import Interruption
    from polyak.train.resume import resume

    with Interruption() as interruption:
        return resume(folder, interruption, **changes).code


def again(folder, backend):
    """Write what was restored from the newest checkpoint, before any step was made, to FOLDER/again."""
    from dataclasses import replace

    from polyak.train import checkpoints, config
    from polyak.train.backends import use
    from polyak.train.job import Job
    from polyak.train.recording import Recording

    use(backend)
    newest = checkpoints.newest(folder / "checkpoints", print)
    job = Job(replace(config.read(folder / config.NAME), backend=backend))
    recording = Recording(folder, job, newest.position["recording"])
    job.build()
    job.restore(newest.path, recording.variables, within=True)
    job._epoch_begins()  # brings back what the metrics had
    (folder / "again").mkdir()
    job.snapshot(recording.variables)(folder / "again")
    return 0


class Slow:
    """The same examples, read by number, as from files."""

    def __init__(self, arrays):
        self.arrays = arrays

    def __len__(self):
        return len(self.arrays)

    def order(self, rng):
        return self.arrays.order(rng)

    def read(self, numbers):
        return self.arrays.read(numbers)


class Shuffled:
    """A PyDataset's manners: batches by number, in another order after each pass."""

    def __init__(self, batches):
        self.batches = list(batches)

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, number):
        return self.batches[number]

    def on_epoch_end(self):
        order = np.random.permutation(len(self.batches))  # noqa: NPY002  (as people do)
        self.batches = [self.batches[i] for i in order]


def batches(backend):
    """The batches that a backend gets are those of the order, from wherever they begin, for all kinds of data."""
    import keras

    from polyak.train.backends import use
    from polyak.train.batches import evaluation, training
    from polyak.train.tasks import Arrays, Batched

    use(backend)

    def taken(stream, count=None):
        given = {"tensorflow": stream.get_tf_dataset, "jax": stream.get_jax_iterator, "torch": stream.get_torch_dataloader}
        return [keras.tree.map_structure(np.asarray, batch) for batch in islice(iter(given[backend]()), count)]

    def check(found, expected):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            keras.tree.map_structure(partial(np.testing.assert_array_equal, strict=True), one, other)

    rng = np.random.default_rng(1)
    for count in (10, 8, 3):  # a smaller last batch, none, and nothing else
        x, y = {"a": rng.normal(size=(count, 2)).astype("float32"), "b": np.arange(count, dtype="int32")}, np.arange(count) % 3
        data = Arrays(x, y.astype("int32"))
        orders = [np.random.default_rng([5, epoch]).permutation(count) for epoch in range(3)]
        assert not np.array_equal(orders[0], orders[1])
        each = -(-count // 4)
        expected = [data.read(order[i : i + 4]) for order in orders for i in range(0, count, 4)]
        own = Batched([data.read(np.arange(count)[i : i + 4]) for i in range(0, count, 4)], "list")
        for source in (data, Slow(data)):
            for epoch, batch in ((0, 0), (0, each - 1), (1, 0), (2, each // 2)):
                left = expected[epoch * each + batch :]
                check(taken(training(source, 4, 5, epoch, batch), len(left)), left)
            assert evaluation(source, 4).num_batches == each
            check(taken(evaluation(source, 4)), own.data)
        check(taken(training(own, 1, 5, 1, each - 1), each + 1), [own.data[-1], *own.data])
        check(taken(evaluation(own, 1)), own.data)

    def shuffled(begin):
        np.random.seed(3)  # noqa: NPY002  (likewise)
        data = Batched(Shuffled((np.full((2, 3), i), np.full(2, i)) for i in range(5)), "shuffled")
        return taken(training(data, 1, 5, *divmod(begin, 5)), 20 - begin)

    whole = shuffled(0)
    assert any(not np.array_equal(one[1], other[1]) for one, other in zip(whole[:5], whole[5:10], strict=True))
    check(shuffled(12), whole[12:])
    return 0


def child(errors, work, *arguments):
    """Do something in a process of its own, which exits with what that returns, and with 70 after an error, which it notes."""
    if pid := os.fork():
        return pid
    code = 70
    try:
        code = work(*arguments)
    except Exception as error:
        errors.write_text(f"{type(error).__name__}: {error}")
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(pid, folder, job):
    """The exit code of a child, which gets a signal some seconds after the run's newest checkpoint is at a step or a later one:
    in the middle of whatever it does then.
    """
    ended, status = 0, 0
    while "signal" in job and latest(folder) < job["at"] and not ended:
        ended, status = os.waitpid(pid, os.WNOHANG)
        time.sleep(0.001)
    if "signal" in job and not ended:
        time.sleep(job.get("delay", 0))
        os.kill(pid, job["signal"])
    return os.waitstatus_to_exitcode(status if ended else os.waitpid(pid, 0)[1])


def latest(run):
    """The step of the newest checkpoint."""
    return max((int(path.name.removeprefix("step-")) for path in run.glob("checkpoints/step-*")), default=-1)


def main():
    """Answer."""
    backend, root = sys.argv[1], Path(sys.argv[2])
    answers = os.fdopen(os.dup(1), "w")  # what the runs print goes elsewhere
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.environ |= {"KERAS_BACKEND": backend, **QUIET}
    # What JAX has compiled for one run serves the next ones. That it compiles the same bits again is tested in test_cli.py.
    os.environ |= {"JAX_COMPILATION_CACHE_DIR": str(root / "compiled"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    # Of fork in a process that may have threads: none of them works yet.
    warnings.simplefilter("ignore")

    # What takes seconds, once for all.
    from polyak.train import run, snapshot
    from polyak.train.tasks import BUILT_IN

    BUILT_IN["tiny"] = tiny
    # What others test, and what takes seconds in each run.
    run.curves = lambda _metrics, picture, *_: picture.touch()
    run.report = SimpleNamespace(write=lambda _folder: None)
    assert snapshot  # and with it Keras and polyak.state
    for line in sys.stdin:
        job = json.loads(line)
        folder = root / job.get("name", "")
        match job["do"]:
            case "begin":
                pid = child(root / "error", begin, folder, {"backend": backend, **job["options"]}, job.get("full_at"))
            case "go on":
                pid = child(root / "error", go_on, folder, job.get("changes", {}))
            case "again":
                pid = child(root / "error", again, folder, backend)
            case "batches":
                pid = child(root / "error", batches, backend)
        answers.write(f"{wait(pid, folder, job)} {latest(folder)}\n")
        answers.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main()
