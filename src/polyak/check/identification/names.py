"""Which rules with a name have an impulse response."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from polyak.check.identification.system import WITHIN, System, bars, exponentials, fits, lost, refined
from polyak.check.identity import Kind, Number
from polyak.check.trial import Array

_MOST_VELOCITIES = 8
_NEAR = 0.05  # that a start may be off; whether the rule fits is decided after it was refined


@dataclass(frozen=True)
class Rule:
    """A rule and where its parameters are looked for.

    Attributes:
        kind: As `Identity.kind`.
        start: Parameters near its own. The first is the learning rate times (1 - dampening).
        system: From parameters, (direct, *poles, *residues).
        momenta: Which parameters are the momenta, each as often as there are velocities with it.
        zeros: The velocities beside with a momentum of 0.
        nesterov: As `Identity.nesterov`.
        nu: Which parameter is QHM's nu.
    """

    kind: Kind
    start: Array
    system: Callable[[Array], Array]
    momenta: tuple[int, ...] = ()
    zeros: int = 0
    nesterov: bool | None = None
    nu: int | None = None


@dataclass(frozen=True)
class Named:
    """A rule with its parameters.

    Attributes:
        rule: The rule.
        values: The parameters.
        errors: How far each may be off.
    """

    rule: Rule
    values: Array
    errors: Array

    def number(self, i: int) -> Number:
        """A parameter."""
        return Number(float(self.values[i]), float(self.errors[i]))

    @property
    def system(self) -> Array:
        """(direct, *poles, *residues)."""
        return self.rule.system(self.values)

    @property
    def momenta(self) -> tuple[Number, ...]:
        """The momentum of each velocity, the largest first."""
        found = [*map(self.number, self.rule.momenta), *[Number(0.0, 0.0)] * self.rule.zeros]
        return tuple(sorted(found, key=lambda number: -number.value))

    @property
    def vague(self) -> float:
        """The largest error: of the learning rate relative to it, of what lies in [0, 1] as it is."""
        return float(max(self.errors[0] / abs(self.values[0]), *self.errors[1:], 0.0))

    def uncertain(self, length: int) -> float:
        """How far the response may be off, relative to the sum of it."""
        own = exponentials(self.system, length)
        moved = [self.values + error * unit for error, unit in zip(self.errors, np.eye(len(self.values)), strict=True)]
        off = sum(float(np.abs(exponentials(self.rule.system(x), length) - own).sum()) for x in moved)
        return off / float(np.abs(own).sum())


def named(system: System, response: Array, noise: Array, precision: float) -> tuple[Named, ...]:
    """The rules that fit a response to within its noise: those with fewer parameters come first.

    Args:
        system: The one that was fitted to the response.
        response: The steps after an impulse.
        noise: The standard deviation of each.
        precision: To which the optimizer itself knows its coefficients, relative to them.
    """
    found = []
    for rule in _rules(system):

        def curve(x: Array, rule: Rule = rule) -> Array:
            return exponentials(rule.system(x), len(response))

        # A momentum that is kept as 1 - m is rounded to a unit of 1, and need not be the same number wherever it is used.
        off = _other_poles(rule.system(rule.start), precision, len(response))
        level = noise + np.abs(off).sum(axis=0) / WITHIN + lost(curve, rule.start)
        values, _ = refined(curve, rule.start, response, level)
        if fits(curve(values), response, level):
            errors = bars(curve, values, noise + lost(curve, values), off) + precision * np.abs(values)
            found.append(Named(rule, values, errors))
    return tuple(found)


def unnamed(system: System) -> tuple[Named, ...]:
    """Any system of real poles as a rule: its parameters are (direct, *poles, *residues)."""
    if np.iscomplexobj(system.poles):
        return ()
    start = np.array([system.direct, *system.poles, *system.residues])
    return (Named(Rule("linear", start, lambda x: x, tuple(range(1, 1 + len(system.poles)))), start, system.errors),)


def _other_poles(system: Array, by: float, length: int) -> Array:
    """What it makes of a response that a pole is another, for each pole one row."""
    count, own = len(system) // 2, exponentials(system, length)
    moved = [exponentials(system + by * np.eye(len(system))[i], length) - own for i in range(1, 1 + count)]
    return np.array(moved).reshape(count, length)


def _rules(system: System) -> Iterator[Rule]:
    """The rules that come near a system."""
    poles, residues, direct = system.poles, system.residues, system.direct
    if np.iscomplexobj(poles):
        return
    if len(poles) == 0:
        yield Rule("descent", np.array([direct]), lambda x: x)
        return
    if len(poles) == 1:
        (pole,), (residue,) = poles, residues
        if abs(direct) <= _NEAR * abs(residue):
            yield Rule("momentum", np.array([residue, pole]), _heavy_ball, (1,), nesterov=False)
        if abs(residue - pole * direct) <= _NEAR * abs(residue):
            yield Rule("momentum", np.array([direct, pole]), _nesterov, (1,), nesterov=True)
    yield from _several(system)
    if len(poles) == 1 and pole < 1:
        along = residue / (1 - pole)
        if along / (direct + along) >= 0 and direct / (direct + along) >= 0:
            yield Rule("qhm", np.array([direct + along, pole, along / (direct + along)]), _qhm, (1,), nu=2)


def _several(system: System) -> Iterator[Rule]:
    """The mean of so many velocities of which some may have the same momentum, and some one of 0.

    Of poles that are near to each other, any shares make nearly the same response. A response that is too short for their own
    error bars to tell how many velocities each stands for has no such name: by chance it would fit several of them.
    """
    sizes = np.array([system.direct, *system.residues])
    errors = np.array([system.errors[0], *system.errors[1 + len(system.poles) :]]) / abs(sizes.sum())
    for velocities in range(2, _MOST_VELOCITIES + 1):
        shares = velocities * sizes / sizes.sum()
        counts = np.round(shares).astype(int)
        if (
            np.all(np.abs(shares - counts) <= _NEAR)
            and np.all(velocities * errors <= _NEAR)
            and np.all(counts[1:] >= 1)
            and counts[0] >= 0
            and counts.sum() == velocities
            and np.gcd.reduce(counts) == 1
        ):
            weights = counts / velocities
            momenta = tuple(np.repeat(np.arange(1, len(counts)), counts[1:]).tolist())

            def several(x: Array, weights: Array = weights) -> Array:
                return np.concatenate([weights[:1] * x[0], x[1:], weights[1:] * x[0]])

            start = np.array([sizes.sum(), *system.poles])
            yield Rule("several", start, several, momenta, int(counts[0]))


def _heavy_ball(x: Array) -> Array:
    rate, momentum = x
    return np.array([0 * rate, momentum, rate])


def _nesterov(x: Array) -> Array:
    rate, momentum = x
    return np.array([rate, momentum, rate * momentum])


def _qhm(x: Array) -> Array:
    rate, momentum, nu = x
    return np.array([rate * (1 - nu), momentum, rate * nu * (1 - momentum)])
