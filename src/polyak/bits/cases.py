"""What is computed: the same start, gradients and hyperparameters for every framework."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from polyak.methods import METHODS
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
        method: The name of its method.
        options: The method's arguments that stay as they are.
        varying: The argument, of the kind of a momentum, that follows the schedule beside the learning rate, or "".
        decay: The kind of weight decay.
        schedule: How learning rate and momentum go: "constant", "piecewise" or "linear".
    """

    method: str
    options: dict[str, Any] = field(hash=False)
    varying: str
    decay: Decay | None
    schedule: str

    def __str__(self) -> str:
        return ", ".join([self.variant, *([f"{self.decay} decay"] if self.decay else []), self.schedule])

    @property
    def variant(self) -> str:
        """The rule and its options."""
        return self.update.rule.name + (", cautious" if self.options.get("cautious") else "")

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of a front-end, but for the learning rate and what varies."""
        return self.options | ({"weight_decay": WEIGHT_DECAY, "decay": self.decay} if self.decay else {})

    @property
    def learning_rates(self) -> npt.NDArray[np.float32]:
        """The learning rate of each step."""
        return _SCHEDULES[self.schedule][0] * _SIZE.get(self.method, np.float32(1))

    @property
    def numbers(self) -> dict[str, npt.NDArray[np.float32]]:
        """The value of what varies at each step, by name: of nothing or of one."""
        return {self.varying: _SCHEDULES[self.schedule][1]} if self.varying else {}

    @property
    def changes(self) -> list[int]:
        """The steps from which on learning rate or momentum is another than before, with the first and the end."""
        numbers = np.stack(_SCHEDULES[self.schedule])
        return [0, *(1 + np.flatnonzero((numbers[:, 1:] != numbers[:, :-1]).any(axis=0))), STEPS]

    @property
    def update(self) -> Update:
        """The rule with its pipeline."""
        method = METHODS[self.method]
        arguments = {name: self.options.get(name) for name in method.arguments}  # None, which is no 0, for what varies
        flags = {name: self.options.get(name, False) for name in ("cautious", "cautious_decay")}
        return pipeline(method.choose(**arguments), self.decay, **flags)

    def hyperparameters(self, step: int) -> dict[str, float]:
        """What the rule and the pipeline read at a step, as the float32 numbers that they are."""
        method = METHODS[self.method]
        arguments = {name: self.options.get(name) for name in method.arguments}
        arguments |= {name: values[step] for name, values in self.numbers.items()}
        h = {"learning_rate": self.learning_rates[step], "weight_decay": WEIGHT_DECAY, **method.numbers(arguments)}
        h |= method.at_step(step, arguments)
        return {name: float(np.float32(h[name])) for name in self.update.Hyperparameters._fields}


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
# A step along a sign is of the size of the learning rate, those of the gradients here are about 0.02 of it.
_SIZE = {name: np.float32(2.0**-6) for name in ("Signum", "Lion")}

# Every decay and every schedule, though not each with each: `polyak bits` is to take less than a minute.
RUNS: list[tuple[Decay | None, str]] = [
    (None, "constant"),
    ("decoupled", "constant"),
    ("coupled", "piecewise"),
    ("decoupled", "linear"),
]


def _variants() -> Iterator[tuple[str, dict[str, Any], str]]:
    """Method, options, and what varies."""
    plain = {"velocity": "gradient", "nesterov": False, "dampening": 0.0}
    yield "Momentum", plain | {"momentum": 0.0}, ""
    for velocity, nesterov, dampened in HEAVY_BALL:
        options = {"velocity": velocity, "nesterov": nesterov, "dampening": DAMPENING if dampened else 0.0}
        yield "Momentum", options, "momentum"
    yield "Momentum", plain | {"cautious": True}, "momentum"
    yield "QHM", {"nu": 0.7}, "momentum"
    yield "AggMo", {"momenta": (0.0, 0.9, 0.99)}, ""
    yield "Signum", {"momentum": 0.0}, ""
    yield "Signum", {}, "momentum"
    yield "Lion", {"b2": 0.99}, "b1"
    yield "ScheduleFree", {"warmup_steps": 0}, "momentum"


def _case(variant: tuple[str, dict[str, Any], str], decay: Decay | None, schedule: str) -> Case:
    method, options, varying = variant
    careful = {"cautious_decay": True} if options.get("cautious") and decay == "decoupled" else {}
    return Case(method, options | careful, varying, decay, schedule)


CASES = [_case(variant, *run) for variant, run in product(_variants(), RUNS)]


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
