"""Identification of what is not linear: coefficients of rules with random settings, and what must not get a name."""

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from polyak.check.drivers.loading import load, of
from polyak.check.identification import identify
from polyak.check.identification.flips import HIGHEST, LOWEST, crossings
from polyak.check.identity import Identity, Number
from polyak.check.line import recurrence
from polyak.check.trial import Subject, Trial

Tensors = list[torch.Tensor]
Rule = Callable[[Tensors, dict[str, Any], Tensors], Tensors]


class Ruled(torch.optim.Optimizer):
    """An optimizer whose steps a function makes, of gradients, a dictionary that lasts, and weights."""

    def __init__(self, params: Any, rule: Rule, lr: float = 0.01) -> None:
        super().__init__(params, {"lr": lr})
        self.rule, self.memory = rule, dict[str, Any]()

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # noqa: ARG002  (the base class has it)
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            for p, step in zip(weights, self.rule([p.grad for p in weights], self.memory, weights), strict=True):
                p.sub_(group["lr"] * step)


def ruled(rule: Rule, lr: float = 0.01) -> Identity:
    return identify(of(lambda params: Ruled(params, rule, lr)))


def velocity(grads: Tensors, memory: dict[str, Any], m: float) -> Tensors:
    memory["v"] = [m * v + g for v, g in zip(memory.get("v", [0.0] * len(grads)), grads, strict=True)]
    return list(memory["v"])


def close(number: Number | None, expected: float, within: float) -> bool:
    return number is not None and abs(number.value - expected) <= within * max(abs(expected), 1e-3)


def subject(name: str, options: dict[str, Any], dtype: str = "float64") -> Subject:
    found = load(name, options)
    if dtype == "float32":
        found.double = False
    return found


# As of linear rules.
WITHIN = {"float64": 1e-6, "float32": 1e-3}


@pytest.mark.parametrize("dtype", WITHIN)
def test_lion_is_told_by_where_the_sign_flips(dtype: str) -> None:
    random = np.random.default_rng(1)
    for _ in range(8):
        lr, b1, b2, wd = (
            10 ** random.uniform(-4, -1),
            random.uniform(0.5, 0.97),
            random.uniform(0.5, 0.995),
            random.uniform(0, 0.3),
        )
        options = {"lr": lr, "betas": (b1, b2), "weight_decay": wd}
        found = identify(subject("lion_pytorch:Lion", options, dtype))
        told = (found.learning_rate, lr), (found.momenta[0], b2), (found.nu, b1), (found.weight_decay, wd)
        assert (found.kind, found.sign, found.decay) == ("sign", 1, "decoupled"), (options, found)
        assert all(close(number, expected, WITHIN[dtype]) for number, expected in told), (options, found)


def test_signum_is_told_with_its_decay() -> None:
    random = np.random.default_rng(2)
    for kind in ("coupled", "decoupled", "coupled"):
        lr, m, wd = 10 ** random.uniform(-4, -1), random.uniform(0.3, 0.98), random.uniform(0.01, 0.3)
        options = {"lr": lr, "momentum": m, "weight_decay": wd, "decay": kind}
        found = identify(load("polyak.torch:Signum", options))
        assert (found.kind, found.nu, found.nesterov, found.decay) == ("sign", None, False, kind), (options, found)
        told = (found.learning_rate, lr), (found.momenta[0], m), (found.weight_decay, wd)
        assert all(close(number, expected, 1e-6) for number, expected in told), (options, found)
    plain = identify(load("pytorch_optimizer:SignSGD", {"lr": 0.01, "momentum": 0.0}))
    assert plain.kind == "sign"
    assert plain.momenta == ()


