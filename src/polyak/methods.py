"""The optimizers as their users see them: which arguments each has beside those that all have, and the rule for their values.

A front-end has one class or function for each method, whose signature lists the arguments; what becomes of them is here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from polyak.arguments import (
    check_dampening,
    check_fraction,
    check_momenta,
    check_momentum,
    check_momentum_above_0,
    check_trust_coefficient,
)
from polyak.averaging import averaging
from polyak.rules import Rule, heavy_ball
from polyak.rules.aggmo import aggmo
from polyak.rules.lars import LARS
from polyak.rules.lion import LION
from polyak.rules.muon import Scale, check_scale
from polyak.rules.orthogonal import Polynomial, coefficients
from polyak.rules.qhm import QHM
from polyak.rules.schedule_free import SCHEDULE_FREE
from polyak.rules.signum import SIGN_DESCENT, SIGNUM
from polyak.schedules.schedule import checked_steps

Check = Callable[[Any], Any]


@dataclass(frozen=True, eq=False)
class Method:
    """An optimizer.

    Attributes:
        name: The name of its class in Keras, PyTorch and NumPy.
        varying: The arguments beside the learning rate that may change from step to step, each with its check.
        constants: The arguments that are numbers of the rule too, but are fixed where a step is compiled with them.
        options: The arguments that choose the rule and are no numbers of it.
        choose: From all these arguments by name, the rule. Of a varying argument only its being 0 counts; one that follows a
            schedule is given as the schedule.
        numbers: From the numbers by name, the rule's hyperparameters but for the learning rate and those of `of_step`.
        of_step: Those of the rule's hyperparameters that no user gives: for each, from the constants, the function of the step.
        signs: Whether its steps go by signs, which complex numbers do not have.
    """

    name: str
    choose: Callable[..., Rule]
    varying: Mapping[str, Check] = field(default_factory=dict)
    constants: Mapping[str, Check] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    numbers: Callable[[Mapping[str, Any]], dict[str, Any]] = dict
    of_step: Mapping[str, Callable[[Mapping[str, Any]], Callable[[Any], Any]]] = field(default_factory=dict)
    signs: bool = False

    @property
    def function(self) -> str:
        """The name of its function in JAX."""
        return _FUNCTIONS.get(self.name, self.name.lower())

    @property
    def arguments(self) -> tuple[str, ...]:
        """The names of all arguments but those that every method has."""
        return (*self.varying, *self.constants, *self.options)

    def checked(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments, of which the numbers were checked.

        Raises:
            ValueError: A number out of its range.
            TypeError: No number.
        """
        checks = {**self.varying, **self.constants}
        return {name: checks[name](arguments[name]) if name in checks else arguments[name] for name in self.arguments}

    def at_step(self, step: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The values of `of_step` at a step, an int or an array of any framework."""
        return {name: function(arguments)(step) for name, function in self.of_step.items()}


def _heavy_ball(*, momentum: Any, dampening: float, nesterov: bool, velocity: str) -> Rule:
    remembers = not isinstance(momentum, int | float) or momentum != 0
    return heavy_ball(momentum=remembers, velocity=velocity, nesterov=nesterov, dampening=dampening)


def _signum(*, momentum: Any) -> Rule:
    return SIGN_DESCENT if isinstance(momentum, int | float) and momentum == 0 else SIGNUM


def _aggmo(*, momenta: tuple[float, ...]) -> Rule:
    return aggmo(len(momenta))


def _of_aggmo(numbers: Mapping[str, Any]) -> dict[str, Any]:
    momenta = numbers["momenta"]
    return {"share": 1 / len(momenta), **{f"momentum_{i}": m for i, m in enumerate(momenta)}}


MOMENTUM = Method(
    "Momentum",
    _heavy_ball,
    varying={"momentum": check_momentum},
    constants={"dampening": check_dampening},
    options=("nesterov", "velocity"),
)
QHM_METHOD = Method(
    "QHM",
    lambda **_: QHM,
    varying={"momentum": check_momentum, "nu": partial(check_fraction, "nu")},
)
AGGMO = Method("AggMo", _aggmo, constants={"momenta": check_momenta}, numbers=_of_aggmo)
SIGNUM_METHOD = Method("Signum", _signum, varying={"momentum": check_momentum}, signs=True)
LION_METHOD = Method(
    "Lion",
    lambda **_: LION,
    varying={name: partial(check_fraction, name, below_one=True) for name in ("b1", "b2")},
    signs=True,
)
LARS_METHOD = Method(
    "LARS",
    lambda **_: LARS,
    varying={"momentum": check_momentum},
    constants={"trust_coefficient": check_trust_coefficient},
)
SCHEDULE_FREE_METHOD = Method(
    "ScheduleFree",
    lambda **_: SCHEDULE_FREE,
    varying={"momentum": check_momentum_above_0},
    constants={"warmup_steps": partial(checked_steps, "warmup_steps", least=0)},
    numbers=lambda numbers: {name: x for name, x in numbers.items() if name != "warmup_steps"},
    of_step={"average": lambda constants: averaging(constants["warmup_steps"])},
)


def _muon(*, nesterov: bool, polynomial: Polynomial, steps: int, scale: Scale, **_: Any) -> Rule:
    coefficients(polynomial, steps)  # for its errors
    check_scale(scale)
    return heavy_ball(velocity="average", nesterov=nesterov)


MUON_METHOD = Method(
    "Muon",
    _muon,
    varying={"momentum": check_momentum},
    options=("nesterov", "polynomial", "steps", "scale"),
)
"""Muon, with the rule of its velocity; that of a matrix is made for its shape, by `polyak.rules.muon`. It is not among
`METHODS`, since it takes another method for what is no matrix."""

_FUNCTIONS = {"ScheduleFree": "schedule_free"}

METHODS: dict[str, Method] = {
    method.name: method
    for method in (MOMENTUM, QHM_METHOD, AGGMO, SIGNUM_METHOD, LION_METHOD, LARS_METHOD, SCHEDULE_FREE_METHOD)
}
"""Every method of a single rule by its name. The contract tests run over all of them."""
