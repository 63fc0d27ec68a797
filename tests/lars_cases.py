"""The run with which every front-end's LARS is tested, and what it must come to."""

from typing import Any

import numpy as np

import textbook

# A matrix, a kernel, what has fewer than two dimensions, a weight that starts at 0 and one without elements.
SHAPES: dict[str, tuple[int, ...]] = {"matrix": (5, 4), "kernel": (3, 3, 2, 8), "bias": (4,), "scale": (), "zero": (2, 2)}
STEPS = 20
RATES = [2.0 / (1 + t) for t in range(STEPS)]
NUMBERS = {"momentum": 0.8, "trust_coefficient": 0.05}
WEIGHT_DECAY = 0.1


def start(dtype: Any = np.float64) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {name: np.asarray(rng.standard_normal(shape) * (name != "zero"), dtype) for name, shape in SHAPES.items()}


def gradients(dtype: Any = np.float64) -> list[dict[str, Any]]:
    """Of sizes from 1e-3 to 1e3; one matrix has none at step 3."""
    rng = np.random.default_rng(1)
    scales = {name: 10.0 ** rng.uniform(-3, 3, STEPS) for name in ("matrix", "kernel", "zero")}
    return [
        {
            name: np.asarray(
                rng.standard_normal(shape) * scales.get(name, np.ones(STEPS))[t] * (name != "matrix" or t != 3), dtype
            )
            for name, shape in SHAPES.items()
        }
        for t in range(STEPS)
    ]


def expected(*, dtype: Any = np.float64, decay: Any = "coupled", scale: float = 1.0) -> tuple[dict[str, Any], dict[str, Any]]:
    """The last weights and velocities in float64, from a start and gradients that were rounded to `dtype`."""
    weights, velocities = {}, {}
    for name, w in start(dtype).items():
        own = [scale * g[name].astype(np.float64) for g in gradients(dtype)]
        numbers = {"m": NUMBERS["momentum"], "eta": NUMBERS["trust_coefficient"], "wd": WEIGHT_DECAY if decay else 0.0}
        steps, velocities[name] = textbook.train("lars", w.astype(np.float64), own, lr=RATES, decay=decay, **numbers)
        weights[name] = steps[-1]
    return weights, velocities


def assert_close(actual: dict[str, Any], wanted: dict[str, Any], rtol: float) -> None:
    """Each array, relative to its norm: single elements come close to 0."""
    assert set(actual) == set(wanted)
    for name in wanted:
        found, x = (np.asarray(arrays[name], np.float64) for arrays in (actual, wanted))
        assert np.linalg.norm(found - x) <= rtol * np.linalg.norm(x), name
