"""Checkpoints, and runs that are stopped and go on."""

import csv
import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from safetensors.numpy import load_file

import polyak.state
from polyak.cli import dispatch
from polyak.train import checkpoints, config
from polyak.train.checkpoints import Damaged, Every
from polyak.train.folder import locked
from polyak.train.options import Options

# When


def test_checkpoints_are_made_every_so_many_steps_or_minutes():
    assert Every.parse("epoch") == Every()
    assert Every.parse("500 steps") == Every.parse("500steps") == Every(steps=500)
    assert Every.parse("1 step") == Every(steps=1)
    assert Every.parse("0.5 minutes") == Every(minutes=0.5)
    assert [step for step in range(1, 10) if Every(steps=3).due(step, 1e9)] == [3, 6, 9]
    assert [Every(minutes=2).due(1, seconds) for seconds in (0, 119.9, 120, 500)] == [False, False, True, True]
    assert not Every().due(1, 1e9)


@pytest.mark.parametrize(
    "text", ["", "steps", "0 steps", "1.5 steps", "-3 steps", "0 minutes", "5", "5 hours", "epochs", "nan minutes"]
)
def test_what_is_no_time_for_a_checkpoint_is_refused(text):
    with pytest.raises(ValueError, match='must be "epoch", or like "500 steps" or "5 minutes"'):
        Every.parse(text)


# On the disk


def files_of(step):
    def fill(folder):
        (folder / "weights.npz").write_bytes(bytes(range(200)))
        (folder / "random.json").write_text(f"[{step}]")

    return fill


def save(folder, step, keep=3):
    checkpoints.write(folder, step, files_of(step), {"step": step, "loss": 0.1}, keep)


def found(folder):
    """The step of the newest checkpoint that is whole, and what was said of those that are not."""
    said = []
    newest = checkpoints.newest(folder, lambda error: said.append(str(error)))
    return newest and newest.position["step"], said


def test_the_last_checkpoints_are_kept(tmp_path):
    for step in (5, 10, 999, 10**9 + 1):
        save(tmp_path, step)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step-000000010", "step-000000999", "step-1000000001"]
    assert found(tmp_path) == (10**9 + 1, [])
    newest = checkpoints.read(tmp_path / "step-000000999")
    assert newest.position["loss"] == 0.1
    assert set(newest.position["files"]) == {"weights.npz", "random.json"}


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_short(path):
    os.truncate(path, path.stat().st_size - 1)


@pytest.mark.parametrize("damage", [flip, cut_short, Path.unlink, lambda path: os.truncate(path, 0)])
@pytest.mark.parametrize("name", ["weights.npz", "random.json", "position.json"])
def test_a_damaged_checkpoint_is_passed_over_and_named(tmp_path, name, damage):
    for step in (1, 2, 3):
        save(tmp_path, step)
    damage(tmp_path / "step-000000003" / name)
    step, said = found(tmp_path)
    assert step == 2
    assert len(said) == 1
    assert said[0].startswith(f"checkpoint step-000000003 is damaged: {name} ")
    checkpoints.forget_after(tmp_path, 2)
    assert found(tmp_path) == (2, [])


def test_no_byte_of_a_position_can_change_unseen(tmp_path):
    save(tmp_path, 7)
    path = tmp_path / "step-000000007" / "position.json"
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(Damaged):
            checkpoints.read(path.parent)


def test_without_a_whole_checkpoint_there_is_none(tmp_path):
    assert found(tmp_path / "nothing") == (None, [])
    save(tmp_path, 1)
    flip(tmp_path / "step-000000001" / "weights.npz")
    assert found(tmp_path)[0] is None


KILLED = """
import os, sys
from itertools import count
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from polyak.train import checkpoints
from polyak.train.checkpoints import newest, write

folder = Path(sys.argv[1])

def fill(step):
    return lambda new: [(new / name).write_bytes(bytes(range(256)) * step) for name in ("a", "b")]

def die_at(call):
    calls = count()
    def seen(event, args):
        if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "fsync") and next(calls) == call:
            os.kill(os.getpid(), 9)
    fsync = os.fsync
    os.fsync = lambda descriptor: (seen("fsync", ()), fsync(descriptor))
    sys.addaudithook(seen)

for step in count(1):
    if (pid := os.fork()) == 0:
        if step > 1:
            die_at(step - 2)
        write(folder, step, fill(step), {"step": step}, keep=1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    print(step, os.waitstatus_to_exitcode(status), newest(folder, print).position["step"])
    if step > 1 and status == 0:
        break
"""


