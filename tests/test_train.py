"""The parts of `polyak train` that need no Keras. Whole runs are in test_cli.py."""

import csv
import hashlib
import json
import math
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from polyak.report.curves import curves
from polyak.train import backends, folder
from polyak.train.display import Lines, display
from polyak.train.interrupt import Interruption
from polyak.train.metrics import Epoch, MetricsFile
from polyak.train.options import Options
from polyak.train.tasks import TASKS, digits
from polyak.train.watch import Diverged, Interrupted, Watch


def rows(run):
    """What a run recorded."""
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


# Options


def test_defaults_are_what_the_readme_says():
    options = Options()
    assert (options.task, options.backend, options.lr, options.momentum) == ("digits", "tensorflow", 0.1, 0.9)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"task": "digit"}, "unknown task 'digit'; choose from digits. Did you mean 'digits'"),
        ({"task": "imagenet"}, "unknown task 'imagenet'; choose from digits.$"),
        ({"backend": "numpy"}, "unknown --backend 'numpy'; choose from tensorflow, jax, torch"),
        ({"model": "CNN"}, "Did you mean 'cnn'"),
        ({"lr": 0.0}, "--lr must be finite and above 0; got 0.0"),
        ({"lr": -0.1}, "--lr must"),
        ({"lr": math.nan}, "--lr must"),
        ({"lr": math.inf}, "--lr must"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\); got 1.0"),
        ({"momentum": -0.1}, "momentum must"),
        ({"momentum": 0.0, "nesterov": True}, "no effect with momentum=0"),
        ({"velocity": "speed"}, "velocity must be one of 'gradient', 'step', 'average'; got 'speed'"),
        ({"epochs": 0}, "--epochs must be at least 1; got 0"),
        ({"batch_size": 0}, "--batch-size must be from 1 to 6400"),
        ({"batch_size": 6401}, "--batch-size must be from 1 to 6400"),
        ({"seed": -1}, "--seed must"),
        ({"seed": 2**32}, "--seed must"),
    ],
)
def test_wrong_options_say_what_would_be_right(wrong, message):
    with pytest.raises(ValueError, match=message):
        Options(**wrong)


@pytest.mark.parametrize(
    "edge", [{"momentum": 0.0}, {"batch_size": 6400}, {"batch_size": 1}, {"epochs": 1}, {"seed": 2**32 - 1}]
)
def test_options_at_the_edge_are_right(edge):
    assert replace(Options(), **edge)


def test_a_missing_backend_names_the_extra(monkeypatch):
    monkeypatch.setattr(backends, "find_spec", lambda name: None if name == "jax" else object())
    with pytest.raises(backends.MissingPackage, match=r'pip install "polyak\[jax\]"'):
        backends.check_installed("jax")
    backends.check_installed("torch")


# Digits


def test_the_split_is_fixed_disjoint_complete_and_stratified():
    train, validation, test = digits.split()
    assert (len(train), len(validation), len(test)) == (1280, 160, 357)
    assert sorted(np.concatenate([train, validation, test])) == list(range(1797))
    # Recorded once: with other test images, results could not be compared with earlier ones.
    assert hashlib.sha256(np.sort(test).astype("<i8").tobytes()).hexdigest()[:16] == "5d651cf3b440ca44"
    labels = digits.load().test.labels
    assert np.bincount(labels).min() >= 34  # 35.7 of each class, before rounding
    assert np.bincount(labels).max() <= 37


def test_digits_are_images_in_0_1_and_only_training_has_shifts():
    data = digits.load()
    assert TASKS["digits"].train_size == len(data.train.labels) == 5 * 1280
    for part in data:
        assert part.images.shape == (len(part.labels), 8, 8, 1)
        assert part.images.dtype == np.float32
        assert part.labels.dtype == np.int32
        assert part.images.min() == 0
        assert part.images.max() == 1
    assert len(data.validation.labels) == 160
    assert len(data.test.labels) == 357


def test_shifts_move_by_one_pixel_and_keep_the_label():
    images = np.zeros((2, 8, 8, 1), np.float32)
    images[0, 0, 3] = images[1, 5, 5] = 1
    moved = digits.shifted(digits.Data(images, np.array([7, 3], np.int32)))
    places = {7: [], 3: []}
    for image, label in zip(moved.images, moved.labels, strict=True):
        places[int(label)] += [tuple(map(int, place[:2])) for place in np.argwhere(image)]
    assert sorted(places[3]) == [(4, 5), (5, 4), (5, 5), (5, 6), (6, 5)]
    assert sorted(places[7]) == [(0, 2), (0, 3), (0, 4), (1, 3)]  # upwards, it left the picture


# The folder


def test_a_folder_is_made_with_its_parents_and_never_taken_twice(tmp_path):
    run = folder.create(tmp_path / "a" / "b" / "c", "digits")
    assert run.is_dir()
    with pytest.raises(OSError, match="exists already, and a run is never written over"):
        folder.create(run, "digits")


def test_runs_of_one_second_get_different_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = {folder.create(None, "digits") for _ in range(5)}
    assert len(made) == 5
    assert all(path.parent == Path("runs") and path.name.startswith("digits-2") for path in made)


def test_a_folder_that_cannot_be_made_says_why(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"cannot make .*file/run: .*file is a file. Choose another --out"):
        folder.create(tmp_path / "file" / "run", "digits")

    def refuse(self, **_):
        raise PermissionError(13, "Permission denied", str(self))  # root, who may run the tests, is never refused

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(OSError, match=r"cannot make .*: Permission denied. Choose another --out"):
        folder.create(tmp_path / "run", "digits")


