"""Whether two instances, and a copy and its original, leave each other alone."""

from dataclasses import replace

import numpy as np

from polyak.check.checks.comparing import difference, taken, trial_of
from polyak.check.checks.measures import attempt, not_applicable, number, outcome, with_options
from polyak.check.finding import Finding, Outcome
from polyak.check.identity import Identity
from polyak.check.trial import Again, Refused, Resume, Subject, Trial

_WORDS: dict[Again, str] = {"copy": "a deep copy", "pickle": "an unpickled instance"}


def instances(subject: Subject, identity: Identity) -> Outcome:  # noqa: ARG001  (a check is given both)
    """Two instances with different learning rates whose steps alternate come to the bits that each comes to alone."""
    check = "two instances"
    value = number(subject, subject.rate)
    half = {subject.rate: value / 2} if subject.rate and value else {}
    for shape in ((1,), (2, 2)):
        one, other = (trial_of({"w": shape}, 3, np.float32, seed) for seed in (0, 1))
        if (alone := attempt(subject, one)) is not None:
            break
    else:
        return not_applicable(check, "A vector and a matrix are refused.")
    changed = with_options(other, half)
    second = attempt(subject, changed)
    if second is None:  # no other learning rate
        changed, second = other, subject.run(other)
    evidence = "Two instances took three steps in turns, and each alone."
    try:
        both = subject.together(one, changed)
    except Refused as refused:
        finding = Finding("instances-share-state", f"Two instances in turns fail: {refused}.", (one, changed))
        return outcome(check, evidence, [finding])
    for expected, came in zip((alone, second), both, strict=True):
        if where := difference(expected.after, came.after):
            what = f"Beside another instance that takes steps in turns with it, {where}."
            return outcome(check, evidence, [Finding("instances-share-state", what, (one, changed))])
    return outcome(check, evidence, [])


def copies(subject: Subject, identity: Identity) -> Outcome:  # noqa: ARG001  (a check is given both)
    """A deep copy, and an instance that was pickled, go on to the same bits, whatever their original does then."""
    check = "copies"
    trial, came = taken(subject, {"w": (1,)}, {"w": (2, 2)}, 4, np.float32)
    wrong: dict[str, tuple[list[str], Trial]] = {}
    notes = []
    for how, which in _WORDS.items():
        copied = replace(trial, resume=Resume(2, how, unharmed=True))
        try:
            where = difference(came.after, subject.run(copied).after)
        except Refused as refused:
            if _fails_itself(subject, copied):
                notes.append(f"{which.capitalize()} cannot be made: {refused}")
                continue
            said: str | None = f"its next step fails: {refused}"
        else:
            said = str(where) if where else None
        if said:
            wrong.setdefault(said, ([], copied))[0].append(which)
    if len(notes) == len(_WORDS):
        return not_applicable(check, ". ".join(notes))
    findings = [
        Finding("copy-shares-state", f"Of {' and of '.join(which)} whose original goes on too: {said}.", (trial, copied))
        for said, (which, copied) in wrong.items()
    ]
    return outcome(check, "Four steps were compared with two, and two of a copy while its original went on.", findings, notes)


def _fails_itself(subject: Subject, trial: Trial) -> bool:
    """Whether making the copy is refused, and not the step after it."""
    assert trial.resume is not None  # noqa: S101  (for the type)
    early = replace(trial, gradients=trial.gradients[: trial.resume.step])
    return attempt(subject, early) is None
