"""The coefficients of adaptive rules, as far as they are of the usual form.

    m_t = b1 m_(t-1) + (1 - b1) g_t        s_t = b2 s_(t-1) + g_t^2        step_t = k_t m_t / sqrt(s_t)

with factors k_t of the step's number. The sign of a step tells b1. Then (m_t / step_t)^2 is a sum of squares of the gradients,
whose coefficients tell b2: 1 is the sum of Adagrad, less is the mean of Adam or RMSprop. A constant gradient would make steps
of a size that k_t tells: the learning rate, where there is one. Or gradients are scaled first and a velocity adds up what comes
of it, as RMSprop's: then what is left of one without gradients tells the momentum.

Sources: D. P. Kingma, J. Ba, "Adam: a method for stochastic optimization", 2014, arXiv:1412.6980; J. Duchi, E. Hazan,
Y. Singer, "Adaptive subgradient methods for online learning and stochastic optimization", 2011, Journal of Machine Learning
Research 12.
"""

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from polyak.check.identification.flips import ELEMENTS, SIZE, dtype, past, tried
from polyak.check.identification.lasting import reach
from polyak.check.identification.pull import parts, pull
from polyak.check.identification.signs import Velocity, one_velocity, predicted, sums
from polyak.check.identity import Identity, Number
from polyak.check.trial import Array, Subject

LAGS = 8
STEPS = 16
NONE = Velocity(None, None, "none")


def adaptive(subject: Subject, identity: Identity) -> Identity:
    """An identity of kind "adaptive" with what can be told of its coefficients and of its decay.

    Raises:
        Refused: By the subject.
    """
    if not identity.elementwise or identity.relative is not False:
        return _doubted(identity, "Its coefficients were not told.")
    kind, coefficient, doubts = pull(subject, ELEMENTS)
    identity = replace(identity, decay=kind, weight_decay=coefficient, doubts=(*identity.doubts, *doubts))
    gradients = _random(6)
    steps = tried(subject, ELEMENTS, gradients) * (identity.sign or 1)
    velocity, after = one_velocity(past(subject, ELEMENTS, LAGS)), None
    if velocity is None or not predicted(velocity, gradients, steps):
        velocity, after = NONE, _after(subject)
    steps = _unfolded(steps, after)
    if not predicted(velocity, gradients, steps):
        return _doubted(identity, "Its coefficients were not told.")
    momentum = velocity.momentum or after
    squares = _squares(velocity, gradients, steps)
    identity = replace(
        identity,
        momenta=() if momentum is None else (momentum,),
        nesterov=velocity.kind == "nesterov",
        nu=velocity.share if velocity.kind == "apart" else None,
        squares=squares,
    )
    if squares is None:
        return _doubted(identity, "How it remembers the size of gradients was not told.")
    factors = _factors(velocity, squares.value, gradients, steps)
    found = None if factors is None else _rate(velocity, squares.value, factors)
    if found is None:
        return _doubted(identity, "Its learning rate was not told.")
    rate, corrected = found
    rule = _Rule(velocity, after, squares.value, identity.sign or 1, parts(kind, coefficient, 1.0), corrected)
    # Named only if training goes the same way with other gradients; and with such as go on in one direction, for rules that
    # adapt themselves to how far the weights have come, past what an option may say of later steps.
    blocks = max(20, math.ceil(reach(subject.defaults) / STEPS))
    steady = np.abs(np.concatenate([_random(seed) for seed in range(8, 8 + blocks)])) * np.sign(gradients[0])
    if not _trains(subject, rule, rate.value, _random(7)) or not _trains(subject, rule, rate.value, steady):
        return _doubted(replace(identity, momenta=(), nesterov=None, nu=None, squares=None), "In training it goes another way.")
    identity = replace(identity, learning_rate=rate, corrected=corrected, scaled_first=after is not None)
    if not _trains(subject, rule, rate.value, _random(7) / SIZE):
        return _doubted(identity, "This holds for large gradients; those of about 1 are answered by other steps.")
    return identity


class _Rule(NamedTuple):
    """What was found: the momentum inside or after, b2, the sign, the decay in the gradient and beside a step of lr 1."""

    velocity: Velocity
    after: Number | None
    squares: float
    sign: int
    decay: tuple[float, float]
    corrected: tuple[bool, bool]


def _trains(subject: Subject, rule: _Rule, rate: float, gradients: Array) -> bool:
    """Whether weights that are not held are answered by the steps of the rule."""
    steps = tried(subject, ELEMENTS, gradients, held=False)
    before = -np.concatenate([np.zeros_like(steps[:1]), np.cumsum(steps, axis=0)[:-1]])
    inside, beside = rule.decay
    own = _unfolded((steps - rate * beside * before) * rule.sign, rule.after)
    # Steps that the weight rounds to less than three digits tell nothing.
    own = np.where(np.abs(own) > 4e3 * float(np.finfo(dtype(subject)).eps) * np.abs(before), own, 0)
    factors = _factors(rule.velocity, rule.squares, gradients + inside * before, own)
    expected = rate / _forms(rule.velocity, rule.squares, len(gradients))[rule.corrected]
    return factors is not None and bool(np.all(np.abs(factors - expected) <= 2e-3 * expected))