def test_discard_removes_only_an_empty_folder(tmp_path):
    empty, full = tmp_path / "empty", tmp_path / "full"
    empty.mkdir()
    full.mkdir()
    (full / "config.json").touch()
    folder.discard(empty)
    folder.discard(full)
    assert list(tmp_path.iterdir()) == [full]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "result.json"
    folder.write_json(path, {"a": 0.1})
    seen = []

    def fails(temporary):
        temporary.write_text("half")
        seen.append(temporary)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        folder.replace(path, fails)
    assert seen[0].parent == tmp_path
    assert seen[0].suffix == ".json"
    assert list(tmp_path.iterdir()) == [path]
    assert json.loads(path.read_text()) == {"a": 0.1}


# Metrics


def an_epoch(number, **changes):
    return replace(Epoch(number, 0.5, 0.75, 0.25, 0.875, float(np.float32(0.1)), float(np.float32(0.9)), 1.5), **changes)


def test_metrics_are_on_the_disk_row_by_row(tmp_path):
    path = tmp_path / "metrics.csv"
    file = MetricsFile(path)
    assert path.read_text() == "epoch,loss,accuracy,val_loss,val_accuracy,learning_rate,momentum,seconds\n"
    file.append(an_epoch(1))
    assert path.read_text().splitlines()[1:] == ["1,0.5,0.75,0.25,0.875,0.1,0.9,1.500"]
    file.append(an_epoch(2))
    assert path.read_text().count("\n") == 3
    file.close()


def test_metrics_keep_the_bits_of_a_float32(tmp_path):
    losses = np.random.default_rng(0).lognormal(0, 20, 200).astype(np.float32)
    file = MetricsFile(tmp_path / "metrics.csv")
    for n, loss in enumerate(losses):
        file.append(an_epoch(n + 1, loss=float(loss)))
    file.close()
    assert [np.float32(row["loss"]) for row in rows(tmp_path)] == losses.tolist()


# Watching


class Recorder:
    """Stands in for the file and the display."""

    def __init__(self):
        self.rows, self.batches = [], []

    def append(self, row):
        self.rows.append(row)

    def epoch(self, row):
        pass

    def batch(self, *what):
        self.batches.append(what)


@pytest.fixture
def watched():
    """A watch over epochs of 10 images in steps of 4, its recorder, and its interruption."""
    recorder, interruption = Recorder(), Interruption()
    return Watch(recorder, recorder, interruption, lambda: (0.1, 0.9), images=10, batch_size=4), recorder, interruption


def logs(loss=0.5, val_loss=0.25):
    return {"loss": loss, "accuracy": 0.75, "val_loss": val_loss, "val_accuracy": 0.875}


def test_watch_shows_each_step_and_records_each_epoch(watched):
    watch, recorder, _ = watched
    for epoch in range(2):
        watch.epoch_begin(epoch)
        for batch in range(3):
            watch.batch_end(batch, logs())
        watch.epoch_end(epoch, logs())
    assert [(epoch, images) for epoch, images, *_ in recorder.batches] == [(1, 4), (1, 4), (1, 2), (2, 4), (2, 4), (2, 2)]
    assert recorder.rows == watch.rows
    assert [replace(row, seconds=0.0) for row in watch.rows] == [
        Epoch(epoch, 0.5, 0.75, 0.25, 0.875, 0.1, 0.9, 0.0) for epoch in (1, 2)
    ]


@pytest.mark.parametrize(("loss", "word"), [(math.nan, "NaN"), (math.inf, "infinite"), (-math.inf, "infinite")])
def test_watch_stops_at_the_step_that_has_no_finite_loss(watched, loss, word):
    watch, recorder, _ = watched
    watch.epoch_begin(0)
    watch.batch_end(0, logs())
    with pytest.raises(Diverged, match=f"the loss became {word} in epoch 1, step 2 of 3"):
        watch.batch_end(1, logs(loss))
    assert not recorder.rows


def test_watch_stops_at_a_validation_loss_that_is_not_finite(watched):
    watch, recorder, _ = watched
    watch.epoch_begin(0)
    watch.batch_end(2, logs())
    with pytest.raises(Diverged, match="the validation loss became NaN in epoch 1, step 3 of 3"):
        watch.epoch_end(0, logs(val_loss=math.nan))
    assert not recorder.rows


def test_ctrl_c_is_noted_then_raised(watched):
    watch, _, interruption = watched
    with interruption:
        interruption.defer()
        watch.epoch_begin(0)
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Interrupted, match="in epoch 1, step 1 of 3"):
            watch.batch_end(0, logs())
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_job_in_the_background_does_not_take_ctrl_c():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interruption():
            assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_without_a_terminal_an_epoch_is_a_plain_line(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    show = display(epochs=10, images=3000)
    assert isinstance(show, Lines)
    with show:
        show.batch(1, 100, 0.5, 0.75)
        show.epoch(an_epoch(9))
    assert capsys.readouterr().out == (
        "epoch  9/10  loss 0.5000  accuracy 75.00%  val_loss 0.2500  val_accuracy 87.50%  2,000 images/s  2 s left\n"
    )


@pytest.mark.parametrize("epochs", [1, 30])
def test_curves_are_drawn_from_the_file_alone(tmp_path, epochs):
    file = MetricsFile(tmp_path / "metrics.csv")
    for n in range(1, epochs + 1):
        file.append(an_epoch(n, loss=1 / n))
    file.close()
    curves(tmp_path / "metrics.csv", tmp_path / "curves.png", "a title")
    png = (tmp_path / "curves.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    assert len(png) > 20_000  # two empty axes have about 10 kB
