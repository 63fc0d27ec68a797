"""What the Keras front-ends of all methods have in common: storage, hyperparameters and the hooks of Keras's base class."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from polyak.arguments import check_cautious, check_decay, check_finite, check_learning_rate, check_max_norm
from polyak.groups import Given
from polyak.keras.backend import NAME, backend
from polyak.keras.groups import Groups, deserialized, path_of, serialized
from polyak.keras.guard import Guard, Guarded
from polyak.keras.hyperparameters import Common, Varying, checked
from polyak.keras.names import NAMES, check_order, written
from polyak.keras.values import Plan, compute_dtype, is_complex
from polyak.methods import Method
from polyak.rules import Rule
from polyak.update import Update, pipeline

# Part of the compiled step, where a later assignment would have no effect.
_FIXED = ("weight_decay", "decay", "cautious", "cautious_decay", "finite", "groups", "global_clipnorm")


class Optimizer(Varying, Guarded, keras.optimizers.Optimizer):
    """A Keras optimizer that applies a method. A subclass names the method and takes its arguments.

    Args:
        learning_rate: A number, a Keras schedule or a callable of the step.
        arguments: The method's own arguments by name.
        weight_decay, decay, cautious, cautious_decay, finite, groups, global_clipnorm: As in `Momentum`.
        name: The optimizer's name; by default the method's in lower case.
        **base: Other arguments of `keras.optimizers.Optimizer`.
    """

    _method: Method

    def __init__(
        self,
        learning_rate: Any,
        arguments: Mapping[str, Any],
        *,
        weight_decay: float | None = None,
        decay: Any = None,
        cautious: bool = False,
        cautious_decay: bool = False,
        finite: Any = "off",
        groups: Given | None = None,
        global_clipnorm: float | None = None,
        name: str | None = None,
        **base: Any,
    ) -> None:
        if unknown := base.keys() - Common.__annotations__.keys():
            raise TypeError(
                f"{type(self).__name__}() got an unexpected keyword argument {min(unknown)!r}. It takes "
                f"{', '.join(['learning_rate', *arguments, *Common.__annotations__])}."
            )
        method = self._method
        numbers = {name: checked(name, arguments[name], check) for name, check in method.varying.items()}
        numbers |= {name: check(arguments[name]) for name, check in method.constants.items()}
        given = {**numbers, **{name: arguments[name] for name in method.options}}
        own_groups = Groups(groups, method, decay)
        # One rule for all groups: a momentum is 0 for good, and needs no slot, where it is 0 in all of them.
        not_zero = {
            n: next((x for x in own_groups.all_values(n, given[n]) if isinstance(x, LearningRateSchedule) or x != 0), 0.0)
            for n in method.varying
        }
        rule = method.choose(**{**given, **not_zero})
        coefficients = [
            check_decay(x, decay if x else None)[0] for x in own_groups.all_values("weight_decay", weight_decay or 0)
        ]
        check_decay(max(coefficients), decay)
        check_cautious(cautious, cautious_decay, decay)
        pipeline(rule, decay)  # which not every rule can have
        check_finite(finite)

        super().__init__(
            learning_rate=checked("learning_rate", learning_rate, check_learning_rate),
            weight_decay=coefficients[0] or None,
            global_clipnorm=check_max_norm(global_clipnorm, "global_clipnorm"),
            name=name or method.name.lower(),
            **base,
        )
        # Past setattr, with which TensorFlow wraps tuples and dicts, to find variables in them.
        self.__dict__.update({name: given[name] for name in (*method.constants, *method.options)})
        self.__dict__.update(decay=decay, cautious=cautious, cautious_decay=cautious_decay, finite=finite, groups=groups)
        self._rule = rule
        self._groups = own_groups
        self._guard = None
        self._store_numbers(given, [name for name in method.varying if name in rule.hyperparameters])

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__ and name in (*_FIXED, *self._method.constants, *self._method.options):
            raise AttributeError(
                f"{name} is fixed when the optimizer is made, since the compiled step contains it. Make a new optimizer for "
                f"{name}={value!r}."
            )
        super().__setattr__(name, value)

    # Storage.

    def build(self, variables: Any) -> None:
        """Create the slots, one of each kind for every variable."""
        if self.built:
            return
        updates, groups = self._updates_of(variables, self.global_clipnorm is not None)
        super().build(variables)
        plan = Plan(updates, groups, tuple(range(len(updates))), self.global_clipnorm, self.finite != "off", backend.branches())
        if plan.guarded:
            self._guard = Guard(self, list(map(path_of, variables)))
        slots = [
            tuple(self._add_slot(name, v) for name in update.rule.slots) for v, update in zip(variables, updates, strict=True)
        ]
        step = backend.Step(plan, list(variables), slots, self._constants(), self._guard.variables if self._guard else ())
        # In a namespace of their own: Keras and TensorFlow wrap lists that are attributes, to find variables in them.
        self._state = SimpleNamespace(slots=slots, updates=updates, groups=groups, step=step)
        if self._recorder:
            self._recorder._build()

    def _updates_of(self, variables: Sequence[Any], clips: bool) -> tuple[tuple[Update, ...], tuple[int, ...]]:
        """For each variable its update and its group, whose numbers `_constants` and `_hyperparameters` give."""
        self._check_real(variables)
        groups = self._groups.of(variables)
        return tuple(self._update_of(v, group, clips) for v, group in zip(variables, groups, strict=True)), groups

    def _check_real(self, variables: Any) -> None:
        """Refuse complex variables where the step goes by signs, which complex numbers do not have."""
        by_sign = self._method.name if self._method.signs else "cautious=True" if self.cautious else None
        for v in variables:
            if is_complex(v) and (by_sign or self.cautious_decay):
                raise TypeError(
                    f"{by_sign or 'cautious_decay=True'} compares signs, which complex numbers do not have; {path_of(v)} is of "
                    f"{keras.backend.standardize_dtype(v.dtype)}."
                )

    def _update_of(self, variable: Any, group: int, clips: bool) -> Update:
        override = [{}, *self._groups.overrides.values()][group]
        decays = override.get("weight_decay", self.weight_decay) and self._use_weight_decay(variable)
        return pipeline(
            self._rule_of(variable),
            self.decay if decays else None,
            scale=clips,
            cautious=self.cautious,
            cautious_decay=self.cautious_decay and bool(decays),
        )

    def _rule_of(self, variable: Any) -> Rule:  # noqa: ARG002  (for methods whose rule depends on it)
        return self._rule

    def _constants(self) -> list[dict[str, Any]]:
        """The hyperparameters that never change: those outside all groups, then those of each group."""
        of_method = self._method.numbers({name: self._given[name] for name in self._method.constants})
        first = {"weight_decay": self.weight_decay or 0.0, **of_method}
        return [first, *({**first, **self._fixed_in(override)} for override in self._groups.overrides.values())]

    def _hyperparameters(self, learning_rate: Any) -> list[dict[str, Any]]:
        """The hyperparameters that may change, at this step: those outside all groups, then those of each group."""
        now = {name: self._now(name) for name in self._stored}
        # Of gradients that are accumulated, several calls make a step.
        of_step = self._method.at_step(ops.convert_to_tensor(self.iterations), self._given)
        first = {**now, **of_step, "learning_rate": learning_rate}
        return [first, *(self._varying_in(override, first) for override in self._groups.overrides.values())]

    @staticmethod
    def _fixed_in(override: Mapping[str, Any]) -> dict[str, Any]:
        return {name: x for name, x in override.items() if not isinstance(x, LearningRateSchedule)}

    def _varying_in(self, override: Mapping[str, Any], first: Mapping[str, Any]) -> dict[str, Any]:
        scheduled = {name: x(self._iterations) for name, x in override.items() if isinstance(x, LearningRateSchedule)}
        return {name: x for name, x in first.items() if name not in override} | scheduled

    def _add_slot(self, name: str, variable: Any) -> Any:
        """A slot in the dtype of the arithmetic, which the base class's own method would make in the variable's dtype."""
        path = path_of(variable).replace("/", "_").replace(":", "_")
        beside = nullcontext()
        if NAME == "tensorflow":
            value = variable.value if isinstance(variable, keras.Variable) else variable
            beside = self._distribution_strategy.extended.colocate_vars_with(value)
        with beside:
            return self.add_variable(
                shape=variable.shape,
                dtype=compute_dtype(variable.dtype),
                layout=getattr(variable, "_layout", None),
                name=f"{path}_{name}",
            )

    def save_own_variables(self, store: Any) -> None:
        """Save the state of this optimizer, without what a recorder keeps, and the names of the variables in their order."""
        own: dict[str, Any] = {}
        super().save_own_variables(own)
        for key, value in (self._recorder._without(own) if self._recorder else own).items():
            store[key] = value
        if self.built:
            store[NAMES] = written(self._names())

    def load_own_variables(self, store: Any) -> None:
        """Load the state of this optimizer.

        Raises:
            ValueError: It was saved with the same variables in another order: Keras loads by position.
        """
        saved = {key: store[key] for key in store.keys()}  # noqa: SIM118  (no dict)
        names = saved.pop(NAMES, None)
        if names is not None and self.built:
            check_order(names, self._names())
        super().load_own_variables(self._recorder._with(saved) if self._recorder else saved)
        self._forget_last_learning_rate()

    def _names(self) -> list[str]:
        return list(map(path_of, self._trainable_variables))

    # The step.

    _recorder: Any = None  # a `polyak.keras.recorder.Recorder`, which sees each step before it is made

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """Update the variables by their gradients, after clipping; see `keras.optimizers.Optimizer.apply`.

        Raises:
            FloatingPointError: In a loop that is not compiled, with `finite="error"`: a gradient is not finite.
        """
        super().apply(backend.dense(grads), trainable_variables)
        if backend.on_host():
            self.check_finite()

    def _apply_weight_decay(self, variables: Any) -> None:
        """Nothing: the decay is part of the update."""

    def _clip_gradients(self, grads: Any) -> Any:
        """Clipping by the norm of all gradients is part of the update; what Keras does to each by itself is left to it."""
        if self._recorder:
            self._recorder._before_clipping(grads)
        return grads if self.global_clipnorm is not None else super()._clip_gradients(grads)

    def _backend_update_step(self, grads: Any, trainable_variables: Any, learning_rate: Any) -> None:
        """Update all variables at once, or as a distribution strategy wants it."""
        indices = self._indices(trainable_variables)
        if backend.one_by_one():
            super()._backend_update_step(grads, trainable_variables, learning_rate)
        else:
            varying = self._hyperparameters(learning_rate)
            after = self._recorder and self._recorder._record(indices, grads, varying, self._iterations)
            self._state.step(indices, grads, varying, self._iterations)
            if after:
                after()

    def _distributed_tf_update_step(self, distribution: Any, grads_and_vars: Any, learning_rate: Any) -> None:
        """Update the copies of the variables by gradients that were summed over the replicas."""
        grads, variables = zip(*grads_and_vars, strict=True)
        varying = self._hyperparameters(learning_rate)
        self._state.step.update_copies(distribution, self._indices(variables), grads, variables, varying, self._iterations)

    def _indices(self, variables: Any) -> tuple[int, ...]:
        indices = tuple(self._get_variable_index(v) for v in variables)
        if len(set(indices)) != len(indices):
            raise ValueError("A variable was given more than once in one step. Add its gradients up and give it once.")
        return indices

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable. To `global_clipnorm` and `finite`, its gradient is all there is."""
        self._state.step(self._indices([variable]), [gradient], self._hyperparameters(learning_rate), self._iterations)

    def finalize_variable_values(self, var_list: Any) -> None:
        """Put the moving averages in the place of the weights, if there are any, and report; fit() does it at its end."""
        super().finalize_variable_values(var_list)
        if self.use_ema and NAME == "jax":
            # Keras makes weight and average one array there, and the next fit() could not donate its buffer twice.
            for variable in var_list:
                variable.assign(ops.copy(variable.value))
        if backend.on_host():
            self.check_finite()

    # Configuration.

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this optimizer again, without its state.

        Those of the method are the ones it was made with: a later assignment is state, and is saved and loaded with the slots.
        """
        return {
            **super().get_config(),
            **{name: serialized(value) for name, value in self._given.items()},
            **{name: getattr(self, name) for name in ("decay", "cautious", "cautious_decay", "finite")},
            "groups": self._groups.get_config(),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> "Optimizer":
        """The optimizer that `get_config` describes."""
        groups = config.get("groups") and {
            pattern: {name: deserialized(value, custom_objects) for name, value in numbers.items()}
            for pattern, numbers in config["groups"].items()
        }
        own = {name: deserialized(config[name], custom_objects) for name in cls._method.arguments if name in config}
        optimizer: Optimizer = super().from_config({**config, **own, "groups": groups}, custom_objects)
        return optimizer