def _doubted(identity: Identity, doubt: str) -> Identity:
    return replace(identity, doubts=(*identity.doubts, doubt))


def _after(subject: Subject) -> Number | None:
    """The momentum of a velocity of steps that were scaled before, as RMSprop's: what is left of one, without gradients."""
    impulse = np.zeros((LAGS, 1, 1))
    impulse[0] = SIZE
    left = tried(subject, ELEMENTS, impulse)[:, 0, 0]
    if not left[0] or not np.all(np.isfinite(left)):
        return None
    momentum = float(left[1] / left[0])
    eps = float(np.finfo(dtype(subject)).eps)
    if not 0 < momentum < 1 or np.any(np.abs(left / left[0] - momentum ** np.arange(LAGS)) > 16 * LAGS * eps):
        return None
    return Number(momentum, 4 * eps)


def _unfolded(steps: Array, momentum: Number | None) -> Array:
    """Each step without what is left of the one before."""
    if momentum is None:
        return steps
    return steps - momentum.value * np.concatenate([np.zeros_like(steps[:1]), steps[:-1]])


def _random(seed: int) -> Array:
    random = np.random.default_rng(seed)
    shape = (STEPS, 4, 100)
    # Larger at some steps than at others, for rules that look at the norm.
    sizes = 2.0 ** random.uniform(-2, 2, (STEPS, 1, 1))
    gradients: Array = SIZE * sizes * random.choice([-1, 1], shape) * 10.0 ** random.uniform(-1, 1, shape)
    return gradients


def _squares(velocity: Velocity, gradients: Array, steps: Array) -> Number | None:
    """b2, if the squares of the denominators are sums of the squares of the gradients that fade with one factor."""
    ratios = []
    summed = sums(velocity, gradients)
    for last in range(STEPS // 2, STEPS):
        squared, shown = _denominators(summed, steps, last)
        terms = gradients[last::-1][: last + 1].reshape(last + 1, -1)[:, shown] ** 2
        # Relative to what they sum up to, so that all elements count alike.
        found, *_ = np.linalg.lstsq((terms / squared).T, np.ones(terms.shape[1]), rcond=None)
        if found[0] <= 0 or found[1] <= 0:
            return None
        ratios.append(found[1] / found[0])
    squares = Number(float(np.median(ratios)), float(np.ptp(ratios)) + 1e-9)
    factors = _factors(velocity, squares.value, gradients, steps)
    return squares if factors is not None and squares.error < 0.01 else None


def _denominators(summed: tuple[Array, Array], steps: Array, step: int) -> tuple[Array, Array]:
    """Of a step: the square of what its momentum was divided by, and of which elements, those that are known well."""
    found, sizes = (each[step].reshape(-1) for each in summed)
    taken = steps[step].reshape(-1)
    shown = (np.abs(found) > 0.05 * sizes) & (taken != 0)
    return (found[shown] / taken[shown]) ** 2, shown


def _factors(velocity: Velocity, squares: float, gradients: Array, steps: Array) -> Array | None:
    """k of each step; None if it is not the same number for all elements."""
    faded = np.zeros_like(gradients[0])
    factors = []
    summed = sums(velocity, gradients)
    for step, gradient in enumerate(gradients):
        faded = squares * faded + gradient**2
        squared, shown = _denominators(summed, steps, step)
        each = np.sqrt(faded.reshape(-1)[shown] / squared)
        # An epsilon changes them by 1e-3 / `SIZE` times 10, for the small gradients; float32 by 1e-6.
        if not len(each) or np.ptp(each) > 1e-3 * np.median(each):
            return None
        factors.append(float(np.median(each)))
    return np.array(factors)


def _rate(velocity: Velocity, squares: float, factors: Array) -> tuple[Number, tuple[bool, bool]] | None:
    """The learning rate: the steps that a constant gradient makes, or comes to; of a sum, the first. And what is corrected."""
    for corrected, multiples in _forms(velocity, squares, len(factors)).items():
        form = factors * multiples
        if np.ptp(form) <= 1e-3 * form.mean():
            return Number(float(form.mean()), float(np.ptp(form)) + 1e-6 * float(form.mean())), corrected
    return None


def _forms(velocity: Velocity, squares: float, steps: int) -> dict[tuple[bool, bool], Array]:
    """By what is corrected, the numbers by which the factors k of so many steps are all the learning rate."""
    count = np.arange(1, steps + 1)
    gains = sums(velocity, np.ones((steps, 1)))[0][:, 0]
    sizes = gains / np.sqrt(np.cumsum(squares ** np.arange(steps)))
    if abs(squares - 1) < 1e-6:
        return {(True, True): sizes * np.sqrt(count)}
    # The averages are divided by 1 - b^t as in Adam, or one of them or both are not.
    faded = 0.0 if velocity.momentum is None else velocity.momentum.value
    momentum, root = 1 - faded**count, np.sqrt(1 - squares**count)
    return {
        (True, True): sizes,
        (True, False): sizes * root,
        (False, True): sizes / momentum,
        (False, False): sizes * root / momentum,
    }
