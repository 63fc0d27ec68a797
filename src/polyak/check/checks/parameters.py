"""Whether what happens to a parameter depends on it alone."""

from dataclasses import replace
from typing import Any

import numpy as np

from polyak.check.checks.comparing import (
    difference,
    eighths,
    only,
    rounding,
    scaled,
    served,
    shortest,
    taken,
    trial_of,
)
from polyak.check.checks.measures import LINEAR, attempt, dtype, not_applicable, outcome, short
from polyak.check.finding import Finding, Outcome
from polyak.check.identity import Identity
from polyak.check.trial import Group, Refused, Subject, Trajectory, Trial

# Of the same shape, transposed, and with as many elements in other shapes.
_SHAPES = {"a": (6,), "b": (6,), "w": (2, 3), "x": (3, 2)}
_MATRICES = {"a": (2, 3), "b": (2, 3), "w": (3, 2), "x": (3, 3)}
_SMALL = {"a": (1,), "b": (1,)}

# Options that belong to a parameter group wherever there are groups. Of others it isn't known whether they are meant to.
_OF_GROUPS = ("momentum", "betas", "weight_decay")

# A clipped optimizer is looked at below its norm. 36 gradients of at most 2 have a norm under 12.
_BELOW = 24


def parameters(subject: Subject, identity: Identity) -> Outcome:
    """Parameters do not mix: in another order, alone, in pieces, they come to the same weights.

    A norm of all parameters, or an estimate that is made from all of them, is a property and no defect: it makes steps larger
    or smaller and leaves their direction. An optimizer whose steps are known to be sums of past gradients has none.
    """
    check, kind = "parameters do not mix", dtype(subject)
    if subject.random:
        return not_applicable(check, "Steps are drawn by lot, so that another order gives other weights.")
    factor = identity.clip[0].value / _BELOW if identity.clip else 1.0
    trial, came = served(subject, *(scaled(trial_of(shapes, 4, kind), min(1.0, factor)) for shapes in (_SHAPES, _MATRICES)))
    allowed = rounding(came, identity)
    backwards = only(trial, *reversed(tuple(trial.weights)))
    alone = only(trial, "a")
    by_itself = subject.run(alone)
    small = scaled(trial_of(_SMALL, 2, kind), min(1.0, factor))

    if difference(came.after, subject.run(backwards).after, allowed):
        if _in_twos(subject, trial, came, allowed):
            note = "Parameters are taken in twos, as they follow each other: one without another stays where it is."
            return outcome(check, "Twos of parameters come to the same weights in another order.", [], [note])
        pairs = [(small, only(small, "b", "a")), (trial, backwards)]
        where, pair = shortest(subject, pairs, allowed)
        finding = Finding("parameters-mixed", f"In another order of the same parameters, {where}.", pair)
        return outcome(check, f"The order of {len(pair[0].weights)} parameters matters.", [finding])
    if difference(by_itself.after, came.after, allowed):
        return _beside(subject, identity, check, [(only(small, "a"), small), (alone, trial)], allowed)
    evidence = "Four parameters come to the same weights in reversed order, and the first of them also alone"
    sums = (identity.kind in LINEAR and identity.elementwise is True) or _sums(subject, trial, own=True)
    if not sums and (identity.elementwise is not True or identity.kind == "unknown" or trial.weights["a"].ndim > 1):
        return outcome(check, f"{evidence}. What an element does may depend on its tensor, so pieces were not tried.", [])
    # Only where steps are sums it is known that a matrix is no other than a vector: others may keep less of matrices.
    pieces = _in_pieces(alone, matrix=sums)
    if apart := difference(_flat(by_itself), _flat(subject.run(pieces)), allowed):
        shapes = " and ".join(str(w.shape) for w in pieces.weights.values())
        what = f"A tensor of shape {trial.weights['a'].shape} comes to other weights in pieces of the shapes {shapes}: {apart}."
        return outcome(check, f"{evidence}, but not in pieces.", [Finding("parameters-mixed", what, (alone, pieces))])
    return outcome(check, f"{evidence}, and in two pieces.", [])


def groups(subject: Subject, identity: Identity) -> Outcome:
    """Two parameter groups with different options do what each would do alone."""
    check = "parameter groups have their own options"
    if subject.random:
        return not_applicable(check, "Steps are drawn by lot.")
    trial, came = taken(subject, {"a": (2,), "b": (2,)}, {"a": (2, 2), "b": (2, 2)}, 3, dtype(subject))
    allowed = rounding(came, identity)
    try:
        subject.run(replace(trial, groups=tuple(Group((name,), {}) for name in trial.weights)))
    except Refused as refused:
        return not_applicable(check, f"There are none: {refused}")
    if any(difference(subject.run(only(trial, name)).after, came.after, allowed) for name in trial.weights):
        return not_applicable(check, "Parameters depend on each other, so that a group cannot be compared with itself alone.")
    tried, findings = [], []
    for option in (subject.rate, *_OF_GROUPS):
        if option is None or (values := _two_values(subject.defaults.get(option), rate=option == subject.rate)) is None:
            continue
        given = dict(zip(trial.weights, values, strict=True))
        grouped = replace(trial, groups=tuple(Group((name,), {option: value}) for name, value in given.items()))
        apart = {name: replace(only(trial, name), options={option: value}) for name, value in given.items()}
        both = attempt(subject, grouped)
        each = {name: attempt(subject, of_one) for name, of_one in apart.items()}
        usual = attempt(subject, replace(apart["b"], options={option: values[0]}))
        if both is None or usual is None or (second := each["b"]) is None or (first := each["a"]) is None:
            continue
        if not difference(usual.after, second.after, allowed):
            continue  # it has no effect at all, in a group or not
        tried.append(option)
        for name, alone in {"a": first, "b": second}.items():
            if where := difference(alone.after, both.after, allowed):
                what = f"In a group with {option}={short(given[name])}, {where}, which this {option} gives alone."
                findings.append(Finding("groups-ignored", what, (grouped, apart[name]), option))
                break
    if not tried:
        return not_applicable(check, "No option was found that a group may have of its own.")
    return outcome(check, f"Two groups with other values of {', '.join(tried)} were compared with each alone.", findings)


