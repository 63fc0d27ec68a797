"""A Keras optimizer in use."""

import contextlib
import copy
import pickle
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from polyak.check.drivers.keras.backends import STEPS, gradient, left, setting
from polyak.check.drivers.keras.model import Weights
from polyak.check.drivers.reuse import memory
from polyak.check.drivers.running import asked
from polyak.check.trial import Array, Gradient, Refused, Resume, Trial

Another = Callable[[], Any]  # makes a new optimizer, with the options of the trial


@contextlib.contextmanager
def precision(*trials: Trial) -> Iterator[None]:
    """float64 where a trial needs it, for the numbers that Keras itself keeps too, and only as long."""
    double = any(w.dtype == np.float64 for trial in trials for w in trial.weights.values())
    floatx = keras.config.floatx()
    keras.config.set_floatx("float64" if double else floatx)
    try:
        with setting(double):
            yield
    finally:
        keras.config.set_floatx(floatx)


class Built:
    """An optimizer and the variables that it was built for.

    Args:
        optimizer: The optimizer, built or not.
        variables: Of each parameter, in their order.
        implementation: How steps are taken.
        saved: State that is loaded into it.
    """

    def __init__(self, optimizer: Any, variables: Mapping[str, Any], implementation: str, saved: Any = None) -> None:
        self.optimizer, self.variables, self.implementation = optimizer, variables, implementation
        self.given = {name: number(v) for name, v in variables.items()}
        self.traces = 0
        with asked():
            optimizer.build(list(variables.values()))
            if saved is not None:
                optimizer.load_own_variables(saved)
        self.first = [number(v) for v in optimizer.variables]
        self._memory = self._remembered()
        self.apply = STEPS[implementation](optimizer, list(variables.values()), self._traced)

    def _traced(self) -> None:
        self.traces += 1

    def _remembered(self) -> Any:
        mine = [*self.optimizer.variables, *self.variables.values()]
        return memory(self.optimizer, [*mine, *(v.value for v in mine)])

    def put_back(self) -> bool:
        """Make it as it was when it was new, where all that it remembers is in its variables. Whether it is."""
        if len(self.optimizer.variables) != len(self.first) or self._remembered() != self._memory:
            return False
        for variable, value in zip(self.optimizer.variables, self.first, strict=True):
            variable.assign(value)
        return True

    def was_given(self, weights: Mapping[str, Array]) -> bool:
        """Whether it was built with these weights."""
        return all(np.array_equal(self.given[name], w) for name, w in weights.items())

    def begins_alike(self, weights: Mapping[str, Array], another: Another) -> bool:
        """Whether it would be the same, had it been built with these weights: some remember those that they begin with."""
        with asked():
            made = another()
        first = Built(made, new_variables(weights), "eager").first
        return len(first) == len(self.first) and all(map(np.array_equal, first, self.first))


class Optimizer:
    """See `polyak.check.drivers.running.Instance`.

    Args:
        built: The optimizer.
        another: Makes another one like it.
        model: The model that is compiled with it, if there is one.
    """

    def __init__(self, built: Built, another: Another, model: Weights | None = None) -> None:
        self.built, self.another, self.model = built, another, model
        self._grads: dict[str, Any] = {}
        self._traced = built.traces

    @property
    def compilations(self) -> int | None:
        """How often the step was compiled, at least once if an earlier trial had it compiled already."""
        if self.built.implementation == "eager":
            return None
        return max(self.built.traces - self._traced, min(self._traced, 1))

    def weights(self) -> Mapping[str, Array]:
        """See `Instance`."""
        return {name: number(v) for name, v in self.built.variables.items()}

    def put(self, weights: Mapping[str, Array]) -> None:
        """See `Instance`."""
        for name, v in self.built.variables.items():
            v.assign(weights[name])

    def change(self, options: Mapping[str, object]) -> None:
        """See `Instance`."""
        for name, value in options.items():
            if not hasattr(self.built.optimizer, name):
                raise Refused(f"the optimizer has no attribute {name}, so it cannot be changed in use.")
            with asked():
                setattr(self.built.optimizer, name, value)

    def step(self, gradients: Mapping[str, Gradient]) -> None:
        """See `Instance`."""
        self._grads = {name: gradient(gradients.get(name), v) for name, v in self.built.variables.items()}
        with asked():
            self.built.apply(list(self._grads.values()))

    def again(self, resume: Resume) -> "Optimizer":
        """See `Instance`."""
        old = self.built
        if resume.how == "load":
            saved: dict[str, Array] = {}
            with asked():
                old.optimizer.save_own_variables(saved)
                saved = {key: np.array(value) for key, value in saved.items()}
                made = self.another()
            weights = {name: old.variables[name] for name in resume.order or old.variables}
            return Optimizer(Built(made, new_variables(weights), old.implementation, saved), self.another)
        with asked(), keras.saving.custom_object_scope({type(old.optimizer).__name__: type(old.optimizer)}):
            model: Any = copy.deepcopy(self.model) if resume.how == "copy" else pickle.loads(pickle.dumps(self.model))  # noqa: S301  (our own)
        variables = dict(zip(old.variables, model.weights, strict=True))
        return Optimizer(Built(model.optimizer, variables, old.implementation), self.another, model)

    def left(self) -> Mapping[str, Gradient]:
        """See `Instance`."""
        return {name: left(g) for name, g in self._grads.items()}

    def state(self) -> Mapping[str, Mapping[str, Array]]:
        """See `Instance`. Keras names a slot after its parameter."""
        paths = {name: f"{v.path}_".replace("/", "_") for name, v in self.built.variables.items()}
        found: dict[str, dict[str, Array]] = {name: {} for name in paths}
        for v in self.built.optimizer.variables:
            of = max((name for name in paths if v.name.startswith(paths[name])), key=lambda name: len(paths[name]), default="")
            slots = found.setdefault(of, {})
            slot = v.name[len(paths[of]) :] if of else v.name
            slots[slot if slot not in slots else f"{slot}_{len(slots)}"] = number(v)
        return found


def begun(trial: Trial, implementation: str, another: Another) -> Optimizer:
    """A new optimizer with the first weights; with a model around it where it will be copied or pickled."""
    with asked():
        made = another()
    if not (trial.resume and trial.resume.how != "load"):
        return Optimizer(Built(made, new_variables(trial.weights), implementation), another)
    model = Weights({name: (list(w.shape), w.dtype.name) for name, w in trial.weights.items()})
    variables = dict(zip(trial.weights, model.weights, strict=True))
    for name, v in variables.items():
        v.assign(trial.weights[name])
    built = Built(made, variables, implementation)
    model.compile(optimizer=made, jit_compile=False)
    return Optimizer(built, another, model)


def new_variables(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Variables with these weights."""
    return {name: keras.Variable(number(w), dtype=number(w).dtype.name, name=name) for name, w in weights.items()}


def number(v: Any) -> Array:
    """A copy of an array or variable, in its dtype."""
    if isinstance(v, np.ndarray):
        return np.array(v)
    return np.array(ops.convert_to_numpy(v.value)).astype(np.dtype(keras.backend.standardize_dtype(v.dtype)))