def test_a_process_that_is_killed_at_any_moment_of_saving_leaves_the_old_checkpoint_or_the_new_one(tmp_path):
    words = (sys.executable, "-c", KILLED, tmp_path, Path(__file__).parent)
    lines = subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()
    steps, codes, newest = zip(
        *(map(int, line.split()) for line in lines), strict=True
    )  # nothing else was printed: all were whole
    assert steps == tuple(range(1, len(lines) + 1))
    assert codes == (0, *[-signal.SIGKILL] * (len(lines) - 2), 0)
    assert len(lines) > 15  # calls to the system that a checkpoint takes
    last = 1
    for step, there in zip(steps, newest, strict=True):
        assert there in (last, step)
        last = there
    (path,) = (path for path in tmp_path.iterdir() if not path.name.startswith("."))
    assert path.name == f"step-{steps[-1]:09}"
    checkpoints.forget_after(tmp_path, steps[-1])
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path):
    save(tmp_path, 1)

    def full(folder):
        (folder / "weights.npz").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        checkpoints.write(tmp_path, 2, full, {"step": 2}, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000001"]
    assert found(tmp_path) == (1, [])


# Whole runs

EPOCHS, STEPS = 4, 10
FAILED = 70  # the worker's exit code of a run that raised an error

# What is trained in each framework: together, everything that has a state of its own.
OPTIONS = {
    "tensorflow": {"optimizer": "schedule_free", "settings": {"warmup_steps": 20}},
    "jax": {"optimizer": "nesterov", "settings": {"learning_rate": "cosine(0.1, warmup=5)", "global_clipnorm": 1.0}},
    "torch": {"optimizer": "aggmo", "settings": {"weight_decay": 1e-3, "decay": "coupled"}},
}
COMMON = {"epochs": EPOCHS, "checkpoint": "3 steps", "record": 2}
CHECKPOINTS = 4  # of an epoch


class Worker:
    """A process that makes runs with one framework.

    Attributes:
        start, gap: Seconds that a run took here until its first checkpoint, about, and from one checkpoint to the next.
    """

    def __init__(self, backend, folder):
        words = (sys.executable, Path(__file__).with_name("resume_worker.py"), backend, folder)
        self.backend, self.folder = backend, folder
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def do(self, what, name="", **more):
        """The exit code, and the step of the newest checkpoint."""
        self._process.stdin.write(json.dumps({"do": what, "name": name, **more}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, self._process.stderr.read()
        return tuple(map(int, line.split()))

    def begin(self, name, **more):
        return self.do("begin", name, options=COMMON | OPTIONS[self.backend], **more)

    def whole(self):
        """Make the run that is never stopped."""
        began = time.monotonic()
        assert self.begin("whole") == (0, EPOCHS * STEPS), self.end()
        first, *_, last = csv.DictReader((self.folder / "whole" / "timing.csv").read_text().splitlines())
        later = float(last["seconds"]) - float(first["seconds"])
        self.start, self.gap = time.monotonic() - began - later, later / (EPOCHS - 1) / CHECKPOINTS

    def error(self):
        """The last error that ended a run."""
        return (self.folder / "error").read_text()

    def end(self):
        """All that it said of errors."""
        return self._process.communicate()[1]


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    """Gives the one of a framework, with a run that was never stopped. Each starts when it is first asked for."""
    started = {}

    def of(backend):
        if backend not in started:
            started[backend] = worker = Worker(backend, tmp_path_factory.mktemp(backend))
            worker.whole()
        return started[backend]

    yield of
    for worker in started.values():
        worker.end()


@pytest.fixture(scope="module", params=OPTIONS)
def worker(request, workers):
    """One for each framework."""
    return workers(request.param)


def numbers_in(run):
    """Everything numeric in a model.keras, by path: weights, slots, the count of steps."""
    numbers = {}
    with zipfile.ZipFile(run / "model.keras") as archive, archive.open("model.weights.h5") as file, h5py.File(file) as store:
        store.visititems(lambda name, item: numbers.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return numbers


def assert_same(run, whole):
    """The two have the same bits, in everything but time."""
    found, expected = numbers_in(run), numbers_in(whole)
    assert len(expected) > 10
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name], strict=True, err_msg=name)
    for name in ("metrics.csv", "steps.csv", "layers.csv", "result.json", "config.toml"):
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name
    epochs = [row["epoch"] for row in csv.DictReader((run / "timing.csv").read_text().splitlines())]
    assert epochs == [str(n + 1) for n in range(EPOCHS)]


def test_every_framework_gets_the_batches_of_the_order_from_wherever_it_begins(worker):
    assert worker.do("batches")[0] == 0, worker.end()


def sitting(worker, step, **more):
    """Go on with the run "killed", whose newest checkpoint is at a step, or, if it has none, begin it anew."""
    if step >= 0:
        return worker.do("go on", "killed", **more)
    if (worker.folder / "killed").exists():
        assert worker.do("go on", "killed") == (FAILED, -1)
        assert "Begin a new run." in worker.error() or "begin a new run with --config" in worker.error()
        shutil.rmtree(worker.folder / "killed")
    return worker.begin("killed", **more)


def moment(worker, step, rng, starting):
    """A moment for a signal to a run whose newest checkpoint is at a step: up to three quarters of its way or, where that is
    said, now and then while it starts. What is drawn is the step, and the part of the time from one checkpoint to the next.
    """
    part = rng.random()
    if starting and rng.random() < 0.4:
        return {"at": step, "delay": part * worker.start}
    last = EPOCHS * STEPS * 3 // 4
    return {"at": rng.randrange(min(step, last) + 1, last + 2), "delay": part * worker.gap}


def test_a_run_that_was_killed_at_random_moments_ends_with_the_bits_of_one_that_was_not(worker):
    seed = int(os.environ.get("POLYAK_KILL_SEED", 0)) or secrets.randbits(32)
    print(f"POLYAK_KILL_SEED={seed} draws the same moments again")  # noqa: T201  (pytest shows it if the test fails)
    rng = random.Random(seed)  # noqa: S311  (no secret)
    run, step = worker.folder / "killed", -1
    for starting in (False, True):  # how long a start takes is guessed, and may be over: so the first comes in training
        code, step = sitting(worker, step, signal=signal.SIGKILL, **moment(worker, step, rng, starting))
        assert code in (-signal.SIGKILL, 0)  # 0 where the machine was busy with others, and the run over before the signal
    # Another signal, once there are two checkpoints. Where it comes when all is done, it is too late to be caught.
    at, delay = max(step + rng.randint(1, 5), 4), rng.random() * worker.gap
    code, step = sitting(worker, step, signal=signal.SIGTERM, at=at, delay=delay)
    assert code in (143, 0, -signal.SIGTERM)

    # What was saved is restored to the bit: written again before the next step, it makes the same files.
    assert worker.do("again", "killed")[0] == 0, worker.end()
    (*_, before, newest) = sorted((run / "checkpoints").glob("step-*"))
    for name in ("weights.npz", "optimizer.safetensors", "random.json"):
        assert (run / "again" / name).read_bytes() == (newest / name).read_bytes(), name
    with np.load(newest / "weights.npz") as saved:
        assert {name.split("/")[0] for name in saved.files} == {"model", "metrics", "optimizer"}
        assert any("seed" in name for name in saved.files)
        assert any("moving_variance" in name for name in saved.files)

    # The last sitting begins from the checkpoint before, since this one is damaged, and the run is not known to be over.
    flip(newest / "weights.npz")
    (run / "result.json").unlink(missing_ok=True)
    assert worker.do("go on", "killed") == (0, EPOCHS * STEPS)
    assert_same(run, worker.folder / "whole")
    assert json.loads((run / "environment.json").read_text())["sittings"][-1]["step"] == int(before.name[-9:])


def test_a_run_moves_to_another_framework(workers):
    source, target = workers("tensorflow"), workers("jax")
    run = target.folder / "moved"
    shutil.copytree(source.folder / "whole", run)
    newest = run / "checkpoints" / f"step-{EPOCHS * STEPS:09}"
    assert target.do("again", "moved")[0] == 0, target.end()

    # Everything is equal right after loading. Counts and seeds are of other dtypes.
    with np.load(newest / "weights.npz") as saved, np.load(run / "again" / "weights.npz") as loaded:
        assert set(saved.files) == set(loaded.files)
        for name in saved.files:
            np.testing.assert_array_equal(loaded[name], saved[name], strict=saved[name].dtype.kind == "f", err_msg=name)
    saved, loaded = (polyak.state.read(folder / "optimizer.safetensors") for folder in (newest, run / "again"))
    assert saved == loaded
    assert load_file(newest / "optimizer.safetensors").keys() == saved.tensors.keys()
    for name, array in load_file(newest / "optimizer.safetensors").items():
        np.testing.assert_array_equal(load_file(run / "again" / "optimizer.safetensors")[name], array, strict=True)

    # It goes on, longer than it was: nothing in it went by its length.
    more = {"backend": "jax", "epochs": EPOCHS + 1}
    assert target.do("go on", "moved", changes=more) == (0, (EPOCHS + 1) * STEPS), target.end()
    assert (config.read(run / config.NAME).backend, config.read(run / config.NAME).epochs) == ("jax", EPOCHS + 1)
    (sitting,) = json.loads((run / "environment.json").read_text())["sittings"]
    assert (sitting["step"], sitting["backend"]) == (EPOCHS * STEPS, "jax")
    before, after = ((folder / "metrics.csv").read_text() for folder in (source.folder / "whole", run))
    assert after.startswith(before)
    accuracy = [float(row["accuracy"]) for row in csv.DictReader(after.splitlines())]
    assert accuracy[-1] > accuracy[-2] - 0.1  # it has not begun anew, at a third


def test_a_run_ends_when_the_disk_is_full_and_goes_on_when_it_is_not(workers):
    worker = workers("jax")
    run = worker.folder / "full"
    assert worker.begin("full", full_at=15) == (FAILED, 12)  # the system takes no checkpoint from step 15 on
    assert worker.error().startswith("OSError: the run stopped in epoch 2, step ")
    assert "File too large" in worker.error()
    assert f"once there is room on the disk, polyak train --resume {run} goes on from its last checkpoint" in worker.error()
    assert [path.name for path in (run / "checkpoints").iterdir() if path.name.startswith(".")] == []
    assert not (run / "result.json").exists()
    assert worker.do("go on", "full") == (0, EPOCHS * STEPS)
    assert_same(run, worker.folder / "whole")


# What cannot go on


def test_data_that_was_changed_is_noticed(workers):
    worker = workers("jax")
    worker.begin("changed", at=1, signal=signal.SIGTERM)
    environment = worker.folder / "changed" / "environment.json"
    environment.write_text(environment.read_text().replace('"data": "', '"data": "0'))
    assert worker.do("go on", "changed")[0] == FAILED
    assert "CannotResume: the data of" in worker.error()
    assert "has changed: data was 0" in worker.error()


def test_another_length_is_refused_where_a_schedule_went_by_it(workers):
    worker = workers("jax")
    assert worker.do("go on", "whole", changes={"epochs": EPOCHS + 1})[0] == FAILED
    assert f"a schedule of this run goes by its length, {EPOCHS} epochs" in worker.error()
    assert json.loads((worker.folder / "whole" / "result.json").read_text())["status"] == "completed"


def refused(folder, *words, capsys):
    """The one message of a `--resume` that is refused."""
    assert dispatch(["train", "--resume", str(folder), *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err.removeprefix("polyak: ").strip()


@pytest.fixture
def run(tmp_path):
    """The folder of a run, as far as it matters before a framework is loaded."""
    folder = tmp_path / "run"
    folder.mkdir()
    config.write(Options(epochs=3), folder / config.NAME)
    (folder / "environment.json").write_text('{"format": 1}')
    return folder


def test_what_is_no_run_is_refused(tmp_path, capsys):
    assert refused(tmp_path / "none", capsys=capsys) == f"there is no run {tmp_path / 'none'}."
    assert "is no run: it has no environment.json" in refused(tmp_path, capsys=capsys)
    (tmp_path / "config.json").touch()
    assert "is of an older version, which made no checkpoints. Begin a new run." in refused(tmp_path, capsys=capsys)


def test_a_run_of_another_format_is_refused(run, capsys):
    (run / "environment.json").write_text('{"format": 2}')
    assert "is of format 2, and this version of polyak goes on with format 1 only" in refused(run, capsys=capsys)


def test_a_run_that_another_process_has_is_refused(run, capsys):
    with locked(run):
        assert refused(run, capsys=capsys) == f"another process trains in {run}: wait for it, or stop it."


def test_a_run_without_a_checkpoint_is_refused_and_each_damaged_one_named(run, capsys):
    assert "has no checkpoint that is whole: begin a new run with --config" in refused(run, capsys=capsys)
    save(run / "checkpoints", 1)
    flip(run / "checkpoints" / "step-000000001" / "random.json")
    assert dispatch(["train", "--resume", str(run)]) == 2
    damaged, missing = capsys.readouterr().err.splitlines()
    assert "step-000000001 is damaged: random.json is not as it was written" in damaged
    assert "has no checkpoint that is whole" in missing


def test_a_run_that_failed_is_refused(run, capsys):
    (run / "result.json").write_text('{"status": "failed", "stopped": "the loss became NaN in epoch 1, step 2 of 3"}')
    assert "would fail again, for every step would have the same bits" in refused(run, capsys=capsys)


def test_fewer_epochs_than_there_were_are_refused(run, capsys):
    position = {"epoch": 1, "batch": 2, "step": 5, "seconds": 1.0}
    checkpoints.write(run / "checkpoints", 5, files_of(5), position, keep=1)
    assert "is in epoch 2 already: --epochs must be at least that" in refused(run, "--epochs", "1", capsys=capsys)


def test_a_complete_run_says_so(run, capsys):
    result = {"status": "completed", "epochs": 3, "step": 75, "stopped": None, "test_loss": 0.5, "test_accuracy": 0.75}
    (run / "result.json").write_text(json.dumps(result))
    assert dispatch(["train", "--resume", str(run)]) == 0
    out, err = capsys.readouterr()
    assert f"{run} is complete: all 3 epochs are done. With --epochs it can be made longer." in out
    assert "75.00%" in out
    assert err == ""
    assert json.loads((run / "result.json").read_text()) == result
