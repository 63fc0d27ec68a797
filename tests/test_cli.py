"""The command: what it understands, what it says of the rest, and whole runs of it, which tests share."""

import csv
import json
import math
import os
import pty
import re
import select
import signal
import subprocess
import sys
import zipfile

import h5py
import numpy as np
import pytest

from polyak.cli import dispatch
from polyak.train import backends, config
from polyak.train.command import name_of, train
from polyak.train.optimizers import OPTIMIZERS
from polyak.train.options import Options
from polyak.train.run import Result
from polyak.train.tasks import BUILT_IN


def polyak(before="pass"):
    """The command, after a line of Python. A line in the new process: `preexec_fn` would fork this one, which JAX forbids."""
    return (sys.executable, "-c", f"import os, signal; {before}; from polyak.cli import main; main()")


# What is in the folder of a run that stopped or ended.
FILES = {
    ".lock",
    "checkpoints",
    "config.toml",
    "curves.png",
    "environment.json",
    "layers.csv",
    "metrics.csv",
    "model.keras",
    "report.html",
    "result.json",
    "steps.csv",
    "timing.csv",
}

TINY = ("--model", "mlp", "--epochs", "2")


def start(*words, cwd, **kwargs):
    """The command in a process of its own, which has Ctrl-C whatever the process of the tests has."""
    return subprocess.Popen(
        (*polyak("signal.signal(signal.SIGINT, signal.default_int_handler)"), "train", *words),
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **kwargs,
    )


def weights(run):
    """Everything numeric in a model.keras, by path: weights, slots, the count of steps."""
    found = {}
    with zipfile.ZipFile(run / "model.keras") as archive, archive.open("model.weights.h5") as file, h5py.File(file) as store:
        store.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return found


def rows(run):
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


