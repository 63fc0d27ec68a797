"""What is computed: the same start, gradients and hyperparameters for every framework."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from polyak.rules import RULES, Rule
from polyak.rules.heavy_ball import HEAVY_BALL
from polyak.update import Decay, Update, pipeline

Array = npt.NDArray[Any]

STEPS = 1000
# 257 elements are some full vectors of any processor and one element more; one parameter has no dimensions.
SHAPES: dict[str, tuple[int, ...]] = {"w": (257,), "b": ()}
WEIGHT_DECAY = 0.01
DAMPENING = 0.25


@dataclass(frozen=True)
class Case:
    """One run.

    Attributes:
        rule: The name of its rule in the registry.
        options: The arguments that make the rule, the same in every front-end.
        decay: The kind of weight decay.
        schedule: How learning rate and momentum go: "constant", "piecewise" or "linear".
    """

    rule: str
    options: dict[str, Any] = field(hash=False)
    decay: Decay | None
    schedule: str

    def __str__(self) -> str:
        return ", ".join([self.variant, *([f"{self.decay} decay"] if self.decay else []), self.schedule])

    @property
    def variant(self) -> str:
        """The rule and its options."""
        return self.rule + (f", dampening {DAMPENING}" if self.options.get("dampening") else "")

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of a front-end, but for learning rate and momentum."""
        return self.options | ({"weight_decay": WEIGHT_DECAY, "decay": self.decay} if self.decay else {})

    @property
    def learning_rates(self) -> npt.NDArray[np.float32]:
        """The learning rate of each step."""
        return _SCHEDULES[self.schedule][0]

    @property
    def momenta(self) -> npt.NDArray[np.float32] | None:
        """The momentum of each step; None for gradient descent."""
        return _SCHEDULES[self.schedule][1] if RULES[self.rule].slots else None

    @property
    def changes(self) -> list[int]:
        """The steps from which on learning rate or momentum is another than before, with the first and the end."""
        numbers = np.stack(_SCHEDULES[self.schedule])
        return [0, *(1 + np.flatnonzero((numbers[:, 1:] != numbers[:, :-1]).any(axis=0))), STEPS]

    @property
    def update(self) -> Update:
        """The rule with its pipeline."""
        return pipeline(RULES[self.rule], self.decay)


def _schedules() -> dict[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
    """Learning rate and momentum of each step, in float32, so that no framework's own arithmetic of schedules is in it."""
    t = np.arange(STEPS)
    numbers = {
        "constant": (np.full(STEPS, 0.05), np.full(STEPS, 0.9)),
        "piecewise": (np.select([t < 300, t < 700], [0.1, 0.03], 0.001), np.select([t < 500], [0.9], 0.95)),
        "linear": (0.1 * (1 - t / STEPS), 0.5 + 0.49 * t / STEPS),
    }
    return {name: (lr.astype(np.float32), m.astype(np.float32)) for name, (lr, m) in numbers.items()}


_SCHEDULES = _schedules()


def _variants() -> Iterator[tuple[Rule, dict[str, Any]]]:
    for rule in RULES.values():
        if not rule.slots:
            yield rule, {}
    for (velocity, nesterov, dampened), rule in HEAVY_BALL.items():
        yield rule, {"velocity": velocity, "nesterov": nesterov} | ({"dampening": DAMPENING} if dampened else {})


CASES = [
    Case(rule.name, options, decay, schedule)
    for (rule, options), decay, schedule in product(_variants(), (None, "coupled", "decoupled"), _SCHEDULES)
]


def start() -> dict[str, npt.NDArray[np.float32]]:
    """The weights before the first step: those of a layer of 257 inputs, and a bias."""
    rng = np.random.default_rng(1964)
    return {name: np.array(rng.standard_normal(shape) / 257**0.5, np.float32) for name, shape in SHAPES.items()}


@cache
def gradients() -> list[dict[str, npt.NDArray[np.float32]]]:
    """The gradients of each step.

    As of mini-batches, they are noise around a direction that persists, their sizes differ by an order of magnitude from weight
    to weight, and one in ten is exactly 0, as behind a ReLU. In a thousand steps the weights move by some times their size.
    """
    rng = np.random.default_rng(1983)
    size = {name: 0.02 * np.exp(0.5 * rng.standard_normal(shape)) for name, shape in SHAPES.items()}
    direction = {name: 0.05 * rng.standard_normal(shape) for name, shape in SHAPES.items()}

    def gradient(name: str) -> npt.NDArray[np.float32]:
        noise = rng.standard_normal(SHAPES[name])
        return np.array(size[name] * (direction[name] + noise) * (rng.random(SHAPES[name]) > 0.1), np.float32)

    return [{name: gradient(name) for name in SHAPES} for _ in range(STEPS)]
