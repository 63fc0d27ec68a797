"""Rules whose steps do not depend on the size of the gradients: adaptive, orthogonalised, normalised.

What is multiplied and changes nothing says which: all gradients (one of the three); those of each element by another factor
(adaptive: Adam and its kin); and if not, the singular values of the gradient (orthogonalised: Muon), or nothing but the size
(normalised: LARS, normalised gradient descent).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from polyak.check.identification.adaptive import adaptive
from polyak.check.identification.flips import DIAGONALS, SIZE, dtype, past
from polyak.check.identification.normalised import normalised
from polyak.check.identification.pull import pull
from polyak.check.identification.rate import rate_of
from polyak.check.identification.signs import one_velocity, sums
from polyak.check.identity import Identity, Number
from polyak.check.trial import Array, Subject, Trial

STEPS = 16
SHAPES = {"w": (6, 4), "b": (4, 4)}
LARGER, SMALLER = 2.0**6, 2.0**-33
"""Factors, exact in binary: the second is for gradients of 1e-4, below which one would not cut off a gradient."""
TOLERANCE = 1e-3
"""Of steps, relative to the largest of their tensor. An epsilon of 1e-3 changes 1e-6 of them; float32, 1e-4 if lr is 1e-4."""

Gradients = Sequence[Mapping[str, Array]]


def scaled(subject: Subject) -> Identity | None:
    """What an optimizer is whose steps do not depend on the size of gradients; "unknown" with a doubt, or None, if it is none.

    Raises:
        Refused: By the subject.
    """
    weights = _weights(1.0)
    gradients = _random(1)
    steps = _steps(subject, weights, gradients)
    if not all(np.all(np.isfinite(taken)) and np.any(taken) for taken in steps.values()):
        return None
    larger = _steps(subject, weights, _times(gradients, dict.fromkeys(SHAPES, LARGER)))
    begin = _alike_from(steps, larger)
    if begin is None:
        return _power(steps, larger)
    doubts = () if begin == 0 else (f"Before step {begin}, counted from 0, steps depend on the size of the gradients.",)
    common: dict[str, Any] = {"linear": False, "sign": _direction(steps, gradients), "dtype": dtype(subject).__name__}
    if _each_element(subject, begin):
        alone = _alone(subject)
        relative = _relative(subject, gradients)
        return adaptive(subject, Identity("adaptive", elementwise=alone, relative=relative, doubts=doubts, **common))
    if begin or not _small_too(subject, gradients):
        return Identity(
            "unknown", doubts=(*doubts, "Steps do not depend on the size of gradients if these are large."), linear=False
        )
    common["elementwise"] = False
    found = _orthogonalised(subject, common)
    if found is None:
        only_one = _steps(subject, weights, _times(gradients, {"w": LARGER, "b": 1.0}))
        over: Literal["all", "tensor"] = "tensor" if _close(steps, only_one, "b").all() else "all"
        found = normalised(subject, Identity("normalised", over=over, relative=_relative(subject, gradients), **common))
    if found is None:
        return Identity("unknown", doubts=("Steps do not depend on the size of the gradients.",), linear=False)
    return found


def _small_too(subject: Subject, gradients: Gradients) -> bool:
    """Whether small gradients make the same steps, from weights so small that a coupled decay does not outweigh them."""
    weights = _weights(SMALLER)
    steps = _steps(subject, weights, gradients)
    return _alike_from(steps, _steps(subject, weights, _times(gradients, dict.fromkeys(SHAPES, SMALLER)))) == 0


def _weights(factor: float) -> dict[str, Array]:
    """Small ones, so that steps are not rounded away beside them."""
    random = np.random.default_rng(0)
    return {name: factor * 0.05 * random.normal(size=shape) for name, shape in SHAPES.items()}


def _random(seed: int, *, turning: bool = True) -> list[dict[str, Array]]:
    """Gradients of about `SIZE`, none near zero: larger at some steps than at others, of signs that change or that do not."""
    random = np.random.default_rng(seed)
    signs = [{name: random.choice([-1, 1], shape) for name, shape in SHAPES.items()} for _ in range(STEPS)]
    sizes = SIZE * 2.0 ** random.uniform(-2, 2, STEPS)
    return [
        {name: size * signs[t if turning else 0][name] * 2.0 ** random.uniform(-1, 1, shape) for name, shape in SHAPES.items()}
        for t, size in enumerate(sizes)
    ]


def _times(gradients: Gradients, factors: Mapping[str, Any]) -> list[dict[str, Array]]:
    return [{name: array * factors[name] for name, array in step.items()} for step in gradients]


def _steps(subject: Subject, weights: Mapping[str, Array], gradients: Gradients, *, held: bool = False) -> dict[str, Array]:
    """The steps from these weights, in training unless they are held: so what is alike is alike in use."""
    kind = dtype(subject)
    given = [{name: array.astype(kind) for name, array in step.items()} for step in gradients]
    trajectory = subject.run(Trial({name: array.astype(kind) for name, array in weights.items()}, given, held=held))
    return {name: trajectory.steps(name) for name in weights}


def _close(steps: Mapping[str, Array], others: Mapping[str, Array], name: str) -> Array:
    """Of each step of a parameter, whether it is the other one."""
    one, other = steps[name], others[name]
    largest = np.abs(one).max(axis=(1, 2))
    close: Array = np.abs(one - other).max(axis=(1, 2)) <= TOLERANCE * largest
    return close


def _alike_from(steps: Mapping[str, Array], others: Mapping[str, Array]) -> int | None:
    """The step from which on all are alike; None if they are not so for most of the time, or if there are none then."""
    close = np.all([_close(steps, others, name) for name in steps], axis=0)
    wrong = np.flatnonzero(~close)
    begin = int(wrong[-1]) + 1 if len(wrong) else 0
    late = all(np.abs(taken[-1]).max() > 0 for taken in steps.values())
    return begin if begin <= STEPS // 2 and late else None


def _power(steps: Mapping[str, Array], larger: Mapping[str, Array]) -> Identity:
    """What can be said if the size matters: as which power of the gradients steps grow."""
    sizes = [np.linalg.norm(taken["w"].reshape(STEPS, -1), axis=1) for taken in (steps, larger)]
    doubt = "Steps neither grow as a power of the gradients nor stay as they are."
    if np.any(sizes[0] == 0) or not np.all(np.isfinite(sizes[1])):
        return Identity("unknown", linear=False, doubts=(doubt,))
    powers = np.log(np.maximum(sizes[1], 1e-300) / sizes[0]) / np.log(LARGER)
    if np.ptp(powers) < 0.02 < abs(powers.mean()):
        doubt = f"Steps grow as the power {powers.mean():.2f} of the gradients."
    return Identity("unknown", linear=False, doubts=(doubt,))


def _direction(steps: Mapping[str, Array], gradients: Gradients) -> int | None:
    """1 if steps go down the gradients on the whole, -1 if up."""
    together = float(sum(np.sum(steps["w"][t] * step["w"]) for t, step in enumerate(gradients)))
    return (1 if together > 0 else -1) if together else None


def _each_element(subject: Subject, begin: int) -> bool:
    """Whether a factor for each element changes nothing, for two sets of random gradients."""
    for seed in (2, 3):
        random = np.random.default_rng(10 + seed)
        factors = {name: 2.0 ** random.integers(0, 10, shape) for name, shape in SHAPES.items()}
        gradients = _random(seed)
        one = _steps(subject, _weights(1.0), gradients)
        other = _steps(subject, _weights(1.0), _times(gradients, factors))
        if _alike_from(one, other) is None or not all(_close(one, other, name)[begin:].all() for name in one):
            return False
        # What only signs of gradients matter to may be a gradient that is cut off: then small ones tell.
        swapped = [
            {name: np.abs(later[name]) * np.sign(now[name]) for name in now}
            for now, later in zip(gradients, gradients[::-1], strict=True)
        ]
        if all(_close(one, _steps(subject, _weights(1.0), swapped), name).all() for name in one):
            small = _steps(subject, _weights(1.0), _times(gradients, dict.fromkeys(SHAPES, SMALLER)))
            if not all(_close(one, small, name).all() for name in one):
                return False
    return True


def _alone(subject: Subject) -> bool:
    """Whether some elements go on as they did where the gradients of the others are different.

    All keep their signs: so rules show that adapt themselves to how far the weights have come.
    """
    gradients, others = _random(4, turning=False), _random(5, turning=False)
    random = np.random.default_rng(4)
    kept = {name: random.random(shape) < 0.3 for name, shape in SHAPES.items()}
    mixed = [{name: np.where(kept[name], g[name], -3 * o[name]) for name in g} for g, o in zip(gradients, others, strict=True)]
    both = [_steps(subject, _weights(1.0), given) for given in (gradients, mixed)]
    one, other = ({name: np.where(kept[name], taken, 0) for name, taken in steps.items()} for steps in both)
    return all(bool(_close(one, other, name).all()) for name in SHAPES)


def _relative(subject: Subject, gradients: Gradients) -> bool | None:
    """Whether steps are twice as large from weights twice as large; None if they neither are nor stay as they were."""
    # A decay of the weights is a small part of these steps, but grows with the weights.
    once, twice = (_steps(subject, _weights(factor), gradients, held=True)["w"] for factor in (1.0, 2.0))
    change = float(np.linalg.norm(twice) / np.linalg.norm(once))
    return True if abs(change - 2) < 0.05 else False if abs(change - 1) < 0.05 else None


def _alike(subject: Subject, sign: int) -> bool:
    """Whether the singular values of steps are alike, whatever the momentum is; and the first step is along the gradient's."""
    random = np.random.default_rng(6)
    gradients = random.normal(size=(STEPS, 8, 4)) * np.array([1.0, 0.5, 0.25, 0.125])
    steps = _steps(subject, {"w": np.zeros((8, 4))}, [{"w": gradient} for gradient in gradients], held=True)["w"] * sign
    values = np.linalg.svd(steps, compute_uv=False)
    left, _, right = np.linalg.svd(gradients[0], full_matrices=False)
    along = np.diagonal(left.T @ steps[0] @ right.T)
    first = along.min() > 0.4 * along.max() and np.sum(along**2) > 0.99 * np.sum(steps[0] ** 2)
    return bool(first and values.min() > 0 and values.max() <= 2.5 * values.min())


