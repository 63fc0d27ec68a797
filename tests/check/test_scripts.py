"""Trials as programs: they come to the same weights."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from ml_dtypes import bfloat16

from check.trials import ADAM, SGD, TWO, drawn
from polyak.check.drivers.loading import load, of
from polyak.check.drivers.scripts import arguments, imported, joined, number, numbers, variables
from polyak.check.trial import Group, Resume, Rows, Trial


def printed(script: str) -> list[list[Any]]:
    """What a script prints: the weights of all parameters after each step."""
    lines: list[list[Any]] = []
    exec(compile(script, "script", "exec"), {"halved": halved, "print": lambda *weights: lines.append(list(weights))})  # noqa: S102  (our own)
    return lines


def rows(*values: list[float]) -> Rows:
    return Rows(np.arange(len(values)), np.array(values, np.float32))


SINGLE = drawn(np.float32, a=(2,))
TRIALS: dict[str, Callable[[], Trial]] = {
    "one parameter": lambda: Trial(**SINGLE),
    "two": lambda: Trial(**TWO),
    "bfloat16": lambda: Trial(**drawn(bfloat16, w=(3,))),
    "options": lambda: Trial(**TWO, options={"weight_decay": 0.01, "lr": np.float64(0.3)}),
    "a number": lambda: Trial(**drawn(a=())),
    "nothing": lambda: Trial(**drawn(a=(0,), b=(0, 3))),
    "an impulse": lambda: Trial({"a": np.zeros(1)}, [{"a": np.ones(1)}, *9 * [{"a": np.zeros(1)}]]),
    "not finite": lambda: Trial({"a": np.ones(3)}, [{"a": np.array([1.0, np.nan, -np.inf])}]),
    "missing": lambda: Trial(TWO["weights"], [{"a": np.ones(3)}, {"b": np.ones((2, 2))}, {"a": np.ones(3)}]),
    "sparse": lambda: Trial({"a": np.ones((3, 2), np.float32)}, [{"a": rows([1.0, 2.0])}, {"a": rows([3.0, 4.0], [5.0, 6.0])}]),
    "changes": lambda: Trial(**TWO, changes={1: {"lr": 0.01}, 3: {"lr": 0.5, "weight_decay": 0.1}}),
    "held": lambda: Trial(**TWO, held=True),
    "strided": lambda: Trial(**drawn(a=(3,), b=(2, 3), c=()), strided=True),
    "reused": lambda: Trial(**TWO, reused=True),
    "groups": lambda: Trial(**TWO, groups=(Group(("b",), {"lr": 0.02}), Group(("a",), {"weight_decay": 0.1}))),
    "load": lambda: Trial(**TWO, resume=Resume(2)),
    "load strided": lambda: Trial(**TWO, resume=Resume(2), strided=True),
    "load at the end": lambda: Trial(**TWO, resume=Resume(4)),
    "another order": lambda: Trial(**drawn(a=(2,), b=(2,)), resume=Resume(2, order=("b", "a"))),
    "unharmed": lambda: Trial(**TWO, resume=Resume(1, unharmed=True)),
    "unharmed, one": lambda: Trial(**SINGLE, resume=Resume(1, "copy", unharmed=True), changes={2: {"lr": 0.3}}),
    "copy": lambda: Trial(**TWO, resume=Resume(2, "copy")),
    "pickle": lambda: Trial(**SINGLE, resume=Resume(2, "pickle"), held=True),
    "foreach": lambda: Trial(**TWO, implementation="foreach"),
    "names": lambda: Trial(
        {"layer/kernel": np.ones(2), "step": np.ones(1)}, [{"layer/kernel": np.ones(2), "step": np.ones(1)}]
    ),
}


def assert_script_comes_to(subject: Any, trial: Trial, script: str | None = None) -> None:
    found, script = subject.run(trial), script or subject.script(trial)
    expected = [[found.after[name][step].tolist() for name in trial.weights] for step in range(len(trial.gradients))]
    assert repr(printed(script)) == repr(expected), script  # as text, in which nan is nan


DECAYED = {"decay": "coupled", "weight_decay": 0.1}  # as polyak.torch wants it to be said
CASES = [(*subject, name) for name in TRIALS for subject in (SGD, ADAM, ("polyak.torch:Momentum", SGD[1] | DECAYED))]
# No sparse gradients in Adam, one implementation in Momentum.
CASES = [case for case in CASES if (case[0], case[2]) not in [(ADAM[0], "sparse"), ("polyak.torch:Momentum", "foreach")]]


@pytest.mark.parametrize(("subject", "options", "name"), CASES)
def test_a_script_comes_to_the_same_weights(subject: str, options: dict[str, Any], name: str) -> None:
    assert_script_comes_to(load(subject, options), TRIALS[name]())


def test_a_script_with_a_scheduler_comes_to_the_same_weights() -> None:
    scheduled = load(*SGD).scheduler()
    groups = (Group(("b",), {"lr": 0.02}), Group(("a",), {}))
    changes = {1: {"lr": 0.05}, 3: {"lr": 0.2, "momentum": 0.5}}
    for trial in (
        Trial(**TWO, changes=changes),
        Trial(**TWO, changes=changes, groups=groups),
        Trial(**TWO, changes=changes, resume=Resume(2, unharmed=True)),
    ):
        assert_script_comes_to(scheduled, trial)


def test_a_script_with_a_closure_comes_to_the_same_weights() -> None:
    assert_script_comes_to(load("torch.optim:LBFGS", {"lr": 0.5, "max_iter": 1}), Trial(**TWO))
    assert_script_comes_to(load("torch.optim:LBFGS", {"lr": 0.5, "max_iter": 1}), Trial(**SINGLE))


def halved(params: Any, lr: float) -> torch.optim.Optimizer:
    optimizer = torch.optim.SGD(params, lr=lr, momentum=0.5)
    optimizer.param_groups[0]["lr"] /= 2
    return optimizer


@pytest.mark.parametrize("name", ["two", "foreach", "groups", "load", "changes"])
def test_a_script_with_a_factory_comes_to_the_same_weights(name: str) -> None:
    subject = of(partial(halved, lr=0.2))
    trial = replace(TRIALS[name](), options={"weight_decay": 0.01})
    script = subject.script(trial)
    assert "import halved\n" in script
    assert "halved([" in script
    assert ", lr=0.2)" in script
    line = next(line for line in script.splitlines() if "import halved" in line)
    assert_script_comes_to(subject, trial, script.replace(line, ""))


def test_a_script_is_short() -> None:
    trial = Trial({"w": np.zeros(1)}, [{"w": np.ones(1)}, *4 * [{"w": np.zeros(1)}]])
    assert load(*SGD).script(trial) == (
        "import torch\n"
        "from torch.optim import SGD\n"
        "\n"
        "w = torch.nn.Parameter(torch.tensor([0.0], dtype=torch.float64))\n"
        "optimizer = SGD([w], lr=0.1, momentum=0.9)\n"
        "for gradients in torch.tensor([[1.0]] + 4 * [[0.0]], dtype=torch.float64):\n"
        "    w.grad = gradients\n"
        "    optimizer.step()\n"
        "    print(w.tolist())\n"
    )


def test_a_script_says_what_it_cannot_import() -> None:
    class Mine(torch.optim.SGD):
        pass

    subject = of(lambda params: Mine(params, lr=0.1))
    assert "# Mine: yours, the one that was checked" in subject.script(Trial(**SINGLE))


def test_numbers_are_read_back_as_they_are() -> None:
    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.float64, bfloat16):
        x = rng.standard_normal((3, 2)).astype(dtype)
        assert np.array_equal(np.array(eval(numbers(x))).astype(dtype), x)  # noqa: S307  (our own)
    assert number(np.float32(0.1)) == "0.1"
    assert number(np.inf) == "float('inf')"


def test_runs_stand_once() -> None:
    assert joined([]) == "[]"
    assert joined("aab") == "[a, a, b]"
    assert joined("aaabbbcc") == "3 * [a] + 3 * [b] + [c, c]"
    assert joined("caaa") == "[c] + 3 * [a]"


def test_calls_are_written_as_people_write_them() -> None:
    assert arguments({}) == ""
    assert (
        arguments({"lr": np.float64(0.1), "betas": (0.9, 0.99), "maximize": True})
        == ", lr=0.1, betas=(0.9, 0.99), maximize=True"
    )
    assert imported("torch.optim:SGD") == ("from torch.optim import SGD", "SGD")
    assert imported("a.b:C.D") == ("from a.b import C", "C.D")
    assert variables(["w", "layer/kernel", "step", "if"], ["step"]) == {
        "w": "w",
        "layer/kernel": "p1",
        "step": "p2",
        "if": "p3",
    }
