"""The subject that is a PyTorch optimizer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

import numpy as np
import torch

from polyak.check.drivers.running import Followed, Running, followed
from polyak.check.drivers.torch.compiled import COMPILED
from polyak.check.drivers.torch.making import SWITCHES, Class, Maker, Optimizer, Params, maker
from polyak.check.drivers.torch.running import Way, asked, begun, generators, undisturbed
from polyak.check.drivers.torch.script import program
from polyak.check.trial import Array, Refused, Shown, Trajectory, Trial

Names = Literal["never", "to load", "always"]


@dataclass(eq=False)  # its identity is what it is remembered by
class Torch(Followed):
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
    unnamed: tuple[str, ...] = ()

    def script(self, *trials: Trial, shown: Shown = "weights") -> str:
        """Trials as a program; see `polyak.check.trial.Subject.script`."""
        return program(trials, [self._way(trial) for trial in trials], shown)

    def scheduler(self) -> "Torch | None":
        """The same with a LambdaLR that makes the changes of the learning rate, which it knows by the name "lr" alone."""
        return replace(self, way=replace(self.way, scheduled=self.rate)) if self.rate == "lr" else None

    def with_loss(self) -> "Torch | None":
        """The same, given a closure that it can do without."""
        return None if self.closure else replace(self, way=replace(self.way, closure=True), closure=True)

    def _followed(self, *trials: Trial) -> tuple[Trajectory, ...]:
        with undisturbed():
            return followed(Running(trial, begun(self._way(trial), trial)) for trial in trials)

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
    return Torch(
        way,
        names,
        made.name,
        made.options,
        made.defaults,
        rate=next((name for name in ("lr", "learning_rate") if name in made.defaults), None),
        implementations=("loop", *(name for name in present if not _refused(way, np.float32, name)), COMPILED),
        double=not _refused(way, np.float64),
        closure=way.closure,
        documentation="\n".join(text for text in (cls.__doc__, cls.__init__.__doc__) if text),
        random=_draws(way),
        unnamed=_unnamed(way),
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
        return followed([Running(trial, begun(way, trial))])


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


class _Asked(dict[str, Any]):
    """A parameter group that notes what it is asked for and does not have."""

    def __init__(self, group: Mapping[str, Any], missing: dict[str, None]) -> None:
        super().__init__(group)
        self.missing = missing

    def get(self, key: str, default: Any = None) -> Any:
        """See `dict.get`."""
        if key not in self:
            self.missing[key] = None
        return super().get(key, default)


def _unnamed(way: Way) -> tuple[str, ...]:
    """What a step asks its groups for that they do not have and that is no option."""
    missing: dict[str, None] = {}
    trial = _trial(np.float32)
    with undisturbed():
        instance = begun(way, trial)
        groups = instance.optimizer.param_groups
        groups[:] = [_Asked(group, missing) for group in groups]
        for gradients in trial.gradients:
            instance.step(gradients)
        has = {key for group in groups for key in group}
    return tuple(key for key in missing if key not in has and key not in way.maker.defaults)
