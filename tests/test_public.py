"""What users may import is listed here; everything else may change without a word."""

import importlib
import subprocess
import sys

import pytest

METHODS = ["AggMo", "LARS", "Lion", "Momentum", "QHM", "ScheduleFree", "Signum"]
PUBLIC = {
    "polyak": ["__version__"],
    "polyak.check": ["FINDINGS", "Finding", "Identity", "Outcome", "Report", "assert_conforms", "check", "identify"],
    "polyak.jax": [
        "State",
        "aggmo",
        "averaged",
        "check_finite",
        "lars",
        "lion",
        "momentum",
        "muon",
        "qhm",
        "schedule_free",
        "signum",
    ],
    "polyak.keras": ["Averaged", "FiniteCheck", "Recorder", "Muon", *METHODS],
    "polyak.numpy": ["Muon", *METHODS],
    "polyak.rules": ["RULES", "Rule", "heavy_ball"],
    "polyak.schedules": [
        "OneCycle",
        "constant",
        "cosine",
        "demon",
        "linear",
        "one_cycle",
        "piecewise",
        "piecewise_linear",
        "plot",
        "sutskever",
        "warmup_stable_decay",
    ],
    "polyak.state": ["Contents", "Report", "load", "read", "save"],
    "polyak.train.layers": ["Classes", "Columns", "Pictures", "ScaledSquaredError"],
    "polyak.train.predict": ["predictions"],
    "polyak.torch": ["Muon", "Schedule", *METHODS],
}


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names(module):
    imported = importlib.import_module(module)
    assert sorted(imported.__all__) == sorted(PUBLIC[module])
    for name in PUBLIC[module]:
        assert getattr(imported, name).__doc__, f"{module}.{name} has no docstring"


@pytest.mark.parametrize(
    ("modules", "allowed"), [("polyak, polyak.rules, polyak.update", set()), ("polyak.check, polyak.check.command", {"numpy"})]
)
def test_import_brings_no_framework(modules, allowed):
    code = f"import sys, {modules}; print(*sys.modules)"
    brought = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"keras", "tensorflow", "jax", "optax", "torch", "numba", "numpy", "scipy", "sklearn", "matplotlib"}
    assert heavy & set(brought) <= allowed
