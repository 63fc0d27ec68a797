"""What users may import is listed here; everything else may change without a word."""

import importlib
import subprocess
import sys

import pytest

METHODS = ["AggMo", "LARS", "Lion", "Momentum", "QHM", "ScheduleFree", "Signum"]
PUBLIC = {
    "polyak": ["__version__"],
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


def test_import_brings_no_framework():
    code = "import sys, polyak, polyak.rules, polyak.update; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"keras", "tensorflow", "jax", "torch", "numba", "numpy", "sklearn", "matplotlib"}
    assert not heavy & set(modules)
