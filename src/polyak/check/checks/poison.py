"""Gradients that no one wants: NaN, infinite, huge and tiny ones."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from polyak.check.checks.comparing import difference, served, trial_of
from polyak.check.checks.measures import LINEAR, attempt, dtype, not_applicable, number, outcome
from polyak.check.finding import Finding, Outcome
from polyak.check.identity import Identity
from polyak.check.trial import Array, Refused, Subject, Trajectory, Trial

_STEPS = 10
_AT = 1
# Large beside other gradients, and small enough for its square.
_LARGE = 1e6

# Powers of two, by which linear steps are multiplied exactly, outwards from those that tell the rule.
_NEAR = (3, 6)
_FAR = (10, 16, 20, 24, 30, 40, 50, 60, 100)
# A square is finite and not 0 up to here, a gradient of any power above is.
_SQUARE = 50


def poison(subject: Subject, identity: Identity) -> Outcome:  # noqa: ARG001  (a check is given both)
    """A NaN or infinite gradient of one element reaches no other, unless a norm is taken over them by design.

    It is by design where a large gradient in its place changes the others' steps too, by however little. The weights are put
    back before each step, so that it is seen how long the state is poisoned.
    """
    check = "a NaN or infinite gradient"
    clean, usual = served(
        subject,
        *(
            replace(trial_of(shapes, _STEPS, dtype(subject)), held=True)
            for shapes in ({"a": (2,), "b": (2,)}, {"a": (2, 2), "b": (2, 2)})
        ),
    )
    findings: list[Finding] = []
    notes: list[str] = []
    for value in (np.nan, np.inf):
        trial = _with(clean, value)
        try:
            came = subject.run(trial)
        except Refused as refused:
            notes.append(f"A gradient of {value} is an error: {refused}")
            continue
        notes.append(_how_long(value, came))
        for name, others in (("the other elements of its tensor", _rest), ("another parameter", _other)):
            if np.isfinite(others(came)).all():
                continue
            if _is_by_design(subject, clean, others):
                notes.append(f"{value} in one element reaches {name}, as a norm that is taken over both does.")
            elif not findings:
                small = replace(trial, gradients=trial.gradients[: _AT + 1])
                findings.append(Finding("poison-spreads", f"{value} in one element of a gradient reaches {name}.", (small,)))
    if not np.isfinite(_rest(usual)).all():
        return not_applicable(check, "Weights are not finite without it.")
    evidence = f"One element had it at one step, and {_STEPS - _AT - 1} steps followed."
    return outcome(check, evidence, findings, list(dict.fromkeys(notes)))


def _is_by_design(subject: Subject, clean: Trial, others: Callable[[Trajectory], Array]) -> bool:
    """Whether a large gradient in the place of the NaN changes the others' steps, too.

    Some depend on how far the weights have come: so in training as well, and with one less large.
    """
    for held, value in ((True, _LARGE), (False, _LARGE), (False, 8.0)):
        usual = attempt(subject, replace(clean, held=held))
        large = attempt(subject, replace(_with(clean, value), held=held))
        if usual is None or large is None or difference({"o": others(usual)}, {"o": others(large)}):
            return True
    return False


def scale(subject: Subject, identity: Identity) -> Outcome:
    """Steps for huge and tiny gradients are those for usual ones, as many times as large, or as large, as the rule says.

    What the rule says is told by gradients from 1/64 to 64: steps are proportional to them, or do not depend on their size.
    """
    check = "huge and tiny gradients"
    if identity.clip and ((norm := identity.clip[0].value) <= 2.0 ** _NEAR[-1] or _stated(subject, norm)):
        return not_applicable(check, f"Gradients above {norm:.4g} are scaled down.")
    try:
        kind = served(subject, _of_size(0, 1), _of_size(0, 2))[0].weights["w"].ndim
        steps = {power: _steps(subject, power, kind) for power in sorted({0, *_signed(_NEAR), *_signed(_FAR)})}
    except Refused as refused:
        return not_applicable(check, f"It is refused: {refused}")
    findings, notes, laws = [], [], []
    for direction, which in ((1, "huge"), (-1, "tiny")):
        near = [direction * power for power in _NEAR]
        far = [direction * power for power in _FAR]
        # Squares overflow, and what is not known may stop at tiny gradients by design.
        limit = _FAR[-1] if identity.kind in LINEAR else _SQUARE
        within = [power for power in far if abs(power) <= limit]
        if _alike(steps, near, linear=True):
            laws.append("linear")
            bad = [power for power in within if not _follows(steps, near[0], power, linear=True)]
        elif _alike(steps, near, linear=False):
            laws.append("of one size")
            bad = [power for power in within if not _follows(steps, near[0], power, linear=False)]
            if direction < 0 and identity.kind != "sign":
                # A small number in the denominator makes steps smaller, but none 0.
                notes += [f"From gradients of {2.0 ** bad[0]:.0e} down, steps are others in float32."] if bad else []
                bad = [power for power in within if (steps[power] == 0)[steps[near[0]] != 0].any()]
        else:
            continue
        if bad and direction < 0 and identity.kind == "unknown":
            notes.append(f"Gradients of {2.0 ** bad[0]:.0e} make steps of {_shown(steps[bad[0]])}.")
            bad = []
        if bad:
            what = (
                f"Gradients of {2.0 ** near[0]:.4g} make steps of {_shown(steps[near[0]])}, "
                f"and {which} ones of {2.0 ** bad[0]:.4g} steps of {_shown(steps[bad[0]])}."
            )
            findings.append(Finding("scale-fails", what, (_of_size(bad[0], kind), _of_size(near[0], kind))))
    if not laws:
        return not_applicable(check, "Steps are neither proportional to gradients of usual size nor of one size.")
    evidence = (
        f"Near 1, steps are {' and '.join(dict.fromkeys(laws))}; they were followed from 2**-{_FAR[-1]} to 2**{_FAR[-1]}."
    )
    return outcome(check, evidence, findings, notes)


def _stated(subject: Subject, norm: float) -> bool:
    """Whether an option says above which norm gradients are scaled down, or there are no options that could."""
    values = [number(subject, option) for option in subject.defaults]
    return not values or any(value is not None and np.isclose(value, norm, rtol=1e-3) for value in values)


def _signed(powers: tuple[int, ...]) -> list[int]:
    return [sign * power for power in powers for sign in (1, -1)]


def _of_size(power: int, dimensions: int) -> Trial:
    """Three steps from 0 with gradients of this power of two."""
    w = np.zeros((1,) if dimensions == 1 else (2, 2), np.float32)
    return Trial({"w": w}, [{"w": w + np.float32(2.0) ** power}] * 3, held=True)


def _steps(subject: Subject, power: int, dimensions: int) -> Array:
    return subject.run(_of_size(power, dimensions)).steps("w").reshape(3, -1)[:, 0]


def _follows(steps: dict[int, Array], near: int, far: int, *, linear: bool) -> bool:
    """Whether steps for gradients far from 1 are those that the rule says.

    Linear ones are exact but for rounding. Of one size they are within 2 %: a small number in the denominator is that much of a
    gradient that is not so large.
    """
    expected = steps[near] * (2.0 ** (far - near) if linear else 1)
    # What a factor of the learning rate and of a velocity may make of them is still a number that float32 holds.
    in_range = (expected == 0) | ((np.abs(expected) > 1e-36) & (np.abs(expected) < 1e36))
    return bool(np.all(~in_range | (np.abs(steps[far] - expected) <= (1e-3 if linear else 0.02) * np.abs(expected))))


def _alike(steps: dict[int, Array], near: list[int], *, linear: bool) -> bool:
    """Whether the rule holds for gradients near 1, and there are steps at all."""
    return bool(steps[0].any()) and all(_follows(steps, 0, power, linear=linear) for power in near)


def _shown(steps: Array) -> str:
    return ", ".join(f"{step:.4g}" for step in steps)


def _with(clean: Trial, value: float) -> Trial:
    """The trial with another value in one element of one gradient."""
    gradients = [dict(step) for step in clean.gradients]
    given = gradients[_AT]["a"]
    assert isinstance(given, np.ndarray)  # noqa: S101  (for the type)
    poisoned = given.copy()
    poisoned.flat[0] = value
    gradients[_AT]["a"] = poisoned
    return replace(clean, gradients=gradients)


def _rest(came: Trajectory) -> Array:
    """The steps of the elements beside the poisoned one."""
    return came.steps("a").reshape(_STEPS, -1)[:, 1:]


def _other(came: Trajectory) -> Array:
    return came.steps("b").reshape(_STEPS, -1)


def _how_long(value: float, came: Trajectory) -> str:
    """How long the steps of the element itself are not finite, in words."""
    bad = ~np.isfinite(came.steps("a").reshape(_STEPS, -1)[:, 0])
    if not bad.any():
        return f"A gradient of {value} makes no step that is not finite."
    last = int(np.flatnonzero(bad)[-1])
    if last == _STEPS - 1:
        return f"A gradient of {value} stays in the state: all steps of its element after it are NaN or infinite."
    spoiled = "the step" if last == _AT else f"{last - _AT + 1} steps"
    return f"A gradient of {value} spoils {spoiled} of its element; later ones are finite."
