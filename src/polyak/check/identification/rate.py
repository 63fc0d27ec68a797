"""What another learning rate changes: the decay, and what becomes of the velocity when it is changed in mid-run."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from polyak.check.identification.names import Named
from polyak.check.identification.probes import LATE, Probes, over_weights
from polyak.check.identity import Number
from polyak.check.trial import Array, Refused, Subject, Trial

STEPS = 16
"""Those with the other learning rate."""
_AFTER = 6  # steps with the subject's own again
_WEIGHTS = {4: 1024, 8: 32}
"""By the bytes of a number: in float32 a decay of 1e-5 is few units in the last place, which many weights are to average."""
WITHIN = 8.0  # standard deviations of a mean over many weights, whose rounding is less regular than normal numbers
_SINGLE = 2.0**-23
"""What a number loses in float32, relative to it: Keras on TensorFlow passes the numbers of its options through it."""
_PRODUCT = "Only learning rate x (1 - dampening) was measured: it is"
_ASKED = "the learning rate is the one of the options."


@dataclass(frozen=True)
class Other:
    """An optimizer with `factor` times its learning rate, and then with its own again.

    Attributes:
        factor: See above.
        first: The steps after an impulse of 1 at the first step.
        response: After an impulse of 1 at step `LATE`.
        of_weights: The steps without a gradient over the weight.
        weights_spread: The standard deviation of `of_weights`.
        across: The steps after an impulse of 1 just before the learning rate became the subject's own again; None where it
            cannot be changed in mid-run.
        changed: The step of an impulse of 1 after that.
    """

    factor: float
    first: Array
    response: Array
    of_weights: Array
    weights_spread: float
    across: Array | None
    changed: float | None


def rate_of(subject: Subject) -> float | None:
    """The learning rate that the options say, if it is a number."""
    value: Any = subject.defaults.get(subject.rate) if subject.rate else None
    try:
        return None if isinstance(value, bool) or callable(value) else float(value)
    except (TypeError, ValueError):
        return None


def other(subject: Subject, probes: Probes) -> Other | None:
    """The optimizer with a learning rate at which a decay shows well, if that depends on it; None if it takes no other."""
    rate = rate_of(subject)
    if not rate or subject.rate is None:
        return None
    decay = _decay(probes.of_weights, float(np.max(probes.weights_spread)))
    changed = _first(subject, probes, rate, _power(decay, rate))
    if changed and not decay and (decay := _decay(changed.of_weights, changed.weights_spread) / changed.factor):
        return _first(subject, probes, rate, _power(decay, rate))
    return changed


def _decay(of_weights: Array, spread: float) -> float:
    """The largest step over the weight, 0 if all are rounding."""
    largest = float(np.max(np.abs(of_weights[:STEPS])))
    return largest if largest > WITHIN * spread else 0.0


def _power(decay: float, rate: float) -> float:
    """By which power of two to multiply the learning rate, which leaves all its digits as they are.

    At one at which 1/8 of the weight is lost in a step, few digits of a decay are lost. Where none is seen, a learning rate
    of about 100 shows a coefficient of 1e-8 in float32.
    """
    power = np.round(np.log2(0.125 / decay if decay else 128 / abs(rate)))
    return float(2.0 ** np.clip(power or 1, -60, 60))


def _first(subject: Subject, probes: Probes, rate: float, factor: float) -> Other | None:
    """With the factor, or a usual one, and with a change in mid-run, or without: the first that is not refused."""
    for tried, change in ((factor, True), (0.5, True), (factor, False), (0.5, False)):
        try:
            return _with(subject, probes, str(subject.rate), rate, tried, change=change)
        except Refused:
            continue
    return None


def _with(subject: Subject, probes: Probes, name: str, rate: float, factor: float, *, change: bool) -> Other:
    rng = np.random.default_rng(5)
    count = _WEIGHTS[probes.dtype.itemsize]
    weights = np.concatenate([np.zeros(4), rng.uniform(1, 2, count) * rng.choice([-1, 1], count)]).astype(probes.dtype)
    gradients = np.zeros((STEPS + _AFTER, len(weights)), probes.dtype)
    for column, step in enumerate((0, LATE, STEPS - 1, STEPS + 1)):
        gradients[step, column] = probes.unit
    parameter, shape = next(iter(probes.shapes.items()))
    width = weights.shape if len(shape) == 1 else (4, -1)
    trial = Trial(
        {parameter: weights.reshape(width)},
        [{parameter: g.reshape(width)} for g in gradients],
        {name: factor * rate},
        changes={STEPS: {name: rate}} if change else {},
        held=True,
    )
    steps = subject.run(trial).steps(parameter).reshape(len(gradients), -1)
    of_weights, spread = over_weights(steps[:STEPS, 4:] / weights[4:].astype(np.float64), probes.eps)
    first, response, across, changed = (steps[:, i] / probes.unit for i in range(4))
    return Other(
        factor,
        first[:STEPS],
        response[LATE:STEPS],
        of_weights,
        float(np.max(spread)),
        across[STEPS - 1 :] if change else None,
        float(changed[STEPS + 1]) if change else None,
    )


def velocity(probes: Probes, changed: Other | None) -> tuple[Literal["gradient", "step"] | None, tuple[str, ...]]:
    """The units of the velocity, from how an impulse before a change of the learning rate acts after it; and doubts."""
    if changed is None or changed.across is None or changed.changed is None:
        return None, ("The learning rate could not be changed in mid-run: the units of the velocity are not known.",)
    own, now = probes.response[:_AFTER], changed.across[:_AFTER]
    if abs(changed.changed - own[0]) > 64 * probes.rounding * float(np.max(np.abs(own))):
        return None, ("A learning rate that is changed in mid-run does not become the one of the next steps.",)
    past, now = own[1:], now[1:]
    level = 0.01 * float(np.max(np.abs(past)))  # the two differ by a factor of 2 at least
    if level <= float(probes.spread[1 + np.argmax(np.abs(past))]):  # nothing is remembered, or too little
        return None, ()
    if np.all(np.abs(now - past) <= level):
        return "gradient", ()
    if np.all(np.abs(now / changed.factor - past) <= level):
        return "step", ()
    return None, ("After a change of the learning rate, past gradients count neither with the new one nor with their own.",)


@dataclass(frozen=True)
class Rate:
    """A learning rate.

    Attributes:
        learning_rate: The learning rate.
        dampening: As `polyak.check.identity.Identity.dampening`.
        doubts: What was told by the options.
        agrees: Whether it is the one of the options, if they say one.
    """

    learning_rate: Number
    dampening: Number | None = None
    doubts: tuple[str, ...] = ()
    agrees: bool = True


def learning_rate(subject: Subject, found: Named, times: float | None, precision: float) -> Rate:
    """The learning rate of a rule, parted from its dampening where it has one.

    Only the product of the learning rate and (1 - dampening) acts on the weights. So the learning rate that the options say
    is taken for the true one, if then the dampening is 0, the momentum (the velocity is an average), the one that the options
    say, or the one that the first step goes without.

    Args:
        subject: The optimizer.
        found: The rule.
        times: How many times a later gradient that of the first step counts.
        precision: To which the optimizer has the numbers of its options, relative to them.
    """
    product, asked = found.number(0), rate_of(subject)
    if not asked:
        return Rate(product)
    off = max(product.error, precision * abs(asked))
    if found.rule.kind != "momentum":
        return Rate(product, agrees=abs(product.value - asked) <= max(off, _SINGLE * abs(asked)))
    option: Any = subject.defaults.get("dampening")
    named = [float(option)] if isinstance(option, int | float) and option < 1 else []
    unapplied = [1 - 1 / times] if times is not None and times > 1 else []
    momentum = found.number(1)
    for within in (off, max(off, _SINGLE * abs(asked))):
        for dampening in (0.0, *named, *unapplied, momentum.value):
            if abs(product.value - asked * (1 - dampening)) <= within + abs(asked) * momentum.error:
                share = Number(1 - product.value / asked, within / abs(asked))
                if dampening == 0:
                    return Rate(product, share)
                return Rate(Number(asked, within), share, (f"{_PRODUCT} {product.value:.4g}; {_ASKED}",))
    return Rate(product, None, (f"{_PRODUCT} {product.value:.4g}, which is not what the options say.",), agrees=False)
