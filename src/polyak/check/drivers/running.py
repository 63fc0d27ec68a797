"""How a trial goes on, whatever the framework: JAX and Keras give an `Instance`."""

import io
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Protocol

import numpy as np

from polyak.check.trial import Array, Gradient, NotOffered, Refused, Resume, Rows, Trajectory, Trial


class Instance(Protocol):
    """An optimizer in use, and its parameters.

    Attributes:
        compilations: How often its step was compiled in this trial; None where it is not.
    """

    @property
    def compilations(self) -> int | None: ...  # noqa: D102

    def weights(self) -> Mapping[str, Array]:
        """Copies of the weights, by parameter."""

    def put(self, weights: Mapping[str, Array]) -> None:
        """Give the parameters other weights."""

    def change(self, options: Mapping[str, object]) -> None:
        """Give options other values."""

    def step(self, gradients: Mapping[str, Gradient]) -> None:
        """Take a step."""

    def again(self, resume: Resume) -> "Instance":
        """Another instance that goes on from here. This one stays as it is."""

    def left(self) -> Mapping[str, Gradient]:
        """The gradients of the last step, as they are after it."""

    def state(self) -> Mapping[str, Mapping[str, Array]]:
        """What it remembers, by parameter and slot."""


@contextmanager
def asked() -> Iterator[None]:
    """What the optimizer itself does: its errors are `Refused`."""
    try:
        yield
    except Refused:
        raise
    except (Exception, SystemExit) as error:  # one well-known optimizer exits where it lacks a library
        raise Refused(f"{type(error).__name__}: {error}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing is printed or warned of."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


class Running:
    """A trial on its way.

    Args:
        trial: What is done.
        instance: The optimizer with the first weights.
    """

    def __init__(self, trial: Trial, instance: Instance) -> None:
        self.trial, self.instance = trial, instance
        self._old: Instance | None = None
        self._before: list[Mapping[str, Array]] = []
        self._after: list[Mapping[str, Array]] = []

    def step(self, number: int) -> None:
        """Take the step of this number; after the last one, only what comes before a step is done."""
        trial = self.trial
        if trial.resume and trial.resume.step == number:
            old, self.instance = self.instance, self.instance.again(trial.resume)
            self._old = old if trial.resume.unharmed else None
        if number >= len(trial.gradients):
            return
        if trial.held and number:
            self.instance.put(trial.weights)
        if changes := trial.changes.get(number):
            self.instance.change(changes)
        self._before.append(self.instance.weights())
        self.instance.step(trial.gradients[number])
        self._after.append(self.instance.weights())
        if self._old:
            self._old.step({name: other(g) for name, g in trial.gradients[number].items()})

    def trajectory(self) -> Trajectory:
        """What came of it."""

        def stacked(seen: list[Mapping[str, Array]], name: str, w: Array) -> Array:
            return np.stack([each[name] for each in seen]) if seen else np.zeros((0, *w.shape), w.dtype)

        weights = self.trial.weights.items()
        return Trajectory(
            before={name: stacked(self._before, name, w) for name, w in weights},
            after={name: stacked(self._after, name, w) for name, w in weights},
            gradients=self.instance.left(),
            state=self.instance.state(),
            compilations=self.instance.compilations,
        )


class Followed:
    """A subject that runs one trial as it runs two: their steps alternate."""

    def _followed(self, *trials: Trial) -> tuple[Trajectory, ...]:
        """What comes of trials, each with an instance of its own."""
        raise NotImplementedError

    def run(self, trial: Trial) -> Trajectory:
        """What comes of a trial; see `polyak.check.trial.Subject.run`."""
        (trajectory,) = self._followed(trial)
        return trajectory

    def together(self, first: Trial, second: Trial) -> tuple[Trajectory, Trajectory]:
        """What comes of two trials whose steps alternate; see `polyak.check.trial.Subject.together`."""
        one, two = self._followed(first, second)
        return one, two


def followed(each: Iterable[Running]) -> tuple[Trajectory, ...]:
    """What comes of trials whose steps alternate. One is asked for when those before it have taken their first step."""
    begun: list[Running] = []
    for running in each:
        running.step(0)
        begun.append(running)
    for number in range(1, 1 + max(len(running.trial.gradients) for running in begun)):
        for running in begun:
            if number <= len(running.trial.gradients):
                running.step(number)
    return tuple(running.trajectory() for running in begun)


def other(given: Gradient) -> Gradient:
    """Another gradient, of no relation."""
    if given is None:
        return None
    if isinstance(given, Rows):
        return Rows(given.rows, np.asarray(1 - 3 * given.values, given.values.dtype))
    return np.asarray(1 - 3 * given, given.dtype)


def check_offered(framework: str, trial: Trial, *, sparse: bool) -> None:
    """Refuse what a framework does not have, whatever the optimizer."""
    if trial.groups:
        raise NotOffered(f"{framework} has no parameter groups.")
    if trial.strided:
        raise NotOffered(f"{framework} has no arrays that are not contiguous.")
    given = [g for gradients in trial.gradients for g in gradients.values()]
    if not sparse and any(isinstance(g, Rows) for g in given):
        raise NotOffered(f"{framework} has no sparse gradients.")
