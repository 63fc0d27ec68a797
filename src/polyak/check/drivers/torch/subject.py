"""The subject that is a PyTorch optimizer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

import numpy as np
import torch

from polyak.check.drivers.running import Running, followed
from polyak.check.drivers.torch.making import SWITCHES, Class, Maker, Optimizer, Params, maker
from polyak.check.drivers.torch.running import Way, asked, begun, generators, undisturbed
from polyak.check.drivers.torch.script import program
from polyak.check.trial import Array, Refused, Trajectory, Trial

Names = Literal["never", "to load", "always"]


@dataclass(eq=False)  # its identity is what it is remembered by
class Torch:
    """See `polyak.check.trial.Subject`.

    Attributes:
        way: How it is used.
        names: When it is given the names of its parameters.
    """

    way: Way = field(repr=False)
    names: Names = field(repr=False)
    name: str
    options: Mapping[str, Any]
    defaults: Mapping[str, Any]
    rate: str | None
    implementations: tuple[str, ...]
    double: bool
    closure: bool
    documentation: str = field(repr=False)
    random: bool
    framework: str = "torch"

    def run(self, trial: Trial) -> Trajectory:
        """What comes of a trial; see `polyak.check.trial.Subject.run`."""
        return _run(self._way(trial), trial)[0]

    def together(self, first: Trial, second: Trial) -> tuple[Trajectory, Trajectory]:
        """What comes of two trials whose steps alternate; see `polyak.check.trial.Subject.together`."""
        with undisturbed():
            one, two = (Running(trial, begun(self._way(trial), trial)) for trial in (first, second))
            both = followed(one, two)
        return both[0], both[1]

    def script(self, trial: Trial) -> str:
        """The trial as a program; see `polyak.check.trial.Subject.script`."""
        return program(trial, self._way(trial))

    def scheduler(self) -> "Torch | None":
        """The same with a LambdaLR that makes the changes of the learning rate, which it knows by the name "lr" alone."""
        return replace(self, way=replace(self.way, scheduled=self.rate)) if self.rate == "lr" else None

    def _way(self, trial: Trial) -> Way:
        """Names that are not asked for are given where they may be needed: to load a state by them."""
        loads = trial.resume is not None and trial.resume.how == "load"
        return replace(self.way, named=self.names == "always" or (self.names == "to load" and loads))


def of_class(cls: type[Optimizer], name: str, options: Mapping[str, Any]) -> Torch:
    """The subject that is a class with options.

    Raises:
        Refused: It cannot be made, or cannot take a step.
    """
    return _tried(Class(cls, name, options))


def of_factory(factory: Callable[[Params], Optimizer], options: Mapping[str, Any] | None = None) -> Torch:
    """The subject that a function of the parameters makes.

    Args:
        factory: From parameters, an optimizer.
        options: Those that the factory was given, to be shown.

    Raises:
        Refused: It cannot be made, or cannot take a step.
    """
    return _tried(_either(lambda params: maker(factory, params, options or {}))[0])


def _tried(made: Maker) -> Torch:
    """The subject, with what is known only from trying it."""
    instance, names = _either(lambda params: made.make(params, {}))
    cls = type(instance)
    way = Way(made, named=names == "always", mode=callable(getattr(instance, "train", None)))
    wrong = _refused(way, np.float32)
    if wrong and "closure" in str(wrong):
        way = replace(way, closure=True)
        wrong = _refused(way, np.float32)
    if wrong:
        raise wrong
    present = [name for name in SWITCHES if name in made.defaults]
    implementations = ["loop", *present] if present else []
    return Torch(
        way,
        names,
        made.name,
        made.options,
        made.defaults,
        rate=next((name for name in ("lr", "learning_rate") if name in made.defaults), None),
        implementations=tuple(name for name in implementations if not _refused(way, np.float32, name)),
        double=not _refused(way, np.float64),
        closure=way.closure,
        documentation="\n".join(text for text in (cls.__doc__, cls.__init__.__doc__) if text),
        random=_draws(way),
    )


T = TypeVar("T")


def _either(make: Callable[[Params], T]) -> tuple[T, Names]:
    """What is made of a parameter without a name or, where that is refused, with one; and whether names are taken."""
    w = torch.nn.Parameter(torch.ones(2, 2))

    def made(params: Params) -> T:
        with undisturbed(), asked():
            return make(params)

    try:
        plain = made([w])
    except Refused as refused:
        try:
            return made([("w", w)]), "always"
        except Refused:
            raise refused from refused.__cause__
    try:
        named = made([("w", w)])
    except Refused:
        return plain, "never"
    groups = getattr(named, "param_groups", [])
    return plain, "to load" if all("param_names" in group for group in groups) else "never"


def _trial(dtype: type, implementation: str = "") -> Trial:
    """Two steps of a matrix."""
    w: Array = np.ones((2, 2), dtype)
    return Trial({"w": w}, [{"w": w}, {"w": w}], implementation=implementation)


def _refused(way: Way, dtype: type, implementation: str = "") -> Refused | None:
    """What an optimizer says against them."""
    try:
        _run(way, _trial(dtype, implementation))
    except Refused as error:
        return error
    return None


def _run(way: Way, trial: Trial) -> tuple[Trajectory, ...]:
    with undisturbed():
        return followed(Running(trial, begun(way, trial)))


def _draws(way: Way) -> bool:
    """Whether a step leaves the generators of random numbers otherwise than they were seeded for it."""
    trial = _trial(np.float32)
    with undisturbed():
        instance = begun(way, trial)
        for gradients in trial.gradients:
            instance.step(gradients)
            left = generators()
            with asked(instance.taken):
                if left != generators():
                    return True
    return False
