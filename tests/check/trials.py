"""Optimizers and trials that several tests of the drivers take, and what must come of them."""

import ast
import contextlib
import io
import itertools
import sys
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any
from unittest.mock import patch

import numpy as np

from polyak.check.trial import Resume, Subject, Trajectory, Trial

SGD = ("torch.optim:SGD", {"lr": 0.1, "momentum": 0.9})
ADAM = ("torch.optim:Adam", {"lr": 0.1})


def drawn(dtype: Any = np.float64, steps: int = 4, **shapes: tuple[int, ...]) -> dict[str, Any]:
    """Weights and gradients."""
    rng = np.random.default_rng(0)

    def draw() -> dict[str, Any]:
        return {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}

    return {"weights": draw(), "gradients": [draw() for _ in range(steps)]}


TWO = drawn(a=(3,), b=(2, 2))


# Heavy ball, which Keras and optax have too.

RNG = np.random.default_rng(0)
W = {"b": RNG.standard_normal((2, 2)), "a": RNG.standard_normal(3)}
G = [{name: RNG.standard_normal(w.shape) for name, w in W.items()} for _ in range(5)]

CHANGES = {0: {"momentum": 0.5}, 2: {"learning_rate": 0.02}, 4: {"learning_rate": 0.3, "momentum": 0.8}}
CHANGED = {"lr": [0.1, 0.1, 0.02, 0.02, 0.3], "m": [0.5, 0.5, 0.5, 0.5, 0.8]}

RESUMES = [
    Resume(step, how, order, unharmed)
    for step, (how, order), unharmed in itertools.product(
        [0, 2], [("load", None), ("load", ("a", "b")), ("copy", None), ("pickle", None)], [False, True]
    )
]

CLOSE = {"float32": 1e-6, "float64": 1e-14}
"""Rounding of five steps of numbers around 1."""


def trial(dtype: Any = "float32", **more: Any) -> Trial:
    """Five steps of two parameters whose names are not in the order of the alphabet."""
    return Trial({n: w.astype(dtype) for n, w in W.items()}, [{n: g.astype(dtype) for n, g in gs.items()} for gs in G], **more)


def heavy_ball(lr: Any = 0.1, m: Any = 0.9, gradients: Iterable[Mapping[str, Any]] = G, *, in_steps: bool) -> dict[str, Any]:
    """The weights after each of five steps, in float64.

    Args:
        lr: The learning rate, a number or one for each step.
        m: The momentum, likewise.
        gradients: Of each step; a parameter without one stays as it is.
        in_steps: Whether the velocity is in units of steps, as in Keras, or of gradients.
    """
    lrs, ms = np.broadcast_to(lr, 5), np.broadcast_to(m, 5)
    w, v = {n: x.copy() for n, x in W.items()}, dict.fromkeys(W, 0.0)
    seen = []
    for g, lr_now, m_now in zip(gradients, lrs, ms, strict=True):
        enters, counts = (lr_now, 1) if in_steps else (1, lr_now)
        v = {n: m_now * v[n] + enters * g[n] if n in g else v[n] for n in W}
        w = {n: w[n] - counts * v[n] if n in g else w[n] for n in W}
        seen.append(w)
    return {n: np.stack([each[n] for each in seen]) for n in W}


def assert_weights(trajectory: Trajectory, expected: Mapping[str, Any], rtol: float) -> None:
    """Fail unless a trial came to these weights."""
    for name, w in expected.items():
        np.testing.assert_allclose(trajectory.after[name], w, rtol=rtol, atol=rtol)


def assert_script_comes_to(subject: Subject, *trials: Trial) -> None:
    """Fail unless the script of trials prints the weights that they come to."""
    module = ModuleType("script")  # where pickle finds its classes
    with contextlib.redirect_stdout(io.StringIO()) as printed, patch.dict(sys.modules, script=module):
        exec(compile(subject.script(*trials), "script", "exec"), vars(module))  # noqa: S102  (what is tested)
    lines = [ast.literal_eval(line.replace("] [", "], [") + ",") for line in printed.getvalue().splitlines()]
    for t in trials:
        found, of_trial, lines = subject.run(t), lines[: len(t.gradients)], lines[len(t.gradients) :]
        assert len(of_trial) == len(t.gradients)
        for i, (name, after) in enumerate(found.after.items()):
            weights = np.array([line[i] for line in of_trial]).reshape(after.shape)
            np.testing.assert_array_equal(weights.astype(after.dtype), after, err_msg=name)
    assert not lines
