"""The arguments with which the front-ends of each method are tested, and the recursion that they must follow."""

from typing import Any

import numpy as np

import textbook

# Method -> arguments beside the learning rate; the name in `textbook.train` and its letters for the same.
CASES: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "Momentum": ({"momentum": 0.8}, "gradient", {"m": 0.8}),
    "QHM": ({"momentum": 0.8, "nu": 0.7}, "qhm", {"m": 0.8, "nu": 0.7}),
    "AggMo": ({"momenta": (0.0, 0.5, 0.8)}, "aggmo_3", {"momenta": (0.0, 0.5, 0.8)}),
    "Signum": ({"momentum": 0.8}, "signum", {"m": 0.8}),
    "Lion": ({"b1": 0.7, "b2": 0.8}, "lion", {"b1": 0.7, "b2": 0.8}),
    "LARS": ({"momentum": 0.8, "trust_coefficient": 0.5}, "lars", {"m": 0.8, "eta": 0.5}),
    # Its average is computed from the step, in float32.
    "ScheduleFree": (
        {"momentum": 0.8},
        "schedule_free",
        {"m": 0.8, "c": [float(np.float32(c)) for c in textbook.average_weights(0, 20)]},
    ),
}


def decays(method: str) -> tuple[Any, ...]:
    """The kinds of weight decay that a method takes."""
    return (None, "coupled") if method == "LARS" else (None, "coupled", "decoupled")


WITH_DECAYS = [(method, decay) for method in CASES for decay in decays(method)]


def expected(method: str, w: Any, gradients: list[Any], **options: Any) -> tuple[Any, list[Any]]:
    """The last weight, and the velocities, that a method must come to from float64 arrays."""
    _, rule, letters = CASES[method]
    weights, v = textbook.train(rule, w, gradients, **letters, **options)
    return weights[-1], v if isinstance(v, list) else [v]
