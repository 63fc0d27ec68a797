"""Polyak's own Keras optimizers, through the whole check: nothing is wrong with them, on the backend of this process."""

import pytest

from keras_support import BACKEND
from polyak.check import check

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
# A check takes 2 s of processor time on torch, 12 s on JAX and 28 s on TensorFlow, where every trial is compiled. What is said
# to Keras is the same code on all three.
AFFORDED = {"torch": len(CASES), "jax": 1, "tensorflow": 1}[BACKEND]


@pytest.mark.parametrize(("method", "options", "kind"), CASES[:AFFORDED])
def test_nothing_is_wrong_with_ours(method, options, kind):
    report = check(f"polyak.keras:{method}", learning_rate=0.1, **options)
    assert not [(f.identifier, f.what) for outcome in report.outcomes for f in outcome.findings]
    assert report.identity.kind == kind
