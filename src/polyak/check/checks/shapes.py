"""Tensors of unusual shape, memory and kind."""

from dataclasses import replace

import numpy as np

from polyak.check.checks.comparing import difference, only, rounding, taken, trial_of
from polyak.check.checks.measures import LINEAR, dtype, not_applicable, outcome
from polyak.check.checks.parameters import independent
from polyak.check.finding import Finding, Outcome
from polyak.check.identity import Identity
from polyak.check.trial import Array, Gradient, NotOffered, Refused, Rows, Subject, Trial

# Without dimensions, with one element, without elements; of matrices, those that are matrices.
_ONE = {"s": (), "o": (1,), "q": (1, 1)}
_NONE = {"e": (0,), "m": (0, 2)}
_ONE_MATRIX = {"q": (1, 1)}
_NO_MATRIX = {"m": (0, 2)}

# Of three, those that have a gradient at each of three steps.
_ROWS = ((0, 2), (1,), (0, 1))


def shapes(subject: Subject, identity: Identity) -> Outcome:
    """Tensors without dimensions, with one element and without elements are served, and leave the others alone."""
    check = "unusual shapes"
    if identity.refused:
        return not_applicable(check, "It refuses tensors of usual shapes, too.")
    usual, _ = taken(subject, {"a": (3,)}, {"a": (2, 2)}, 3, dtype(subject))
    vectors = usual.weights["a"].ndim == 1
    one, none = (_ONE, _NONE) if vectors else (_ONE_MATRIX, _NO_MATRIX)
    tried = ", ".join(map(str, (one | none).values()))
    evidence = f"Tensors of the shapes {tried} took three steps beside a usual one, those of one element also alone."
    wrong = {shape: found for name, shape in (one | none).items() if (found := _wrong(subject, identity, name, shape, usual))}
    if not wrong:
        return outcome(check, evidence, [])
    what, trials = next(iter(wrong.values()))
    finding = Finding("shape-fails", f"A tensor of shape {' or '.join(map(str, wrong))}: {what}.", trials)
    return outcome(check, evidence, [finding])


def layout(subject: Subject, identity: Identity) -> Outcome:
    """Tensors that are not contiguous come to the weights of those that are."""
    check = "tensors that are not contiguous"
    if subject.random:
        return not_applicable(check, "Steps are drawn by lot.")
    usual, came = taken(subject, {"a": (3,), "w": (2, 3)}, {"a": (2, 2), "w": (2, 3)}, 3, dtype(subject))
    evidence = (
        "Three steps with weights and gradients that have gaps in memory, or are transposed, were compared with usual ones."
    )
    for name in ("w", "a"):
        trial = only(usual, name)
        expected, strided = subject.run(trial), replace(trial, strided=True)
        try:
            where = difference(expected.after, subject.run(strided).after, rounding(came, identity))
        except NotOffered as refused:
            return not_applicable(check, str(refused))
        except Refused as refused:
            finding = Finding("layout-differs", f"A tensor of shape {trial.weights[name].shape} fails: {refused}.", (strided,))
            return outcome(check, evidence, [finding])
        if where:
            finding = Finding("layout-differs", f"Of a tensor that is not contiguous, {where}.", (strided, trial))
            return outcome(check, evidence, [finding])
    return outcome(check, evidence, [])


def sparse(subject: Subject, identity: Identity) -> Outcome:
    """A sparse gradient comes to the weights of the same gradient, dense."""
    check = "sparse gradients"
    if subject.random:
        return not_applicable(check, "Steps are drawn by lot.")
    trial = trial_of({"w": (3, 2)}, 3, dtype(subject))
    of_rows = [_rows(step["w"], *rows) for step, rows in zip(trial.gradients, _ROWS, strict=True)]
    thin = replace(trial, gradients=[{"w": g} for g in of_rows])
    dense = replace(trial, gradients=[{"w": _whole(g)} for g in of_rows])
    try:
        expected = subject.run(dense)
    except Refused as refused:
        return not_applicable(check, f"Dense gradients are refused: {refused}")
    try:
        came = subject.run(thin)
    except Refused as refused:
        return not_applicable(check, f"They are refused: {refused}")
    evidence = "Gradients of some rows were compared with the same ones, dense."
    if where := difference(expected.after, came.after, rounding(expected, identity)):
        return outcome(check, evidence, [Finding("sparse-differs", f"With sparse gradients, {where}.", (dense, thin))])
    return outcome(check, evidence, [])


def _rows(dense: Gradient, *rows: int) -> Rows:
    """Some rows of a gradient."""
    assert isinstance(dense, np.ndarray)  # noqa: S101  (for the type)
    return Rows(np.array(rows), dense[list(rows)])


def _whole(thin: Rows) -> Array:
    """The same gradient of three rows, dense."""
    dense = np.zeros((3, *thin.values.shape[1:]), thin.values.dtype)
    dense[thin.rows] = thin.values
    return dense


def _wrong(
    subject: Subject, identity: Identity, name: str, shape: tuple[int, ...], usual: Trial
) -> tuple[str, tuple[Trial, ...]] | None:
    """What is wrong with a tensor of a shape, in words, and the trials that show it; None if nothing is."""
    kind = usual.weights["a"].dtype

    def first(x: Array) -> Array:
        """Of one element, the first of the usual tensor; of none, none."""
        return np.full(shape, x.ravel()[0], kind)

    gradients = [step["a"] for step in usual.gradients]
    alone = Trial({name: first(usual.weights["a"])}, [{name: first(g)} for g in gradients if isinstance(g, np.ndarray)])
    beside = Trial(
        {**usual.weights, **alone.weights},
        [{**step, **more} for step, more in zip(usual.gradients, alone.gradients, strict=True)],
    )
    # One without elements has no gradients to speak of, so it alone is no case.
    some = bool(alone.weights[name].size)
    for trial in (alone, beside) if some else (beside,):
        try:
            came = subject.run(trial)
        except Refused as refused:
            return str(refused), (trial,)
        if not all(np.isfinite(after.astype(np.float64)).all() for after in came.after.values()):
            return "weights are no longer finite", (trial,)
    allowed = rounding(came, identity)
    if subject.random or not independent(
        subject, identity, trial_of({"a": usual.weights["a"].shape, "b": (1, 1)}, 3, usual.weights["a"].dtype), "a"
    ):
        return None  # whatever the shape of another
    if not some and (where := difference(subject.run(usual).after, came.after, allowed)):
        return f"beside it, {where}", (usual, beside)
    # What is not a sum of past gradients may keep less of a matrix than of a vector; a norm is another one of more elements.
    comparable = identity.kind in LINEAR or (identity.kind != "unknown" and len(shape) < 2)
    if some and identity.elementwise is True and comparable and not identity.clip:
        alike = came.after["a"].reshape(len(gradients), -1)[:, 0].reshape(came.after[name].shape)
        if where := difference({name: alike}, came.after, allowed):
            return f"{where}, which an element of a usual tensor comes to", (beside,)
    return None