ADAPTIVE: list[tuple[str, dict[str, Any], tuple[float, ...], float, float, str]] = [
    ("torch.optim:Adam", {"lr": 0.03, "betas": (0.8, 0.99), "weight_decay": 0.2}, (0.8,), 0.99, 0.03, "coupled"),
    ("torch.optim:AdamW", {"lr": 1e-3, "weight_decay": 0.2}, (0.9,), 0.999, 1e-3, "decoupled"),
    ("torch.optim:RMSprop", {"lr": 0.01, "alpha": 0.95}, (), 0.95, 0.01, "none"),
    ("torch.optim:RMSprop", {"lr": 0.01, "alpha": 0.95, "momentum": 0.7}, (0.7,), 0.95, 0.01, "none"),
    ("torch.optim:Adagrad", {"lr": 0.1}, (), 1.0, 0.1, "none"),
]


@pytest.mark.parametrize(("name", "options", "momenta", "squares", "rate", "decay"), ADAPTIVE)
def test_adam_and_its_kin_are_told(
    name: str, options: dict[str, Any], momenta: tuple[float, ...], squares: float, rate: float, decay: str
) -> None:
    found = identify(load(name, options))
    assert (found.kind, found.elementwise, found.decay, found.doubts) == ("adaptive", True, decay, ())
    # An epsilon of 1e-8 beside gradients of 1e2 and more, and 16 steps of rounding.
    assert len(found.momenta) == len(momenta)
    assert all(close(m, e, 1e-6) for m, e in zip(found.momenta, momenta, strict=True))
    assert close(found.squares, squares, 1e-6)
    assert close(found.learning_rate, rate, 1e-6)
    if decay != "none":
        assert close(found.weight_decay, options["weight_decay"], 1e-6)


# What each is said to be. It is easy to say too much of any of them.
NAMES = {
    "torch.optim:NAdam": "adaptive",
    "torch.optim:RAdam": "adaptive",
    "torch.optim:Adamax": "adaptive",
    "torch.optim:Adadelta": "adaptive",
    "torch.optim:Rprop": "adaptive",  # only signs matter to it, and it is no sign of a momentum
    "torch.optim:Adafactor": "unknown",  # of a matrix it keeps the squares of rows and columns
    "pytorch_optimizer:AdaNorm": "unknown",  # Adam, until the norm of the gradients falls
    "pytorch_optimizer:AdaSmooth": "adaptive",  # how far weights have come scales its steps: held, they never come far
    "pytorch_optimizer:FOCUS": "adaptive",  # a sign, and a pull towards an average of the weights
    "pytorch_optimizer:FTRL": "adaptive",  # its weights are a function of past gradients: without one they are 0
    "pytorch_optimizer:Yogi": "adaptive",  # its averages start at 1e-6
    "pytorch_optimizer:PAdam": "unknown",
    "pytorch_optimizer:DiffGrad": "adaptive",  # Adam, with a friction that large changes of the gradient do not meet
    "pytorch_optimizer:AdaBound": "unknown",
    "pytorch_optimizer:DAdaptAdaGrad": "adaptive",
    "pytorch_optimizer:Prodigy": "unknown",
    "pytorch_optimizer:Lamb": "adaptive",
    "pytorch_optimizer:Nero": "unknown",
    "pytorch_optimizer:SOAP": "unknown",
    "pytorch_optimizer:Shampoo": "unknown",  # its first step is orthogonal
    "schedulefree:AdamWScheduleFree": "adaptive",
}


@pytest.mark.parametrize("name", NAMES)
def test_what_has_no_usual_form_gets_no_coefficients(name: str) -> None:
    found = identify(load(name, {}))
    assert found.kind == NAMES[name]
    assert found.learning_rate is None
    assert not found.linear
    assert found.doubts
    assert found.decay in ("none", "unknown")


def test_what_holds_for_large_gradients_is_said_to() -> None:
    found = identify(load("torch.optim:Adagrad", {"initial_accumulator_value": 0.1}))  # of squares
    assert found.kind == "adaptive"
    assert any("large gradients" in doubt for doubt in found.doubts)


def test_whose_steps_go_with_other_elements_is_not_elementwise() -> None:
    assert not identify(load("pytorch_optimizer:DAdaptAdaGrad", {})).elementwise
    lamb = identify(load("pytorch_optimizer:Lamb", {}))
    assert not lamb.elementwise
    assert lamb.relative
    factored = identify(
        load("pytorch_optimizer:EmoFact", {})
    )  # the sign of the gradient for matrices, of a momentum for vectors
    assert factored.kind == "sign"
    assert not factored.elementwise
    assert any("vectors" in doubt for doubt in factored.doubts)


