"""Random settings of the linear rules, and what must be identified of them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from polyak.check.identity import Decay, Identity

Rng = np.random.Generator


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

    def assert_is(self, identity: Identity, within: float) -> None:
        """All of it is identified, numbers to within this, and to within their own error bars too.

        Those in [0, 1] are compared absolutely, others relatively.
        """
        assert identity.kind == self.kind, identity
        assert (identity.linear, identity.time_invariant, identity.elementwise) == (True, True, True)
        assert identity.decay == self.decay, identity
        measured = {"learning_rate": identity.learning_rate, "weight_decay": identity.weight_decay}
        for name, number in measured.items():
            expected = getattr(self, name)
            assert (number is None) == (expected is None), identity
            if number:
                # A decay beside the step may be 1 - (1 - decay), which has lost so much.
                lost = float(np.finfo(identity.dtype).eps) / 2 if self.decay == "independent" else 0
                assert abs(number.value - expected) <= within * expected + lost, (name, identity)
                assert number.agrees(expected), (name, identity)
        assert len(identity.momenta) == len(self.momenta), identity
        for number, expected in zip(identity.momenta, sorted(self.momenta, reverse=True), strict=True):
            assert abs(number.value - expected) <= within, identity
            assert number.agrees(expected), identity
        for name, expected in self.more.items():
            found = getattr(identity, name)
            if isinstance(expected, float):
                assert found is not None
                assert abs(found.value - expected) <= within, (name, identity)
                assert found.agrees(expected), (name, identity)
            else:
                assert found == expected, (name, identity)


Draw = Callable[[Rng], Setting]


def drawn(draw: Draw, count: int, seed: int = 0) -> Iterator[Setting]:
    """So many settings."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield draw(rng)


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
