"""Trials as programs: they come to the same weights."""

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from ml_dtypes import bfloat16

from check.trials import ADAM, SGD, TWO, drawn
from polyak.check.drivers.loading import load, of
from polyak.check.drivers.scripts import arguments, called, imports, joined, number, numbers, variables
from polyak.check.finding import Finding
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
    "compiled": lambda: Trial(**TWO, implementation="compiled", changes={2: {"lr": 0.3}}),
    "names": lambda: Trial(
        {"layer/kernel": np.ones(2), "step": np.ones(1)}, [{"layer/kernel": np.ones(2), "step": np.ones(1)}]
    ),
}


def assert_script_comes_to(subject: Any, *trials: Trial, script: str | None = None) -> None:
    script = script or subject.script(*trials)
    expected = []
    for trial in trials:
        after = subject.run(trial).after
        expected += [[after[name][step].tolist() for name in trial.weights] for step in range(len(trial.gradients))]
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
    assert f", {__name__}\n" in script
    assert f"{__name__}.halved([" in script
    assert ", lr=0.2)" in script
    here = script.replace(f", {__name__}\n", "\n").replace(f"{__name__}.halved", "halved")  # not run as the module it is
    assert_script_comes_to(subject, trial, script=here)


PLAIN = Trial({"w": np.array([1.0, 2.0])}, [{"w": np.array([0.5, -1.0])}, {"w": np.array([0.1, 0.0])}])
PAIRS: dict[str, tuple[Trial, Trial]] = {
    "options": (replace(PLAIN, options={"momentum": 0.5, "nesterov": True}), replace(PLAIN, options={"momentum": 0.8})),
    "implementation": (replace(PLAIN, implementation="loop"), replace(PLAIN, implementation="foreach")),
    "compiled": (
        replace(PLAIN, implementation="compiled", changes={1: {"lr": 0.01}}),
        replace(PLAIN, implementation="compiled"),
    ),
    "gradients": (PLAIN, replace(PLAIN, gradients=PLAIN.gradients[:1])),
    "missing": (Trial(**TWO), replace(TRIALS["missing"](), weights=TWO["weights"])),
    "weights": (replace(PLAIN, held=True), replace(PLAIN, held=True, weights={"w": np.array([3.0, 0.25])})),
    "dtype": (Trial(**drawn(np.float32, w=(2,))), Trial(**drawn(bfloat16, w=(2,)))),
    "changes": (replace(PLAIN, changes={1: {"lr": 0.01, "momentum": 0.5}}), PLAIN),
    "all of them": (
        replace(PLAIN, options={"lr": 0.3}, changes={1: {"lr": 0.01}}),
        replace(PLAIN, weights={"w": np.zeros(2)}, gradients=[{"w": np.ones(2)}] * 4),
    ),
    "one is compiled": (replace(PLAIN, implementation="compiled"), replace(PLAIN, implementation="loop")),
    # These are no two of a loop.
    "order": (Trial(**drawn(a=(1,), b=(1,))), Trial(**drawn(b=(1,), a=(1,)))),
    "shape": (PLAIN, Trial({"w": np.ones((1, 2))}, [{"w": np.ones((1, 2))}])),
    "layout": (PLAIN, replace(PLAIN, strided=True)),
    "reused": (replace(PLAIN, reused=True), PLAIN),
    "groups": (TRIALS["groups"](), Trial(**TWO)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_a_script_of_two_trials_comes_to_the_weights_of_both(name: str) -> None:
    subject, pair = load(*SGD), PAIRS[name]
    assert_script_comes_to(subject, *pair)
    bodies = 2 if list(PAIRS).index(name) >= list(PAIRS).index("order") else 1
    assert subject.script(*pair).count("torch.optim.SGD(") == bodies
    assert len(subject.script(*pair).splitlines()) <= 5


RESUMES = [
    *(Resume(2), Resume(2, order=("b", "a")), Resume(0), Resume(4), Resume(2, unharmed=True)),
    *(Resume(2, "copy"), Resume(1, "copy", unharmed=True), Resume(2, "pickle", unharmed=True)),
]


@pytest.mark.parametrize("resume", RESUMES, ids=str)
@pytest.mark.parametrize("name", ["torch.optim:SGD", "polyak.torch:Momentum"])
def test_what_is_stopped_is_shown_beside_what_is_not(name: str, resume: Resume) -> None:
    subject, trial = load(name, SGD[1]), Trial(**drawn(a=(2,), b=(2,)), changes={1: {"lr": 0.02}, 3: {"lr": 0.5}})
    stopped = replace(trial, resume=resume)
    script = subject.script(trial, stopped)
    assert len(script.splitlines()) <= 5
    whole, again = subject.run(trial), subject.run(stopped)
    expected = [[came.after[p][step].tolist() for came in (whole, again) for p in ("a", "b")] for step in range(resume.step, 4)]
    assert repr(printed(script)) == repr(expected)
    assert "stopped" not in subject.script(trial, replace(stopped, options={"lr": 0.3}))  # which is not the same trial


def test_an_option_that_is_not_known_is_not_given_to_the_other_trial() -> None:
    class Any_(torch.optim.SGD):  # noqa: N801  (of any options)
        def __init__(self, params: Any, **options: Any) -> None:
            super().__init__(params, **{"lr": 0.1, **options})

    script = load(*SGD).script  # which knows them
    assert "for momentum in 0.5, 0.9:" in script(replace(PLAIN, options={"momentum": 0.5}), PLAIN)
    subject = of(Any_)
    assert "for momentum" not in subject.script(replace(PLAIN, options={"momentum": 0.5}), PLAIN)


def test_a_script_is_short() -> None:
    assert load(*SGD).script(PLAIN) == (
        "import torch\n"
        "w = torch.nn.Parameter(torch.tensor([1.0, 2.0], dtype=torch.float64))\n"
        "optimizer = torch.optim.SGD([w], lr=0.1, momentum=0.9)\n"
        "for w.grad in torch.tensor([[0.5, -1.0], [0.1, 0.0]], dtype=torch.float64): optimizer.step(); print(w.tolist())\n"
    )
    assert load(*SGD).script(*PAIRS["changes"]).splitlines()[1::3] == [
        "for changes in {1: {'lr': 0.01, 'momentum': 0.5}}, {}:",
        "    for step, w.grad in enumerate(torch.tensor([[0.5, -1.0], [0.1, 0.0]], dtype=torch.float64)): "
        "optimizer.param_groups[0].update(changes.get(step, {})); optimizer.step(); print(w.tolist())",
    ]


def test_a_script_shows_gradients_and_state() -> None:
    nesterov = load("torch.optim:SGD", {"lr": 0.1, "momentum": 0.5, "nesterov": True, "foreach": True})
    trial = replace(PLAIN, gradients=PLAIN.gradients[:1])
    assert printed(nesterov.script(trial, shown="gradients")) == [[[0.75, -1.5]]]  # where it writes g + m v
    ((state,),) = printed(nesterov.script(trial, shown="state"))
    assert state["momentum_buffer"].tolist() == [0.5, -1.0]


def test_a_script_says_when_a_step_is_compiled() -> None:
    said = printed(load(*SGD).script(replace(PLAIN, implementation="compiled"), shown="compilations"))
    assert [line == ["compiled"] for line in said] == [True, False, True, False]  # where it makes the velocity, and once


@pytest.mark.parametrize("name", ["weights", "options"])
def test_a_script_in_turns(name: str) -> None:
    class Shared(torch.optim.SGD):
        """All of them have the learning rate of the last one."""

        def __init__(self, params: Any, lr: float = 0.1, momentum: float = 0.0, nesterov: bool = False) -> None:
            super().__init__(params, lr=lr, momentum=momentum, nesterov=nesterov)
            Shared.groups = self.param_groups

        def step(self) -> None:
            for group in self.param_groups:
                group["lr"] = Shared.groups[0]["lr"]
            super().step()

    monkey = ModuleType("monkey")
    monkey.Shared = Shared  # type: ignore[attr-defined]  # where the script looks for it
    Shared.__module__, Shared.__qualname__ = "monkey", "Shared"
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(sys.modules, "monkey", monkey)
        subject = of(Shared)
        pair = PAIRS[name][0], replace(PAIRS[name][1], options={**PAIRS[name][1].options, "lr": 0.25})
        script = subject.script(*pair, shown="turns")
        ((*alone, both),) = printed(script)
    assert len(script.splitlines()) == 5
    for trial, expected in zip(pair, alone, strict=True):
        assert [list(w) for w in subject.run(trial).after["w"]] == expected
    for trial, came in zip(subject.together(*pair), zip(*both, strict=True), strict=True):
        assert [list(w) for w in trial.after["w"]] == list(came)
    assert [one for one, _ in both] != alone[0]


def test_the_script_of_a_scheduler_has_one() -> None:
    pair, subject = (replace(PLAIN, changes={1: {"lr": 0.01}}), PLAIN), load(*SGD)
    script = Finding("schedule-ignored", "", pair).script(subject)
    assert "LambdaLR" in script
    assert_script_comes_to(subject.scheduler(), *pair, script=script)
    assert Finding("change-ignored", "", pair).script(subject) == subject.script(*pair)


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
    assert (list(imports(["torch"], "torch.optim:SGD")), called("torch.optim:SGD")) == (["import torch"], "torch.optim.SGD")
    assert (list(imports(["copy"], "a.b:C.D")), called("a.b:C.D")) == (["import copy, a.b"], "a.b.C.D")
    assert list(imports(["torch"], "a:<locals>.f")) == ["# f: yours, the one that was checked", "import torch"]


def test_a_module_that_is_hidden_behind_a_function_of_its_name_is_imported_from(monkeypatch: pytest.MonkeyPatch) -> None:
    package, module = ModuleType("package"), ModuleType("package.sgd")
    package.sgd = module.sgd = lambda: None  # type: ignore[attr-defined]  # as in many packages
    monkeypatch.setitem(sys.modules, "package", package)
    monkeypatch.setitem(sys.modules, "package.sgd", module)
    assert list(imports(["torch"], "package.sgd:SGD")) == ["from package.sgd import SGD", "import torch"]
    assert called("package.sgd:SGD") == "SGD"


def test_variables_have_names_that_are_free() -> None:
    assert variables(["w", "layer/kernel", "step", "if"], ["step"]) == {
        "w": "w",
        "layer/kernel": "p1",
        "step": "p2",
        "if": "p3",
    }