def test_lars_is_normalised_tensor_by_tensor() -> None:
    options = {"lr": 0.5, "momentum": 0.8, "weight_decay": 0.05, "trust_coefficient": 0.01}
    found = identify(load("pytorch_optimizer:LARS", options))
    assert (found.kind, found.over, found.relative, found.decay) == ("normalised", "tensor", True, "coupled")
    # Beside gradients of 1e3, a decay of 0.05 of weights of 0.1 is 5e-6.
    assert close(found.learning_rate, 0.005, 1e-4)
    assert close(found.momenta[0], 0.8, 1e-4)
    assert close(found.weight_decay, 0.05, 1e-4)


def test_normalised_gradients_of_all_parameters() -> None:
    def direction(tensors: Tensors) -> Tensors:
        norm = math.sqrt(sum(float(t.square().sum()) for t in tensors))
        return [t / norm if norm else t for t in tensors]

    before = ruled(lambda g, memory, _: velocity(direction(g), memory, 0.7), 0.3)
    after = ruled(lambda g, memory, _: direction(velocity(g, memory, 0.7)), 0.3)
    for found in (before, after):
        assert (found.kind, found.over, found.relative) == ("normalised", "all", False)
        assert close(found.learning_rate, 0.3, 1e-6)
        assert close(found.momenta[0], 0.7, 1e-6)


def test_muon_is_orthogonalised() -> None:
    options = {"lr": 0.02, "momentum": 0.8, "weight_decay": 0.3}
    found = identify(load("torch.optim:Muon", options))
    assert (found.kind, found.nesterov, found.decay) == ("orthogonalised", True, "decoupled")
    assert close(found.momenta[0], 0.8, 1e-5)
    assert close(found.weight_decay, 0.3, 1e-6)
    assert found.learning_rate is not None
    assert found.learning_rate.agrees(0.02)
    assert not identify(load("torch.optim:Muon", options | {"nesterov": False})).nesterov


class Clipped(torch.optim.SGD):
    """SGD that clips by itself."""

    def __init__(self, params: Any, over: str, norm: float, momentum: float = 0.9) -> None:
        super().__init__(params, lr=0.1, momentum=momentum, weight_decay=0.01)
        self.over, self.norm = over, norm

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # noqa: ARG002  (the base class has it)
        weights = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        norms = torch.stack([p.grad.norm() for p in weights])
        for p, norm in zip(weights, norms, strict=True):
            if self.over == "element":
                p.grad = p.grad.clamp(-self.norm, self.norm)
            else:
                p.grad = p.grad * min(1.0, self.norm / float((norms.norm() if self.over == "all" else norm) + 1e-6))
        super().step()


@pytest.mark.parametrize(("over", "norm"), [("all", 1.0), ("tensor", 0.05), ("element", 30.0), ("all", 1e4), ("element", 1e-3)])
def test_clipping_is_told_with_its_norm_and_what_it_is_over(over: str, norm: float) -> None:
    found = identify(of(lambda params: Clipped(params, over, norm)))
    assert found.clip is not None
    assert found.clip[1] == over
    assert close(found.clip[0], norm, 1e-6)
    assert found.kind == "momentum"
    assert not found.linear
    assert close(found.momenta[0], 0.9, 1e-6)
    assert found.decay == "coupled"
    assert close(found.weight_decay, 0.01, 1e-6)


