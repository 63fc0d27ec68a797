"""SGD as an optimizer of Keras, as it should be, and broken ones."""

from functools import partial
from typing import Any

import keras
from keras import ops

from .cases import Case, broken

CASES: list[Case] = []
optimizer = partial(broken, CASES, learning_rate=0.1, momentum=0.9)


class SGD(keras.optimizers.Optimizer):
    """v = m v - lr g; w += v, or m v - lr g with the new v for Nesterov's.

    Args:
        learning_rate: A number or a schedule.
        momentum: m.
        nesterov: Whether the momentum is Nesterov's.
        weight_decay: Decoupled from the gradient, as Keras does it.
        name: As of all.
        base: Other arguments of the base class.
    """

    def __init__(
        self,
        learning_rate: Any = 0.1,
        momentum: float = 0.9,
        nesterov: bool = False,
        weight_decay: float | None = None,
        name: str = "sgd",
        **base: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, name=name, **base)
        self.nesterov = nesterov
        # A variable, so that a compiled step sees what is assigned to it.
        self._momentum = self.add_variable((), keras.initializers.Constant(momentum), "float32", name="momentum")

    @property
    def momentum(self) -> Any:
        return self._momentum.value

    @momentum.setter
    def momentum(self, value: float) -> None:
        self._momentum.assign(value)

    def build(self, variables: Any) -> None:
        if not self.built:
            super().build(variables)
            self.velocities = self.add_optimizer_variables(variables, "velocity")

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        lr, m = ops.cast(learning_rate, variable.dtype), ops.cast(self.momentum, variable.dtype)
        g = self.gradient(ops.cast(gradient, variable.dtype), variable)
        v = self.velocity(variable)
        self.assign(v, m * v - lr * g)
        self.assign_add(variable, self.step(m, v, lr, g))

    def gradient(self, g: Any, variable: Any) -> Any:  # noqa: ARG002
        return g

    def velocity(self, variable: Any) -> Any:
        return self.velocities[self._get_variable_index(variable)]

    def step(self, m: Any, v: Any, lr: Any, g: Any) -> Any:
        return m * v - lr * g if self.nesterov else ops.convert_to_tensor(v)

    def save_own_variables(self, store: Any) -> None:
        """By the name, which has the parameter's in it."""
        for v in self.variables:
            store[v.name] = ops.convert_to_numpy(v)

    def load_own_variables(self, store: Any) -> None:
        for v in self.variables:
            v.assign(store[v.name])

    def get_config(self) -> dict[str, Any]:
        own = {"momentum": float(ops.convert_to_numpy(self.momentum)), "nesterov": self.nesterov}
        return {**super().get_config(), **own}


@optimizer("momentum-differs", also=("option-without-effect", "option-effect", "change-ignored"))
class MomentumWithoutEffect(SGD):
    def step(self, m: Any, v: Any, lr: Any, g: Any) -> Any:  # noqa: ARG002
        return -lr * g


@optimizer("nesterov-differs", also=("option-without-effect", "option-effect"), nesterov=True)
class NesterovIgnored(SGD):
    def step(self, m: Any, v: Any, lr: Any, g: Any) -> Any:  # noqa: ARG002
        return ops.convert_to_tensor(v)


@optimizer("decay-kind", also=("option-effect",), weight_decay=0.1)
class DecayInTheGradient(SGD):
    def _apply_weight_decay(self, variables: Any) -> None:
        pass

    def gradient(self, g: Any, variable: Any) -> Any:
        return g + (self.weight_decay or 0.0) * variable


@optimizer("change-ignored")
class MomentumInTheCompiledStep(SGD):
    """As keras.optimizers.SGD: a number of Python, which the compiled step keeps."""

    momentum = 0.9

    def __init__(self, learning_rate: Any = 0.1, momentum: float = 0.9, **options: Any) -> None:
        super().__init__(learning_rate, momentum, **options)
        self.momentum = momentum


@optimizer("schedule-ignored", also=("change-ignored",))
class ScheduleOfTheFirstStep(SGD):
    def __init__(self, learning_rate: Any = 0.1, momentum: float = 0.9, **options: Any) -> None:
        scheduled = isinstance(learning_rate, keras.optimizers.schedules.LearningRateSchedule)
        super().__init__(float(ops.convert_to_numpy(learning_rate(0))) if scheduled else learning_rate, momentum, **options)


@optimizer("parameters-mixed", also=("missing-gradient", "resume-differs", "state-by-position"))
class VelocityByShape(SGD):
    def velocity(self, variable: Any) -> Any:
        return next(v for v in self.velocities if v.shape == variable.shape)


@optimizer("resume-differs", also=("copy-shares-state", "state-by-position"))
class VelocityNotSaved(SGD):
    def save_own_variables(self, store: Any) -> None:
        for v in self.variables:
            store[v.name] = 0 * ops.convert_to_numpy(v) if "velocity" in v.name else ops.convert_to_numpy(v)


@optimizer("state-by-position")
class LoadedByPosition(SGD):
    """As all of keras.optimizers."""

    save_own_variables = keras.optimizers.Optimizer.save_own_variables
    load_own_variables = keras.optimizers.Optimizer.load_own_variables


@optimizer("implementations-differ", also=("first-step-differs", "resume-differs", "copy-shares-state"))
class FirstStepInPython(SGD):
    """A first step of half the length, by a variable of Python: a compiled step is the first one for ever."""

    calls = 0

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        self.calls += 1
        super().apply(grads, trainable_variables)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        super().update_step(gradient, variable, learning_rate * (0.5 if self.calls == 1 else 1.0))
