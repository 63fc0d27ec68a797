"""The decay of the weights of rules that are not linear: which gradient balances it, and what is left without any."""

import math

import numpy as np

from polyak.check.identification.flips import LOWEST, TENSORS, Places, crossings, dtype, precision, tried
from polyak.check.identity import Decay, Number
from polyak.check.trial import Array, Refused, Subject, Trial

Told = tuple[Decay, Number | None, tuple[str, ...]]
NOT_TOLD: Told = ("unknown", None, ("The decay of the weights was not told.",))


def pull(subject: Subject, places: Places) -> Told:
    """The kind of the decay, its coefficient, and what could not be told.

    A decay that is added to the gradient is what turns the first step round: g + wd w is 0 at g = -wd w, whatever the rule
    makes of it. One that is beside the rule is what moves a weight without a gradient, in proportion to it. Each is named only
    if it predicts the steps of random gradients from random weights.

    Args:
        subject: The optimizer; it must be known that the first step has the sign of the gradient.
        places: Where its steps are told apart.

    Raises:
        Refused: By the subject.
    """
    inside = _inside(subject, places)
    if inside is not None and inside.value > LOWEST and _as_a_gradient(subject, places, inside.value):
        return "coupled", inside, ()
    return _beside(subject) if _as_a_part(subject, places) else NOT_TOLD


def parts(kind: Decay, coefficient: Number | None, rate: float) -> tuple[float, float]:
    """What of a weight is added to the gradient, and what to the step at this learning rate."""
    value = coefficient.value if coefficient else 0.0
    return (value if kind == "coupled" else 0.0, {"decoupled": value * rate, "independent": value}.get(kind, 0.0))


def _inside(subject: Subject, places: Places) -> Number | None:
    """The coefficient beside the gradient; 0 or None if there is none."""
    down = np.sign(tried(subject, places, np.ones((1, 1, 1)))[0, 0, 0])

    def above(table: Array) -> Array:
        answers: Array = tried(subject, places, -table[np.newaxis], np.ones_like(table))[0] * down < 0
        return answers

    return crossings(above, 1, places.columns, precision(subject, places))[0]


def _as_a_gradient(subject: Subject, places: Places, coefficient: float) -> bool:
    """Whether steps with g from w are those with g + wd w from 0; of whole tensors, whose steps may go with w, their signs."""
    weights, gradients = _random(places, 2 * coefficient)
    one = tried(subject, places, gradients, weights)
    other = tried(subject, places, gradients + coefficient * weights)
    if places is TENSORS:
        one, other = np.sign(one[:1]), np.sign(other[:1])
    # Rounding is that of a weight of 2 beside a step; Muon's products in bfloat16 round to 1 in 256.
    close = np.abs(one - other) <= 1e-2 * np.abs(other).max() + 4 * float(np.finfo(dtype(subject)).eps)
    return bool(close.mean() > 0.95 and np.any(one != 0))


def _as_a_part(subject: Subject, places: Places) -> bool:
    """Whether steps from w are those from 0 and those without a gradient together; whole tensors may go with w anyway."""
    if places is TENSORS:
        return True
    weights, gradients = _random(places, 1.0)
    both = tried(subject, places, gradients, weights)
    one = tried(subject, places, gradients)
    other = tried(subject, places, np.zeros_like(gradients), weights)
    rounding = 8 * float(np.finfo(dtype(subject)).eps)  # of a weight of 2
    return bool(np.all(np.abs(both - one - other) <= 1e-2 * np.abs(one).max() + 1e-6 * np.abs(other).max() + rounding))


def _random(places: Places, size: float) -> tuple[Array, Array]:
    """Weights between 1/2 and 2, and gradients about as large as is said."""
    random = np.random.default_rng(1)
    shape = (3, 1, min(places.columns, 50))
    weights = random.choice([-1.0, 1.0], shape[1:]) * random.uniform(0.5, 2, shape[1:])
    return weights, size * random.normal(size=shape)


def _beside(subject: Subject) -> Told:
    """The decay without a gradient, at two learning rates that make it large, and at the subject's own."""
    eps = float(np.finfo(dtype(subject)).eps)
    own = subject.defaults.get(subject.rate) if subject.rate else None
    random = np.random.default_rng(2)
    weights = random.choice([-1.0, 1.0], (3, 4)) * random.uniform(0.5, 2, (3, 4))

    def share(**options: float) -> Number | None:
        """By which weights shrink in a step."""
        steps = _without_gradient(subject, weights, **options)
        shares = steps / weights
        rounding = 4 * eps
        if np.ptp(shares) > rounding + 1e-6 * abs(shares).max():
            return None
        return Number(float(shares.mean()), rounding)

    try:
        rates = (1.0, 0.5) if subject.rate else ()
        found = [share(**{str(subject.rate): rate}) for rate in rates]
    except Refused:  # this learning rate, or that it be given as a number
        found = []
    if not found:
        alone = share()
        if alone is None:
            return NOT_TOLD
        if abs(alone.value) <= alone.error:
            return "none", Number(0.0, alone.error), ()
        return "unknown", None, (f"Without a gradient, weights shrink by a share of {alone.value:.4g} a step.",)
    whole, half = found
    if whole is None or half is None:
        return NOT_TOLD
    if abs(whole.value) <= whole.error and abs(half.value) <= half.error:
        return "none", Number(0.0, whole.error), ()
    power = math.log2(whole.value / half.value) if whole.value / half.value > 0 else math.nan
    slack = 3 * (whole.error / abs(whole.value) + half.error / abs(half.value)) + 1e-6
    if abs(power - 1) <= slack:
        return "decoupled", whole, ()
    if abs(power) <= slack:
        return "independent", whole, ()
    if abs(power - 2) <= slack and isinstance(own, int | float):
        # What is called decoupled goes with the learning rate once: as it is at this one.
        return (
            "decoupled",
            Number(whole.value * own, whole.error * own),
            ("The decay grows with the square of the learning rate.",),
        )
    return "unknown", None, (f"The decay grows with the power {power:.2f} of the learning rate.",)


def _without_gradient(subject: Subject, weights: Array, **options: float) -> Array:
    """Two steps without a gradient, of a matrix."""
    kind = dtype(subject)
    nothing = {"w": np.zeros_like(weights, kind)}
    return subject.run(Trial({"w": weights.astype(kind)}, [nothing] * 2, options, held=True)).steps("w")
