"""`polyak predict`: raw input to CSV, with models that were saved on one backend and are used on every one."""

import csv
import io
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import polars as pl
import pytest
from PIL import Image

from polyak.train import checkpoints, config
from polyak.train.backends import BACKENDS
from polyak.train.folder import write_json
from polyak.train.job import Job
from polyak.train.options import Options
from polyak.train.predict import applied, load, predict, predictions, write
from polyak.train.tasks import TaskError, find

ROWS = 60


def data(folder):
    """A table, a folder of pictures and arrays, which are all seen before any model is made."""
    rng = np.random.default_rng(0)
    table = pl.DataFrame(
        {
            "id": range(ROWS),
            "size": rng.lognormal(3, 1, ROWS),
            "colour": rng.choice(["red", "blue"], ROWS),
            "day": pl.Series(rng.integers(19000, 19400, ROWS), dtype=pl.Int32).cast(pl.Date),
            "price": rng.random(ROWS) * 1e6,
            "kind": rng.choice(["small, or so", "large"], ROWS),
        }
    )
    table.write_csv(folder / "table.csv")
    table.write_parquet(folder / "table.parquet")
    for k in range(6):
        path = folder / "pets" / ("cat", "dog")[k % 2] / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (9, 8, 3), dtype=np.uint8)).save(path)
    np.savez(folder / "arrays.npz", x=rng.random((20, 10)), y=rng.integers(0, 3, 20))


