"""Momentum in Keras."""

from collections.abc import Callable
from typing import Any, Literal

import keras
from keras.optimizers.schedules import LearningRateSchedule

from polyak.arguments import check_dampening, check_momentum
from polyak.keras.optimizer import Optimizer
from polyak.keras.schedules import as_schedule
from polyak.rules import heavy_ball


@keras.saving.register_keras_serializable(package="polyak")
class Momentum(Optimizer):
    """Gradient descent with momentum.

    With the gradient g of the loss with respect to a weight w, and a velocity v that starts at 0, each step is

        v = momentum * v + g
        w = w - learning_rate * v

    Args:
        learning_rate: A number >= 0, a Keras schedule, or a callable that takes the step (a float32 scalar that starts at 0)
            and returns the value; evaluated inside the compiled step. `optimizer.learning_rate = x` changes a number.
        momentum: In [0, 1): how much of the velocity survives a step. Like `learning_rate`, a number, a schedule or a
            callable of the step, and `optimizer.momentum = x` between steps has effect at the next one, in compiled code
            too. With 0 this is gradient descent, without a velocity in memory.
        nesterov: Step along `momentum * v + g`, with the new v, instead of v.
        velocity: The unit in which v is kept; see `polyak.rules.heavy_ball`.
            "gradient": v = m v + (1 - dampening) g, w = w - lr v. As in torch.optim.SGD.
            "step": v = m v + lr (1 - dampening) g, w = w - v. Past steps keep the learning rate that they were taken with.
            As in keras.optimizers.SGD, whose v has the other sign.
            "average": v = v + (1 - m) (g - v), w = w - lr v. An average of gradients.
        dampening: In [0, 1): the part of each gradient, from the first on, that is kept out of the velocity.
        weight_decay: A coefficient >= 0, together with `decay`. `exclude_from_weight_decay` leaves variables out.
        decay: "coupled" adds weight_decay * w to the gradient, as torch.optim.SGD does with its weight_decay. "decoupled"
            takes learning_rate * weight_decay * w from the weight beside the step, as Keras's optimizers do with theirs.
        clipnorm: As in every Keras optimizer, as are the following. The norm of each gradient is at most this.
        clipvalue: Each element of a gradient is at most this in magnitude.
        global_clipnorm: The norm of all gradients together is at most this.
        use_ema: Keep a moving average of the weights.
        ema_momentum: How much of that average survives a step.
        ema_overwrite_frequency: After how many steps the average replaces the weights.
        loss_scale_factor: The loss was multiplied by this; the gradients are divided by it.
        gradient_accumulation_steps: Update only every so many steps, by the average of the gradients since. Schedules count
            each call, as Keras's do.
        name: The optimizer's name.

    Weights of any floating dtype are updated; for float16 and bfloat16 the velocity is float32 and so is the arithmetic.
    Gradients that are `tf.IndexedSlices` give the result of the dense gradient. Gradients are never written to.

    Raises:
        ValueError: A number out of its range, an unknown `velocity` or `decay`, weight_decay and decay without each other,
            or options of which one would have no effect (nesterov or dampening with momentum=0, ...).
        TypeError: An argument of another type; a callable that does not take the step.

    Example:
        >>> import keras, polyak.keras
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        >>> model.compile(polyak.keras.Momentum(0.1, momentum=0.9, nesterov=True), loss="mse")
    """

    _fixed = (*Optimizer._fixed, "nesterov", "velocity", "dampening")

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule | Callable[[Any], Any] = 0.01,
        momentum: float | LearningRateSchedule | Callable[[Any], Any] = 0.9,
        *,
        nesterov: bool = False,
        velocity: Literal["gradient", "step", "average"] = "gradient",
        dampening: float = 0.0,
        weight_decay: float | None = None,
        decay: Literal["coupled", "decoupled"] | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str = "momentum",
    ) -> None:
        given = as_schedule("momentum", momentum) or check_momentum(momentum)
        dampening = check_dampening(dampening)
        rule = heavy_ball(momentum=given != 0, velocity=velocity, nesterov=nesterov, dampening=dampening)
        super().__init__(
            rule,
            learning_rate,
            varying=("momentum",) if "momentum" in rule.hyperparameters else (),
            constants={"dampening": dampening},
            weight_decay=weight_decay,
            decay=decay,
            clipnorm=clipnorm,
            clipvalue=clipvalue,
            global_clipnorm=global_clipnorm,
            use_ema=use_ema,
            ema_momentum=ema_momentum,
            ema_overwrite_frequency=ema_overwrite_frequency,
            loss_scale_factor=loss_scale_factor,
            gradient_accumulation_steps=gradient_accumulation_steps,
            name=name,
        )
        self.nesterov = nesterov
        self.velocity = velocity
        self.dampening = dampening
        self._given_momentum = given
        self._momentum = self._add_hyperparameter("momentum", given) if self._varying else given

    @property
    def momentum(self) -> Any:
        """The momentum at this step: the variable that holds it, or the value of its schedule."""
        return self._now(self._momentum)

    @momentum.setter
    def momentum(self, value: Any) -> None:
        if not self._varying:
            raise TypeError(
                f"This optimizer was made with momentum=0 and keeps no velocity; momentum={value!r} would need one. "
                "Make it with the momentum that it shall have."
            )
        self._assign_number("momentum", self._momentum, value, check_momentum)

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this optimizer again, without its state.

        `momentum` is the one it was made with: a later assignment is state, and is saved and loaded with the velocities.
        """
        given = self._given_momentum
        if isinstance(given, LearningRateSchedule):
            given = keras.optimizers.schedules.serialize(given)
        return {
            **super().get_config(),
            "momentum": given,
            "nesterov": self.nesterov,
            "velocity": self.velocity,
            "dampening": self.dampening,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> "Momentum":
        """The optimizer that `get_config` describes."""
        momentum = config["momentum"]
        if isinstance(momentum, dict):
            momentum = keras.saving.deserialize_keras_object(momentum, custom_objects=custom_objects)
        optimizer: Momentum = super().from_config({**config, "momentum": momentum}, custom_objects)
        return optimizer
