"""Polyak's own Keras optimizers, through the whole check: nothing is wrong with them, on the backend of this process."""

import pytest

from keras_support import BACKEND
from polyak.check import FINDINGS, check

CASES = [
    ("Momentum", {"nesterov": True, "weight_decay": 0.01, "decay": "decoupled"}, "momentum"),
    ("Lion", {}, "sign"),
    ("AggMo", {}, "several"),
    ("Momentum", {"velocity": "average"}, "momentum"),
    ("QHM", {}, "qhm"),
    ("Signum", {}, "sign"),
    ("LARS", {"trust_coefficient": 0.1}, "normalised"),
    ("ScheduleFree", {}, "unknown"),
    ("Muon", {}, "orthogonalised"),
]
# Where every trial is compiled, most of the time is that of the hundreds of trials in which options are varied. What is said to
# Keras is the same code on all three backends, so that one does that, and the others one optimizer each without it.
AFFORDED = {"torch": len(CASES), "jax": 1, "tensorflow": 1}[BACKEND]
LOOKED_FOR = None if BACKEND == "torch" else FINDINGS.keys() - {"option-without-effect"}


@pytest.mark.parametrize(("method", "options", "kind"), CASES[:AFFORDED])
def test_nothing_is_wrong_with_ours(method, options, kind):
    report = check(f"polyak.keras:{method}", select=LOOKED_FOR, learning_rate=0.1, **options)
    assert not [(f.identifier, f.what) for outcome in report.outcomes for f in outcome.findings]
    assert report.identity.kind == kind
