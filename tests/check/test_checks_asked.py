"""What was identified against what was asked for: what the zoo does not have."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from check.zoo.torch_sound import SGD, AdamW, Lion
from polyak.check.checks.asked import asked
from polyak.check.checks.decay import decay, stated
from polyak.check.drivers.loading import load
from polyak.check.drivers.torch import of_class
from polyak.check.finding import Outcome
from polyak.check.identification import identify
from polyak.check.identity import Identity, Number
from polyak.check.trial import Subject


def torch_subject(cls: Any, **given: Any) -> Subject:
    return of_class(cls, f"here:{cls.__name__}", given)


def found(outcome: Outcome) -> list[str]:
    return [finding.identifier for finding in outcome.findings]


def exactly(value: float) -> Number:
    return Number(value, 1e-12)


SOUND = Identity(
    "momentum",
    linear=True,
    sign=1,
    learning_rate=exactly(0.1),
    momenta=(exactly(0.9),),
    nesterov=False,
    dampening=exactly(0),
    dtype="float64",
)


@pytest.mark.parametrize(
    ("changes", "identifiers"),
    [
        ({}, []),
        ({"learning_rate": exactly(0.1000005)}, ["learning-rate-differs"]),
        ({"learning_rate": Number(0.1000005, 1e-6)}, []),  # within what was measured
        ({"dtype": "float32", "learning_rate": exactly(0.10005)}, []),
        ({"momenta": (exactly(0.89),)}, ["momentum-differs"]),
        ({"momenta": ()}, ["momentum-differs"]),
        ({"momenta": (exactly(0.9), exactly(0.5)), "kind": "several"}, ["momentum-differs"]),
        ({"nesterov": True}, ["nesterov-differs"]),
        ({"kind": "qhm", "nu": exactly(0.5)}, []),
        ({"dampening": None, "learning_rate": exactly(0.01)}, ["learning-rate-differs"]),
        ({"sign": -1}, ["ascent"]),
        ({"kind": "adaptive", "learning_rate": exactly(7)}, []),
        ({"kind": "unknown", "learning_rate": None}, []),
    ],
)
def test_each_coefficient_is_compared(changes: dict[str, Any], identifiers: list[str]) -> None:
    subject = torch_subject(SGD)
    assert found(asked(subject, replace(SOUND, **changes))) == identifiers


def test_half_a_dampening_is_a_dampening_and_not_a_learning_rate() -> None:
    subject = torch_subject(SGD, dampening=0.5)
    half = replace(SOUND, dampening=None, learning_rate=exactly(0.08))
    assert found(asked(subject, half)) == ["dampening-differs"]


def test_nesterovs_that_was_asked_for_is_no_qhm() -> None:
    subject = torch_subject(SGD, nesterov=True)
    assert found(asked(subject, replace(SOUND, kind="qhm", nu=exactly(0.5), nesterov=None))) == ["nesterov-differs"]


def test_lions_two_coefficients() -> None:
    subject = torch_subject(Lion)
    sign = Identity("sign", sign=1, learning_rate=exactly(0.01), nu=exactly(0.9), momenta=(exactly(0.99),), dtype="float64")
    assert found(asked(subject, sign)) == []
    assert found(asked(subject, replace(sign, nu=exactly(0.95)))) == ["momentum-differs"]
    assert found(asked(subject, replace(sign, momenta=(exactly(0.9),)))) == ["momentum-differs"]


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("polyak.torch:Momentum", {"lr": 0.1, "momentum": 0.9, "velocity": "average"}),
        ("polyak.torch:QHM", {"lr": 0.1, "momentum": 0.9, "nu": 0.0}),
        ("polyak.torch:AggMo", {"lr": 0.1, "momenta": (0.0, 0.9)}),
        ("polyak.torch:Signum", {"lr": 0.1, "momentum": 0.9}),
        ("torch.optim:SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.9}),
        ("torch.optim:SGD", {"lr": 0.1, "momentum": 0.9, "maximize": True}),
        ("torch.optim:Adam", {"maximize": True}),
    ],
)
def test_rules_with_other_names_for_the_same_are_as_asked(name: str, given: dict[str, Any]) -> None:
    subject = load(name, given)
    assert found(asked(subject, identify(subject))) == []


def test_an_average_that_nothing_speaks_of_is_noted() -> None:
    class Averaging(SGD):
        def __init__(self, params: Any, lr: float = 0.1, momentum: float = 0.9) -> None:
            super().__init__(params, lr, momentum, dampening=momentum)

    subject = torch_subject(Averaging)
    outcome = asked(subject, identify(subject))
    assert outcome.status == "pass"
    assert "averaged" in outcome.notes[0]


@pytest.mark.parametrize(
    ("name", "given", "kind"),
    [
        ("torch.optim:SGD", {}, None),
        ("torch.optim:AdamW", {}, "decoupled"),
        ("torch.optim:Adam", {}, "coupled"),
        ("torch.optim:Adam", {"decoupled_weight_decay": True}, "decoupled"),
        ("polyak.torch:Momentum", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1, "decay": "coupled"}, "coupled"),
        ("polyak.torch:Lion", {"lr": 0.1}, "decoupled"),
    ],
)
def test_what_is_said_of_the_decay(name: str, given: dict[str, Any], kind: str | None) -> None:
    assert stated(load(name, given))[0] == kind


def test_what_the_documentation_says_of_the_decay() -> None:
    class Documented(torch.optim.SGD):
        """Descends.

        Args:
            weight_decay: Decoupled, as in AdamW.
        """

    assert stated(torch_subject(Documented))[0] == "decoupled"
    subject = torch_subject(Documented, lr=0.1, momentum=0.9, weight_decay=0.1)
    assert found(decay(subject, identify(subject))) == ["decay-kind"]


def test_a_flag_that_frees_the_decay_from_the_learning_rate_is_no_statement_about_gradients() -> None:
    class Freed(SGD):
        """As lion-pytorch: decoupled from gradients in any case, and from the learning rate where that is asked for."""

        def decay(self, p: torch.Tensor, g: torch.Tensor, group: dict[str, Any]) -> torch.Tensor:
            p.mul_(1 - group["weight_decay"] * (1 if group["decoupled_weight_decay"] else group["lr"]))
            return g

    subject = torch_subject(Freed, weight_decay=0.1)
    assert found(decay(subject, identify(subject))) == []


def test_a_decay_that_nobody_asked_for() -> None:
    class Secret(SGD):
        def decay(self, p: torch.Tensor, g: torch.Tensor, group: dict[str, Any]) -> torch.Tensor:
            return super().decay(p, g, {**group, "weight_decay": 0.01})

    subject = torch_subject(Secret)
    outcome = decay(subject, identify(subject))
    assert found(outcome) == ["decay-amount"]
    assert "No decay was asked for" in outcome.findings[0].what


def test_weights_that_are_divided_decay_as_asked() -> None:
    """As in Adan's paper: w / (1 + lr wd) is w (1 - lr wd / (1 + lr wd))."""
    subject = torch_subject(AdamW, lr=0.1, weight_decay=0.1)
    divided = Identity("adaptive", decay="decoupled", weight_decay=exactly(0.1 / 1.01), dtype="float64")
    assert found(decay(subject, divided)) == []
    assert found(decay(subject, replace(divided, weight_decay=exactly(0.1 / 1.02)))) == ["decay-amount"]
