"""Momentum in Keras."""

from typing import Literal

import keras

from polyak.groups import Given
from polyak.keras.hyperparameters import Hyperparameter, Number
from polyak.keras.optimizer import Optimizer
from polyak.methods import MOMENTUM


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
        cautious: Weights move only where the step goes down the present gradient; see `polyak.update.cautious_step`.
        cautious_decay: The decoupled decay acts only where the step goes its way; see `polyak.update.cautious_decay`.
        finite: What becomes of a step in which a gradient has a NaN or an infinity. "skip" leaves it out, so that weights and
            slots stay as they are, and counts it in `skipped`. "error" also raises FloatingPointError, with the names of the
            variables, when the host looks: at once in a loop that is not compiled, else at `check_finite()`, at `skipped`, at
            the end of fit(), and at the end of each epoch with `polyak.keras.FiniteCheck`. "off" does not look. Either way
            schedules go on.
        groups: Numbers that differ for some variables: for each regular expression, a dict with any of `learning_rate`,
            `momentum` (numbers or schedules) and `weight_decay`. A variable belongs to the first one that is found in its
            path. They stay as they are given.
        clipnorm: As in every Keras optimizer, as are the following. The norm of each gradient is at most this.
        clipvalue: Each element of a gradient is at most this in magnitude.
        global_clipnorm: The norm of all gradients together is at most this. A norm that is not finite is not hidden: see
            `polyak.update.clip_scale`.
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
            or options of which one would have no effect (nesterov or dampening with momentum=0, a pattern in `groups` that is
            found in no path when the optimizer is built, ...).
        TypeError: An argument of another type; a callable that does not take the step.

    Example:
        >>> import keras, polyak.keras
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        >>> model.compile(polyak.keras.Momentum(0.1, momentum=0.9, nesterov=True), loss="mse")
    """

    _method = MOMENTUM

    momentum = Hyperparameter()

    def __init__(
        self,
        learning_rate: Number = 0.01,
        momentum: Number = 0.9,
        *,
        nesterov: bool = False,
        velocity: Literal["gradient", "step", "average"] = "gradient",
        dampening: float = 0.0,
        weight_decay: float | None = None,
        decay: Literal["coupled", "decoupled"] | None = None,
        cautious: bool = False,
        cautious_decay: bool = False,
        finite: Literal["error", "skip", "off"] = "off",
        groups: Given | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(
            learning_rate,
            {"momentum": momentum, "nesterov": nesterov, "velocity": velocity, "dampening": dampening},
            weight_decay=weight_decay,
            decay=decay,
            cautious=cautious,
            cautious_decay=cautious_decay,
            finite=finite,
            groups=groups,
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
