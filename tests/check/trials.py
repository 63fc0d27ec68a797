"""Optimizers and trials that several tests of the drivers take."""

from typing import Any

import numpy as np

SGD = ("torch.optim:SGD", {"lr": 0.1, "momentum": 0.9})
ADAM = ("torch.optim:Adam", {"lr": 0.1})


def drawn(dtype: Any = np.float64, steps: int = 4, **shapes: tuple[int, ...]) -> dict[str, Any]:
    """Weights and gradients."""
    rng = np.random.default_rng(0)

    def draw() -> dict[str, Any]:
        return {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}

    return {"weights": draw(), "gradients": [draw() for _ in range(steps)]}


TWO = drawn(a=(3,), b=(2, 2))
