"""What an optimizer turned out to be."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

Kind = Literal[
    "still",  # the weights never move
    "descent",
    "momentum",  # one velocity: heavy ball, or Nesterov's
    "qhm",  # one velocity and a share of the gradient that is not Nesterov's
    "several",  # a mean of several velocities, as AggMo's
    "linear",  # linear and the same at each step, and none of these
    "sign",  # the sign of the gradient, or of a momentum
    "normalised",  # the size of a tensor's step does not depend on that of its gradient, its direction does
    "adaptive",  # that of each element's step does not
    "orthogonalised",  # the singular values of a matrix's step are alike
    "unknown",
]
Decay = Literal["none", "coupled", "decoupled", "independent", "unknown"]


@dataclass(frozen=True)
class Number:
    """What was measured.

    Attributes:
        value: The best estimate.
        error: How far the true value may be from it.
    """

    value: float
    error: float

    def agrees(self, expected: float) -> bool:
        """Whether it may be this value."""
        return abs(self.value - expected) <= self.error


@dataclass(frozen=True)
class Identity:
    """The recurrence that an optimizer follows, as far as it was told. None is for what was not told or is not there.

    Attributes:
        kind: What it is.
        linear: Whether steps are proportional to gradients, and those of a sum are the sum of those.
        time_invariant: Whether a step does not depend on its number.
        elementwise: Whether an element's step depends on its own gradients alone.
        sign: 1 where steps go down the gradient, -1 where they go up.
        learning_rate: What gradients are multiplied by, with what is said of it in `doubts` where it cannot be parted from a
            dampening. In units of the weight a unit of gradient; of "sign" and the like, of the weight.
        momenta: The factor of each velocity, the largest first. Of "sign", Lion's b2 as the factor of what is remembered.
        nesterov: Whether the momentum is Nesterov's.
        nu: The share of the velocity, in QHM; of a sign, Lion's b1.
        dampening: The share of a gradient that does not enter the velocity. Equal to the momentum, the velocity is an average.
        velocity: Its units, told by a change of the learning rate: "gradient" (the new one is for past gradients) or "step".
        decay: Of the weights.
        weight_decay: Its coefficient: of "coupled", beside the gradient; of "decoupled", beside the learning rate; of
            "independent", of the weight itself.
        first_step: How the first step differs from the later ones, in words; None where it does not.
        clip: The norm above which gradients are scaled down, and what it is taken over: "all" parameters, each "tensor" or each
            "element".
        over: What is scaled to one size, of "normalised": each "tensor", or "all" parameters together.
        relative: Whether steps are in proportion to the norm of the tensor's weights: the trust ratio of LARS and LAMB.
        squares: Of "adaptive": the factor with which squares of gradients are remembered, Adam's b2; 1 for a sum, Adagrad's.
        corrected: Of "adaptive": whether the averages of gradients and of squares are divided by 1 - their factor^t, as Adam's;
            t is the number of steps.
        scaled_first: Whether the velocity adds up gradients that were scaled before, as RMSprop's and LARS's; what is scaled is
            the velocity otherwise.
        seen: The number of steps over which it was seen, where an option may say that another rule begins after more.
        impulse: The steps after one gradient of 1, the first of them at that gradient.
        poles: Of the transfer function from gradient to step: step_t = direct g_t + the sum over poles and k of r p^k g_{t-k}.
        residues: See `poles`.
        direct: See `poles`.
        dtype: Of the measurement: "float64" or "float32".
        noise: The level below which a step is rounding, relative to the largest.
        doubts: What could not be told, or was told by what the options say.
        refused: Whether the optimizer refused to be measured.
    """

    kind: Kind
    linear: bool | None = None
    time_invariant: bool | None = None
    elementwise: bool | None = None
    sign: int | None = None
    learning_rate: Number | None = None
    momenta: tuple[Number, ...] = ()
    nesterov: bool | None = None
    nu: Number | None = None
    dampening: Number | None = None
    velocity: Literal["gradient", "step"] | None = None
    decay: Decay = "unknown"
    weight_decay: Number | None = None
    first_step: str | None = None
    clip: tuple[Number, Literal["all", "tensor", "element"]] | None = None
    over: Literal["all", "tensor"] | None = None
    relative: bool | None = None
    squares: Number | None = None
    corrected: tuple[bool, bool] | None = None
    scaled_first: bool | None = None
    seen: int | None = None
    impulse: np.ndarray[Any, Any] = field(default_factory=lambda: np.zeros(0))
    poles: np.ndarray[Any, Any] = field(default_factory=lambda: np.zeros(0))
    residues: np.ndarray[Any, Any] = field(default_factory=lambda: np.zeros(0))
    direct: float = 0.0
    dtype: str = "float32"
    noise: float = 0.0
    doubts: tuple[str, ...] = ()
    refused: bool = False
