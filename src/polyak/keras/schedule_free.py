"""ScheduleFree in Keras."""

import warnings
from types import SimpleNamespace
from typing import Any, Unpack

import keras
from keras import ops

from polyak.averaged import AverageSwitch, average_of
from polyak.averaging import warmed_up, warmed_up_groups
from polyak.keras.groups import Groups, path_of
from polyak.keras.hyperparameters import Common, Hyperparameter, Number
from polyak.keras.optimizer import Optimizer
from polyak.keras.values import compute_dtype
from polyak.methods import SCHEDULE_FREE_METHOD

# The moving average of Keras, whose options are in every configuration.
_UNUSED = {"use_ema": False, "ema_momentum": 0.99, "ema_overwrite_frequency": None}


@keras.saving.register_keras_serializable(package="polyak")
class ScheduleFree(AverageSwitch, Optimizer):
    """Gradient descent whose average of the weights takes the place of a falling learning rate.

    Three sequences begin at the same weights. At each step

        z = z - learning_rate * g                   g is the gradient at y
        x = (1 - c) * x + c * z                     c is 1 at the first step, 1 / t at step t
        y = (1 - momentum) * z + momentum * x

    The variables are y while they are trained. What is to be evaluated and used is x. In fit() the callback
    `polyak.keras.Averaged` sees to that, and a fit() without it warns; elsewhere the variables are x within
    `with optimizer.averaged()`. The statistics of batch normalisation are those of y: let the model see some batches in train
    mode within the context. `polyak.rules.schedule_free` has the source.

    Args:
        learning_rate: A number >= 0, a schedule or a callable of the step, as in `Momentum`. It needs no schedule but the
            warm-up: weights count in the average as if it were constant from there.
        momentum: In (0, 1]: how far y leans towards x. A number, a schedule or a callable of the step.
        warmup_steps: The learning rate goes up along a line and is `learning_rate`, a number then, from the update of this
            number on. It is a schedule then, which cannot be assigned. Weights count in the average by the square of the
            learning rate.
        **common: weight_decay, decay, cautious, cautious_decay, finite, groups, and what every Keras optimizer takes but
            `use_ema` and what belongs to it, as in `Momentum`. The authors' decay is "coupled".

    Attributes:
        warned: Whether fit() warned; True keeps it from doing so.

    Raises:
        ValueError: A number out of its range, options of which one would have no effect, a warm-up of a schedule, use_ema.
        TypeError: An argument of another type; a callable that does not take the step.

    Example:
        >>> import keras, polyak.keras
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        >>> model.compile(polyak.keras.ScheduleFree(1.0, warmup_steps=100), loss="mse")
        >>> model.fit(x, y, validation_data=(x_val, y_val), callbacks=[polyak.keras.Averaged()])
    """

    _method = SCHEDULE_FREE_METHOD

    momentum = Hyperparameter()

    def __init__(
        self,
        learning_rate: Number = 1.0,
        momentum: Number = 0.9,
        *,
        warmup_steps: int = 0,
        **common: Unpack[Common],
    ) -> None:
        for option, unused in _UNUSED.items():
            if (value := common.get(option, unused)) != unused:
                raise ValueError(f"{option}={value!r} is about an average of weights that are averaged already: leave it out.")
        calls = common.get("gradient_accumulation_steps") or 1
        groups = common.get("groups")
        warmed: Any = {**common, "groups": warmed_up_groups(groups, warmup_steps, calls)}
        arguments = {"momentum": momentum, "warmup_steps": warmup_steps}
        super().__init__(warmed_up(learning_rate, warmup_steps, calls), arguments, **warmed)
        # What is in the configuration, from which the warm-up is made anew.
        self.__dict__.update(groups=groups)
        self._before_warmup = learning_rate
        self.warned = False
        # The weights that are trained, by their place, while the variables are averages, and the count of updates then. In a
        # namespace of its own: Keras and TensorFlow wrap dicts that are attributes.
        self._kept = SimpleNamespace(weights={}, at=0)
        self._seen_to = False  # whether this fit() has the callback

    def averages(self) -> dict[str, Any]:
        """The averages by the variables' paths, in new tensors: what is to be saved for use. Not for compiled code.

        The momentum is that of the next step.

        Raises:
            ValueError: The optimizer was not built.
        """
        if not self.built:
            raise ValueError("There is no average before the optimizer was built: call build(model.trainable_variables).")
        return {path_of(v): self._average(i) for i, v in enumerate(self._trainable_variables)}

    def _average(self, i: int) -> Any:
        variable, (lead,) = self._trainable_variables[i], self._state.slots[i]
        numbers = self._state.step.numbers(self._hyperparameters(0.0))[self._state.groups[i]]
        momentum = float(ops.convert_to_numpy(numbers["momentum"]))
        weight = self._kept.weights.get(i, variable)
        average = average_of(ops.cast(weight, compute_dtype(variable.dtype)), ops.convert_to_tensor(lead), momentum)
        return ops.cast(average, keras.backend.standardize_dtype(variable.dtype))

    # The switch.

    def _has_aside(self) -> bool:
        return bool(self._kept.weights)

    def _put_aside(self) -> None:
        if not self.built:
            return
        averages = list(self.averages().values())
        variables = list(enumerate(self._trainable_variables))
        # Copies: what is compiled by JAX may take over the memory of a variable.
        kept = self._kept.weights or {i: ops.copy(ops.convert_to_tensor(v)) for i, v in variables}
        self._kept = SimpleNamespace(weights=kept, at=self._updates())
        for (_, v), average in zip(variables, averages, strict=True):
            v.assign(average)

    def _bring_back(self) -> None:
        for i, weight in self._kept.weights.items():
            self._trainable_variables[i].assign(weight)
        self._kept = SimpleNamespace(weights={}, at=0)

    def _updates(self) -> int:
        return int(ops.convert_to_numpy(self._iterations))

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """Update the variables by their gradients, as `Momentum.apply` does.

        Raises:
            RuntimeError: The variables are averages. Compiled code is seen when it is traced.
        """
        self._before_step()
        super().apply(grads, trainable_variables)

    def finalize_variable_values(self, var_list: Any) -> None:
        """Look back at a fit(), which calls this at its end.

        Raises:
            RuntimeError: It trained averages, which another fit() had left in the model.
        """
        super().finalize_variable_values(var_list)
        if self._has_aside() and self._updates() > self._kept.at:
            raise RuntimeError(
                "fit() has trained from the average, which the fit() before it left in the model, for it ran without the "
                "callback polyak.keras.Averaged(). Load the model as it was, and give each fit() the callback."
            )
        seen, self._seen_to = self._seen_to, False
        if not (seen or self.warned):
            self.warned = True
            warnings.warn(
                "fit() ran without the callback polyak.keras.Averaged(). The model has the weights at which gradients are "
                "taken, and so had validation and what was saved; what is to be used is their average: "
                "`with optimizer.averaged(): evaluate(model)`.",
                RuntimeWarning,
                stacklevel=3,
            )

    # Configuration and state.

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this optimizer again, without its state."""
        config = super().get_config()
        if self.warmup_steps > 1:
            config["learning_rate"] = float(self._before_warmup)
            config["groups"] = Groups(self.groups, self._method, self.decay).get_config()
        return config

    def save_own_variables(self, store: Any) -> None:
        """Save the state of this optimizer, with the weights that are trained if the variables are averages."""
        super().save_own_variables(store)
        for i, weight in self._kept.weights.items():
            store[f"trained_{i}"] = ops.convert_to_numpy(weight)

    def load_own_variables(self, store: Any) -> None:
        """Load the state of this optimizer."""
        kept = {key: store[key] for key in store.keys() if key.startswith("trained_")}  # noqa: SIM118  (no dict)
        super().load_own_variables({key: store[key] for key in store.keys() if key not in kept})  # noqa: SIM118
        weights = {int(key.removeprefix("trained_")): ops.convert_to_tensor(value) for key, value in kept.items()}
        self._kept = SimpleNamespace(weights=weights, at=self._updates())