RUNS = {
    "kinds": {"task": "table.csv", "target": "kind"},
    "prices": {"task": "table.parquet", "target": "price"},
    "pictures": {"task": "pets"},
    "arrays": {"task": "arrays.npz", "model": "cnn"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with data and runs: a model that was made, with the weights that it began with, and the options."""
    folder = tmp_path_factory.mktemp("predict")
    data(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, options in RUNS.items():
            task = find(options["task"], target=options.get("target"))
            keras.utils.set_random_seed(3)
            Path(name).mkdir()
            task.models[options.get("model") or next(iter(task.models))]().save(f"{name}/model.keras")
            config.write(Options(**options), Path(name, "config.toml"))
        table = pl.read_csv("table.csv", try_parse_dates=True)
        table.head(3).drop("id").with_columns(note=pl.lit("not looked at")).write_csv("new.csv", separator=";")
        table.head(3).drop("price").write_parquet("new.parquet")
        table.head(3).with_columns(pl.lit(None).alias("size"), pl.lit("green").alias("colour")).write_csv("odd.csv")
        table.head(3).drop("size", "day").write_csv("few.csv")
        table.head(3).with_columns(pl.lit("big").alias("size")).write_csv("bad.csv")
        Path("empty").mkdir()
        np.savez("new.npz", x=np.load("arrays.npz")["x"][:2])
        np.savez("wide.npz", x=np.zeros((2, 11)))
    return folder


# What goes in -> how many rows come out.
GOOD = {
    "kinds new.csv": 3,
    "kinds table.parquet": ROWS,
    "kinds odd.csv": 3,
    "prices table.csv": ROWS,
    "prices new.csv": 3,
    "prices new.parquet": 3,
    "pictures pets": 6,
    "pictures pets/cat/0.png": 1,
    "arrays new.npz": 2,
    "arrays arrays.npz --out written.csv": 0,
}
# What goes in -> what is said. It has nothing to do with the backend: one is enough.
BAD = {
    "kinds few.csv": "few.csv lacks 'size', 'day' of the 4 columns that the model was trained with.",
    "kinds bad.csv": "column 'size' has 'big' in row 1: it was a number in training.",
    "kinds pets": "pets is no table, and the model was trained on one: .csv, .tsv or .parquet is needed.",
    "kinds absent.csv": "there is no file or folder absent.csv.",
    "pictures empty": "empty has no PNG or JPEG file, neither directly nor in a sub-folder.",
    "pictures bad.csv": "1 of 1 pictures cannot be read: bad.csv: no PNG or JPEG. Repair them or take them out.",
    "arrays wide.npz": "x in wide.npz has examples of shape (11,); the model takes (10,).",
    "arrays few.csv": "few.csv is no .npz file, and the model was trained on arrays: numpy.savez('new.npz', x=...) writes one.",
    "empty new.csv": "empty is no run of `polyak train`: it has no config.toml.",
    "kinds new.csv --out absent/out.csv": "cannot write absent/out.csv: absent is no folder.",
}


HERE = keras.backend.backend()
OTHERS = [backend for backend in BACKENDS if backend != HERE]


@pytest.fixture(scope="module", params=BACKENDS)
def answers(request, folder):
    """What every command wrote, on a backend: command -> exit code, rows, message."""
    if request.param == HERE:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            return {command: in_this_process(*command.split()) for command in GOOD}
    commands = [*GOOD, *(BAD if request.param == OTHERS[0] else ())]
    (folder / "written.csv").unlink(missing_ok=True)
    worker = (sys.executable, Path(__file__).with_name("predict_worker.py"), request.param)
    done = subprocess.run(worker, cwd=folder, input="\n".join(commands), capture_output=True, text=True, check=True)
    found = {}
    for command, out, err in zip(commands, parted(done.stdout), parted(done.stderr), strict=True):
        found[command] = out[1], list(csv.reader(io.StringIO(out[0]))), err[0]
    return found


def in_this_process(run, source, _=None, out=None):
    """The command without the choice of a backend, which would change how all tests after it compute."""
    model = load(Path(run), config.read(Path(run, "config.toml")))
    rows = predictions(model, Path(source))
    if out is not None:
        write(rows, Path(out))
        return 0, [], ""
    return 0, [list(row) for some in rows for row in some], ""


def parted(text):
    """What came before each "exit N", and N."""
    parts, before = [], []
    for line in text.splitlines(keepends=True):
        if line.startswith("exit "):
            parts.append(("".join(before), int(line[5:])))
            before = []
        else:
            before.append(line)
    return parts


def test_commands_give_rows_or_one_message(answers):
    for command, (code, rows, err) in answers.items():
        if command in BAD:
            assert (code, rows, err) == (2, [], f"polyak: {BAD[command]}\n"), command
        else:
            assert (code, err) == (0, ""), command
            assert len(rows) == (GOOD[command] + 1 if GOOD[command] else 0), command


def expected(folder, name, x):
    """What the model says here, on the backend of this process."""
    import polyak.train.layers  # noqa: F401  (so that Keras knows them)

    model = keras.models.load_model(folder / name / "model.keras", compile=False)
    return keras.ops.convert_to_numpy(model(x, training=False)).astype(float)


# Sums of some hundred float32 numbers near 1, in another order on each backend: 100 * 6e-8, and a few layers of them.
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


def test_classes_have_their_names_and_probabilities(answers, folder, monkeypatch):
    monkeypatch.chdir(folder)
    _, (header, *rows), _ = answers["kinds table.parquet"]
    assert header == ["prediction", "probability_large", "probability_small, or so"]
    shares = np.array([row[1:] for row in rows], float)
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-6)  # float32
    assert [row[0] for row in rows] == [("large", "small, or so")[k] for k in shares.argmax(1)]
    task = find("table.csv", target="kind")
    logits = expected(folder, "kinds", np.concatenate([task.train.x, task.validation.x]))
    odds = np.exp(logits)
    found = np.sort(shares[:, 0])  # the rows of the task are in another order
    np.testing.assert_allclose(found, np.sort((odds / odds.sum(1, keepdims=True))[:, 0]), **TOLERANCE)
    # Three of these rows again, from CSV with another separator and other columns beside.
    _, (_, *few), _ = answers["kinds new.csv"]
    np.testing.assert_allclose(np.array([row[1:] for row in few], float), shares[:3], **TOLERANCE)


def test_what_is_missing_or_new_has_an_answer_too(answers):
    _, (_, *rows), _ = answers["kinds odd.csv"]
    assert np.isfinite(np.array([row[1:] for row in rows], float)).all()


def test_values_are_in_their_own_units(answers, folder, monkeypatch):
    monkeypatch.chdir(folder)
    _, (header, *rows), _ = answers["prices table.csv"]
    assert header == ["prediction"]
    task = find("table.parquet", target="price")
    values = expected(folder, "prices", np.concatenate([task.train.x, task.validation.x]))
    np.testing.assert_allclose(np.sort(np.array(rows, float), 0), np.sort(values, 0), rtol=1e-4)  # price, not its deviation
    # Trained on Parquet, it reads text as well, and does not look at the target.
    for command in ("prices new.csv", "prices new.parquet"):
        np.testing.assert_allclose(np.array(answers[command][1][1:], float), np.array(rows[:3], float), rtol=1e-4)


def test_pictures_are_named(answers):
    _, (header, *rows), _ = answers["pictures pets"]
    assert header == ["file", "prediction", "probability_cat", "probability_dog"]
    assert [row[0] for row in rows] == [f"pets/{'cat' if k % 2 == 0 else 'dog'}/{k}.png" for k in (0, 2, 4, 1, 3, 5)]
    _, (_, single), _ = answers["pictures pets/cat/0.png"]
    np.testing.assert_allclose(np.array(single[2:], float), np.array(rows[0][2:], float), **TOLERANCE)


def test_a_file_is_written(answers, folder):
    with (folder / "written.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["prediction", "probability_0", "probability_1", "probability_2"]
    assert len(rows) == 20
    _, (_, *few), _ = answers["arrays new.npz"]
    np.testing.assert_allclose(np.array(few, float)[:, 1:], np.array(rows[:2], float)[:, 1:], **TOLERANCE)


def test_a_run_that_was_killed_has_the_model_of_its_checkpoint(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data(tmp_path)
    options, run = Options(task="table.csv", target="kind", optimizer="schedule_free", epochs=1), Path("run")
    run.mkdir()
    with pytest.raises(TaskError, match=r"run has no model.keras and no checkpoint"):
        load(run, options)
    keras.backend.clear_session()  # layers are counted by process, and each command is one of its own
    job = Job(options)
    job.build()
    x, y = job.task.train.read(np.arange(8))
    job.model.train_on_batch(x, y)
    write_json(run / "environment.json", job.environment())
    checkpoints.write(run / "checkpoints", 1, job.snapshot(()), {"step": 1}, keep=1)
    keras.backend.clear_session()
    given = applied(load(run, options), x)
    assert capsys.readouterr().err == "run has no model.keras; this is the model of step 1.\n"
    with job.averaged():  # the weights to use, which are not those that ScheduleFree trains
        np.testing.assert_array_equal(given, applied(job.model, x))
    pl.read_csv("table.csv").reverse().write_csv("table.csv")
    with pytest.raises(TaskError, match="the data from which its model would be made again has changed"):
        load(run, options)


def test_debug_shows_the_traceback_before_the_message(tmp_path, capsys):
    assert predict(tmp_path, tmp_path / "x.csv", debug=True) == 2
    trace, _, message = capsys.readouterr().err.rpartition("polyak: ")
    assert trace.startswith("Traceback")
    assert "TaskError" in trace
    assert message == f"{tmp_path} is no run of `polyak train`: it has no config.toml.\n"


def test_without_debug_there_is_the_message_alone(tmp_path, capsys):
    assert predict(tmp_path, tmp_path / "x.csv") == 2
    assert capsys.readouterr().err.startswith("polyak: ")
