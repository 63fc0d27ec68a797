"""Weights, gradients and the float64 rule, for the tests of Muon in JAX and NumPy."""

from typing import Any

import numpy as np

from polyak.matrices import Matrices
from polyak.rules.heavy_ball import heavy_ball
from polyak.rules.muon import muon
from polyak.update import pipeline

# Two alike, a kernel of a convolution, two matrices in one array; outputs are last.
SHAPES = {"a": (6, 4), "b": (6, 4), "kernel": (2, 2, 3, 5), "qkv": (4, 24), "bias": (6,), "head": (3, 4)}
OTHERS = ("bias", "head")
SPLIT = {"qkv": 3}
STEPS = 6

# Options of Muon, and those of the pipeline around it that the rule knows.
OPTIONS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"nesterov": False, "scale": "match_rms_adamw"}, {"weight_decay": 0.5}),
    ({"polynomial": "quintic", "steps": 3}, {"weight_decay": 0.5, "cautious": True, "cautious_decay": True}),
]

# What no front-end takes, whatever the parameters, by the words that they share: options beside the learning rate.
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"momentum": 1.0}, "momentum must be"),
    ({"momentum": 0.0}, "nesterov=True has no effect"),
    ({"weight_decay": -1.0}, "weight_decay must be"),
    ({"polynomial": "cubic"}, "polynomial must be"),
    ({"steps": 0}, "steps must be"),
    ({"scale": "original"}, "scale must be"),
    ({"finite": "raise"}, "finite must be"),
    ({"max_norm": 0.0}, "max_norm must be"),
    ({"cautious_decay": True}, "cautious_decay=True has no effect"),
]


def arrays(seed: int, shapes: Any = SHAPES) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def gradients(steps: int = STEPS) -> list[dict[str, Any]]:
    return [arrays(100 + t) for t in range(steps)]


def expected(
    options: dict[str, Any], weight_decay: float = 0.0, cautious: bool = False, cautious_decay: bool = False
) -> list[dict[str, Any]]:
    """The weights after each step of the float64 rules, with lr = 0.02 and momentum = 0.75, others with 0.01 and 0.9."""
    weights = {name: np.float64(w) for name, w in arrays(0).items()}
    slots: dict[str, Any] = {name: (np.zeros(w.shape),) for name, w in weights.items()}
    decay: Any = "decoupled" if weight_decay else None
    found = []
    for g in gradients():
        for name, w in weights.items():
            if name in OTHERS:
                update = pipeline(heavy_ball())
                h = update.Hyperparameters(0.01, 0.9)
            else:
                rule = muon(Matrices(w.shape, -1, SPLIT.get(name, 1)), **options)
                update = pipeline(rule, decay, cautious=cautious, cautious_decay=cautious_decay)
                h = update.Hyperparameters(*(0.02, 0.75, weight_decay)[: 3 if decay else 2])
            weights[name], slots[name] = update.apply(np.float64(g[name]), w, slots[name], h)
        found.append(dict(weights))
    return found


def assert_near(found: Any, exact: Any, rtol: float = 1e-5) -> None:
    """Relative to the norm of each array. The polynomials have a slope of up to 1,000 at 0, by which they amplify rounding."""
    for name, x in exact.items():
        error = np.linalg.norm(np.asarray(found[name], np.float64) - x)
        assert error <= rtol * np.linalg.norm(x), (name, error)
