"""Polyak's own optimizers, through the whole check: nothing is wrong with them, but what stands here with its reason."""

import pytest

from polyak.check import FINDINGS, check

# Beside the learning rate. Options that choose another recurrence, or the kind of decay, are cases of their own.
CASES = [
    ("Momentum", {}),
    ("Momentum", {"nesterov": True, "weight_decay": 0.01, "decay": "decoupled"}),
    ("Momentum", {"velocity": "step", "weight_decay": 0.01, "decay": "coupled"}),
    ("Momentum", {"velocity": "average"}),
    ("QHM", {}),
    ("AggMo", {}),
    ("Signum", {}),
    ("Lion", {}),
    ("LARS", {"trust_coefficient": 0.1}),
    ("ScheduleFree", {}),
    ("Muon", {}),
]
KINDS = {
    "Momentum": "momentum",
    "QHM": "qhm",
    "AggMo": "several",
    "Signum": "sign",
    "Lion": "sign",
    "LARS": "normalised",
    "ScheduleFree": "unknown",
    "Muon": "orthogonalised",
}
FUNCTIONS = {"ScheduleFree": "schedule_free"}


def clean(name, options, select=None):
    report = check(name, select=select, **options)
    assert not [(f.identifier, f.what) for outcome in report.outcomes for f in outcome.findings]
    return report


@pytest.mark.parametrize(("method", "options"), CASES)
def test_torch(method, options):
    assert clean(f"polyak.torch:{method}", {"lr": 0.1, **options}).identity.kind == KINDS[method]


# In JAX each takes five times as long as in PyTorch, and LARS and Muon, whose steps are compiled for each trial, twenty. The
# rules are the same, and the front-end has one base: three show it, without the many trials in which options are varied.
@pytest.mark.parametrize(("method", "options"), [CASES[1], *(case for case in CASES if case[0] in ("Lion", "ScheduleFree"))])
def test_jax(method, options):
    function = FUNCTIONS.get(method, method.lower())
    select = FINDINGS.keys() - {"option-without-effect"}
    assert clean(f"polyak.jax:{function}", {"learning_rate": 0.1, **options}, select).identity.kind == KINDS[method]