def independent(subject: Subject, identity: Identity, trial: Trial, name: str) -> bool:
    """Whether a parameter does the same without the others of a trial."""
    came = subject.run(trial)
    return not difference(subject.run(only(trial, name)).after, came.after, rounding(came, identity))


def _in_twos(subject: Subject, trial: Trial, came: Trajectory, allowed: float) -> bool:
    """Whether two that follow each other are one thing, so that one alone is none, and the order of the twos is no matter."""
    first, second, *others = trial.weights
    alone = subject.run(only(trial, first))
    return not alone.steps(first).any() and not difference(
        came.after, subject.run(only(trial, *others, first, second)).after, allowed
    )


def _beside(subject: Subject, identity: Identity, check: str, pairs: list[tuple[Trial, Trial]], allowed: float) -> Outcome:
    """What becomes of the check where a parameter comes to other weights beside others."""
    where, pair = shortest(subject, pairs, allowed)
    sums = not identity.clip and (identity.kind in LINEAR or _sums(subject, pairs[-1][1]))
    if not sums and (identity.kind == "unknown" or _same_size(subject)):
        note = (
            f"How far a parameter goes depends on all of them, as where a norm is taken over all: beside another one, {where}."
        )
        return outcome(check, "Their order does not matter; what others are there changes how far one goes.", [], [note])
    finding = Finding("parameters-mixed", f"With another parameter beside it, {where}.", pair)
    return outcome(check, "A parameter comes to other weights where another is beside it.", [finding])


def _sums(subject: Subject, trial: Trial, *, own: bool = False) -> bool:
    """Whether steps of vectors as of matrices are sums of past gradients; of those of their own elements, if that is asked."""
    halves = [replace(trial, gradients=[_every_second(step, start) for step in trial.gradients]) for start in (0, 1)]
    still, *came = (subject.run(each) for each in (scaled(trial, 0), trial, scaled(trial, 2), *halves))
    for name in trial.weights:
        whole, double, even, odd = (each.after[name].astype(np.float64) - still.after[name] for each in came)
        if not whole.any():  # nothing was seen
            return False
        # Of weights in float32 and steps of a thousandth, that much is rounding.
        least = 1e-3 * np.abs(whole).max()
        others = even.reshape(len(even), -1)[:, 1::2] if own else np.zeros(1)
        wrong = (np.abs(x).max() for x in (double - 2 * whole, even + odd - whole, others))
        if not all(x <= least for x in wrong):  # NaN is wrong too
            return False
    return True


def _every_second(step: Any, start: int) -> dict[str, Any]:
    """The gradients of a step, with every second element 0."""
    return {name: np.where(np.arange(g.size).reshape(g.shape) % 2 == start, g, np.zeros_like(g)) for name, g in step.items()}


def _same_size(subject: Subject) -> bool:
    """Whether elements whose gradients have the same size take steps of the same size beside others that do not.

    So they do where the others only change a factor that all have in common.
    """
    kind = dtype(subject)
    pattern = np.array([1, -1, -1, 1, -1, 1], kind)

    def with_shape(shape: tuple[int, ...]) -> Trial:
        zeros, gradients = np.zeros(shape, kind), [eighths(step, shape, kind) for step in range(4)]
        return Trial({"a": zeros, "b": zeros}, [{"a": pattern.reshape(shape), "b": g} for g in gradients])

    _, came = served(subject, with_shape((6,)), with_shape((2, 3)))
    sizes = np.abs(came.steps("a")).reshape(4, -1)
    return bool(np.all(np.ptp(sizes, axis=1) <= 1e-4 * sizes.max(axis=1)))


def _in_pieces(alone: Trial, *, matrix: bool) -> Trial:
    """The parameter of a trial as two: two elements of it, and the other four, which may be a matrix."""

    def cut(x: Any) -> dict[str, Any]:
        p, q = np.split(x.reshape(-1), [2])
        return {"p": p, "q": q.reshape(2, 2) if matrix else q}

    return replace(alone, weights=cut(alone.weights["a"]), gradients=[cut(step["a"]) for step in alone.gradients])


def _flat(came: Trajectory) -> dict[str, Any]:
    """All elements of all parameters, in their order, as one vector."""
    return {"a": np.concatenate([after.reshape(len(after), -1) for after in came.after.values()], axis=1)}


def _two_values(value: Any, *, rate: bool) -> tuple[Any, Any] | None:
    """Two values of an option that both work; None where the option is not of such a type."""
    match value:
        case bool():
            return None
        case int() | float():
            return (float(value), value / 2) if value else (None if rate else (0.0, 0.5))
        case tuple() if value and all(isinstance(v, float) for v in value):
            return value, tuple(v * 0.875 for v in value)
    return None