# Words


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("trian", 'Unknown command "trian". Did you mean "train"'),
        ("train digits more", "Unused Tokens"),
        ("train --rate 1", "Unknown option: --rate"),
        ("train --velocity step", "Unknown option: --velocity"),
        ("train --no-nesterov", "Unknown option"),
        ("train --lr", "--lr requires an argument"),
        ("train --lr big", "Invalid value for --lr"),
        ("train --lr 0", "learning_rate must be above 0"),
        ("train --epochs 1.5", "Invalid value for --epochs: 1.5 is not a whole number"),
        ("train --batch-size 1e2", "Invalid value for --batch-size"),
        ("train --momentum 0 --nesterov", "no effect with momentum=0"),
        ("train --optimizer lino", "unknown --optimizer 'lino'; choose from descent, momentum, "),
        ("train --optimizer lion --nesterov", "lion has no setting 'nesterov'; choose from learning_rate, b1, b2, "),
        ("train --optimizer qhm --set mu=0.7", "qhm has no setting 'mu'; choose from learning_rate, momentum, nu, "),
        ("train --set momentum", "--set takes NAME=VALUE"),
        ("train --lr 0.1 --set learning_rate=0.2", "--lr 0.1 is the same as --set learning_rate"),
        ("train --set learning_rate=cosin(0.1)", "Did you mean 'cosine'?"),
        ("train --config run.toml", "--config run.toml: No such file or directory."),
        ("train --resume none --lr 0.1 --tensorboard", "only --backend and --epochs can change; got --lr, --tensorboard too"),
        ("train --resume none --seed 0", "got --seed too"),
        ("train --resume none --set a=1 --out b", "got --set, --out too"),
        ("train digits --resume none", "got TASK too"),
        ("train --out .", "exists already"),
    ],
)
def test_what_is_wrong_is_one_message_and_exit_2(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert dispatch(words.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("polyak: ")
    assert message in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_where_an_error_comes_from(capsys):
    assert dispatch(["train", "--lr", "0", "--debug"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("Traceback (most recent call last):")
    assert err.splitlines()[-1].startswith("polyak: learning_rate must be above 0")


def test_a_missing_backend_is_one_message_and_exit_2(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(backends, "find_spec", lambda name: None if name == "jax" else object())
    assert dispatch(["train", "--backend", "jax"]) == 2
    assert capsys.readouterr().err == (
        'polyak: --backend jax needs jax, which is not installed: pip install "polyak[jax]" brings it.\n'
    )
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def runs(monkeypatch):
    """Stands in for the run: what was asked of it, and what it does, given before."""
    seen = {}

    def run(options, folder, interruption):
        seen.update(options=options, folder=folder)
        if seen.get("begins", True):
            interruption.defer()
        ends = seen.get("ends", KeyboardInterrupt())
        if isinstance(ends, BaseException):
            raise ends
        config.write(options, folder / config.NAME)
        return ends

    monkeypatch.setattr("polyak.train.run.run", run)
    return seen


@pytest.mark.parametrize(
    ("begins", "ends", "code", "message"),
    [
        (False, ValueError("no column x"), 2, "polyak: no column x\n"),
        (False, OSError(28, "No space left on device"), 2, "polyak: [Errno 28] No space left on device\n"),
        (True, OSError(28, "No space left on device"), 1, "polyak: [Errno 28] No space left on device\n"),
        (True, ValueError("shapes"), 1, "polyak: the run stopped: ValueError: shapes. --debug shows where it comes from.\n"),
        (False, KeyError("x"), 1, "polyak: the run stopped: KeyError: 'x'. --debug shows where it comes from.\n"),
        (
            True,
            KeyboardInterrupt(),
            130,
            "polyak: interrupted twice, so nothing more was saved. What was recorded before is kept.\n",
        ),
    ],
)
def test_an_error_is_bad_input_only_before_training_begins(begins, ends, code, message, runs, capsys, tmp_path):
    runs.update(begins=begins, ends=ends)
    assert dispatch(["train", "--out", str(tmp_path / "run")]) == code
    assert capsys.readouterr().err == message


def test_scores_are_said_of_a_complete_run(runs, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs.update(ends=Result("completed", 2, 50, scores={"test_accuracy": 0.5, "val_loss": 1.0, "test_loss": 2.0}))
    assert dispatch(["train", "--out", "a"]) == 0
    assert capsys.readouterr() == ("test loss 2.0000  test accuracy 50.00%  run in a\n", "")
    # One's own data have no test part.
    runs.update(ends=Result("completed", 2, 50, scores={"val_mae": 0.5, "val_loss": 2.0}))
    assert dispatch(["train", "--out", "b"]) == 0
    assert capsys.readouterr() == ("val loss 2.0000  val mae 0.5000  run in b\n", "")


def test_a_run_that_was_interrupted_says_how_to_go_on(runs, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs.update(ends=Result("interrupted", 1, 30, "by SIGTERM in epoch 2", code=143))
    assert dispatch(["train", "--out", "run"]) == 143
    said = "interrupted by SIGTERM in epoch 2; 1 whole epoch recorded in run. To go on: polyak train --resume run\n"
    assert capsys.readouterr() == ("", f"polyak: {said}")


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        ("--lr 5", "Try a smaller learning rate: --lr 0.1."),
        ("--optimizer qhm", "Try a smaller learning rate: --lr 0.1."),
        ("--set learning_rate=cosine(9)", "Try a smaller learning rate than cosine(9)."),
    ],
)
def test_a_run_that_failed_says_what_to_try(words, advice, runs, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs.update(ends=Result("failed", 0, 3, "the loss became NaN", code=1))
    assert dispatch(["train", *words.split(), "--out", "run"]) == 1
    assert capsys.readouterr() == ("", f"polyak: the loss became NaN; 0 whole epochs recorded in run. {advice}\n")


def test_options_reach_the_run_as_they_were_given(runs, tmp_path):
    words = (
        "train table.csv --target species --validation 0.3 --backend jax --model mlp --optimizer momentum --lr 0.2 "
        "--momentum 0.5 --nesterov --set velocity=step --set weight_decay=1e-4 --set decay=coupled "
        "--epochs 3 --batch-size 7 --seed 9 --keep 2 --record 5 --tensorboard"
    )
    out = tmp_path / "run"
    assert dispatch([*words.split(), "--checkpoint", "500 steps", "--out", str(out)]) == 130
    assert runs["folder"] == out
    assert runs["options"] == Options(
        task="table.csv",
        target="species",
        validation=0.3,
        backend="jax",
        model="mlp",
        optimizer="momentum",
        settings={"velocity": "step", "weight_decay": 1e-4, "decay": "coupled"},
        lr=0.2,
        momentum=0.5,
        nesterov=True,
        epochs=3,
        batch_size=7,
        seed=9,
        checkpoint="500 steps",
        keep=2,
        record=5,
        tensorboard=True,
    )


def test_a_file_gives_options_and_flags_win(runs, capsys, tmp_path):
    config.write(Options(optimizer="qhm", lr=2.0, epochs=7, settings={"nu": 0.5}), tmp_path / "run.toml")
    words = ("train", "--config", str(tmp_path / "run.toml"), "--out", str(tmp_path / "run"))
    assert dispatch([*words, "--epochs", "3"]) == 130
    assert runs["options"] == Options(optimizer="qhm", lr=2.0, epochs=3, settings={"nu": 0.5})
    assert capsys.readouterr().out == ""
    (tmp_path / "run").rmdir()
    assert dispatch([*words, "--optimizer", "lion"]) == 130
    assert runs["options"] == Options(optimizer="lion", epochs=7)
    assert capsys.readouterr().out == (
        f"{tmp_path / 'run.toml'}: lr and set left out, for its optimizer is another one than lion\n"
    )


@pytest.mark.parametrize(
    ("task", "name"),
    [("digits", "digits"), ("data/iris.v2.csv", "iris-v2"), ("/data/my pictures/", "my-pictures"), ("a.b:build", "a-b")],
)
def test_the_folder_of_a_run_is_called_after_its_task(task, name):
    assert name_of(task) == name


def framework_check(*words):
    """What a command prints, and which heavy modules it imported."""
    heavy = {"keras", "tensorflow", "jax", "torch", "sklearn", "numba", "polars", "plotly", "matplotlib", "scipy"}
    check = f"import atexit, sys; atexit.register(lambda: print(*({heavy} & set(sys.modules))))"
    # The narrowest terminal that is usual.
    env = os.environ | {"COLUMNS": "80", "PYTHONUTF8": "1"}
    script = (sys.executable, "-c", f"{check}; from polyak.cli import main; main()", *words)
    *text, imported = subprocess.run(script, env=env, capture_output=True, text=True, check=True).stdout.splitlines()
    return text, imported


def test_help_explains_each_option_and_imports_no_framework():
    text, imported = framework_check("train", "--help")
    assert imported == ""
    options = [flag.replace("_", "-") for flag in train.__code__.co_varnames[1 : 1 + train.__code__.co_kwonlyargcount]]
    for option in ["set" if option == "settings" else option for option in options]:
        assert sum(f" --{option} " in line for line in text) == 1
    # The task and the names of all optimizers take two lines, every other option one.
    assert sum(line.startswith("│") for line in text) == 2 + 2 + len(options) - 1
    for choice in (*BUILT_IN, *backends.BACKENDS, *OPTIMIZERS, "mlp", "cnn", "resnet"):
        assert re.search(rf"\b{choice}\b", train.__doc__)


def test_every_command_is_there_and_none_imports_a_framework():
    text, imported = framework_check("--help")
    assert imported == ""
    for command in ("bits", "compare", "predict", "report", "state", "train"):
        assert sum(line.startswith(f"│ {command} ") for line in text) == 1


def test_defaults_in_the_help_are_those_of_the_options():
    options, arguments = Options(), OPTIMIZERS["momentum"].settings
    shown = dict(re.findall(r"^ +(\w+): .*\[(.+)\]$", train.__doc__, re.MULTILINE))
    for name in ("validation", "epochs", "seed", "keep", "checkpoint", "backend", "optimizer"):
        assert shown[name] == str(getattr(options, name))
    assert shown["lr"] == f"{arguments['learning_rate']} for momentum"
    assert shown["momentum"] == str(arguments["momentum"])


# Whole runs


@pytest.fixture(scope="module")
def default_run(tmp_path_factory):
    """`polyak train`, nothing else: its folder and what it printed."""
    cwd = tmp_path_factory.mktemp("default")
    process = start(cwd=cwd, env=os.environ | {"FORCE_COLOR": "1"})
    out, err = process.communicate()
    assert process.returncode == 0, err
    (run,) = (cwd / "runs").iterdir()
    return run, out, err


def test_the_default_run_is_accurate(default_run):
    run, _, _ = default_run
    result = json.loads((run / "result.json").read_text())
    assert result["status"] == "completed"
    assert result["test_accuracy"] > 0.98


def test_the_default_run_prints_plain_lines_and_no_noise(default_run):
    run, out, err = default_run
    assert err == ""
    assert out.replace("\n", "").isprintable()
    first, *epochs, last = out.splitlines()
    assert first.startswith("digits: 6,400 train, 160 validation, 357 test examples")
    assert len(epochs) == Options.epochs
    assert last.startswith("test loss 0.")
    assert last.endswith(f"run in runs/{run.name}")


def test_the_run_folder_is_complete(default_run):
    run, _, _ = default_run
    assert {path.name for path in run.iterdir()} == FILES
    assert config.read(run / "config.toml") == Options(batch_size=256)
    environment = json.loads((run / "environment.json").read_text())
    assert environment["optimizer"]["velocity"] == "gradient"
    assert set(environment["versions"]) >= {"python", "polyak", "keras", "numpy", "scikit-learn", "tensorflow"}
    recorded = rows(run)
    assert [int(row["epoch"]) for row in recorded] == list(range(1, Options.epochs + 1))
    assert {row["learning_rate"] for row in recorded} == {"0.1"}
    assert {row["momentum"] for row in recorded} == {"0.9"}
    assert float(recorded[-1]["val_accuracy"]) > 0.95


def test_the_model_loads_with_its_optimizer(default_run):
    run, _, _ = default_run
    # On another backend than it was trained on: the file belongs to none.
    script = """
import sys, keras, polyak.train.layers
from polyak.train.tasks import find
model = keras.models.load_model(sys.argv[1])
assert type(model.optimizer) is polyak.keras.Momentum
test = find("digits").test
print(int(model.optimizer.iterations), *model.evaluate(test.x, test.y, verbose=0))
"""
    env = os.environ | {"KERAS_BACKEND": "torch"}
    words = (sys.executable, "-c", script, run / "model.keras")
    steps, loss, accuracy = subprocess.run(words, env=env, capture_output=True, text=True, check=True).stdout.split()
    result = json.loads((run / "result.json").read_text())
    assert int(steps) == Options.epochs * math.ceil(6400 / 256)
    assert float(accuracy) == pytest.approx(result["test_accuracy"], abs=1e-6)
    assert float(loss) == pytest.approx(result["test_loss"], rel=1e-3)  # other sums of float32, in another order


@pytest.fixture(scope="module", params=backends.BACKENDS)
def twins(request, tmp_path_factory):
    """Two runs of one seed at one time. Of the second, nobody reads more than the first line."""
    cwd = tmp_path_factory.mktemp("twins")
    words = ("--backend", request.param, "--nesterov", *TINY, "--seed", "3")
    first, second = (start(*words, "--out", name, cwd=cwd) for name in ("first", "second"))
    second.stdout.readline()
    second.stdout.close()
    _, err = first.communicate()
    assert first.returncode == 0, err
    assert second.wait() == 0
    assert second.stderr.read() == ""
    second.stderr.close()
    return cwd / "first", cwd / "second"


def test_one_seed_gives_the_same_bits(twins):
    first, second = map(weights, twins)
    assert first.keys() == second.keys()
    assert any("velocity" in name or "optimizer" in name for name in first)
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], strict=True)
    assert len(rows(twins[0])) == 2
    for name in ("metrics.csv", "steps.csv", "layers.csv", "result.json", "config.toml"):
        assert (twins[0] / name).read_bytes() == (twins[1] / name).read_bytes()


def test_a_loss_that_is_not_finite_fails_the_run(tmp_path):
    process = start("--backend", "jax", *TINY, "--lr", "1e12", "--out", "run", cwd=tmp_path)
    _, err = process.communicate()
    assert process.returncode == 1
    assert err.count("\n") == 1
    # Loss or gradient, whichever overflows first.
    assert re.search(r"the loss became \w+ in epoch 1, step \d+ of 25;|at step \d+ .* not finite: \[.*\];", err), err
    assert "; 0 whole epochs recorded in run. Try a smaller learning rate: --lr 0.1." in err
    assert {path.name for path in (tmp_path / "run").iterdir()} >= {"config.toml", "metrics.csv", "result.json"}
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "failed"


def test_ctrl_c_keeps_what_was_recorded(tmp_path):
    process = start("--backend", "jax", "--model", "mlp", "--epochs", "100000", "--out", "run", cwd=tmp_path)
    while not process.stdout.readline().startswith("epoch      3/"):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    run = tmp_path / "run"
    text = (run / "metrics.csv").read_text()
    assert text.endswith("\n")
    recorded = rows(run)
    assert all(None not in row.values() and None not in row for row in recorded)
    assert f"; {len(recorded)} whole epochs recorded in run." in err
    # Before the last step of an epoch, or, where Ctrl-C came later, after its validation.
    place = rf"in epoch {len(recorded) + 1}, step \d+|after epoch {len(recorded)}"
    assert re.match(rf"polyak: interrupted by Ctrl-C (?:{place})\b", err), err
    assert err.endswith("To go on: polyak train --resume run\n")
    assert err.count("\n") == 1
    result = json.loads((run / "result.json").read_text())
    assert (result["status"], result["epochs"]) == ("interrupted", len(recorded))
    assert not any(name.startswith("test_") for name in result)
    assert {path.name for path in run.iterdir()} == FILES
    # The weights are those of the step at which it stopped, also on JAX, where an epoch holds them elsewhere.
    assert weights(run)["optimizer/vars/0"] == result["step"]
    assert result["step"] // math.ceil(6400 / 256) == len(recorded)


def test_on_a_terminal_a_bar_shows_the_run_and_ctrl_c_ends_it(tmp_path):
    terminal, inside = pty.openpty()
    login = polyak("os.login_tty(0); signal.signal(signal.SIGINT, signal.default_int_handler)")
    words = (*login, "train", "--backend", "jax", "--model", "mlp", "--epochs", "100000", "--out", "run")
    env = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(words, cwd=tmp_path, env=env, stdin=inside, stdout=inside, stderr=inside)
    os.close(inside)
    seen, pressed = b"", False
    while select.select([terminal], [], [], 120)[0]:
        try:
            seen += os.read(terminal, 65536)
        except OSError:  # the other end is closed
            break
        if not pressed and re.search(rb"epoch \d\d+/", seen):  # the bar may skip an epoch, not ten
            os.write(terminal, b"\x03")
            pressed = True
    os.close(terminal)
    assert process.wait() == 130
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen.decode())
    assert re.search(r"epoch \d+/100000 \S+ loss \d\.\d{4}  accuracy \d+\.\d% [\d,]+ examples/s \S+ left", plain)
    assert "Traceback" not in plain
    assert re.search(r"polyak: interrupted by Ctrl-C (in|after) epoch ", plain)
    assert seen.count(b"\x1b[?25h") == 1  # the cursor is visible again
    assert (tmp_path / "run" / "result.json").exists()
