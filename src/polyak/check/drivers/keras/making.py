"""How a Keras optimizer is made, and how that is written in a script."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from keras.optimizers.schedules import PiecewiseConstantDecay

from polyak.check.drivers.scripts import called, written
from polyak.check.trial import Trial

Options = Mapping[str, Any]
_PLAIN = (type(None), bool, int, float, str)


@dataclass(frozen=True)
class Maker:
    """Makes one optimizer after another.

    Attributes:
        cls: Its class.
        name: Where that is, as "module:name".
        options: Those that were given.
        factory: What makes it, where that is not the class itself: others are then made from its configuration.
    """

    cls: type[Any]
    name: str
    options: Options
    factory: Callable[[], Any] | None = None

    def make(self, options: Options) -> Any:
        """A new optimizer, with these options over its own."""
        if self.factory is None:
            return self.cls(**{**self.options, **options})
        made = self.factory()
        if unknown := options.keys() - made.get_config().keys() if options else ():
            raise TypeError(f"{min(unknown)} is not in the configuration of this optimizer, so its factory cannot be given it.")
        return self.cls.from_config({**made.get_config(), **options}) if options else made

    @cached_property
    def defaults(self) -> dict[str, Any]:
        """Every option that the constructor names, or that the configuration of an optimizer which takes any has."""
        known = inspect.signature(self.cls).parameters.values()
        named = {p.name: p.default for p in known if p.kind is not p.VAR_KEYWORD and p.name != "name"}
        any_other = any(p.kind is p.VAR_KEYWORD for p in known)
        config = self._config()
        found = {name: value for name, value in config.items() if name in named or any_other}
        if self.factory is None:
            found |= {name: value for name, value in named.items() if value is not inspect.Parameter.empty}
        return found | dict(self.options)

    def _config(self) -> dict[str, Any]:
        """What the configuration tells in numbers and words."""
        try:
            config = self.make({}).get_config()
        except NotImplementedError:
            return {}
        return {name: _short(value) for name, value in config.items() if name != "name" and isinstance(value, _PLAIN)}

    def script(self, options: Options) -> str:
        """The same as an expression."""
        name = called(self.name)
        if self.factory is None:
            return f"{name}({_text({**self.options, **options})})"
        config = {key: value for key, value in self.make({}).get_config().items() if key != "name"} | dict(options)
        if all(isinstance(value, (*_PLAIN, PiecewiseConstantDecay)) for value in config.values()):
            usual = inspect.signature(self.cls).parameters
            given = {key: _short(x) for key, x in config.items() if key not in usual or _short(x) != usual[key].default}
            return f"{name}({_text(given)})"
        return f"{name}.from_config({config!r})"


def _short(value: Any) -> Any:
    """A number that went through float32 as it was before."""
    return float(str(np.float32(value))) if isinstance(value, float) and np.float32(value) == value else value


def _text(options: Options) -> str:
    """The arguments of a call."""

    def expression(value: Any) -> str:
        if isinstance(value, PiecewiseConstantDecay):
            return f"keras.optimizers.schedules.PiecewiseConstantDecay({value.boundaries}, {value.values})"
        return written(value)

    return ", ".join(f"{name}={expression(value)}" for name, value in options.items())


def split(trial: Trial, scheduled: str | None, first: Any) -> tuple[dict[str, Any], dict[int, Options]]:
    """The options that a trial starts with, and its changes but those that a schedule makes.

    Args:
        trial: The trial.
        scheduled: The option whose changes a schedule makes, or None.
        first: Its first value.
    """
    options = dict(trial.options)
    if scheduled is None:
        return options, dict(trial.changes)
    new = {step: changes[scheduled] for step, changes in sorted(trial.changes.items()) if scheduled in changes}
    if new:
        later = {step: value for step, value in new.items() if step > 0}
        values = [new.get(0, options.get(scheduled, first)), *later.values()]
        # A boundary is the last step of the value before it.
        options[scheduled] = PiecewiseConstantDecay([step - 1 for step in later], values) if later else values[0]
    changes = {step: {name: x for name, x in each.items() if name != scheduled} for step, each in trial.changes.items()}
    return options, {step: each for step, each in changes.items() if each}
