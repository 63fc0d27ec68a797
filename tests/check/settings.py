"""Random settings of the linear rules, and what must be identified of them."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from polyak.check.drivers.loading import load
from polyak.check.identification import identify
from polyak.check.identity import Decay, Identity
from polyak.check.trial import Subject

Rng = np.random.Generator
WITHIN = {"float64": 1e-6, "float32": 1e-3}
"""How far coefficients may be off."""


@dataclass(frozen=True)
class Setting:
    """Options of an optimizer, and what it must be identified as.

    Attributes:
        options: The options.
        kind: As `Identity.kind`.
        learning_rate, momenta, decay, weight_decay: As in `Identity`.
        more: Other fields of `Identity`.
    """

    options: dict[str, Any]
    kind: str
    learning_rate: float
    momenta: tuple[float, ...] = ()
    decay: Decay = "none"
    weight_decay: float | None = None
    more: dict[str, Any] = field(default_factory=dict)

    def error(self, identity: Identity, within: float) -> float:
        """How far numbers are off, at most; all of it must be identified, numbers to within this and their own error bars.

        Those in [0, 1] are compared absolutely, others relatively.
        """
        assert identity.kind == self.kind, identity
        assert (identity.linear, identity.time_invariant, identity.elementwise) == (True, True, True)
        assert identity.decay == self.decay, identity
        assert len(identity.momenta) == len(self.momenta), identity
        # A decay beside the step may be 1 - (1 - decay), which has lost so much.
        lost = float(np.finfo(identity.dtype).eps) / 2 if self.decay == "independent" else 0.0
        numbers = [
            ("learning_rate", identity.learning_rate, self.learning_rate, self.learning_rate, 0.0),
            ("weight_decay", identity.weight_decay, self.weight_decay, self.weight_decay, lost),
            *(("momentum", m, x, 1.0, 0.0) for m, x in zip(identity.momenta, sorted(self.momenta, reverse=True), strict=True)),
        ]
        for name, expected in self.more.items():
            found = getattr(identity, name)
            if isinstance(expected, float):
                numbers.append((name, found, expected, 1.0, 0.0))
            else:
                assert found == expected, (name, identity)
        worst = 0.0
        for name, number, expected, unit, lost in numbers:
            assert (number is None) == (expected is None), (name, identity)
            if number:
                off = abs(number.value - expected)
                assert off <= within * unit + lost, (name, identity)
                assert number.agrees(expected), (name, identity)
                worst = max(worst, (off - lost) / unit)
        return worst


Draw = Callable[[Rng], Setting]


def assert_identified(name: str, dtype: str, draw: Draw, count: int, seed: int = 0) -> None:
    """Identify an optimizer with so many random settings.

    POLYAK_SETTINGS="200:7" in the environment makes it 200 settings drawn with the seed 7, whatever the test asks for.
    """
    if asked := os.environ.get("POLYAK_SETTINGS"):
        count, seed = map(int, asked.split(":"))
    rng, worst, wrong = np.random.default_rng(seed), 0.0, []
    for number in range(count):
        setting = draw(rng)
        identity = identify(subject(name, setting.options, dtype))
        try:
            worst = max(worst, setting.error(identity, WITHIN[dtype]))
        except AssertionError as error:
            wrong.append(f"setting {number}, {setting.options}, was called {identity.kind}: {error}")
    result = f"{name} {dtype}, seed {seed}: {count - len(wrong)} of {count} right, the worst to {worst:.1g}"
    print(result)  # noqa: T201  (with pytest -s, the table of the whole proof)
    assert not wrong, "\n".join([result, *wrong])


def subject(name: str, options: dict[str, Any], dtype: str = "float64") -> Subject:
    """An optimizer that is measured in this dtype."""
    found = load(name, options)
    if dtype == "float32":
        found.double = False
    return found


def rate(rng: Rng) -> float:
    """A learning rate from the tiny to the absurd."""
    return float(10 ** rng.uniform(-7, 2))


def momentum(rng: Rng) -> float:
    """Any momentum, of which some are near 1 and some near 0."""
    near = 10 ** -rng.uniform(1, 4)
    return float(rng.choice([rng.uniform(0.05, 0.95), 1 - near, near], p=[0.5, 0.3, 0.2]))


def apart(rng: Rng) -> tuple[float, ...]:
    """Momenta for as many velocities, in no order: one may be 0.

    1 - m of two of them differ by a factor of 1.6 or more; nearer ones cannot be told apart in float32.
    """
    count = int(rng.integers(2, 5))
    exponents = np.cumsum(rng.uniform(0.2, 1, count)) - 0.1
    momenta = [*(1 - 10**-exponents)]
    if rng.random() < 0.4:
        momenta[0] = 0.0
    return tuple(float(m) for m in rng.permutation(momenta))


def decay(rng: Rng, learning_rate: float) -> float:
    """A coefficient with which the weights of an optimizer do not grow without end."""
    return float(min(10 ** rng.uniform(-5, -1), 0.5 / learning_rate))


def of_ours(rng: Rng, momentum: float = 1.0) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of Polyak's optimizers for learning rate and decay, and what they make of an identity.

    Without a momentum that is worth the name, coupled and decoupled decay are the same.
    """
    lr = rate(rng)
    kinds: list[Decay] = ["none", "coupled", "decoupled"] if momentum >= 0.01 else ["none", "coupled"]
    kind = kinds[rng.integers(len(kinds))]
    wd = decay(rng, lr)
    options = {"lr": lr} if kind == "none" else {"lr": lr, "weight_decay": wd, "decay": kind}
    return options, {"learning_rate": lr, "decay": kind, "weight_decay": None if kind == "none" else wd}
