"""`polyak check`: what it understands, what it prints, and how it ends."""

import json
import os
import subprocess
import sys

import pytest

from polyak.check import command, report
from polyak.check.finding import Finding, Outcome
from polyak.check.identity import Identity
from polyak.check.trial import Trial
from polyak.cli import dispatch

SGD = "check torch.optim:SGD --set lr=0.1 --set momentum=0.9"
# Two checks that take no time, of which the second finds something.
QUICK = f"{SGD} --select instances-share-state,state-by-position"


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch):
    """The environment of this process, which others share."""
    monkeypatch.setattr(command, "quieten", lambda: None)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("check", "requires an argument"),
        ("check torch.optim:SGDD", "torch.optim has no 'SGDD'; choose from Adadelta, "),
        ("check torch.optim:SGDD", "Did you mean 'SGD'?"),
        ("check torch.optim", "module:name, as in torch.optim:SGD"),
        ("check no.such.module:SGD", "no.such"),
        ("check torch.optim:SGD --set lr", "--set takes NAME=VALUE"),
        ("check torch.optim:SGD --set lrr=0.1", "Did you mean 'lr'?"),
        ("check torch.optim:SGD --set lr=-1", "Invalid learning rate: -1"),
        ("check torch.optim:SGD --set lr=cosine(0.1,100)", "schedules are not checked"),
        (f"{SGD} --select decay-kin", "unknown identifier in --select: 'decay-kin'; choose from option-without-effect, "),
        (f"{SGD} --select decay-kind --ignore ascent,asent", "unknown identifier in --ignore: 'asent'"),
        (f"{SGD} --backend jx", "unknown --backend 'jx'; choose from tensorflow, jax, torch. Did you mean 'jax'?"),
        (f"{SGD} --plots a.png", "Unknown option: --plots"),
    ],
)
def test_what_is_wrong_is_one_message_and_exit_2(words, message, capsys):
    assert dispatch(words.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("polyak: ")
    assert message in err
    assert "Traceback" not in err


def test_a_missing_backend_is_one_message_and_exit_2(capsys, monkeypatch):
    monkeypatch.setattr("polyak.train.backends.find_spec", lambda name: None if name == "jax" else object())
    assert dispatch(["check", "keras.optimizers:SGD", "--backend", "jax"]) == 2
    assert 'pip install "polyak[jax]" brings it' in capsys.readouterr().err


def test_the_page_and_exit_1_for_findings(capsys):
    assert dispatch(QUICK.split()) == 1
    out, err = capsys.readouterr()
    assert err == ""
    page = out.splitlines()
    assert page[0].startswith("torch.optim:SGD(lr=0.1, momentum=0.9)   polyak ")
    assert page[2] == "heavy ball: m = 0.9000, lr = 0.1000, velocity in gradient units"
    assert "    v = 0.9 v + g" in page
    assert [line[:16].strip() for line in page if line[:16].strip() in ("pass", "FAIL")] == ["FAIL", "pass"]
    assert "                  docs/findings/state-by-position.md" in page
    assert page[-1] == "1 finding in 2 checks: state-by-position."


def test_exit_0_without_findings(capsys):
    assert dispatch([*QUICK.split(), "--ignore", "state-by-position"]) == 0
    assert capsys.readouterr().out.endswith("no findings in 2 checks. Ignored: state-by-position.\n")


def test_json(capsys):
    assert dispatch([*QUICK.split(), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["optimizer"] | {"defaults": None} == {
        "name": "torch.optim:SGD",
        "framework": "torch",
        "options": {"lr": 0.1, "momentum": 0.9},
        "defaults": None,
    }
    assert found["identity"]["kind"] == "momentum"
    assert found["identity"]["poles"][0] == pytest.approx([0.9, 0.0])
    assert len(found["checks"]) == 2


@pytest.fixture
def plain(monkeypatch):
    """Nothing is measured: what the command does with what comes of it."""
    monkeypatch.setattr(report, "CHECKS", {})
    monkeypatch.setattr(report, "identified", lambda _: Identity("unknown"))


def test_what_the_optimizer_prints_is_not_on_the_page(capsys, tmp_path, monkeypatch, plain):  # noqa: ARG001
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loud_optimizer.py").write_text(
        "import torch\n\nprint('here I am')\n\n\nclass Loud(torch.optim.SGD):\n    def step(self, closure=None):\n"
        "        print('hear, hear')\n        return super().step(closure)\n"
    )
    assert dispatch(["check", "loud_optimizer:Loud", "--set", "lr=0.1", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["optimizer"]["name"] == "loud_optimizer:Loud"
    assert "here I am" in err


def test_the_message_of_an_optimizer_that_fails_is_said(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "failing_optimizer.py").write_text(
        "import torch\n\n\nclass Failing(torch.optim.SGD):\n    def step(self, closure=None):\n        raise OSError('gone')\n"
    )
    assert dispatch(["check", "failing_optimizer:Failing", "--set", "lr=0.1"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("polyak: failing_optimizer:Failing")
    assert "gone" in err
    assert "Traceback" not in err


def test_an_error_of_a_check_is_not_taken_for_a_finding(capsys, monkeypatch, plain):  # noqa: ARG001
    monkeypatch.setattr(report, "CHECKS", {lambda *_: 1 / 0: ("ascent",)})
    assert dispatch(SGD.split()) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.splitlines()[-1] == "polyak: the check of torch.optim:SGD stopped: ZeroDivisionError: division by zero"


def test_ctrl_c_exits_with_130(monkeypatch, plain):  # noqa: ARG001
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(report, "CHECKS", {interrupted: ("ascent",)})
    with pytest.raises(SystemExit) as ended:
        dispatch(SGD.split())
    assert ended.value.code == 130


def test_a_picture(capsys, tmp_path):
    path = tmp_path / "sgd.svg"
    assert dispatch([*SGD.split(), "--select", "recompiles", "--plot", str(path)]) == 0
    assert path.read_text().startswith("<?xml")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("path", "message"), [("no/folder/a.png", "No such file"), ("a.odd", "not supported")])
def test_a_picture_that_cannot_be_written_comes_after_the_page(path, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert dispatch([*SGD.split(), "--select", "recompiles", "--plot", path]) == 2
    out, err = capsys.readouterr()
    assert out.startswith("torch.optim:SGD")
    assert message in err
    assert err.startswith(f"polyak: --plot {path}: ")


def test_what_has_no_impulse_response_has_no_picture(capsys, tmp_path, plain):  # noqa: ARG001
    assert dispatch([*SGD.split(), "--plot", str(tmp_path / "a.png")]) == 2
    assert "there is no impulse response to draw: what was measured is unknown" in capsys.readouterr().err


def test_identifiers_with_commas_or_one_by_one():
    assert command.split(["a,b", " c ", "d, ,e"]) == ["a", "b", "c", "d", "e"]


def test_select_and_ignore_reach_the_check(capsys, monkeypatch, plain):  # noqa: ARG001
    def both(*_):
        trial = Trial({}, [])
        return Outcome(
            "a check", "fail", "it fails.", (Finding("ascent", "up.", [trial]), Finding("recompiles", "again.", [trial]))
        )

    monkeypatch.setattr(report, "CHECKS", {both: ("ascent", "recompiles")})
    monkeypatch.setattr("polyak.check.drivers.torch.subject.Torch.script", lambda *_, **__: "script")
    assert dispatch([*SGD.split(), "--select", "ascent", "--select", "recompiles", "--ignore", "ascent"]) == 1
    out = capsys.readouterr().out
    assert out.endswith("1 finding in 1 check: recompiles. Ignored: ascent.\n")


def test_keras_on_a_backend():
    """In a process of its own, since Keras has its backend once a process."""
    words = "check keras.optimizers:SGD --backend jax --set learning_rate=0.1 --set momentum=0.9 --select instances-share-state"
    code = f"import sys; sys.argv = ['polyak', *{words.split()}]; from polyak.cli import main; main()"
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow"}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert ran.returncode == 0, ran.stderr
    page = ran.stdout.splitlines()
    assert page[0].startswith("keras.optimizers:SGD(learning_rate=0.1, momentum=0.9)   polyak ")
    assert ", jax " in page[0]
    assert page[2] == "heavy ball: m = 0.9000, lr = 0.1000, velocity in step units"
    assert page[-1] == "no findings in 1 check."


def test_a_backend_for_what_is_not_of_keras(capsys, monkeypatch):
    monkeypatch.setattr(command, "choose", lambda _: None)  # Keras may be here already
    assert dispatch([*SGD.split(), "--backend", "jax"]) == 2
    assert "--backend is for optimizers of Keras; torch.optim:SGD is one of torch. Leave it out." in capsys.readouterr().err
