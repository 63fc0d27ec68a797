"""The optimizers of the zoo: a broken one is found by the right identifier, a sound one is clean."""

from typing import Any

import pytest

from check.zoo import optax_zoo, torch_adaptive, torch_compiled, torch_rules, torch_state, torch_tensors
from check.zoo.cases import Case, check_finds, check_finds_nothing_else
from polyak.check import FINDINGS, check

TORCH = [*torch_rules.CASES, *torch_state.CASES, *torch_tensors.CASES, *torch_adaptive.CASES, *torch_compiled.CASES]

# Of each sound optimizer of PyTorch, options and what it is to be identified as.
MOMENTUM = {"kind": "momentum", "momenta": [0.9], "learning_rate": 0.1, "nesterov": False, "decay": "none", "first_step": None}
LION = {"kind": "sign", "momenta": [0.99], "nu": 0.9, "learning_rate": 0.01, "decay": "none"}
ADAM = {"kind": "adaptive", "momenta": [0.9], "squares": 0.999, "learning_rate": 0.001, "decay": "none"}
SOUND: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("SGD", {"momentum": 0.0}, {"kind": "descent", "learning_rate": 0.1, "decay": "none"}),
    ("SGD", {}, MOMENTUM),
    ("SGD", {"weight_decay": 0.2}, {**MOMENTUM, "decay": "coupled", "weight_decay": 0.2}),
    (
        "SGD",
        {"weight_decay": 0.2, "decoupled_weight_decay": True},
        {**MOMENTUM, "decay": "decoupled", "weight_decay": 0.2, "velocity": "gradient"},
    ),
    (
        "SGD",
        {"lr": 0.05, "momentum": 0.8, "dampening": 0.3},
        {**MOMENTUM, "momenta": [0.8], "dampening": 0.3, "learning_rate": 0.05},
    ),
    ("SGD", {"nesterov": True}, {**MOMENTUM, "nesterov": True}),
    (
        "SGDOfLists",
        {"nesterov": True, "weight_decay": 0.2},
        {**MOMENTUM, "nesterov": True, "decay": "coupled", "weight_decay": 0.2},
    ),
    ("Lion", {}, LION),
    ("Lion", {"weight_decay": 0.2}, {**LION, "decay": "decoupled", "weight_decay": 0.2}),
    ("AdamW", {}, ADAM),
    ("AdamW", {"weight_decay": 0.2}, {**ADAM, "decay": "decoupled", "weight_decay": 0.2}),
    ("AdamW", {"weight_decay": 0.2, "decoupled_weight_decay": False}, {**ADAM, "decay": "coupled", "weight_decay": 0.2}),
]


# The identifiers whose checks take longest: each value of an option is another optimizer.
LONG = ("option-without-effect", "option-effect")


@pytest.mark.parametrize("case", [*TORCH, *optax_zoo.CASES], ids=str)
def test_a_broken_one_is_found(case: Case) -> None:
    check_finds(case)


# A whole check takes many times as long as that of one identifier, and the sound ones have it: some broken ones stand for all.
@pytest.mark.parametrize("case", [*TORCH[::5], *optax_zoo.CASES[::5]], ids=str)
def test_a_broken_one_is_found_as_nothing_else(case: Case) -> None:
    check_finds_nothing_else(case, without=LONG)


@pytest.mark.parametrize(("name", "options", "expected"), SOUND, ids=lambda x: x if isinstance(x, str) else "")
def test_a_sound_one_of_torch_is_clean(name: str, options: dict[str, Any], expected: dict[str, Any]) -> None:
    report = check(f"check.zoo.torch_sound:{name}", **options)
    assert not report.findings
    for attribute, value in expected.items():
        found = getattr(report.identity, attribute)
        if attribute == "momenta":
            assert [m.value for m in found] == pytest.approx(value, rel=1e-6)  # what is promised in float64
        else:
            assert getattr(found, "value", found) == (pytest.approx(value, rel=1e-6) if isinstance(value, float) else value)


def test_the_sound_one_of_optax_is_clean() -> None:
    report = check("check.zoo.optax_zoo:SGD", nesterov=True, weight_decay=0.2)
    assert not report.findings
    identity = report.identity
    assert (identity.kind, identity.nesterov, identity.decay, identity.velocity) == ("momentum", True, "decoupled", "gradient")


def test_every_finding_has_an_optimizer_that_shows_it() -> None:
    assert {x for case in [*TORCH, *optax_zoo.CASES] for x in case.found} == FINDINGS.keys()
