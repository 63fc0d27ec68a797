"""How a PyTorch optimizer is made, and how that is written in a script."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch

from polyak.check.drivers.scripts import arguments, called, items

Optimizer = torch.optim.Optimizer
Params = list[Any]  # parameters, pairs of names and parameters, or groups

SWITCHES = ("foreach", "fused", "capturable")
"""The options by which implementations are chosen. The plain loop is what is left when none is."""


class Maker(Protocol):
    """Makes one optimizer after another.

    Attributes:
        name: Where its class or function is.
        source: The same of what a script calls.
        options: Those that were given.
        defaults: All that it has, with their values.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def source(self) -> str: ...  # noqa: D102
    @property
    def options(self) -> Mapping[str, Any]: ...  # noqa: D102
    @property
    def defaults(self) -> Mapping[str, Any]: ...  # noqa: D102

    def make(self, params: Params, options: Mapping[str, Any]) -> Optimizer:
        """A new optimizer, with these options over its own."""

    def script(self, params: str, options: Mapping[str, Any]) -> list[str]:
        """The same as lines that make `optimizer`."""


@dataclass(frozen=True)
class Class:
    """Makes an optimizer by its class."""

    cls: type[Optimizer]
    name: str
    options: Mapping[str, Any]

    @property
    def defaults(self) -> Mapping[str, Any]:
        """Every option that the constructor names, with its value."""
        known = list(inspect.signature(self.cls).parameters.values())[1:]
        return {p.name: p.default for p in known if p.default is not p.empty} | dict(self.options)

    def make(self, params: Params, options: Mapping[str, Any]) -> Optimizer:
        """See `Maker`."""
        return self.cls(params, **{**self.options, **options})

    @property
    def source(self) -> str:
        """See `Maker`."""
        return self.name

    def script(self, params: str, options: Mapping[str, Any]) -> list[str]:
        """See `Maker`."""
        return [f"optimizer = {called(self.name)}({params}{arguments({**self.options, **options})})"]


@dataclass(frozen=True)
class Factory:
    """Makes an optimizer by a function that does more than to call its class: options can be set only afterwards."""

    factory: Callable[[Params], Optimizer]
    name: str
    defaults: Mapping[str, Any]
    options: Mapping[str, Any]

    def make(self, params: Params, options: Mapping[str, Any]) -> Optimizer:
        """See `Maker`."""
        if strange := options.keys() - self.defaults.keys():
            raise TypeError(f"{', '.join(strange)} is none of the optimizer's defaults, so its factory cannot be given it.")
        if _are_groups(params):
            return self.factory([{**options, **group} for group in params])
        optimizer = self.factory(params)
        for group in optimizer.param_groups:
            group.update(options)
        return optimizer

    @property
    def source(self) -> str:
        """See `Maker`."""
        path = getattr(self._function(), "__qualname__", "")
        return f"{self._function().__module__}:{path}" if path.isidentifier() else "<locals>:factory"

    def _function(self) -> Callable[..., Optimizer]:
        return self.factory.func if isinstance(self.factory, partial) else self.factory

    def script(self, params: str, options: Mapping[str, Any]) -> list[str]:
        """See `Maker`."""
        given = self.factory.keywords if isinstance(self.factory, partial) else {}
        if options and params.startswith("[{"):
            params, options = f"[{items(options)} | group for group in {params}]", {}
        lines = [f"optimizer = {called(self.source)}({params}{arguments(given)})"]
        return [*lines, f"for group in optimizer.param_groups: group.update({items(options)})"] if options else lines


def maker(factory: Callable[[Params], Optimizer], params: Params, options: Mapping[str, Any]) -> Maker:
    """What makes the optimizers of a factory: their class, if the factory does no more than to call it.

    Args:
        factory: From parameters, an optimizer.
        params: With which it is tried.
        options: Those that the factory was given.

    Raises:
        TypeError: It returns something else.
    """
    made = factory(params)
    if not isinstance(made, Optimizer):
        raise TypeError(f"the factory returned a {type(made).__name__}; a torch.optim.Optimizer is needed.")
    cls = type(made)
    name = f"{cls.__module__}:{cls.__qualname__}"
    with _noted(cls) as calls:
        factory(params)
    if len(calls) == 1 and calls[0] and calls[0].pop(next(iter(calls[0]))) is params:
        plain = Class(cls, name, calls[0])
        if _alike(plain.make(params, {}), made):
            return plain
    return Factory(factory, name, dict(made.defaults), options)


def _are_groups(params: Params) -> bool:
    return bool(params) and isinstance(params[0], dict)


@contextmanager
def _noted(cls: type[Optimizer]) -> Iterator[list[dict[str, Any]]]:
    """The arguments, by name, of each call of a class: empty of one that takes any number of them by position."""
    calls: list[dict[str, Any]] = []
    own, init = "__init__" in vars(cls), cls.__init__
    kinds = {name: p.kind for name, p in inspect.signature(init).parameters.items()}

    def noting(self: Optimizer, *args: Any, **kwargs: Any) -> None:
        if type(self) is cls:
            bound = inspect.signature(init).bind(self, *args, **kwargs).arguments
            calls.append({})
            for key, value in list(bound.items())[1:]:
                if kinds[key] is inspect.Parameter.VAR_KEYWORD:
                    calls[-1].update(value)
                elif kinds[key] is not inspect.Parameter.VAR_POSITIONAL:
                    calls[-1][key] = value
        init(self, *args, **kwargs)

    cls.__init__ = noting  # type: ignore[method-assign]  # put back below
    try:
        yield calls
    finally:
        if own:
            cls.__init__ = init  # type: ignore[method-assign]  # as it was
        else:
            del cls.__init__


def _alike(one: Optimizer, two: Optimizer) -> bool:
    """Whether two optimizers have the same options and the same attributes."""

    def options(optimizer: Optimizer) -> list[str]:
        return [repr({k: v for k, v in group.items() if k != "params"}) for group in optimizer.param_groups]

    return options(one) == options(two) and vars(one).keys() == vars(two).keys()
