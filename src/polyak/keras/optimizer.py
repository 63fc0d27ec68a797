"""What the Keras front-ends of all rules have in common: storage, hyperparameters and the hooks of Keras's base class."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from importlib import import_module
from types import MappingProxyType, SimpleNamespace
from typing import Any

import keras
from keras import ops
from keras.initializers import Constant
from keras.optimizers.schedules import LearningRateSchedule

from polyak.arguments import check_decay, check_learning_rate
from polyak.keras.schedules import as_schedule
from polyak.keras.values import compute_dtype
from polyak.rules import Rule
from polyak.update import pipeline

_BACKEND = keras.backend.backend()
if _BACKEND not in ("tensorflow", "jax", "torch"):
    raise ImportError(
        f"polyak.keras runs on the Keras backends tensorflow, jax and torch; this process uses {_BACKEND!r}. "
        "Set the environment variable KERAS_BACKEND before keras is first imported."
    )
_backend: Any = import_module(f"polyak.keras.{_BACKEND}")


class Optimizer(keras.optimizers.Optimizer):
    """A Keras optimizer that applies a rule. A subclass chooses the rule and takes its arguments.

    Args:
        rule: The rule.
        learning_rate: A number, a Keras schedule or a callable of the step.
        varying: The names of the rule's other hyperparameters that can change from step to step. Each is an attribute of
            the subclass that gives its present value.
        constants: The rule's hyperparameters that cannot, by name.
        weight_decay: The coefficient, 0 or None for none.
        decay: "coupled" or "decoupled".
        **base: Arguments of `keras.optimizers.Optimizer`.
    """

    # Part of the compiled step, where a later assignment would have no effect.
    _fixed: tuple[str, ...] = ("weight_decay", "decay")

    def __init__(
        self,
        rule: Rule,
        learning_rate: Any,
        *,
        varying: tuple[str, ...] = (),
        constants: Mapping[str, float] = MappingProxyType({}),
        weight_decay: float | None = None,
        decay: Any = None,
        **base: Any,
    ) -> None:
        coefficient, decay = check_decay(weight_decay or 0.0, decay)
        schedule = as_schedule("learning_rate", learning_rate)
        super().__init__(learning_rate=schedule or check_learning_rate(learning_rate), weight_decay=coefficient or None, **base)
        self.decay = decay
        self._rule = rule
        self._varying = varying
        self._constants = MappingProxyType({"weight_decay": coefficient, **constants})

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._fixed and name in self.__dict__:
            raise AttributeError(
                f"{name} is fixed when the optimizer is made, since the compiled step contains it. Make a new optimizer for "
                f"{name}={value!r}."
            )
        super().__setattr__(name, value)

    # Hyperparameters that change from step to step.

    @property
    def learning_rate(self) -> Any:
        """The learning rate at this step: the variable that holds it, or the value of its schedule."""
        return self._get_current_learning_rate()

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        self._assign_number("learning_rate", self._learning_rate, value, check_learning_rate)

    def _add_hyperparameter(self, name: str, value: float | LearningRateSchedule) -> Any:
        """Storage for a hyperparameter: a variable, which compiled steps read, or its schedule."""
        if isinstance(value, LearningRateSchedule):
            return value
        # A variable of the optimizer, so that it is saved with it and is an input, not a constant, of steps compiled by JAX.
        return self.add_variable(
            shape=(),
            initializer=Constant(value),
            dtype=compute_dtype(keras.config.floatx()),
            aggregation="only_first_replica",
            name=name,
        )

    def _now(self, stored: Any) -> Any:
        """The value at this step. The count of steps is the one that Keras gives to schedules of the learning rate."""
        return stored(self._iterations) if isinstance(stored, LearningRateSchedule) else stored

    def _assign_number(self, name: str, stored: Any, value: Any, check: Callable[[Any], float]) -> None:
        """Change a hyperparameter between steps."""
        if not isinstance(stored, keras.Variable):
            raise TypeError(
                f"{name} follows a schedule, which is part of the compiled step; {name}={value!r} could not take its place. "
                f"Make the optimizer with a number for {name} to assign to it."
            )
        stored.assign(check(value))

    # Storage.

    def build(self, variables: Any) -> None:
        """Create the slots, one of each kind for every variable."""
        if self.built:
            return
        super().build(variables)
        slots = [tuple(self._add_slot(name, v) for name in self._rule.slots) for v in variables]
        updates = [pipeline(self._rule, self.decay if self._use_weight_decay(v) else None) for v in variables]
        # In a namespace of their own: Keras and TensorFlow wrap lists that are attributes, to find variables in them.
        self._state = SimpleNamespace(
            slots=slots, updates=updates, step=_backend.Step(updates, list(variables), slots, self._constants)
        )

    def _add_slot(self, name: str, variable: Any) -> Any:
        """A slot in the dtype of the arithmetic, which the base class's own method would make in the variable's dtype."""
        path = getattr(variable, "path", variable.name).replace("/", "_").replace(":", "_")
        beside = nullcontext()
        if _BACKEND == "tensorflow":
            value = variable.value if isinstance(variable, keras.Variable) else variable
            beside = self._distribution_strategy.extended.colocate_vars_with(value)
        with beside:
            return self.add_variable(
                shape=variable.shape,
                dtype=compute_dtype(variable.dtype),
                layout=getattr(variable, "_layout", None),
                name=f"{path}_{name}",
            )

    # The step.

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """Update the variables by their gradients, after clipping; see `keras.optimizers.Optimizer.apply`."""
        super().apply(_backend.dense(grads), trainable_variables)

    def _apply_weight_decay(self, variables: Any) -> None:
        """Nothing: the decay is part of the update."""

    def _hyperparameters(self, learning_rate: Any) -> dict[str, Any]:
        return {"learning_rate": learning_rate, **{name: getattr(self, name) for name in self._varying}}

    def _backend_update_step(self, grads: Any, trainable_variables: Any, learning_rate: Any) -> None:
        """Update all variables at once, unless a distribution strategy wants to do it one by one."""
        indices = tuple(self._get_variable_index(v) for v in trainable_variables)
        if len(set(indices)) != len(indices):
            raise ValueError("A variable was given more than once in one step. Add its gradients up and give it once.")
        if _backend.one_by_one():
            super()._backend_update_step(grads, trainable_variables, learning_rate)
        else:
            self._state.step(indices, grads, self._hyperparameters(learning_rate))

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable; under a distribution strategy, the copy of it on the present device."""
        index = self._get_variable_index(variable)
        varying = self._hyperparameters(learning_rate)
        if not _backend.one_by_one():
            self._state.step((index,), [gradient], varying)
            return
        slots = self._state.slots[index]
        w_new, slots_new = _backend.new_values_of_one(
            self._state.updates[index], gradient, variable, slots, {**self._constants, **varying}
        )
        self.assign(variable, w_new)
        for s, s_new in zip(slots, slots_new, strict=True):
            self.assign(s, s_new)

    def finalize_variable_values(self, var_list: Any) -> None:
        """Put the moving averages in the place of the weights, if there are any; fit() does it at its end."""
        super().finalize_variable_values(var_list)
        if self.use_ema and _BACKEND == "jax":
            # Keras makes weight and average one array there, and the next fit() could not donate its buffer twice.
            for variable in var_list:
                variable.assign(ops.copy(variable.value))

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this optimizer again, without its state."""
        return {**super().get_config(), "decay": self.decay}
