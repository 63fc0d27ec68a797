"""The sign of the gradient, or of a momentum: Signum's, Lion's.

    u_t = b1 m_(t-1) + (1 - b1) g_t        m_t = b2 m_(t-1) + (1 - b2) g_t        step_t = lr sign(u_t)

All steps are equally long, so nothing but their signs tells of b1 and b2: a gradient k steps ago weighs
r_k = b1 (1 - b2) b2^(k-1) / (1 - b1) beside that of the step. b1 = b2 is the sign of the velocity, Signum's; b1 = b2^2 that of
Nesterov's.

Sources: X. Chen et al., "Symbolic discovery of optimization algorithms", 2023, arXiv:2302.06675, for Lion; J. Bernstein,
Y.-X. Wang, K. Azizzadenesheli, A. Anandkumar, "signSGD: compressed optimisation for non-convex problems", 2018,
arXiv:1802.04434, for Signum.
"""

from typing import NamedTuple

import numpy as np

from polyak.check.identification.flips import ELEMENTS, LOWEST, VECTORS, Places, dtype, past, tried
from polyak.check.identification.lasting import reach
from polyak.check.identification.pull import parts, pull
from polyak.check.identity import Identity, Number
from polyak.check.trial import Array, Refused, Subject

LAGS = 8
STEPS = 24


class Velocity(NamedTuple):
    """What the weights of past gradients say, if they are those of one velocity.

    Attributes:
        momentum: b2; None if past gradients do not matter.
        share: b1.
        kind: "none", "velocity" (b1 = b2), "nesterov" (b1 = b2^2) or "apart".
    """

    momentum: Number | None
    share: Number | None
    kind: str


def sign(subject: Subject) -> Identity | None:
    """What an optimizer is that takes the sign of something linear in the gradients; None if it is none.

    Its momentum is named only if it predicts the steps of random gradients.

    Raises:
        Refused: By the subject.
    """
    eps = float(np.finfo(dtype(subject)).eps)
    random = np.random.default_rng(0)
    # Of many sizes, so that what is adaptive shows, and what is only cut off at a size.
    gradients = random.normal(size=(STEPS, 4, 50)) * 10.0 ** random.uniform(-5, 2, (STEPS, 4, 50))
    steps = tried(subject, ELEMENTS, gradients)
    size = float(np.abs(steps).max())
    # From weights of zero a step is exact but for its own product with the learning rate.
    if not 0 < size < np.inf or np.any(np.abs(np.abs(steps) - size) > 16 * eps * size):
        return None
    past_ones = past(subject, ELEMENTS, LAGS)
    velocity = one_velocity(past_ones)
    if velocity is None:
        return None
    direction = 1 if steps[0, 0, 0] * gradients[0, 0, 0] > 0 else -1
    if not predicted(velocity, gradients, steps * direction):
        return None
    kind, coefficient, doubts = pull(subject, ELEMENTS)
    decay, vague = parts(kind, coefficient, size), kind == "unknown"
    if not _trains(subject, velocity, size * direction, decay, ELEMENTS, vague=vague):
        return None
    vectors = True
    try:
        if not _trains(subject, velocity, size * direction, decay, VECTORS, vague=vague):
            vectors, doubts = False, (*doubts, "This holds for matrices; vectors go another way.")
    except Refused:
        doubts = (*doubts, "This holds for matrices; it takes no vectors.")
    return Identity(
        kind="sign",
        linear=False,
        time_invariant=True,
        elementwise=vectors,
        sign=direction,
        learning_rate=Number(size, 4 * eps * size),
        momenta=() if velocity.momentum is None else (velocity.momentum,),
        nesterov=velocity.kind == "nesterov",
        nu=velocity.share if velocity.kind == "apart" else None,
        decay=kind,
        weight_decay=coefficient,
        dtype=dtype(subject).__name__,
        noise=4 * eps,
        doubts=doubts,
    )


