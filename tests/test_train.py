"""The parts of `polyak train` that need no Keras: folder, files, watching, showing. Whole runs are in test_cli.py."""

import csv
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
from polyak.train.metrics import Epoch, MetricsFiles, Rows, summary
from polyak.train.position import Length, Position
from polyak.train.watch import BadGradient, Diverged, Interrupted, Watch


def rows(run):
    """What a run recorded."""
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_missing_backend_names_the_extra(monkeypatch):
    monkeypatch.setattr(backends, "find_spec", lambda name: None if name == "jax" else object())
    with pytest.raises(backends.MissingPackage, match=r'pip install "polyak\[jax\]"'):
        backends.check_installed("jax")
    backends.check_installed("torch")


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


def test_discard_removes_only_a_folder_in_which_nothing_was_recorded(tmp_path):
    names = ("empty", "locked", "full")
    for name in names:
        (tmp_path / name).mkdir()
    (tmp_path / "full" / "config.toml").touch()
    with folder.locked(tmp_path / "locked"), folder.locked(tmp_path / "full"):
        for name in names:
            folder.discard(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
    assert (tmp_path / "full" / "config.toml").exists()


def test_the_folder_of_all_runs_goes_with_the_last_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = (folder.create(None, "digits") for _ in range(2))
    folder.discard(first)
    assert second.is_dir()
    folder.discard(second)
    assert list(tmp_path.iterdir()) == []
    folder.discard(folder.create(tmp_path / "mine" / "run", "digits"))
    assert (tmp_path / "mine").is_dir()  # which may have been there before


def test_a_folder_is_for_one_process_at_a_time(tmp_path):
    with folder.locked(tmp_path), pytest.raises(folder.BusyError, match="another process trains in"), folder.locked(tmp_path):
        pass
    with folder.locked(tmp_path):
        pass


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


VALUES = {"loss": 0.5, "accuracy": 0.75, "val_loss": 0.25, "val_accuracy": 0.875}


def an_epoch(number, **values):
    return Epoch(number, 25 * number, VALUES | values, float(np.float32(0.1)), float(np.float32(0.9)), 1.5 * number)


def recorded(folder, *epochs):
    files = MetricsFiles(folder)
    for epoch in epochs:
        files.append(epoch)
    files.close()


def test_metrics_are_on_the_disk_row_by_row_and_time_is_apart(tmp_path):
    files = MetricsFiles(tmp_path)
    files.append(an_epoch(1))
    text = "epoch,step,loss,accuracy,val_loss,val_accuracy,learning_rate,momentum\n1,25,0.5,0.75,0.25,0.875,0.1,0.9\n"
    assert (tmp_path / "metrics.csv").read_text() == text
    files.append(replace(an_epoch(2), momentum=None))
    assert (tmp_path / "metrics.csv").read_text() == text + "2,50,0.5,0.75,0.25,0.875,0.1,\n"
    assert (tmp_path / "timing.csv").read_text() == "epoch,seconds\n1,1.500\n2,3.000\n"
    files.close()


def test_metrics_keep_the_bits_of_a_float32(tmp_path):
    losses = np.random.default_rng(0).lognormal(0, 20, 200).astype(np.float32)
    recorded(tmp_path, *(an_epoch(n + 1, loss=float(loss)) for n, loss in enumerate(losses)))
    assert [np.float32(row["loss"]) for row in rows(tmp_path)] == losses.tolist()


def test_metrics_go_on_where_they_were_cut(tmp_path):
    recorded(tmp_path, *map(an_epoch, range(1, 4)))
    whole = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    files = MetricsFiles(tmp_path)
    files.append(an_epoch(4))
    position = files.position()
    files.append(an_epoch(5))
    files.cut(position)
    files.append(an_epoch(5, loss=0.125))
    files.close()
    assert [row["epoch"] for row in rows(tmp_path)] == ["1", "2", "3", "4", "5"]
    assert all((tmp_path / name).read_bytes().startswith(content) for name, content in whole.items())


def test_rows_that_are_gone_cannot_be_cut_to(tmp_path):
    file = Rows(tmp_path / "steps.csv")
    file.append(("a", "b"), ("1", "2"))
    with pytest.raises(ValueError, match="has 8 bytes, and had 9 when it was written"):
        file.cut(9)
    file.cut(4)
    file.close()
    assert (tmp_path / "steps.csv").read_text() == "a,b\n"


def test_the_summary_has_the_last_epoch_and_the_best(tmp_path):
    losses = (0.5, 0.25, 0.375)
    recorded(tmp_path, *(an_epoch(n, val_loss=loss) for n, loss in enumerate(losses, 1)))
    assert summary(tmp_path) == {"best_epoch": 2, "val_loss": 0.375, "val_accuracy": 0.875, "best_val_loss": 0.25}


def test_a_summary_has_no_number_that_json_has_not(tmp_path):
    recorded(tmp_path, an_epoch(1, val_accuracy=math.nan))
    assert summary(tmp_path)["val_accuracy"] is None
    (tmp_path / "empty").mkdir()
    recorded(tmp_path / "empty")
    assert summary(tmp_path / "empty") == {}


# Watching

LENGTH = Length(epochs=2, count=10, batch_size=4)  # three steps an epoch, of 4, 4 and 2 examples


def test_length_counts_the_last_smaller_step():
    assert (LENGTH.steps_per_epoch, LENGTH.steps) == (3, 6)
    assert [LENGTH.counted(n) for n in range(4)] == [0, 4, 8, 10]


class Recorder:
    """Stands in for the records, the display and what is measured."""

    def __init__(self):
        self.rows, self.lines, self.shown, self.steps, self.saved = [], [], [], [], []
        self.every = 1000
        self.bad = False

    def step(self, epoch, step, _logs):
        self.steps.append((epoch, step))

    def epoch(self, row, speed=None):
        (self.rows if speed is None else self.lines).append(row)  # of the records, of the display

    def due(self, step):
        return step % self.every == 0

    def save(self, position):
        self.saved.append(position)

    def progress(self, epoch, examples, _values):
        self.shown.append((epoch, examples))

    def numbers(self, logs):
        return dict(logs)

    def hyperparameters(self):
        return 0.1, 0.9

    def check(self):
        if self.bad:
            raise BadGradient("a gradient is not finite")


@pytest.fixture
def watched():
    """A watch, what it told, and its interruption."""
    return watch_from(Position())


def watch_from(start):
    recorder, interruption = Recorder(), Interruption()
    return Watch(recorder, recorder, interruption, recorder, LENGTH, start), recorder, interruption


def logs(**values):
    return {"accuracy": 0.75, "loss": 0.5} | values  # Keras has them in alphabetical order


def validated(**values):
    return logs() | {"val_accuracy": 0.875, "val_loss": 0.25} | values


def train(watch, steps=3):
    watch.epoch_begin()
    for _ in range(steps):
        watch.step(logs())


def where(positions):
    return [(position.epoch, position.batch, position.step) for position in positions]


def test_watch_records_each_step_and_epoch_and_saves_at_its_end(watched):
    watch, told, _ = watched
    for _ in range(2):
        train(watch)
        watch.epoch_end(validated())
    assert told.steps == [(1, 1), (1, 2), (1, 3), (2, 4), (2, 5), (2, 6)]
    assert where(told.saved) == [(1, 0, 3), (2, 0, 6)]
    assert [replace(row, seconds=0.0) for row in told.rows] == [Epoch(n, 3 * n, VALUES, 0.1, 0.9, 0.0) for n in (1, 2)]
    assert list(told.rows[0].values) == list(VALUES)  # the order of the columns
    assert 0 < told.saved[0].seconds < told.saved[1].seconds
    assert told.rows[-1].seconds <= told.saved[1].seconds


def test_all_examples_are_shown_however_seldom_watch_looks(watched):
    watch, told, _ = watched
    train(watch)
    assert told.shown == [(1, 4), (1, 6)]  # the first look, and the one at the last step; 0.1 s did not pass
    watch._next_look = math.inf
    watch.epoch_end(validated())
    train(watch)
    assert told.shown[2:] == [(2, 10)]


def test_watch_saves_within_an_epoch_but_not_at_its_last_step(watched):
    watch, told, _ = watched
    told.every = 3
    train(watch)
    assert told.saved == []  # that of the epoch comes
    watch.epoch_end(validated())
    told.every = 5
    train(watch)
    assert where(told.saved) == [(1, 0, 3), (1, 2, 5)]


def test_watch_goes_on_in_the_middle():
    watch, told, _ = watch_from(Position(epoch=1, batch=2, step=5, seconds=7.0))
    train(watch, 1)
    watch.epoch_end(validated())
    assert told.steps == [(2, 6)]
    assert told.shown == [(2, 2)]
    assert where(told.saved) == [(2, 0, 6)]
    assert (told.rows[0].epoch, told.rows[0].step) == (2, 6)
    assert told.rows[0].seconds > 7


@pytest.mark.parametrize(("loss", "word"), [(math.nan, "NaN"), (math.inf, "infinite"), (-math.inf, "infinite")])
def test_watch_stops_when_it_sees_a_loss_that_is_not_finite(watched, loss, word):
    watch, told, _ = watched
    watch.epoch_begin()
    watch.step(logs())
    watch._next_look = 0.0
    with pytest.raises(Diverged, match=f"the loss became {word} in epoch 1, step 2 of 3"):
        watch.step(logs(loss=loss))
    assert not told.rows


def test_a_loss_that_is_not_finite_is_in_no_checkpoint(watched):
    watch, told, _ = watched
    told.every = 2
    watch.epoch_begin()
    watch._next_look = math.inf
    watch.step(logs(loss=math.nan))
    with pytest.raises(Diverged):
        watch.step(logs(loss=math.nan))
    assert told.saved == []


def test_watch_stops_for_a_gradient_that_is_not_finite(watched):
    watch, told, _ = watched
    watch.epoch_begin()
    told.bad = True
    with pytest.raises(BadGradient):
        watch.step(logs())
    assert told.saved == []


def test_watch_stops_at_a_validation_loss_that_is_not_finite(watched):
    watch, told, _ = watched
    train(watch)
    with pytest.raises(Diverged, match="the validation loss became NaN in epoch 1, step 3 of 3"):
        watch.epoch_end(validated(val_loss=math.nan))
    assert not told.rows
    assert not told.saved


@pytest.mark.parametrize(("number", "name", "code"), [(signal.SIGINT, "Ctrl-C", 130), (signal.SIGTERM, "SIGTERM", 143)])
def test_a_signal_is_noted_and_saved_for(watched, number, name, code):
    watch, told, interruption = watched
    with interruption:
        interruption.defer()
        watch.epoch_begin()
        os.kill(os.getpid(), number)
        assert interruption.code == code
        with pytest.raises(Interrupted, match=f"by {name} in epoch 1, step 1 of 3"):
            watch.step(logs())
        assert where(told.saved) == [(0, 1, 1)]
        os.kill(os.getpid(), signal.SIGTERM)  # no news
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_at_the_last_step_of_an_epoch_waits_for_its_end(watched):
    watch, told, interruption = watched
    with interruption:
        interruption.defer()
        train(watch, 2)
        os.kill(os.getpid(), signal.SIGTERM)
        watch.step(logs())
        with pytest.raises(Interrupted, match="by SIGTERM after epoch 1"):
            watch.epoch_end(validated())
    assert where(told.saved) == [(1, 0, 3)]
    assert told.rows == told.lines
    assert len(told.rows) == 1


def test_a_signal_after_the_last_epoch_finds_the_run_complete():
    watch, told, interruption = watch_from(Position(epoch=1, batch=0, step=3))
    with interruption:
        interruption.defer()
        train(watch)
        os.kill(os.getpid(), signal.SIGINT)
        watch.epoch_end(validated())
    assert where(told.saved) == [(2, 0, 6)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_job_in_the_background_is_left_alone(number):
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with Interruption():
            assert signal.getsignal(number) == signal.SIG_IGN
    finally:
        signal.signal(number, before)


# Showing


def test_without_a_terminal_an_epoch_is_a_plain_line(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    show = display(Length(epochs=10, count=3000, batch_size=100), "accuracy")
    assert isinstance(show, Lines)
    with show:
        show.progress(1, 100, logs())
        show.epoch(an_epoch(9), speed=2000)
    assert capsys.readouterr().out == (
        "epoch  9/10  loss 0.5000  accuracy 75.00%  val_loss 0.2500  val_accuracy 87.50%  2,000 examples/s  2 s left\n"
    )


def test_a_metric_that_is_no_share_is_a_number_and_what_is_not_there_is_left_out(capsys):
    with display(Length(2, 100, 10, "batches"), "mae") as show:
        show.epoch(replace(an_epoch(1), values={"loss": 1.0, "mae": 12.5}), speed=50)
    assert capsys.readouterr().out == "epoch 1/2  loss 1.0000  mae 12.5000  50 batches/s  2 s left\n"


@pytest.mark.parametrize("epochs", [1, 30])
def test_curves_are_drawn_from_the_file_alone(tmp_path, epochs):
    recorded(tmp_path, *(an_epoch(n, loss=1 / n) for n in range(1, epochs + 1)))
    curves(tmp_path / "metrics.csv", tmp_path / "curves.png", "a title", "accuracy")
    png = (tmp_path / "curves.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    assert len(png) > 20_000  # two empty axes have about 10 kB