def test_what_resembles_a_rule_is_not_called_by_its_name() -> None:
    def adaptive_clip(g: Tensors, _: dict[str, Any], w: Tensors) -> Tensors:
        return [x * min(1.0, max(float(p.norm()), 0.1) / max(float(x.norm()), 1e-9)) for p, x in zip(w, g, strict=True)]

    def wavering_sign(g: Tensors, memory: dict[str, Any], _: Tensors) -> Tensors:
        memory["t"] = memory.get("t", 0) + 1
        return [v.sign() * (2 if memory["t"] > 20 else 1) for v in velocity(g, memory, 0.9)]

    def two_velocities(g: Tensors, memory: dict[str, Any], _: Tensors) -> Tensors:
        both = velocity(g, memory, 0.9), velocity(g, memory.setdefault("slow", {}), 0.5)
        return [(fast + slow).sign() for fast, slow in zip(*both, strict=True)]

    for rule in (
        lambda g, *_: [torch.tanh(x) for x in g],  # a soft clip
        lambda g, *_: [x.sign() * (x.abs() > 1e-3) for x in g],  # a sign with a dead zone
        lambda g, *_: [x.sign() * x.abs().mean() for x in g],
        lambda g, *_: [x / x.norm().sqrt() if x.norm() else x for x in g],
        adaptive_clip,
    ):
        found = ruled(rule)
        assert (found.kind, found.clip) == ("unknown", None), found
    assert ruled(wavering_sign).kind != "sign"
    assert not ruled(two_velocities).momenta


WRITTEN: list[tuple[str, dict[str, Any]]] = [
    ("torch.optim:Adam", {"lr": 0.03, "betas": (0.8, 0.99), "weight_decay": 0.2}),
    ("torch.optim:AdamW", {"lr": 0.01, "weight_decay": 0.2}),
    ("torch.optim:RMSprop", {"lr": 0.01, "alpha": 0.95}),
    ("torch.optim:RMSprop", {"lr": 0.01, "alpha": 0.95, "momentum": 0.7, "weight_decay": 0.1}),
    ("torch.optim:Adagrad", {"lr": 0.1}),
    ("lion_pytorch:Lion", {"lr": 0.01, "weight_decay": 0.3}),
    ("polyak.torch:Signum", {"lr": 0.01, "weight_decay": 0.3, "decay": "coupled"}),
    ("pytorch_optimizer:LARS", {"lr": 10.0, "momentum": 0.8}),
]


@pytest.mark.parametrize(("name", "options"), WRITTEN)
def test_the_recurrence_that_is_written_is_what_is_done(name: str, options: dict[str, Any]) -> None:
    found = load(name, options)
    lines = [re.sub(r"\|(\w+)\|", r"norm(\1)", each).replace("^", "**") for each in recurrence(identify(found))]
    program = "\n".join(re.sub(r"(?<=[\w.)]) (?=[a-z(])", " * ", each) for each in lines)  # 0.9 v is a product
    random = np.random.default_rng(3)
    weights, gradients = random.normal(size=(3, 2)), random.normal(size=(20, 3, 2))
    seen = found.run(Trial({"w": weights}, [{"w": gradient} for gradient in gradients])).after["w"]
    names: dict[str, Any] = {"w": weights, "v": 0.0, "s": 0.0, "t": 0, "sqrt": np.sqrt, "sign": np.sign, "norm": np.linalg.norm}
    for gradient, after in zip(gradients, seen, strict=True):
        exec(program, names | {"g": gradient}, memory := {})  # noqa: S102  (what is printed is to be run)
        names |= memory
        # Six digits of each number, 20 steps, and an epsilon of 1e-8 beside gradients of 0.01.
        np.testing.assert_allclose(names["w"], after, rtol=0, atol=1e-4 * np.abs(seen - weights).max())


def test_numbers_are_found_by_comparisons() -> None:
    numbers = np.array([0.0, 3e-5, 0.7, 123.456, 1e9])
    found = crossings(lambda table: table > numbers[:, np.newaxis], 5, 30, 1e-12)
    assert found[0] == Number(0.0, LOWEST)
    assert found[4] is None
    assert numbers[4] > HIGHEST
    for number, expected in zip(found[1:4], numbers[1:4], strict=True):
        assert number is not None
        assert number.agrees(expected)
        assert number.error < 1e-10 * expected
    assert crossings(lambda table: np.sin(table) > 0, 1, 30, 1e-12) == [None]  # contradictions