def _orthogonalised(subject: Subject, common: Mapping[str, Any]) -> Identity | None:
    """What an optimizer is that takes singular values alike.

    Its steps must be U f(S) V' for the singular vectors of what its momentum, as the signs of steps tell it, makes of random
    gradients, and the values f(S) alike at every step.
    """
    velocity = one_velocity(past(subject, DIAGONALS, 3))
    if velocity is None:
        doubt = "Its momentum was not told."
        return Identity("orthogonalised", doubts=(doubt,), **common) if _alike(subject, common["sign"]) else None
    sizes = {}
    # From 0 and held, and in training.
    for shape, held in (((4, 4), True), ((8, 4), True), ((4, 4), False)):
        random = np.random.default_rng(5)
        gradients = random.normal(size=(STEPS, *shape)) * 10.0 ** random.uniform(-1, 2, (STEPS, 1, 1))
        weights = {"w": np.zeros(shape) if held else 0.05 * random.normal(size=shape)}
        steps = _steps(subject, weights, [{"w": gradient} for gradient in gradients], held=held)["w"]
        left, large, right = np.linalg.svd(sums(velocity, gradients)[0], full_matrices=False)
        # Those of which a value is much smaller than the largest come out smaller: a polynomial has only so many steps.
        clear = large[:, -1] > 0.03 * large[:, 0]
        steps, left, right = steps[clear], left[clear], right[clear]
        inner = np.swapaxes(left, 1, 2) @ steps @ np.swapaxes(right, 1, 2) * common["sign"]
        values = np.diagonal(inner, axis1=1, axis2=2)
        outer = np.linalg.norm(steps, axis=(1, 2)) ** 2 - np.sum(values**2, axis=1)
        # Muon's polynomial leaves singular values between 0.7 and 1.2, and bfloat16 rounds to 1 in 256.
        if (
            clear.sum() < STEPS // 2
            or np.any(values <= 0)
            or values.max() > 2.5 * values.min()
            or np.any(outer > 0.01 * np.sum(values**2, axis=1))
        ):
            return None
        sizes[shape, held] = Number(float(values.max() + values.min()) / 2, float(np.ptp(values)) / 2)
    kind, coefficient, doubts = pull(subject, DIAGONALS)
    option = rate_of(subject)
    square, tall = sizes[(4, 4), True], sizes[(8, 4), True]
    if abs(tall.value - square.value) > 0.1 * square.value:
        doubts = (*doubts, f"Steps of matrices twice as tall as wide are {tall.value / square.value:.2g} times as large.")
    rate = square
    if option and square.agrees(option):
        # A polynomial leaves singular values some way from 1, so that steps tell it no better.
        rate = Number(option, 0.0)
        doubts = (
            *doubts,
            f"Singular values of steps are {square.value:.2g}, to within {square.error:.1g}; lr is the option's.",
        )
    return Identity(
        "orthogonalised",
        time_invariant=True,
        learning_rate=rate,
        momenta=() if velocity.momentum is None else (velocity.momentum,),
        nesterov=velocity.kind == "nesterov",
        nu=velocity.share if velocity.kind == "apart" else None,
        decay=kind,
        weight_decay=coefficient,
        doubts=doubts,
        **common,
    )
