"""What becomes of weights without gradients: no decay, a coupled one, or a decoupled one, for a learning rate or for any."""

from dataclasses import dataclass

import numpy as np

from polyak.check.identification.probes import Probes
from polyak.check.identification.rate import WITHIN, Other, other, rate_of
from polyak.check.identity import Decay, Number
from polyak.check.trial import Array, Subject

_NONE = Number(0.0, 0.0)


@dataclass(frozen=True)
class Decayed:
    """A decay.

    Attributes:
        kind: Which.
        inside: What of the weight is added to the gradient.
        beside: What of the weight is added to the step.
        doubts: What was strange, or could not be told.
    """

    kind: Decay
    inside: Number = _NONE
    beside: Number = _NONE
    doubts: tuple[str, ...] = ()

    def coefficient(self, learning_rate: Number | None) -> Number | None:
        """As its kind has it: see `polyak.check.identity.Identity.weight_decay`."""
        if self.kind == "coupled":
            return self.inside
        if self.kind == "independent":
            return self.beside
        if self.kind == "decoupled" and learning_rate and learning_rate.value:
            value = self.beside.value / learning_rate.value
            return Number(value, (self.beside.error + abs(value) * learning_rate.error) / abs(learning_rate.value))
        return None


@dataclass(frozen=True)
class _Seen:
    """At each step: what a weight of 1 is stepped by without a gradient, and what a gradient of 1 at every step would do."""

    of_weights: Array
    of_gradients: Array
    spread: float
    eps: float

    def share(self, pattern: Array) -> Number | None:
        """How many times the pattern the weight is stepped by; None if it is no multiple of it."""
        largest = float(np.max(np.abs(pattern)))
        if not largest:
            return None
        share = float(pattern @ self.of_weights / (pattern @ pattern))
        spread = WITHIN * self.spread
        level = 4 * len(pattern) * self.eps * abs(share) * largest
        if not np.all(np.abs(self.of_weights - share * pattern) <= spread + level):
            return None
        # Held weights are rounded alike at each step: more steps make it no more exact.
        return Number(share, spread / largest + 8 * self.eps * abs(share))

    def inside(self) -> Number | None:
        return self.share(self.of_gradients)

    def beside(self) -> Number | None:
        share = self.share(np.ones(len(self.of_weights)))
        # Who multiplies the weight by 1 - decay rounds that, for all weights alike.
        return share and Number(share.value, share.error + self.eps / 2)

    def nothing(self) -> bool:
        return bool(np.all(np.abs(self.of_weights) <= WITHIN * self.spread))


def decayed(probes: Probes, changed: Other | None, sign: int) -> Decayed:
    """The decay of a linear optimizer.

    Args:
        probes: Of it.
        changed: The same with another learning rate, where it takes one.
        sign: That of its steps: a coupled decay is added to the gradient as it is used.
    """
    own = _Seen(probes.of_weights, sign * probes.operator.sum(axis=1), float(np.max(probes.weights_spread)), probes.rounding)
    seen, factor = (own, 1.0) if changed is None else (_seen(changed, sign, probes.rounding), changed.factor)
    if own.nothing() and seen.nothing():
        return Decayed("none")
    beside, before = seen.beside(), own.beside()
    inside, inside_before = seen.inside(), own.inside()
    if inside and inside_before and _agree(inside, inside_before):
        doubts = ("Without a velocity, coupled and decoupled decay are the same.",) if beside and before else ()
        return Decayed("coupled", inside, doubts=doubts)
    if beside and before:
        return _apart(beside, before, None if changed is None else factor)
    if inside and inside_before:
        doubt = f"The coupled decay is {inside.value:.4g} at {factor:.4g} times the learning rate: it depends on it."
        return Decayed("coupled", inside_before, doubts=(doubt,))
    few = ", ".join(f"{step:.3g}" for step in own.of_weights[:4])
    return Decayed(
        "unknown", doubts=(f"Without gradients a held weight of 1 is stepped by {few} ...: no decay that has a name.",)
    )


def beside(subject: Subject, probes: Probes) -> tuple[Decay, Number | None]:
    """The decay of a linear optimizer whose answers to gradients tell nothing, as far as it is the same share at each step.

    Raises:
        Refused: The optimizer refused what it had taken before.
    """
    changed = other(subject, probes)
    nothing = np.zeros(len(probes.of_weights))
    own = _Seen(probes.of_weights, nothing, float(np.max(probes.weights_spread)), probes.rounding)
    seen = own if changed is None else _Seen(changed.of_weights, nothing, changed.weights_spread, probes.rounding)
    if own.nothing() and seen.nothing():
        return "none", None
    before, after = own.beside(), seen.beside()
    if not (before and after):
        return "unknown", None
    found, rate = _apart(after, before, changed.factor if changed else None), rate_of(subject)
    return found.kind, found.coefficient(None if rate is None else Number(rate, 0.0))


def _seen(changed: Other, sign: int, eps: float) -> _Seen:
    """With another learning rate. Of the response to a gradient at every step, the first may differ from the later ones."""
    count = len(changed.first)
    later = np.concatenate([changed.response, np.zeros(count - len(changed.response))])
    lasting = changed.first + np.concatenate([[0.0], np.cumsum(later)[:-1]])
    known = len(changed.response)  # steps after which the response is known
    return _Seen(changed.of_weights[:known], sign * lasting[:known], changed.weights_spread, eps)


def _apart(beside: Number, own: Number, factor: float | None) -> Decayed:
    """A decay of the same share at each step.

    Args:
        beside: The share at `factor` times the learning rate.
        own: At the subject's own; it is less exact.
        factor: None where the learning rate could not be changed.
    """
    if factor is None:
        doubt = "Whether the decay depends on the learning rate is not known, for that could not be changed."
        return Decayed("unknown", beside=own, doubts=(doubt,))
    slower = Number(beside.value / factor, beside.error / factor)
    if _agree(slower, own):
        return Decayed("decoupled", beside=slower)
    if _agree(beside, own):
        return Decayed("independent", beside=min(beside, own, key=lambda number: number.error))
    power = np.log(abs(beside.value / own.value)) / np.log(factor)
    doubt = (
        f"The decay goes as the learning rate to the power of {power:.2g}; its coefficient is that at the learning rate given."
    )
    return Decayed("decoupled", beside=own, doubts=(doubt,))


def _agree(one: Number, two: Number) -> bool:
    return abs(one.value - two.value) <= one.error + two.error
