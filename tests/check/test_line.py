"""An identity in a line and as a recurrence."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from polyak.check.drivers.loading import load
from polyak.check.identification import identify
from polyak.check.identity import Identity, Number
from polyak.check.line import line, recurrence
from polyak.check.trial import Trial


def number(value: float) -> Number:
    return Number(value, 1e-9)


def identity(kind: Any, *momenta: float, lr: float | None = 0.1, **more: Any) -> Identity:
    numbers = {name: number(x) if isinstance(x, float) and name != "direct" else x for name, x in more.items()}
    rate = None if lr is None else number(lr)
    return Identity(kind, learning_rate=rate, momenta=tuple(map(number, momenta)), **{"decay": "none", "sign": 1, **numbers})


CASES = {
    "the issue's": (
        identity(
            "momentum",
            0.9,
            nesterov=True,
            velocity="gradient",
            decay="coupled",
            weight_decay=5e-4,
            first_step="dampening not applied",
        ),
        "Nesterov momentum: m = 0.9000, lr = 0.1000, velocity in gradient units, coupled decay 5.0e-4; "
        "first step differs: dampening not applied",
        ("x = g + 5.0e-4 w", "v = 0.9 v + x", "w = w - 0.1 (0.9 v + x)", "at the first step v = x"),
    ),
    "still": (Identity("still", decay="none"), "still: the weights never move", ("w = w",)),
    "descent": (identity("descent"), "gradient descent: lr = 0.1000", ("w = w - 0.1 g",)),
    "up": (identity("descent", sign=-1), "gradient descent (UP the gradient): lr = 0.1000", ("x = -g", "w = w - 0.1 x")),
    "near 1": (
        identity("momentum", 0.99995, lr=1e-7),
        "heavy ball: m = 0.999950, lr = 1.0e-7",
        ("v = 0.99995 v + g", "w = w - 1.0e-7 v"),
    ),
    "step": (
        identity("momentum", 0.9, velocity="step", nesterov=True, decay="decoupled", weight_decay=0.01),
        "Nesterov momentum: m = 0.9000, lr = 0.1000, velocity in step units, decoupled decay 1.0e-2",
        ("v = 0.9 v + 0.1 g", "w = w - (0.9 v + 0.1 g) - 0.1 * 1.0e-2 w"),
    ),
    "dampening": (
        identity("momentum", 0.9, dampening=0.3, velocity="gradient", decay="independent", weight_decay=4.95e-4),
        "heavy ball: m = 0.9000, lr = 0.1000, dampening = 0.3000, velocity in gradient units, "
        "decoupled decay, independent of the learning rate, 4.95e-4",
        ("v = 0.9 v + 0.7 g", "w = w - 0.1 v - 4.95e-4 w"),
    ),
    "average": (
        identity("momentum", 0.9, dampening=0.9, velocity="gradient", decay="unknown"),
        "heavy ball: m = 0.9000, lr = 0.1000, velocity is an average, decay unknown",
        ("v = 0.9 v + 0.1 g", "w = w - 0.1 v"),
    ),
    "qhm": (
        identity("qhm", 0.9, nu=0.7, velocity="gradient", clip=(number(2.0), "all")),
        "QHM: m = 0.9000, nu = 0.7000, lr = 0.1000, velocity in gradient units, "
        "gradients scaled down to a norm of 2.000 over all parameters",
        ("g = g min(1, 2 / |g|)   |g| of all parameters", "v = 0.9 v + 0.1 g", "w = w - 0.1 (0.3 g + 0.7 v)"),
    ),
    "several": (
        identity("several", 0.99, 0.9, 0.0),
        "mean of 3 velocities (AggMo): m = (0.9900, 0.9000, 0.0000), lr = 0.1000",
        ("v1 = 0.99 v1 + g", "v2 = 0.9 v2 + g", "w = w - 0.1 / 3 (v1 + v2 + g)"),
    ),
    "linear": (
        identity("linear", 0.9, 0.5, lr=None, poles=np.array([0.9, 0.5]), residues=np.array([0.2, -0.1]), direct=0.3),
        "linear, without a name: poles 0.9000 and 0.5000",
        ("v1 = 0.9 v1 + g", "v2 = 0.5 v2 + g", "w = w - 0.3 g - 0.2 v1 + 0.1 v2"),
    ),
    "linear without poles": (identity("linear", lr=None), "linear, without a name", ()),
    "unknown": (
        Identity("unknown", linear=True, time_invariant=False, elementwise=True),
        "unknown: linear, not the same at each step: decay unknown",
        (),
    ),
}


NOT_LINEAR = {
    "Lion": (
        identity("sign", 0.99, nu=0.9, lr=1e-3, decay="decoupled", weight_decay=0.1),
        "sign of a mean of gradient and velocity (Lion): m = 0.9900, nu = 0.9000, lr = 0.001000, decoupled decay 1.0e-1",
    ),
    "Signum": (identity("sign", 0.9), "sign of a momentum: m = 0.9000, lr = 0.1000"),
    "normalised": (
        identity("normalised", over="tensor", relative=True, clip=(number(1.0), "element")),
        "gradient normalised over each tensor: lr = 0.1000, in proportion to the weights' norm, gradients cut off at 1.000",
    ),
    "adaptive": (
        identity("adaptive", 0.9, squares=0.999),
        "adaptive: steps of each element do not depend on the size of its gradients: m = 0.9000, "
        "squares remembered with 0.9990, lr = 0.1000",
    ),
    "orthogonalised": (identity("orthogonalised", 0.95), "momentum, orthogonalised: m = 0.9500, lr = 0.1000"),
    "Nesterov, orthogonalised": (
        identity("orthogonalised", 0.95, nesterov=True),
        "Nesterov momentum, orthogonalised: m = 0.9500, lr = 0.1000",
    ),
    "the size of steps that are orthogonal": (
        replace(identity("orthogonalised", 0.95), learning_rate=Number(3.633e-4, 9e-5)),
        "momentum, orthogonalised: m = 0.9500, steps of about 3.6e-4",
    ),
    "of the past of what is normalised nothing was told": (
        identity("normalised", lr=None, over="tensor"),
        "normalised over each tensor",
    ),
    "orthogonalised gradient": (identity("orthogonalised"), "gradient, orthogonalised: lr = 0.1000"),
    "momentum not told": (identity("orthogonalised", lr=None), "orthogonalised"),
}


@pytest.mark.parametrize("case", CASES)
def test_lines(case: str) -> None:
    told, expected, lines = CASES[case]
    assert line(told) == expected
    assert recurrence(told) == lines


@pytest.mark.parametrize("case", NOT_LINEAR)
def test_lines_of_what_is_not_linear(case: str) -> None:
    told, expected = NOT_LINEAR[case]
    assert line(told) == expected


def followed(lines: tuple[str, ...], w: float, gradients: np.ndarray) -> float:
    """The last weight if one does what the lines say: numbers and letters beside each other are multiplied."""
    values = {"w": w, **{f"v{i}": 0.0 for i in ("", 1, 2, 3)}}
    first = next((text.removeprefix("at the first step ") for text in lines if text.startswith("at the first step")), None)
    for t, g in enumerate(gradients):
        values["g"] = g
        for text in lines:
            if text.startswith("at the first step"):
                continue
            letter, expression = (first if first and t == 0 and text.startswith("v = ") else text).split(" = ")
            values[letter] = eval(re.sub(r"(?<=[\d)]) (?=[a-z(])", " * ", expression), {}, values)  # noqa: S307  (our own lines)
    return float(values["w"])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("torch.optim:SGD", {"lr": 0.1, "maximize": True, "weight_decay": 0.01}),
        ("torch.optim:SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01}),
        ("torch.optim:SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
        ("polyak.torch:Momentum", {"lr": 0.1, "momentum": 0.9, "velocity": "step", "dampening": 0.3}),
        ("polyak.torch:Momentum", {"lr": 0.1, "momentum": 0.9, "velocity": "step", "nesterov": True}),
        ("polyak.torch:Momentum", {"lr": 0.1, "momentum": 0.9, "velocity": "average", "nesterov": True}),
        ("polyak.torch:QHM", {"lr": 0.1, "momentum": 0.9, "nu": 0.7, "weight_decay": 0.1, "decay": "decoupled"}),
        ("polyak.torch:AggMo", {"lr": 0.1, "momenta": (0.99, 0.0, 0.9), "weight_decay": 0.1, "decay": "coupled"}),
        (
            "pytorch_optimizer:QHM",
            {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.02, "weight_decouple": True, "fixed_decay": True},
        ),
        ("pytorch_optimizer:AggMo", {"lr": 0.1, "betas": (0.9, 0.9)}),
    ],
)
def test_who_follows_the_lines_comes_to_the_same_weight(name: str, options: dict[str, Any]) -> None:
    subject = load(name, options)
    gradients = np.random.default_rng(0).normal(size=12)
    trial = Trial({"w": np.array([2.0])}, [{"w": np.array([g])} for g in gradients])
    expected = subject.run(trial).after["w"][-1, 0]
    # Lines have six digits, or four where numbers are small.
    assert followed(recurrence(identify(subject)), 2.0, gradients) == pytest.approx(expected, rel=1e-4)


def test_a_decay_beside_orthogonal_steps_goes_by_the_learning_rate_and_not_by_their_size() -> None:
    told = identity("orthogonalised", 0.95, decay="decoupled", weight_decay=4e-3)
    rough = replace(told, learning_rate=Number(3.633e-4, 9e-5))
    assert recurrence(rough)[-1] == "w = w - 3.6e-4 orthogonal(v) - lr * 4.0e-3 w"
    assert recurrence(told)[-1] == "w = w - 0.1 orthogonal(v) - 0.1 * 4.0e-3 w"
