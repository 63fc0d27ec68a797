"""steps.csv, layers.csv and event files, from a recorder that stands in a training loop. Whole runs are in test_resume.py."""

import csv
import json
import math
from collections.abc import Mapping
from types import SimpleNamespace

import numpy as np
import pytest

from polyak.train.position import Length
from polyak.train.recording import Recording
from polyak.train.recording.often import automatic
from polyak.train.recording.rows import OF_LAYER, OF_STEP, effective_learning_rate, of_layer, of_layers
from polyak.train.recording.window import Window, has_running_means, is_mean

# How often


@pytest.mark.parametrize(
    ("steps", "every"), [(0, 1), (1, 1), (24, 24), (25, 25), (350, 25), (25_000, 25), (25_001, 26), (1_000_000, 1000)]
)
def test_a_run_has_some_rows_and_not_too_many(steps, every):
    assert automatic(steps) == every
    assert min(1, steps) <= steps // every <= max(1, min(steps / 25, 1000))  # half a step more for one in 25 is 2 %


# Means since the last row


def test_a_window_is_the_mean_since_the_last_row_across_epochs():
    rng = np.random.default_rng(0)
    losses, sizes = rng.lognormal(size=20), np.array([4, 4, 4, 4, 2] * 4)  # the last batch of an epoch is smaller
    window, found = Window(), []
    for step in range(20):
        epoch = slice(step // 5 * 5, step + 1)
        mean, count = np.average(losses[epoch], weights=sizes[epoch]), sizes[epoch].sum()
        if (step + 1) % 3 == 0:
            found.append(window.row(mean, count))
        if step % 5 == 4:
            window.epoch_ends(mean, count)
        window = Window(json.loads(json.dumps(window.state())))  # as if the run had been stopped here
    true = [np.average(losses[i : i + 3], weights=sizes[i : i + 3]) for i in range(0, 18, 3)]
    np.testing.assert_allclose(found, true, rtol=1e-13)  # differences of float64 sums of 20 numbers


def test_the_error_of_a_window_is_within_the_bound_that_its_docstring_gives():
    rng = np.random.default_rng(1)
    losses = (rng.lognormal(size=10_000) * np.linspace(1, 0.01, 10_000)).astype("float32")
    window, total = Window(), np.float32(0)
    for n, loss in enumerate(losses, 1):
        total += loss  # as Keras sums up, in float32
        if n % 100 == 0:
            mean = total / np.float32(n)
            true = losses[n - 100 : n].astype("float64").mean()
            assert abs(window.row(float(mean), n) - true) <= 2**-24 * float(mean) * n * 2  # at both ends of the window


def test_a_loss_that_is_not_finite_is_carried_through_a_checkpoint():
    window = Window()
    window.row(math.nan, 3)
    assert math.isnan(Window(json.loads(json.dumps(window.state(), allow_nan=False))).row(1.0, 6))


# Rows


def measures(*variables):
    """The six numbers of a recorder, from gradient, velocity, step and weight of each variable."""
    rows = []
    for g, v, s, w in variables:
        norms = [-1 if x is None else np.linalg.norm(x) for x in (g, v, s, w)]
        rows.append([*norms, -1 if v is None else np.dot(g, v), np.dot(g, s)])
    return np.array(rows, "float32")


def test_totals_are_those_of_all_variables_as_one_vector():
    rng = np.random.default_rng(0)
    parts = [rng.standard_normal((4, n)) for n in (3, 5, 2)]
    g, v, s, w = np.concatenate(parts, 1)
    total = of_layers(measures(*parts))
    norms = np.linalg.norm
    expected = [norms(g), norms(v), norms(s), norms(w), g @ v / (norms(g) * norms(v)), -(g @ s)]
    np.testing.assert_allclose(list(total.values()), expected, rtol=1e-6)  # float32 numbers, of which 10 are added up
    assert of_layer(measures(parts[0])[0])["gradient_norm"] == pytest.approx(norms(parts[0][0]))


def test_what_there_is_not_is_none_and_what_is_not_finite_stays():
    one = np.ones(4)
    without = of_layers(measures((one, None, one, one)))
    assert without["velocity_norm"] is None
    assert without["cosine"] is None
    assert of_layers(measures((one, 0 * one, one, one)))["cosine"] is None  # before the first step
    absent = np.full((1, 6), -1.0)
    assert of_layer(absent[0]) is None
    assert of_layers(np.concatenate([absent, measures((one, one, one, one))])) == of_layers(measures((one, one, one, one)))
    assert of_layers(measures((one, one, one, one)))["cosine"] == 1  # and not 1.0000001
    bad = of_layers(measures((np.nan * one, one, 0 * one, one)))
    assert math.isnan(bad["gradient_norm"])
    assert math.isnan(bad["cosine"])
    assert bad["step_norm"] == 0


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        ({"class": "Momentum", "velocity": "gradient", "dampening": 0.0}, 0.5),
        ({"class": "Momentum", "velocity": "step", "dampening": 0.5}, 0.25),
        ({"class": "Momentum", "velocity": "average", "dampening": 0.0}, 0.1),
        ({"class": "LARS"}, 0.5),
        ({"class": "AggMo", "momenta": (0.0, 0.5, 0.75)}, 0.1 * (1 + 2 + 4) / 3),
        ({"class": "QHM"}, 0.1),
        ({"class": "Lion"}, 0.1),
    ],
    ids=lambda x: str(x),
)
def test_the_effective_learning_rate_is_the_step_over_a_gradient_that_stays(optimizer, expected):
    assert effective_learning_rate(optimizer, 0.1, 0.8) == pytest.approx(expected)


