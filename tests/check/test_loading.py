"""From a name or a factory to a subject."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from polyak.check.drivers.loading import load, of
from polyak.check.trial import Trial
from polyak.train.settings import settings

TRIAL = Trial({"a": np.ones(2)}, 2 * [{"a": np.ones(2)}])

MODULE = '''
import torch

class MySGD(torch.optim.SGD):
    """Mine."""

class Any(torch.optim.SGD):
    def __init__(self, params, lr=0.1, mass=1, **kwargs):
        super().__init__(params, lr, **kwargs)

class NotOne:
    pass

def halved(params, lr=0.1):
    return torch.optim.SGD(params, lr=lr / 2)

def forgot(params):
    torch.optim.SGD(params)

made = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.25)

def fails(lr=0.1):
    raise KeyError("no such thing")

def two(x, y):
    return x + y

def area(x):
    return x * x
'''


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The present folder, with a package in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    package = tmp_path / "mypackage"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "optim.py").write_text(MODULE)
    (package / "broken.py").write_text("import torch\n1 / 0\n")
    (package / "lacking.py").write_text("import a_library_that_nobody_has\n")
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "mypackage"]:
        del sys.modules[name]


def after(subject: Any) -> Any:
    return subject.run(TRIAL).after["a"]


# What is found.


def test_a_class_of_torch() -> None:
    subject = load("torch.optim:SGD", {"lr": 0.1})
    assert (subject.framework, subject.name, dict(subject.options)) == ("torch", "torch.optim:SGD", {"lr": 0.1})


def test_a_function_of_optax() -> None:
    subject = load("optax:sgd", {"learning_rate": 0.1, "momentum": 0.9})
    assert (subject.framework, subject.name) == ("jax", "optax:sgd")


def test_what_lies_in_the_present_folder(here: Path) -> None:  # noqa: ARG001  (the folder)
    subject = load("mypackage.optim:MySGD", {"lr": 0.1})
    assert subject.name == "mypackage.optim:MySGD"
    assert "Mine." in subject.documentation
    assert "mypackage.optim.MySGD([a]" in subject.script(TRIAL)
    assert np.array_equal(after(subject), after(load("torch.optim:SGD", {"lr": 0.1})))


def test_a_function_of_parameters_and_options(here: Path) -> None:  # noqa: ARG001  (the folder)
    half = after(load("torch.optim:SGD", {"lr": 0.1}))
    assert np.array_equal(after(load("mypackage.optim:made", {})), after(load("torch.optim:SGD", {"lr": 0.25})))
    assert np.array_equal(after(load("mypackage.optim:halved", {"lr": 0.2})), half)


def test_options_as_the_command_line_writes_them() -> None:
    options = settings(["lr=0.1", "betas=(0.9,0.99)", "amsgrad=true", "weight_decay=1e-2"])
    subject = load("torch.optim:Adam", options)
    assert subject.options == {"lr": 0.1, "betas": (0.9, 0.99), "amsgrad": True, "weight_decay": 0.01}
    assert subject.defaults["betas"] == (0.9, 0.99)


# What is handed over.


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda params: torch.optim.SGD(params, lr=0.25, momentum=0.5),
        torch.optim.SGD([torch.nn.Parameter(torch.ones(3))], lr=0.25, momentum=0.5),
    ],
    ids=["factory", "object"],
)
def test_what_is_at_hand(optimizer: Any) -> None:
    subject = of(optimizer)
    assert {"lr": 0.25, "momentum": 0.5}.items() <= subject.options.items()
    assert np.array_equal(after(subject), after(load("torch.optim:SGD", {"lr": 0.25, "momentum": 0.5})))


def test_a_class_at_hand() -> None:
    assert of(torch.optim.Adam).name == "torch.optim.adam:Adam"


def test_optax_at_hand() -> None:
    import optax

    for optimizer in (optax.sgd(0.1), lambda: optax.sgd(0.1)):
        assert of(optimizer).framework == "jax"


# What is wrong.


@pytest.mark.parametrize(
    ("name", "options", "complaint"),
    [
        ("torch.optim", {}, "'torch.optim' names no optimizer; it is written module:name, as in torch.optim:SGD"),
        ("torch.optimm:SGD", {}, "there is no module 'torch.optimm', neither in .* nor installed"),
        ("torch.optim:SDG", {}, "torch.optim has no 'SDG'; choose from Adadelta, .*, SGD, SparseAdam. Did you mean 'SGD'"),
        ("torch.nn:Linear", {}, "torch.nn:Linear is the class torch.nn.modules.linear.Linear; a subclass of torch.optim.Optim"),
        ("os:sep", {}, "os:sep is an object of type builtins.str; a subclass of torch.optim.Optimizer"),
        ("torch.optim:lr_scheduler", {}, "torch.optim:lr_scheduler is the module torch.optim.lr_scheduler; a subclass"),
        ("torch.optim:SGD", {"momentun": 0.9}, "has no option 'momentun'; choose from lr, .* Did you mean 'momentum'"),
        ("torch.optim:SGD", {"params": 1}, "has no option 'params'; choose from lr, momentum"),
        ("torch.optim:SGD", {"lr": -1}, "torch.optim:SGD with lr=-1 cannot be checked: ValueError: Invalid learning rate: -1"),
        ("torch.optim:SparseAdam", {}, "with its defaults cannot be checked: RuntimeError: SparseAdam does not support dense"),
        ("torch.optim:Optimizer", {}, "torch.optim:Optimizer needs defaults, which has no default: --set defaults="),
        ("optax:sdg", {}, "optax has no 'sdg'; choose from ad.*, yogi, zero_nans. Did you mean 'sgd'"),
        ("optax:sgd", {"momentum": 0.9}, "cannot be checked: needs learning_rate, which has no default: --set learning_rate="),
        (
            "mypackage.optim:area",
            {"x": 2},
            "mypackage.optim:area returned an object of type builtins.int; a subclass of torch.optim.Optimizer",
        ),
        ("mypackage.optim:MyAdam", {}, "mypackage.optim has no 'MyAdam'; choose from Any, MySGD. Did you mean 'MySGD'"),
        (
            "mypackage.optim:Any",
            {"mas": 1},
            "TypeError: .*'mas'.* It names no option 'mas'; choose from lr, mass. Did you mean 'mass'",
        ),
        ("mypackage.optim:NotOne", {}, "mypackage.optim:NotOne is the class mypackage.optim.NotOne; a subclass of torch"),
        ("mypackage.optim:forgot", {}, "the factory returned a NoneType; a torch.optim.Optimizer is needed"),
        ("mypackage.optim:two", {}, "needs x and y, which have no default: --set x=... or, from Python, a function that makes"),
        (
            "mypackage.optim:made",
            {"lr": 0.1},
            "mypackage.optim:made is an object of type torch.*SGD, which has its options already",
        ),
        ("mypackage.optim:fails", {}, "mypackage.optim:fails with its defaults cannot be checked: KeyError: 'no such thing'"),
        ("mypackage.broken:SGD", {}, "importing mypackage.broken failed: .*broken.py, line 2: ZeroDivisionError"),
        ("mypackage.lacking:SGD", {}, "importing mypackage.lacking failed: .*No module named 'a_library_that_nobody_has'"),
    ],
)
def test_what_is_wrong_is_said(here: Path, name: str, options: dict[str, Any], complaint: str) -> None:  # noqa: ARG001
    with pytest.raises(ValueError, match=complaint) as caught:
        load(name, options)
    assert "--debug" not in str(caught.value)  # which polyak check has not


@pytest.mark.parametrize(
    ("optimizer", "error", "complaint"),
    [
        (3, TypeError, "an object of type builtins.int is no optimizer; a subclass of torch.optim.Optimizer"),
        (torch.nn.Linear, TypeError, "the class torch.nn.modules.linear.Linear is no optimizer"),
        (lambda: 3, TypeError, "returned an object of type builtins.int"),
        (lambda params: 3, ValueError, "the factory returned a int"),  # noqa: ARG005  (as a factory is called)
        (lambda params: torch.optim.SGD(params, lr=-1), ValueError, "Invalid learning rate: -1"),
    ],
)
def test_what_is_no_optimizer_is_said(optimizer: Any, error: type[Exception], complaint: str) -> None:
    with pytest.raises(error, match=complaint):
        of(optimizer)
