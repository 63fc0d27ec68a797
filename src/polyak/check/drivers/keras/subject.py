"""The subject that is a Keras optimizer."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np

from polyak.check.drivers.keras.backends import BACKEND, STEPS
from polyak.check.drivers.keras.making import Maker, split
from polyak.check.drivers.keras.running import Built, Optimizer, begun, precision
from polyak.check.drivers.keras.script import program
from polyak.check.drivers.reuse import Pool, written
from polyak.check.drivers.running import Followed, Running, asked, check_offered, followed, quiet
from polyak.check.trial import Array, Refused, Shown, Trajectory, Trial


@dataclass(eq=False)  # its identity is what it is remembered by
class Keras(Followed):
    """See `polyak.check.trial.Subject`.

    Attributes:
        maker: Makes its instances.
        scheduled: The option that a schedule changes, or None.
    """

    maker: Maker
    name: str
    options: Mapping[str, Any]
    defaults: Mapping[str, Any]
    rate: str | None
    documentation: str
    random: bool
    implementations: tuple[str, ...] = tuple(STEPS)
    double: bool = False
    closure: bool = False
    scheduled: str | None = None
    framework: str = "keras"
    unnamed: tuple[str, ...] = ()
    _ready: Pool[Built] = field(default_factory=Pool)
    _of_any_weights: dict[str | None, bool] = field(default_factory=dict)

    def script(self, *trials: Trial, shown: Shown = "weights") -> str:
        """Trials as a program; see `polyak.check.trial.Subject.script`."""
        parts = [(trial, *self._split(trial)) for trial in trials]
        given = [replace(trial, options=options, changes=changes) for trial, options, changes in parts]
        scheduled = any(options != trial.options for trial, options, _ in parts)
        return program(given, self.maker, [self._implementation(trial) for trial in trials], shown, apart=scheduled)

    def scheduler(self) -> "Keras | None":
        """The same with a schedule of Keras that makes the changes of the learning rate."""
        return replace(self, scheduled=self.rate, _ready=Pool()) if self.rate else None

    def with_loss(self) -> None:
        """It has no such way; see `polyak.check.trial.Subject.with_loss`."""

    def _followed(self, *trials: Trial) -> tuple[Trajectory, ...]:
        for trial in trials:
            check_offered(f"Keras on {BACKEND}", trial, sparse=BACKEND == "tensorflow")
        with quiet(), precision(*trials):
            begun: list[tuple[Running, tuple[Any, ...] | None]] = []

            def started(trial: Trial) -> Running:
                begun.append(self._begun(trial))
                return begun[-1][0]

            trajectories = followed(map(started, trials))
            for (running, key), trial in zip(begun, trials, strict=True):
                one = running.instance
                if key and trial.resume is None and isinstance(one, Optimizer) and one.built.put_back():
                    self._ready.give(key, one.built)
            return trajectories

    def _begun(self, trial: Trial) -> tuple[Running, tuple[Any, ...] | None]:
        """A trial with its instance, and what such instances are the same for."""
        options, changes = self._split(trial)
        implementation = self._implementation(trial)
        text = written(options)
        shapes = tuple((name, w.shape, w.dtype.name) for name, w in trial.weights.items())
        key = None if text is None else (text, implementation, shapes)

        def another() -> Any:
            return self.maker.make(options)

        ready = self._ready.take(key) if key and trial.resume is None else None
        if ready and self._serves(ready, text, trial, another):
            one = Optimizer(ready, another)
            one.put(trial.weights)
        else:
            one = begun(trial, implementation, another)
        return Running(replace(trial, changes=changes), one), key

    def _serves(self, ready: Built, text: str | None, trial: Trial, another: Callable[[], Any]) -> bool:
        """Whether a built optimizer serves for the weights of a trial. It is found out once for these options."""
        if ready.was_given(trial.weights):
            return True
        if text not in self._of_any_weights:
            self._of_any_weights[text] = ready.begins_alike(trial.weights, another)
        return self._of_any_weights[text]

    def _split(self, trial: Trial) -> tuple[dict[str, Any], dict[int, Mapping[str, Any]]]:
        return split(trial, self.scheduled, self.defaults.get(self.rate or ""))

    @staticmethod
    def _implementation(trial: Trial) -> str:
        """The first one takes least time: most trials have few steps, and each would be compiled for itself."""
        return trial.implementation or next(iter(STEPS))


def of_class(cls: type[Any], name: str, options: Mapping[str, Any]) -> Keras:
    """The subject that is a class with options."""
    return _probed(Maker(cls, name, options))


def of_factory(make: Callable[[], Any], name: str | None = None) -> Keras:
    """The subject that a function of nothing makes."""
    with asked():
        cls = type(make())
    return _probed(Maker(cls, name or f"{cls.__module__}:{cls.__qualname__}", {}, make))


def _probed(maker: Maker) -> Keras:
    """The subject, with what is known only from trying."""
    with quiet(), asked():
        defaults = maker.defaults
        random = any(isinstance(x, keras.random.SeedGenerator) for x in vars(maker.make({})).values())
    rate = "learning_rate" if "learning_rate" in defaults else None
    subject = Keras(maker, maker.name, maker.options, defaults, rate, inspect.getdoc(maker.cls) or "", random)

    def tried(dtype: type) -> Refused | None:
        w: Array = np.ones((2, 2), dtype)
        try:
            subject.run(Trial({"w": w}, [{"w": w}]))
        except Refused as refused:
            return refused
        return None

    if wrong := tried(np.float32):
        raise wrong
    subject.double = tried(np.float64) is None
    return subject