# In a run, of which the numbers are made up

N, BATCH, EPOCHS, EVERY = 22, 4, 3, 4  # six steps an epoch, the last one with two examples
SIZES = [2 if step % 6 == 5 else 4 for step in range(18)]
LOSSES = np.random.default_rng(0).lognormal(size=18)
X = np.random.default_rng(0).standard_normal((N, 3)).astype("float32")
Y = (X[:, 0] > 0).astype("int32")


class Steps:
    """Stands in for a recorder: its numbers follow from the number of the step."""

    paths = ("net/hidden/kernel", "net/hidden/bias", "net/odd, name")
    variables = ()
    capacity = 2

    def __init__(self, optimizer, every):
        self.period = every * (optimizer.gradient_accumulation_steps or 1)
        self.made = self.read_until = 0  # set by `train`

    def read(self):
        steps = [s for s in range(self.read_until + 1, self.made + 1) if s % self.period == 0]
        self.read_until = self.made
        assert len(steps) <= self.capacity
        found = [np.random.default_rng(s).standard_normal((3, 6)).astype("float32") ** 2 for s in steps]
        return SimpleNamespace(steps=steps, rates=np.float32([[0.1, 0.9]] * len(steps)), measures=np.array(found))


class Unread(Mapping):
    """What a step measured, which nobody may read within an epoch, unless the recorder is full."""

    def __init__(self, logs):
        self._logs, self.free = logs, False

    def __getitem__(self, name):
        assert self.free, "a value of the device was read"
        return self._logs[name]

    def __iter__(self):
        return iter(self._logs)

    def __len__(self):
        return len(self._logs)


