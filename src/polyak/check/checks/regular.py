"""Does every step of a long run follow the same rule, the first one too?"""

import re
from dataclasses import replace

import numpy as np

from polyak.check.checks.measures import (
    LINEAR,
    attempt,
    dtype,
    impulse,
    incomparable,
    not_applicable,
    number,
    outcome,
    small,
    usual,
)
from polyak.check.checks.values import is_number
from polyak.check.finding import Finding, Outcome
from polyak.check.identity import Identity
from polyak.check.response import answered
from polyak.check.trial import Array, Subject, Trial

_STEPS = 320
_SETTLED = 100  # what is remembered of the beginning has become little by then, and changes slowly
_PERIOD = 4  # of the gradients: short, so that what changes slowly changes little in it

# How far a step may be from between those a period before and after, in parts of the largest. What changes slowly is between
# them, or turns round by less than 1e-3 after 100 steps; a matrix made orthogonal in bfloat16 is off by 3e-2; a step that is
# left out or taken twice by 0.5 or 1.
_OFF = 0.1
# The same of a linear rule, whose steps have settled but for rounding, which is allowed for by itself.
_LINEAR_OFF = 1e-3
# Where many steps are off, as where low precision makes them noisy, those that are off much more are meant.
_RARELY = 8
# How the documentation of torch.optim.SGD says that the velocity begins as the first gradient, not as a share of it.
_BEGINS = r"\\textbf\{b\}_t *\\leftarrow *g_t\b"

# Steps that are the same but for rounding, in float32 too, in parts of the largest.
_SAME = 1e-3
# A step of a linear rule against what the identified response makes of the gradients, in parts of the largest step.
_PREDICTED = {"float64": 1e-4, "float32": 1e-2}


def regular(subject: Subject, identity: Identity) -> Outcome:
    """A run of 320 steps.

    Gradients that come again after four steps make steps that come again, or change slowly: a step that stands out against
    those a period before and after is irregular. That holds for whatever remembers, of any kind. The steps of a linear rule
    are also compared with what it makes of random gradients.
    """
    check = "long runs keep to the rule"
    if why := incomparable(subject):
        return not_applicable(check, why)
    trial = _periodic(subject)
    trajectory = attempt(subject, trial)
    if trajectory is None:
        return not_applicable(check, f"It refuses a run of {_STEPS} steps.")
    steps = np.concatenate([trajectory.steps(name).reshape(_STEPS, -1) for name in trial.weights], axis=1)
    rounding = 64 * np.finfo(dtype(subject)).eps * max(np.abs(w).max() for w in trial.weights.values())
    odd = _standing_out(steps, rounding, _LINEAR_OFF if identity.linear else _OFF)
    evidence = f"{_STEPS} steps with gradients of period {_PERIOD}"
    trials: tuple[Trial, ...] = (trial,)
    if not odd and identity.linear and identity.time_invariant and identity.kind in LINEAR:
        trials, odd = _against_response(subject, identity)
        evidence += ", and as many with random ones against the identified response"
    if not odd:
        return outcome(check, f"{evidence}: no step stands out.", [])
    if option := _stated(subject, odd):
        return outcome(check, f"{evidence}.", [], [f"Steps {_listed(odd)} stand out, as {option} says."])
    said = f"Steps {_listed(odd)} of {_STEPS} do not follow the rule of the others."
    return outcome(check, f"{evidence}.", [Finding("irregular-steps", said, _constant(subject, odd) or trials)])


def first_step(subject: Subject, identity: Identity) -> Outcome:
    """The response to a gradient in the first step against the response to one in a later step.

    A dampening that is left out in the first step is noted where the documentation says so, as that of torch.optim.SGD does.
    What is not linear may have reason to begin otherwise, and to change from step to step; where a gradient that stays the same
    makes the same step each time but for the first, this is noted.
    """
    check = "the first step is like the others"
    if identity.first_step is not None:
        if re.search(_BEGINS, subject.documentation) and _undampened(subject, identity):
            note = "The dampening is not applied in the first step, as its documentation says."
            return outcome(check, identity.first_step, [], [note])
        responses = [impulse(subject, identity, {}, at=at, steps=4) for at in (0, 2)]
        trials = [each[0] for each in responses if each]
        return outcome(check, identity.first_step, [Finding("first-step-differs", identity.first_step, trials)])
    if identity.kind in (*LINEAR, "sign"):
        return outcome(check, "Compared with later steps.", [])
    return _first_of_the_same(check, subject)


def _first_of_the_same(check: str, subject: Subject) -> Outcome:
    """The first step of a gradient that stays the same, where the others are the same."""
    plain, _ = usual(subject, 1)
    trial = replace(plain, gradients=[plain.gradients[0]] * 12, held=True)
    trajectory = None if incomparable(subject) else attempt(subject, trial)
    if trajectory is None:
        return not_applicable(check, "Its steps cannot be compared with each other.")
    steps = trajectory.steps("w")
    largest = np.abs(steps[1:]).max()
    if not np.ptp(steps[1:], axis=0).max() <= _SAME * largest:
        return not_applicable(check, "Steps with the same gradient change from one to the next.")
    off = np.abs(steps[0] - steps[1]).max()
    if off <= 10 * _SAME * largest:
        return outcome(check, "A gradient that stays the same makes the same step from the first on.", [])
    times = float(np.median(steps[0][steps[1] != 0] / steps[1][steps[1] != 0]))
    said = f"With a gradient that stays the same, the first step is {times:.3g} times the others, which are alike."
    return outcome(check, said, [], [said])


