"""Momentum: the heavy ball of Polyak (1964), and Nesterov's variant of it, in three units of velocity.

    symbol   argument         meaning
    g        gradient         of the loss with respect to the weight w
    lr       learning_rate    size of the step
    m        momentum         in [0, 1): how much of the velocity survives a step
    d        dampening        in [0, 1): how much of the gradient is held back
    v        slot "velocity"  past gradients, geometrically weighted; 0 before the first step

The three units are one method while lr and m stay constant (their velocities are multiples of each other) and part ways when
they change:

    gradient   v <- m v + (1 - d) g        step = lr v    a change of lr rescales the whole velocity at once
    step       v <- m v + lr (1 - d) g     step = v       past steps keep the learning rate that they were taken with
    average    v <- v + (1 - m) (g - v)    step = lr v    a change of m leaves the size of the velocity alone

Nesterov's variant steps along the velocity that the next iteration will have if the gradient stays the same: `m v + g` with the
new v (in its unit) in place of `v`.

Sources:
    "gradient", "step": B. T. Polyak, "Some methods of speeding up the convergence of iteration methods", USSR Computational
    Mathematics and Mathematical Physics 4(5), 1964, pp. 1-17, with the difference of the last two weights as
    the velocity. "step" is, up to the sign of v, equations (1) and (2) of I. Sutskever, J. Martens, G. Dahl, G. Hinton, "On
    the importance of initialization and momentum in deep learning", ICML 2013, PMLR 28(3), pp. 1139-1147.
    nesterov: Y. E. Nesterov, "A method of solving a convex programming problem with convergence rate O(1/k^2)", Soviet
    Mathematics Doklady 27(2), 1983, pp. 372-376, in the form of Y. Bengio, N. Boulanger-Lewandowski, R. Pascanu, "Advances in
    optimizing recurrent networks", ICASSP 2013, pp. 8624-8628, section 3.5: the weight that is stored is the point at which
    the gradient is taken.

Departures from the peers: torch.optim.SGD leaves the first gradient undampened; here dampening holds from the first step.
keras.optimizers.SGD is "step" with the sign of v reversed. torch.optim.SGD is "gradient".
"""

from typing import Any

from polyak.ops import Array, fma, one_minus
from polyak.rules.descent import DESCENT
from polyak.rules.rule import Rule, Slots

# One multiply-add a line, and fma where two products meet: with no rounding left to a compiler, every compiler finds the same
# bits. The unused w is there because every rule is given it.
# ruff: noqa: ARG001


def gradient(g: Array, w: Array, slots: Slots, h: Any) -> tuple[Array, Slots]:
    """v = m v + g; w = w - lr v."""
    (v,) = slots
    v = fma(h.momentum, v, g)
    return h.learning_rate * v, (v,)


def gradient_dampened(g: Array, w: Array, slots: Slots, h: Any) -> tuple[Array, Slots]:
    """v = m v + (1 - d) g; w = w - lr v. A rule of its own: with d = 0, an infinite gradient would make `g - d g` NaN."""
    (v,) = slots
    v = fma(h.momentum, v, g - h.dampening * g)
    return h.learning_rate * v, (v,)


def gradient_nesterov(g: Array, w: Array, slots: Slots, h: Any) -> tuple[Array, Slots]:
    """v = m v + g; w = w - lr (m v + g)."""
    (v,) = slots
    v = fma(h.momentum, v, g)
    return h.learning_rate * fma(h.momentum, v, g), (v,)


def step(g: Array, w: Array, slots: Slots, h: Any) -> tuple[Array, Slots]:
    """v = m v + lr g; w = w - v."""
    (v,) = slots
    v = fma(h.momentum, v, h.learning_rate * g)
    return v, (v,)


def step_dampened(g: Array, w: Array, slots: Slots, h: Any) -> tuple[Array, Slots]:
    """v = m v + lr (1 - d) g; w = w - v."""
    (v,) = slots
    v = fma(h.momentum, v, (h.learning_rate * one_minus(h.dampening)) * g)
    return v, (v,)


