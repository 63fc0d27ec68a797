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
from polyak.rules.heavy_ball import VELOCITIES
from polyak.train import backends
from polyak.train.command import train
from polyak.train.metrics import COLUMNS
from polyak.train.options import Options
from polyak.train.tasks import TASKS


def polyak(before="pass"):
    """The command, after a line of Python. A line in the new process: `preexec_fn` would fork this one, which JAX forbids."""
    return (sys.executable, "-c", f"import os, signal; {before}; from polyak.cli import main; main()")


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
        ("train digit", "unknown task 'digit'; choose from digits. Did you mean 'digits'?"),
        ("train digits more", "Unused Tokens"),
        ("train --rate 1", "Unknown option: --rate"),
        ("train --no-nesterov", "Unknown option"),
        ("train --lr", "--lr requires an argument"),
        ("train --lr big", "Invalid value for --lr"),
        ("train --lr 0", "--lr must be finite and above 0"),
        ("train --epochs 1.5", "Invalid value for --epochs: 1.5 is not a whole number"),
        ("train --batch-size 1e2", "Invalid value for --batch-size"),
        ("train --momentum 0 --nesterov", "no effect with momentum=0"),
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
    assert list(tmp_path.iterdir()) == []


def test_a_missing_backend_is_one_message_and_exit_2(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(backends, "find_spec", lambda name: None if name == "jax" else object())
    assert dispatch(["train", "--backend", "jax"]) == 2
    assert capsys.readouterr().err == (
        'polyak: --backend jax needs jax, which is not installed: pip install "polyak[jax]" brings it.\n'
    )
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_message_and_exit_1(capsys, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("polyak.train.run.run", full)
    assert dispatch(["train", "--out", str(tmp_path / "run")]) == 1
    assert "No space left on device" in capsys.readouterr().err


def test_options_reach_the_run_as_they_were_given(tmp_path, monkeypatch):
    seen = {}

    def run(options, folder, _):
        seen.update(vars(options), out=folder)
        raise KeyboardInterrupt

    monkeypatch.setattr("polyak.train.run.run", run)
    words = (
        "train digits --backend jax --model mlp --lr 0.2 --momentum 0.5 --nesterov --velocity step --epochs 3 --batch-size 7"
    )
    assert dispatch([*words.split(), "--seed", "9", "--out", str(tmp_path / "run")]) == 130
    assert seen == {
        "task": "digits",
        "backend": "jax",
        "model": "mlp",
        "lr": 0.2,
        "momentum": 0.5,
        "nesterov": True,
        "velocity": "step",
        "epochs": 3,
        "batch_size": 7,
        "seed": 9,
        "out": tmp_path / "run",
    }


def test_help_explains_each_option_in_one_line_and_imports_no_framework():
    check = (
        "import atexit; atexit.register(lambda: print(*{'keras', 'tensorflow', 'jax', 'torch', 'sklearn'} & set(sys.modules)))"
    )
    words = (sys.executable, "-c", f"import sys; {check}; from polyak.cli import main; main()", "train", "--help")
    # The narrowest terminal that is usual.
    result = subprocess.run(
        words, env=os.environ | {"COLUMNS": "80", "PYTHONUTF8": "1"}, capture_output=True, text=True, check=True
    )
    *text, imported = result.stdout.splitlines()
    assert imported == ""
    for option in ("backend", "model", "lr", "momentum", "nesterov", "velocity", "epochs", "batch-size", "seed", "out"):
        assert sum(f" --{option} " in line for line in text) == 1
    assert sum(line.startswith("│") for line in text) == 11  # the task and ten options: none took a second line


def test_the_command_has_all_options_and_its_help_all_choices():
    names = train.__code__.co_varnames[: 1 + train.__code__.co_kwonlyargcount]
    assert set(names) == {*vars(Options()), "out"}
    for choice in (*TASKS, *backends.BACKENDS, *TASKS["digits"].models, *VELOCITIES):
        assert re.search(rf"\b{choice}\b", train.__doc__)


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
    assert first.startswith("digits: 6,400 train, 160 validation, 357 test images")
    assert len(epochs) == Options.epochs
    assert last.startswith("test loss 0.")
    assert last.endswith(f"run in runs/{run.name}")


def test_the_run_folder_is_complete(default_run):
    run, _, _ = default_run
    assert {path.name for path in run.iterdir()} == {"config.json", "metrics.csv", "curves.png", "model.keras", "result.json"}
    config = json.loads((run / "config.json").read_text())
    assert vars(Options()).items() <= config.items()
    assert config["optimizer"]["velocity"] == "gradient"
    assert set(config["versions"]) == {"python", "polyak", "keras", "numpy", "scikit-learn", "tensorflow"}
    recorded = rows(run)
    assert [int(row["epoch"]) for row in recorded] == list(range(1, Options.epochs + 1))
    assert {row["learning_rate"] for row in recorded} == {"0.1"}
    assert {row["momentum"] for row in recorded} == {"0.9"}
    assert float(recorded[-1]["val_accuracy"]) > 0.95


def test_the_model_loads_with_its_optimizer(default_run):
    run, _, _ = default_run
    # On another backend than it was trained on: the file belongs to none.
    script = """
import sys, keras, polyak.keras
from polyak.train.tasks import TASKS
model = keras.models.load_model(sys.argv[1])
assert type(model.optimizer) is polyak.keras.Momentum
print(int(model.optimizer.iterations), *model.evaluate(*TASKS["digits"].load().test, verbose=0))
"""
    env = os.environ | {"KERAS_BACKEND": "torch"}
    words = (sys.executable, "-c", script, run / "model.keras")
    steps, loss, accuracy = subprocess.run(words, env=env, capture_output=True, text=True, check=True).stdout.split()
    result = json.loads((run / "result.json").read_text())
    assert int(steps) == Options.epochs * math.ceil(6400 / Options.batch_size)
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
    one, other = ([{c: row[c] for c in COLUMNS if c != "seconds"} for row in rows(run)] for run in twins)
    assert len(one) == 2
    assert one == other
    assert (twins[0] / "result.json").read_bytes() == (twins[1] / "result.json").read_bytes()


def test_a_loss_that_is_not_finite_fails_the_run(tmp_path):
    process = start("--backend", "jax", *TINY, "--lr", "1e12", "--out", "run", cwd=tmp_path)
    _, err = process.communicate()
    assert process.returncode == 1
    assert err.count("\n") == 1
    # Loss or gradient, whichever overflows first.
    assert re.search(r"the loss became \w+ in epoch 1, step \d+ of 25;|at step \d+ .* not finite: \[.*\];", err), err
    assert "; 0 whole epochs recorded in run. Try a smaller learning rate: --lr 0.1." in err
    assert {path.name for path in (tmp_path / "run").iterdir()} >= {"config.json", "metrics.csv", "result.json"}
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
    assert all(None not in row.values() and len(row) == len(COLUMNS) for row in recorded)
    assert f"; {len(recorded)} whole epochs recorded in run." in err
    assert err.startswith(f"polyak: interrupted in epoch {len(recorded) + 1}, step ")
    assert err.count("\n") == 1
    result = json.loads((run / "result.json").read_text())
    assert (result["status"], result["test_loss"]) == ("interrupted", None)
    assert {path.name for path in run.iterdir()} == {"config.json", "metrics.csv", "curves.png", "model.keras", "result.json"}
    # The weights are those of the step at which it stopped, also on JAX, where an epoch holds them elsewhere.
    step = int(err.split(" step ")[1].split()[0])
    steps = math.ceil(6400 / Options.batch_size)
    assert weights(run)["optimizer/vars/0"] == len(recorded) * steps + step


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
    assert re.search(r"epoch \d+/100000 \S+ loss \d\.\d{4}  accuracy \d+\.\d% [\d,]+ images/s \S+ left", plain)
    assert "Traceback" not in plain
    assert "polyak: interrupted in epoch " in plain
    assert seen.count(b"\x1b[?25h") == 1  # the cursor is visible again
    assert (tmp_path / "run" / "result.json").exists()