@pytest.fixture(scope="module")
def model():
    import keras

    layers = keras.layers.Dense(4, "tanh", name="hidden"), keras.layers.Dense(2, name="out")
    model = keras.Sequential([keras.Input((3,)), *layers], name="net")
    model.compile("sgd", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    model._symbolic_build(data_batch=(X[:1], Y[:1]))
    return model


@pytest.fixture
def job(model, monkeypatch):
    """What a recording needs of `polyak.train.job.Job`."""
    import polyak.keras
    from polyak.keras import recorder
    from polyak.train.callbacks import numbers

    monkeypatch.setattr(recorder, "Recorder", Steps)
    length = Length(EPOCHS, N, BATCH)
    return SimpleNamespace(
        options=SimpleNamespace(record=EVERY, tensorboard=False),
        model=model,
        optimizer=polyak.keras.Momentum(0.1, 0.9),
        task=SimpleNamespace(main="accuracy"),
        length=length,
        steps=length.steps,
        steps_per_epoch=length.steps_per_epoch,
        numbers=numbers,
    )


def train(job, recording, first=1, last=18):
    """The steps from `first` to `last`."""
    logs = []
    for step in range(first, last + 1):
        epoch, batch = divmod(step - 1, job.steps_per_epoch)
        so_far = slice(epoch * job.steps_per_epoch, step)
        mean = np.float32(np.average(LOSSES[so_far], weights=SIZES[so_far]))
        logs.append(Unread({"loss": mean, "accuracy": mean / 8}))
        recording._recorder.made = step
        ends = batch == job.steps_per_epoch - 1
        for each in logs:
            each.free = ends or step % (EVERY * Steps.capacity) == 0
        recording.step(epoch + 1, step, logs[-1])
        if ends:
            recording.flush()
            recording.epoch(step, {"val_loss": float(step)})
    for each in logs:
        each.free = True
    recording.flush()


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def whole(folder, job):
    """A whole run."""
    recording = Recording(folder, job)
    assert not list(folder.iterdir())  # a run that does not begin leaves its folder empty
    train(job, recording)
    recording.close()


def test_steps_and_layers_are_written_in_whole_rows(tmp_path, job):
    whole(tmp_path, job)
    steps, layers = rows(tmp_path / "steps.csv"), rows(tmp_path / "layers.csv")
    assert list(steps[0]) == ["step", "epoch", "loss", "accuracy", *OF_STEP]
    assert list(layers[0]) == ["step", "layer", *OF_LAYER]
    assert [(row["step"], row["epoch"]) for row in steps] == [("4", "1"), ("8", "2"), ("12", "2"), ("16", "3")]
    names = ["hidden/kernel", "hidden/bias", "odd, name"]
    assert [(row["step"], row["layer"]) for row in layers] == [(row["step"], name) for row in steps for name in names]
    assert {(row["learning_rate"], row["momentum"], row["effective_learning_rate"]) for row in steps} == {("0.1", "0.9", "1.0")}
    means = [np.average(LOSSES[i : i + 4], weights=SIZES[i : i + 4]) for i in range(0, 16, 4)]
    # The bound in the docstring of Window, for six steps an epoch and losses of about one size.
    np.testing.assert_allclose([float(row["loss"]) for row in steps], means, rtol=2e-6)
    np.testing.assert_allclose([float(row["accuracy"]) for row in steps], np.divide(means, 8), rtol=2e-6)
    for row in steps:
        total = np.sqrt(sum(float(layer["step_norm"]) ** 2 for layer in layers if layer["step"] == row["step"]))
        assert float(row["step_norm"]) == pytest.approx(total, rel=1e-6)  # written as float32


@pytest.mark.parametrize("stop", range(1, 18))
def test_a_run_that_goes_on_writes_the_same_bytes(tmp_path, job, stop):
    once, twice = tmp_path / "once", tmp_path / "twice"
    once.mkdir()
    twice.mkdir()
    whole(once, job)

    recording = Recording(twice, job)
    train(job, recording, 1, stop)
    position = json.loads(json.dumps(recording.position(), allow_nan=False))
    train(job, recording, stop + 1, min(stop + 6, 18))  # and then it is killed
    recording.close()

    job.options.record = 99  # what was chosen at the start stays
    recording = Recording(twice, job, position)
    recording.cut()
    recording._recorder.read_until = stop
    train(job, recording, stop + 1)
    recording.close()
    for name in ("steps.csv", "layers.csv"):
        assert (twice / name).read_bytes() == (once / name).read_bytes()


def test_a_run_that_is_shorter_than_the_interval_has_a_header(tmp_path, job):
    job.options.record = 100
    whole(tmp_path, job)
    assert rows(tmp_path / "steps.csv") == []
    assert (tmp_path / "steps.csv").read_text().startswith("step,epoch,loss,accuracy,learning_rate")


@pytest.mark.parametrize(("accumulated", "last"), [(None, "18"), (4, "16")])
def test_a_short_run_has_the_row_of_its_last_update(accumulated, last, tmp_path, job):
    job.options.record = 0
    job.optimizer.gradient_accumulation_steps = accumulated
    whole(tmp_path, job)
    assert [row["step"] for row in rows(tmp_path / "steps.csv")] == [last]


def test_a_task_without_a_main_metric_has_no_column_of_it(tmp_path, job):
    job.task.main = ""
    whole(tmp_path, job)
    assert list(rows(tmp_path / "steps.csv")[0]) == ["step", "epoch", "loss", *OF_STEP]


def test_what_a_train_step_of_ones_own_gives_is_recorded_as_it_is(tmp_path, job):
    import keras

    class Own(keras.Sequential):
        def train_step(self, *arguments):
            return super().train_step(*arguments)

    assert has_running_means(job.model)
    job.model = Own(name="net")
    assert not has_running_means(job.model)
    recording = Recording(tmp_path, job)
    for step in (3, 4):
        recording._recorder.made = step
        recording.step(1, step, {"loss": step / 8})
    recording.flush()
    recording.close()
    assert [(row["loss"], row["accuracy"]) for row in rows(tmp_path / "steps.csv")] == [("0.5", "")]


def test_fit_is_recorded(tmp_path):
    """The real recorder in a real fit(), whose losses are computed once more before each step."""
    import keras

    import polyak.keras
    from polyak.train.callbacks import Callbacks, numbers

    keras.utils.set_random_seed(0)
    length = Length(2, N, BATCH)
    job = SimpleNamespace(
        options=SimpleNamespace(record=2, tensorboard=False),
        model=keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="out")]),
        optimizer=polyak.keras.Momentum(0.1, 0.9),
        task=SimpleNamespace(main="accuracy"),
        length=length,
        steps=length.steps,
        steps_per_epoch=length.steps_per_epoch,
        numbers=numbers,
    )
    recording = Recording(tmp_path, job)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    job.model.compile(job.optimizer, loss=loss, metrics=["accuracy"])
    losses, kernels = [], []

    def begin(batch, logs):
        assert not logs
        at = slice(batch * BATCH, (batch + 1) * BATCH)
        losses.append(float(loss(Y[at], job.model(X[at]))))
        kernels.append(job.model.get_weights()[0].astype("float64"))

    follow = keras.callbacks.LambdaCallback(
        on_train_batch_begin=begin,
        on_train_batch_end=lambda _, logs: recording.step((len(losses) - 1) // 6 + 1, len(losses), logs),
        on_epoch_end=lambda *_: recording.flush(),
    )
    callbacks = Callbacks([follow], add_history=True, model=job.model)
    job.model.fit(X, Y, batch_size=BATCH, epochs=2, verbose=0, shuffle=False, callbacks=callbacks)
    recording.close()
    steps, layers = rows(tmp_path / "steps.csv"), rows(tmp_path / "layers.csv")
    assert [int(row["step"]) for row in steps] == [2, 4, 6, 8, 10, 12]
    means = [np.average(losses[i : i + 2], weights=SIZES[i : i + 2]) for i in range(0, 12, 2)]
    # As above, and float32 losses.
    np.testing.assert_allclose([float(row["loss"]) for row in steps], means, rtol=5e-6)
    kernels.append(job.model.get_weights()[0].astype("float64"))
    truth = [np.linalg.norm(kernels[s - 1] - kernels[s]) for s in range(2, 13, 2)]
    # A sum of six float32 squares.
    np.testing.assert_allclose([float(row["step_norm"]) for row in layers if row["layer"] == "out/kernel"], truth, rtol=1e-6)


def test_only_metrics_that_are_means_have_a_mean_since_the_last_row():
    import keras

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", loss="mse", metrics=["mae", keras.metrics.RootMeanSquaredError(), keras.metrics.AUC(name="auc")])
    model._symbolic_build(data_batch=(X[:1], Y[:1, None]))
    found = [is_mean(model, name) for name in ("loss", "mae", "root_mean_squared_error", "auc", "other")]
    assert found == [True, True, False, False, False]


def test_event_files_say_what_the_tables_say(tmp_path, job):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    job.options.tensorboard = True
    whole(tmp_path, job)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    tags = events.Tags()["scalars"]
    steps, layers = rows(tmp_path / "steps.csv"), rows(tmp_path / "layers.csv")
    for tag, name in (("train/loss", "loss"), ("norm/step_norm", "step_norm"), ("momentum/cosine", "cosine")):
        values = {event.step: np.float32(event.value) for event in events.Scalars(tag)}
        assert values == {int(row["step"]): np.float32(row[name]) for row in steps}
    assert [event.value for event in events.Scalars("epoch/val_loss")] == [6, 12, 18]
    assert {f"layers_cosine/{row['layer']}" for row in layers if "odd" not in row["layer"]} <= set(tags)  # it replaces a comma
    assert {tag.partition("/")[0] for tag in tags} == {
        "train", "rate", "norm", "momentum", "epoch", *(f"layers_{name}" for name in OF_LAYER)
    }  # fmt: skip


def test_event_files_of_a_run_that_goes_on_have_each_step_once(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from polyak.train.recording.events import Events

    events = Events(tmp_path)
    for step in range(1, 7):
        events.step(step, {"loss": float(step)})
    events.close()
    events = Events(tmp_path, step=3)  # killed after step 6; its last checkpoint was made after step 3
    for step in range(4, 9):
        events.step(step, {"loss": 10.0 * step})
    events.close()
    found = EventAccumulator(str(tmp_path), purge_orphaned_data=True).Reload().Scalars("train/loss")
    assert [(event.step, event.value) for event in found] == [(1, 1), (2, 2), (3, 3), *((s, 10 * s) for s in range(4, 9))]
