"""What an optimizer does with the gradients that it is handed: none of them, many, and whose they are."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from polyak.check.checks.comparing import difference, only, rounding, taken
from polyak.check.checks.measures import attempt, dtype, not_applicable, outcome, short, with_options
from polyak.check.checks.parameters import independent
from polyak.check.finding import Finding, Outcome
from polyak.check.identity import Identity
from polyak.check.trial import Array, Gradient, NotOffered, Refused, Rows, Subject, Trial


def written(subject: Subject, identity: Identity) -> Outcome:  # noqa: ARG001  (a check is given both)
    """The gradients are the caller's, who may clip, log or add to them: they are as they were after a step."""
    check = "gradients are not written to"
    if subject.framework == "jax":
        return not_applicable(check, "Arrays are not written to in JAX.")
    usual, _ = taken(subject, {"w": (2,)}, {"w": (2, 2)}, 2, dtype(subject))
    tried, findings = 0, []
    for trial, said, option in _variants(subject, usual):
        for short_one in (replace(trial, gradients=trial.gradients[:1]), trial):  # the first step may be special
            came = attempt(subject, short_one)
            if came is None:
                continue
            tried += 1
            given, left = short_one.gradients[-1]["w"], came.gradients["w"]
            if not _same(given, left):
                what = f"After a step{said}, the gradient that was {_shown(given)} is {_shown(left)}."
                findings.append(Finding("gradient-written", what, (short_one,), option))
                break
        if findings:
            break
    return outcome(check, f"Gradients were looked at after one and two steps, in {tried} trials with other options.", findings)


def kept(subject: Subject, identity: Identity) -> Outcome:  # noqa: ARG001  (a check is given both)
    """The state is no view of the gradient: the next gradient may be written into the same memory."""
    check = "gradients are not kept"
    if subject.framework != "torch":
        return not_applicable(check, f"Gradients are new arrays at each step in {subject.framework}.")
    trial, came = taken(subject, {"w": (1,)}, {"w": (2, 2)}, 3, dtype(subject))
    reused = replace(trial, reused=True)
    evidence = "Three steps whose gradients are written into the same tensor were compared with those of a new tensor each."
    if where := difference(came.after, subject.run(reused).after):
        what = f"Where a gradient is written into the tensor of the one before, {where}: the state is the gradient's memory."
        return outcome(check, evidence, [Finding("gradient-kept", what, (reused, trial))])
    return outcome(check, evidence, [])


def missing(subject: Subject, identity: Identity) -> Outcome:
    """A parameter that has no gradient at a step is left out, and the others go on."""
    check = "missing gradients"
    trial, _ = taken(subject, {"a": (2,), "b": (2,)}, {"a": (2, 2), "b": (2, 2)}, 4, dtype(subject))
    evidence = "Of two parameters, the first and then the second had no gradient at the first and the third of four steps."
    notes: list[str] = []
    for gone, there in (("b", "a"), ("a", "b")):
        gradients = [{there: step[there]} if t % 2 == 0 else step for t, step in enumerate(trial.gradients)]
        gaps = replace(trial, gradients=gradients)
        try:
            came = subject.run(gaps)
        except NotOffered as refused:
            return not_applicable(check, str(refused))
        except Refused as refused:
            first = replace(gaps, gradients=gradients[:1])
            at_once = attempt(subject, first) is None
            finding = Finding("missing-gradient", f"It fails: {refused}.", (first if at_once else gaps,))
            return outcome(check, evidence, [finding])
        if not all(np.isfinite(after.astype(np.float64)).all() for after in came.after.values()):
            return outcome(check, evidence, [Finding("missing-gradient", "Weights are no longer finite.", (gaps,))])
        if (moved := np.abs(came.steps(gone)[::2]).max()) and not notes:
            notes.append(f"A parameter moves by {moved:.3g} in a step without a gradient.")
        alone = only(trial, there)
        where = difference(subject.run(alone).after, came.after, rounding(came, identity))
        if where and independent(subject, identity, trial, there):
            what = f"Beside a parameter that has no gradient now and then, {where}, which it comes to alone."
            if identity.kind == "unknown":  # a norm of all parameters may have counted it
                notes.append(what)
                continue
            return outcome(check, evidence, [Finding("missing-gradient", what, (gaps, alone))], notes)
    return outcome(check, evidence, [], notes)


def _variants(subject: Subject, usual: Trial) -> Iterator[tuple[Trial, str, str | None]]:
    """The trial, with each implementation, and with each option that may take another path, and how that is said."""
    yield usual, "", None
    if subject.framework != "torch":
        return
    for implementation in subject.implementations:
        if implementation == "compiled":  # it writes as does the one that it is compiled of
            continue
        yield replace(usual, implementation=implementation), f" of the implementation {implementation!r}", None
    for option, value in subject.defaults.items():
        if isinstance(value, bool):
            yield with_options(usual, {option: not value}), f" with {option}={not value}", option
        elif option in ("weight_decay", "momentum") and not value:
            yield with_options(usual, {option: 0.5}), f" with {option}={short(0.5)}", option


def _same(given: Gradient, left: Gradient) -> bool:
    if isinstance(given, np.ndarray) and isinstance(left, np.ndarray):
        return np.array_equal(given, left, equal_nan=True)
    return type(given) is type(left)


def _shown(gradient: Gradient) -> Any:
    match gradient:
        case None:
            return "None"
        case Rows():
            return "sparse"
        case _:
            array: Array = gradient
            return f"{float(array.ravel()[0]):.6g}"
