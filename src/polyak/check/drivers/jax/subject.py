"""The subject that is a gradient transformation."""

import inspect
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from polyak.check.drivers.jax.making import Maker, Plan
from polyak.check.drivers.jax.running import Program, Transformation, draws, precision
from polyak.check.drivers.jax.script import program
from polyak.check.drivers.reuse import Pool, written
from polyak.check.drivers.running import Followed, Running, asked, check_offered, followed, quiet
from polyak.check.trial import Array, Refused, Shown, Trajectory, Trial


@dataclass(eq=False)  # its identity is what it is remembered by
class Jax(Followed):
    """See `polyak.check.trial.Subject`.

    Attributes:
        maker: Makes its transformations.
        closure: Whether `update` is given the loss.
        usual: The implementation that takes least time. Most trials have options of their own, for which a program would be
            compiled; but branches and loops are compiled at every step that is not.
        scheduled: The option that a schedule changes, or None.
    """

    maker: Maker
    name: str
    options: Mapping[str, Any]
    defaults: Mapping[str, Any]
    rate: str | None
    documentation: str
    random: bool
    closure: bool = False
    implementations: tuple[str, ...] = ("jit", "eager")
    double: bool = False
    usual: str = "eager"
    scheduled: str | None = None
    framework: str = "jax"
    unnamed: tuple[str, ...] = ()
    _compiled: Pool[Program] = field(default_factory=Pool)

    def script(self, *trials: Trial, shown: Shown = "weights") -> str:
        """Trials as a program; see `polyak.check.trial.Subject.script`."""
        return program(
            trials,
            [self.maker.plan(trial, self.scheduled, self._needs_schedule(trial)) for trial in trials],
            compiled=[self._is_compiled(trial) for trial in trials],
            closure=self.closure,
            shown=shown,
        )

    def _needs_schedule(self, trial: Trial) -> bool:
        """Whether changes are made by a schedule, since options are refused where they are injected."""
        if not (trial.changes and self.maker.settable):
            return False
        try:
            self._run(trial, by_schedule=False)
        except Refused:
            return True
        return False

    def scheduler(self) -> "Jax | None":
        """The same with a schedule of optax that makes the changes of the learning rate."""
        return replace(self, scheduled=self.rate) if self.rate and self.maker.settable else None

    def with_loss(self) -> None:
        """It has no such way; see `polyak.check.trial.Subject.with_loss`."""

    def _followed(self, *trials: Trial) -> tuple[Trajectory, ...]:
        try:
            return self._run(*trials, by_schedule=False)
        except Refused as refused:
            if not (self.maker.settable and any(trial.changes for trial in trials)):
                raise
            # Some functions compare an option with a number, which is not known where it is injected, and take a schedule.
            try:
                return self._run(*trials, by_schedule=True)
            except Refused:
                raise refused from refused.__cause__

    def _run(self, *trials: Trial, by_schedule: bool) -> tuple[Trajectory, ...]:
        for trial in trials:
            check_offered("JAX", trial, sparse=False)
        with quiet(), precision(*trials):
            instances: list[Transformation] = []

            def begun(trial: Trial) -> Running:
                instances.append(one := self._begun(trial, by_schedule))
                return Running(replace(trial, changes=one.plan.changes), one)

            trajectories = followed(map(begun, trials))
            for one in instances:
                # One that is compiled again and again shall be so in the next trial too.
                once = one.program.compiled and (one.compilations or 0) <= 1
                if once and (key := _key(one.plan)) and one.program.is_new():
                    self._compiled.give(key, one.program)
            return trajectories

    def _begun(self, trial: Trial, by_schedule: bool) -> Transformation:
        """An instance with the first weights."""
        plan, compiled = self.maker.plan(trial, self.scheduled, by_schedule), self._is_compiled(trial)

        def made() -> Program:
            with asked():
                return Program(plan.make(), compiled=compiled, closure=self.closure)

        ready = self._compiled.take(_key(plan)) if compiled else None
        step = ready or made()
        params = OrderedDict((name, jnp.asarray(w)) for name, w in trial.weights.items())
        with asked():
            state = step.made.init(params)
        return Transformation(step, plan, params, state, made)

    def _is_compiled(self, trial: Trial) -> bool:
        return (trial.implementation or self.usual) == "jit"


def _key(plan: Plan) -> tuple[Any, ...] | None:
    """What the programs are the same for."""
    options = written(plan.options)
    return None if options is None else (options, plan.injected)


def of_function(function: Callable[..., Any], name: str, options: Mapping[str, Any]) -> Jax:
    """The subject that is a function with options."""
    return _probed(Maker(function, name, options, settable=True))


def of_factory(make: Callable[[], Any], name: str | None = None) -> Jax:
    """The subject that a function of nothing makes: its options cannot be set, unless `optax.inject_hyperparams` keeps them."""
    where = f"{make.__module__}:{make.__qualname__}" if hasattr(make, "__qualname__") else f"<{type(make).__name__}>"
    return _probed(Maker(make, name or where, {}, settable=False))


def _probed(maker: Maker) -> Jax:
    """The subject, with what is known only from trying."""
    with asked():
        made = maker.plan(Trial({}, []), None, by_schedule=False).make()
    defaults = maker.defaults or dict(getattr(made, "arguments", {}))
    with asked():
        state = made.init(OrderedDict(w=jnp.ones((2, 2))))
    if not defaults:
        defaults = {option: float(value) for option, value in getattr(state, "hyperparams", {}).items()}
    rate = next((option for option in ("learning_rate", "lr") if option in defaults), None)
    subject = Jax(maker, maker.name, maker.options, defaults, rate, inspect.getdoc(maker.function) or "", draws(state))

    if _has_branches(made, state):
        subject.usual = "jit"

    def tried(dtype: type) -> Refused | None:
        w: Array = np.ones((2, 2), dtype)
        try:
            subject.run(Trial({"w": w}, [{"w": w}]))
        except Refused as refused:
            return refused
        return None

    wrong = tried(np.float32)
    if wrong and "value" in str(wrong):
        subject.closure = True
        wrong = tried(np.float32)
    if wrong:
        raise wrong
    subject.double = tried(np.float64) is None
    return subject


def _has_branches(made: Any, state: Any) -> bool:
    """Whether an update has branches or loops. If it cannot be traced, that is told later."""
    w = OrderedDict(w=jnp.ones((2, 2)))
    try:
        with quiet():
            steps = jax.make_jaxpr(made.update)(w, state, w).jaxpr.eqns
    except Exception:  # of any kind: a function of others, which may need more than this trial gives it
        return False
    return any(step.primitive.name in ("cond", "while", "scan") for step in steps)