def one_velocity(found: list[Number | None]) -> Velocity | None:
    """The velocity, from r_1, r_2, ...; None if they are not those of one."""
    weights = [number for number in found if number is not None]
    if len(weights) < len(found):
        return None
    first = weights[0]
    if first.value <= LOWEST:
        return Velocity(None, None, "none") if all(weight.value <= LOWEST for weight in weights) else None
    # The longer the lag, the better the root of their ratio.
    far = max(lag for lag, weight in enumerate(weights) if weight.value > LOWEST)
    if far == 0:
        momentum = Number(0.0, weights[1].error / first.value)
    else:
        value = (weights[far].value / first.value) ** (1 / far)
        spread = weights[far].error / weights[far].value + first.error / first.value
        momentum = Number(value, value * spread / far)
    b2 = momentum.value
    for lag, weight in enumerate(weights):
        expected = first.value * b2**lag
        slack = first.error * b2**lag + first.value * lag * b2 ** max(lag - 1, 0) * momentum.error
        if abs(weight.value - expected) > 2 * (weight.error + slack):
            return None
    rest = 1 - b2
    b1 = first.value / (first.value + rest)
    # b1 = r / (r + 1 - b2): its derivatives by r and b2
    share = Number(b1, (rest * first.error + first.value * momentum.error) / (first.value + rest) ** 2)
    if share.error > 0.1:
        return None
    # An average that does not start at 0 but at 1e-6, as Yogi's, is off by 1e-6 / `SIZE`, times some.
    if abs(b1 - b2) <= share.error + momentum.error + 1e-7:
        return Velocity(momentum, share, "velocity")
    if abs(b1 - b2**2) <= share.error + 2 * momentum.error + 1e-7:
        return Velocity(momentum, share, "nesterov")
    return Velocity(momentum, share, "apart")


def sums(velocity: Velocity, gradients: Array) -> tuple[Array, Array]:
    """u_t of each step, and the sum of the sizes of its terms, beside which rounding is measured."""
    if velocity.momentum is None or velocity.share is None:
        return gradients, np.abs(gradients)
    b1, b2 = velocity.share.value, velocity.momentum.value
    average, size = np.zeros_like(gradients[0]), np.zeros_like(gradients[0])
    found, sizes = np.zeros_like(gradients), np.zeros_like(gradients)
    for step, gradient in enumerate(gradients):
        found[step] = b1 * average + (1 - b1) * gradient
        sizes[step] = b1 * size + (1 - b1) * np.abs(gradient)
        average = b2 * average + (1 - b2) * gradient
        size = b2 * size + (1 - b2) * np.abs(gradient)
    return found, sizes


def predicted(velocity: Velocity, gradients: Array, steps: Array) -> bool:
    """Whether steps have the signs of that velocity wherever it is not nearly zero."""
    found, sizes = sums(velocity, gradients)
    errors = [number.error for number in (velocity.momentum, velocity.share) if number is not None]
    # An error of a coefficient counts once a step that is remembered.
    clear = np.abs(found) > (1e-5 + 10 * STEPS * sum(errors)) * sizes
    return bool(clear.mean() > 0.9 and np.all(np.sign(steps[clear]) == np.sign(found[clear])))


def _trains(
    subject: Subject, velocity: Velocity, size: float, decay: tuple[float, float], places: Places, *, vague: bool
) -> bool:
    """Whether weights that are not held go the way that the rule says."""
    random = np.random.default_rng(2)
    # With an unknown decay from 0, near which it is small.
    weights = np.zeros((4, 50)) if vague else random.normal(size=(4, 50))
    # Past what an option may say of later steps.
    gradients = random.normal(size=(max(STEPS, reach(subject.defaults)), 4, 50))
    steps = tried(subject, places, gradients, weights, held=False)
    before = weights - np.concatenate([np.zeros((1, 4, 50)), np.cumsum(steps, axis=0)[:-1]])
    inside, beside = decay
    own = steps - beside * before
    rounding = 16 * float(np.finfo(dtype(subject)).eps) * np.abs(before).max()
    sized = np.abs(np.abs(own) - abs(size)) <= (0.02 if vague else 1e-4) * abs(size) + rounding
    return bool(np.all(sized) and predicted(velocity, gradients + inside * before, own / size))