def step_nesterov(g: Array, w: Array, slots: Slots, h: Any) -> tuple[Array, Slots]:
    """v = m v + lr g; w = w - (m v + lr g)."""
    (v,) = slots
    s = h.learning_rate * g
    v = fma(h.momentum, v, s)
    return fma(h.momentum, v, s), (v,)


def average(g: Array, w: Array, slots: Slots, h: Any) -> tuple[Array, Slots]:
    """v = v + (1 - m) (g - v); w = w - lr v."""
    (v,) = slots
    v = fma(one_minus(h.momentum), g - v, v)
    return h.learning_rate * v, (v,)


def average_nesterov(g: Array, w: Array, slots: Slots, h: Any) -> tuple[Array, Slots]:
    """v = v + (1 - m) (g - v); w = w - lr (g + m (v - g)), which is lr (m v + (1 - m) g)."""
    (v,) = slots
    v = fma(one_minus(h.momentum), g - v, v)
    return h.learning_rate * fma(h.momentum, v - g, g), (v,)


_PLAIN = ("learning_rate", "momentum")
_DAMPENED = (*_PLAIN, "dampening")

VELOCITIES = ("gradient", "step", "average")

# (velocity, nesterov, dampened) -> rule
HEAVY_BALL = {
    ("gradient", False, False): Rule("gradient", gradient, ("velocity",), _PLAIN),
    ("gradient", False, True): Rule("gradient_dampened", gradient_dampened, ("velocity",), _DAMPENED),
    ("gradient", True, False): Rule("gradient_nesterov", gradient_nesterov, ("velocity",), _PLAIN),
    ("step", False, False): Rule("step", step, ("velocity",), _PLAIN),
    ("step", False, True): Rule("step_dampened", step_dampened, ("velocity",), _DAMPENED),
    ("step", True, False): Rule("step_nesterov", step_nesterov, ("velocity",), _PLAIN),
    ("average", False, False): Rule("average", average, ("velocity",), _PLAIN),
    ("average", True, False): Rule("average_nesterov", average_nesterov, ("velocity",), _PLAIN),
}


def heavy_ball(*, momentum: bool = True, velocity: str = "gradient", nesterov: bool = False, dampening: float = 0.0) -> Rule:
    """The rule for these options.

    Args:
        momentum: False when the momentum is 0 and stays so: the rule is then gradient descent, without a slot.
        velocity: "gradient", "step" or "average".
        nesterov: Step along the look-ahead velocity.
        dampening: In [0, 1). Only the value's being 0 or not matters here; the rule reads the value from `h`.

    Raises:
        ValueError: An unknown velocity, or options of which one would have no effect.

    Example:
        >>> heavy_ball(velocity="step", nesterov=True).name
        'step_nesterov'
    """
    if velocity not in VELOCITIES:
        raise ValueError(f"velocity must be one of {', '.join(map(repr, VELOCITIES))}; got {velocity!r}.")
    if nesterov not in (True, False):
        raise ValueError(f"nesterov must be True or False; got {nesterov!r}.")
    if not momentum and nesterov:
        raise ValueError("nesterov=True has no effect with momentum=0: give a momentum (0.9 is usual), or nesterov=False.")
    if not momentum and dampening:
        raise ValueError(
            f"dampening={dampening} has no meaning with momentum=0: give a momentum, or scale the learning rate instead."
        )
    if nesterov and dampening:
        raise ValueError(
            f"nesterov=True takes no dampening (its look-ahead counts the whole gradient); got dampening={dampening}. "
            "Leave one of the two out."
        )
    if velocity == "average" and dampening:
        raise ValueError(
            f'velocity="average" already weights the gradient with 1 - momentum; got dampening={dampening}. '
            'Leave dampening out, or use velocity="gradient" with dampening equal to the momentum.'
        )
    return HEAVY_BALL[velocity, nesterov, dampening > 0] if momentum else DESCENT
