"""How a gradient transformation is made, so that its options can change in use, and how that is written in a script."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import optax

from polyak.check.drivers.scripts import called, written
from polyak.check.trial import Refused, Trial

Numbers = Mapping[str, Any]


@dataclass(frozen=True)
class Maker:
    """Makes one transformation after another.

    Attributes:
        function: What makes it.
        name: Where that is, as "module:name".
        options: Those that were given.
        settable: Whether the function takes options. If not, those of the state of `optax.inject_hyperparams` can be set.
    """

    function: Callable[..., Any]
    name: str
    options: Numbers
    settable: bool

    @property
    def defaults(self) -> dict[str, Any]:
        """Every option that the function names, with its value."""
        known = inspect.signature(self.function).parameters.values() if self.settable else ()
        return {p.name: p.default for p in known if p.default is not p.empty} | dict(self.options)

    def plan(self, trial: Trial, scheduled: str | None, by_schedule: bool) -> "Plan":
        """How the options of a trial are given.

        Args:
            trial: The trial.
            scheduled: The option whose changes a schedule makes.
            by_schedule: Whether schedules make all changes.
        """
        changing = dict.fromkeys(name for new in trial.changes.values() for name in new)
        if not self.settable:
            first = {**trial.options, **trial.changes.get(0, {})}
            return Plan(self, {}, (), {**({0: first} if first else {}), **{at: x for at, x in trial.changes.items() if at}})
        by = [name for name in changing if by_schedule or name == scheduled]
        given = {**self.options, **trial.options}
        schedules = {name: Steps.of(self._value(name, given), name, trial.changes) for name in by}
        assigned = {step: {name: x for name, x in new.items() if name not in by} for step, new in trial.changes.items()}
        injected = tuple(name for name in changing if name not in by)
        return Plan(self, {**given, **schedules}, injected, {step: new for step, new in assigned.items() if new})

    def _value(self, name: str, given: Numbers) -> Any:
        """The first value of an option that changes."""
        if name not in (known := {**self.defaults, **given}):
            raise Refused(f"{name} is none of the options.")
        value = known[name]
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Refused(f"{name}={value!r} is no number, so it cannot be changed in use.")
        return value


@dataclass(frozen=True)
class Steps:
    """A schedule that makes changes.

    Attributes:
        values: One after the other.
        boundaries: The steps from which on the second and later ones count.
    """

    values: tuple[Any, ...]
    boundaries: tuple[int, ...]

    @classmethod
    def of(cls, first: Any, name: str, changes: Mapping[int, Numbers]) -> "Steps":
        """The schedule of an option."""
        new = {step: changes[step][name] for step in sorted(changes) if name in changes[step]}
        later = [step for step in new if step > 0]
        return cls((new.get(0, first), *(new[step] for step in later)), tuple(later))

    def schedule(self) -> Any:
        """As a function of the step."""
        return optax.join_schedules([optax.constant_schedule(x) for x in self.values], list(self.boundaries))

    def script(self) -> str:
        """As an expression."""
        each = ", ".join(f"optax.constant_schedule({written(x)})" for x in self.values)
        return f"optax.join_schedules([{each}], {list(self.boundaries)})"


@dataclass(frozen=True)
class Plan:
    """How the options of a trial are given.

    Attributes:
        maker: Of the transformation.
        options: Given to the function; some are `Steps`.
        injected: Those that `optax.inject_hyperparams` keeps in the state, where they can be changed.
        changes: Before steps, what is changed in the state.
    """

    maker: Maker
    options: Numbers
    injected: tuple[str, ...]
    changes: Mapping[int, Numbers]

    def make(self) -> Any:
        """A new transformation."""
        function = self.maker.function
        given = {name: x.schedule() if isinstance(x, Steps) else x for name, x in self.options.items()}
        if self.injected:
            function = optax.inject_hyperparams(function, static_args=self._fixed())
        made = function(**given)
        if not isinstance(made, optax.GradientTransformation):
            raise TypeError(f"it returned a {type(made).__name__}; an optax.GradientTransformation is needed.")
        return made

    def script(self, options: Numbers) -> str:
        """The same as an expression, with these options."""
        name, maker = called(self.maker.name), self.maker
        if not maker.settable and "<" in maker.name:
            return name
        if self.injected:
            name = f"optax.inject_hyperparams({name}, static_args={self._fixed()})"
        given = (f"{option}={x.script() if isinstance(x, Steps) else written(x)}" for option, x in options.items())
        return f"{name}({', '.join(given)})"

    def _fixed(self) -> tuple[str, ...]:
        """What `optax.inject_hyperparams` shall leave alone."""
        return tuple(name for name in inspect.signature(self.maker.function).parameters if name not in self.injected)