def _undampened(subject: Subject, identity: Identity) -> bool:
    """Whether the first gradient enters the velocity whole, and later ones damped as was asked for."""
    d = number(subject, "dampening")
    early, late = impulse(subject, identity, {}, at=0), impulse(subject, identity, {}, at=2)
    return bool(d and d != 1 and early and late and np.allclose(early[1] * (1 - d), late[1], rtol=1e-4))


def _periodic(subject: Subject) -> Trial:
    """Held weights; gradients that come again, of both signs."""
    plain, _ = usual(subject, _PERIOD)
    return replace(plain, gradients=[plain.gradients[t % _PERIOD] for t in range(_STEPS)], held=True)


def _standing_out(steps: Array, rounding: float, allowed: float) -> list[int]:
    """The steps of which an element is not between that a period before and that a period after."""
    before, now, after = steps[: -2 * _PERIOD], steps[_PERIOD:-_PERIOD], steps[2 * _PERIOD :]
    size = np.maximum(np.abs(before), np.abs(after)).max(axis=1)
    off = np.maximum(now - np.maximum(before, after), np.minimum(before, after) - now).max(axis=1)
    often = np.median(off[_SETTLED:]) if len(off) > _SETTLED else 0.0
    odd = (off > allowed * size + rounding) & (off > _RARELY * often)
    numbers = [int(t) for t in np.flatnonzero(odd)]
    # A step that stands out makes its neighbours stand out too: of these three the farthest off is meant.
    worst = [t for t in numbers if off[t] >= max(_at(off, t - _PERIOD), _at(off, t + _PERIOD))]
    return [t + _PERIOD for t in worst if t + _PERIOD >= _SETTLED]


def _at(values: Array, index: int) -> float:
    return float(values[index]) if 0 <= index < len(values) else 0.0


def _constant(subject: Subject, odd: list[int]) -> tuple[Trial, ...]:
    """One element with a gradient that stays the same, where this is enough for such a step to stand out."""
    plain = small(subject, 1)
    trial = replace(plain, gradients=[plain.gradients[0]] * (odd[0] + _PERIOD + 1), held=True)
    trajectory = attempt(subject, trial)
    if trajectory is None or odd[0] not in _standing_out(
        trajectory.steps("w").reshape(len(trial.gradients), -1), 0.0, _LINEAR_OFF
    ):
        return ()
    return (replace(trial, gradients=trial.gradients[: odd[0] + 2]),)


def _against_response(subject: Subject, identity: Identity) -> tuple[tuple[Trial, ...], list[int]]:
    """The steps that differ from what the identified response makes of random gradients, of weights held at 0."""
    kind = dtype(subject)
    size = min(1.0, identity.clip[0].value / 20) if identity.clip else 1.0
    g = np.clip(np.random.default_rng(1).standard_normal((_STEPS, 2, 2)), -2, 2) * size
    g[0] = 0  # the first step may be another, which is said elsewhere
    g = g.astype(kind)
    trial = Trial({"w": np.zeros((2, 2), kind)}, [{"w": each} for each in g], held=True)
    trajectory = attempt(subject, trial)
    if trajectory is None:
        return (trial,), []
    steps = trajectory.steps("w")
    delta = np.zeros(len(identity.impulse))
    delta[:1] = 1
    if not np.allclose(answered(identity, delta), identity.impulse, atol=1e-6 * np.abs(identity.impulse).max(initial=0)):
        return (trial,), []  # no sum of powers says it: that of a rule that remembers some gradients for some steps
    wanted = answered(identity, g.astype(np.float64))
    off = np.abs(steps - wanted).reshape(_STEPS, -1).max(axis=1)
    odd = [int(t) for t in np.flatnonzero(~(off <= _PREDICTED[np.dtype(kind).name] * np.abs(wanted).max()))]
    if not odd:
        return (trial,), []
    return (replace(trial, gradients=trial.gradients[: odd[0] + 1]),), odd


def _stated(subject: Subject, odd: list[int]) -> str | None:
    """The option, with its value, that says how far apart the steps are that stand out, or how far from the first."""
    starts = odd
    if odd[-1] - odd[0] + 1 == len(odd) or len(set(np.diff(odd))) > 1:  # what happens at a step may be seen in some after it
        starts = [t for n, t in enumerate(odd) if n == 0 or t - odd[n - 1] > _PERIOD + 1]
    for option, value in subject.defaults.items():
        if not is_number(value) or isinstance(value, bool) or value < 2:
            continue
        # A step may be counted from 0 or from 1, and what follows it may be larger.
        apart = np.abs(np.diff(starts) - value) <= (1 if value > 2 * _PERIOD else 0)
        first = len(starts) == 1 and abs(starts[0] - value) <= 1
        if first or (len(starts) > 1 and apart.all()):
            return f"{option}={value!r}"
    return None


def _listed(odd: list[int]) -> str:
    return ", ".join(map(str, odd[:6])) + (" ..." if len(odd) > 6 else "")
