"""Whether training that was stopped goes on as if it had not been."""

from dataclasses import replace

import numpy as np
from ml_dtypes import bfloat16

from polyak.check.checks.comparing import difference, faint, only, taken, trial_of
from polyak.check.checks.measures import attempt, not_applicable, number, outcome, short
from polyak.check.finding import Finding, Outcome
from polyak.check.identity import Identity
from polyak.check.trial import Refused, Resume, Subject, Trajectory, Trial

_STEPS = 6
_STOPS = (0, 1, 2, 4)
_FAINT = (2, 4)
"""Steps after some of the stops whose sign is that of the state."""


def resume(subject: Subject, identity: Identity) -> Outcome:  # noqa: ARG001  (a check is given both)
    """Saved and loaded at any step, training comes to the same bits."""
    check = "saved and loaded, training goes on"
    trial, came = taken(subject, {"a": (3,), "w": (2, 3)}, {"a": (2, 2), "w": (2, 3)}, _STEPS, np.float32, _FAINT)
    small = faint(trial_of({"a": came.after["a"].shape[1:]}, _STEPS, np.float32), *_FAINT)
    for stop in _STOPS:
        wrong = _goes_on(subject, trial, came, stop)
        if wrong is None:
            continue
        shorter = replace(small, gradients=small.gradients[: stop + 2])
        if (again := attempt(subject, shorter)) and (in_small := _goes_on(subject, shorter, again, stop)):
            trial, wrong = shorter, in_small
        finding = Finding(
            "resume-differs", f"Saved and loaded before step {stop + 1}, {wrong}.", (trial, _stopped(trial, stop))
        )
        return outcome(check, f"{_STEPS} steps were compared with the same, stopped before step {stop + 1}.", [finding])
    before = ", ".join(str(stop + 1) for stop in _STOPS)
    evidence = f"{_STEPS} steps come to the same bits where they are stopped before step {before}"
    if (rate := subject.rate) is None or not (value := number(subject, rate)):
        return outcome(check, f"{evidence}.", [])
    changed = replace(small, gradients=small.gradients[:3], changes={1: {rate: value / 2}})
    halved = attempt(subject, changed)
    if halved is None:
        return outcome(check, f"{evidence}. The {rate} cannot be changed in use.", [])
    if wrong := _goes_on(subject, changed, halved, 2):
        what = f"Where the {rate} was changed to {short(value / 2)} before it was saved, {wrong}."
        finding = Finding("resume-differs", what, (changed, _stopped(changed, 2)), rate)
        return outcome(check, f"{evidence}, but not with another {rate}.", [finding])
    return outcome(check, f"{evidence}, and with a {rate} that was changed before.", [])


def order(subject: Subject, identity: Identity) -> Outcome:  # noqa: ARG001  (a check is given both)
    """State that is loaded into parameters in another order follows their names, or is refused."""
    check = "state follows the names of parameters"
    # The gradients of a and c have other signs at first, and the third ones are faint: so it shows in a sign, too.
    alike, came = taken(subject, {"a": (2,), "c": (2,)}, {"a": (2, 2), "c": (2, 2)}, 4, np.float32, [2])
    turned = _stopped(alike, 2, order=("c", "a"))
    try:
        again = subject.run(turned)
    except Refused as refused:
        return outcome(check, f"It is refused: {refused}", [])
    # What is lost on loading in any order, and what another order changes without loading, are other findings.
    if difference(came.after, again.after) and (otherwise := _for_other_reasons(subject, alike, came, turned)):
        return not_applicable(check, otherwise)
    if where := difference(came.after, again.after):
        what = f"Saved with the parameters a, c and loaded into c, a of the same shape, {where}."
        finding = Finding("state-by-position", what, _cut(where.step, alike, turned))
        return outcome(check, "Loading goes by position.", [finding])
    shape = came.after["a"].shape[1:]
    other = faint(trial_of({"a": shape, "c": (*shape, 3) if len(shape) == 1 else (3, 3)}, 4, np.float32), 2)
    turned = _stopped(other, 2, order=("c", "a"))
    if _loads(subject, turned) and (wrong := _goes_on(subject, other, subject.run(other), 2, turned)):
        what = f"Saved with parameters a, c of other shapes and loaded into c, a, {wrong}; loading did not refuse it."
        return outcome(check, "Loading goes by position.", [Finding("state-by-position", what, (other, turned))])
    return outcome(check, "Loaded into parameters in reversed order, of the same shape and of others, training goes on.", [])


def dtypes(subject: Subject, identity: Identity) -> Outcome:  # noqa: ARG001  (a check is given both)
    """The state has the same dtypes after it was loaded."""
    check = "the dtypes of the state survive"
    tried, wrong, trials, notes = [], [], [], []
    for kind in (bfloat16, np.float32, np.float64):
        try:
            trial, came = taken(subject, {"w": (1,)}, {"w": (2, 2)}, 2, kind)
            loaded = subject.run(_stopped(trial, 1))
        except Refused:
            continue
        tried.append(np.dtype(kind).name)
        if kind == bfloat16 and (kept := sorted(set(_dtypes(came).values()) & {"bfloat16", "float32", "float64"})):
            notes.append(f"The state of bfloat16 parameters is kept in {' and '.join(kept)}.")
        after = _dtypes(loaded)
        changed = [f"{slot} from {was} to {after[slot]}" for slot, was in _dtypes(came).items() if after.get(slot, was) != was]
        if changed:
            wrong.append(f"with weights in {tried[-1]}, {', '.join(changed)}")
            trials.append(_stopped(trial, 1))
    if not tried:
        return not_applicable(check, "State could not be saved and loaded.")
    findings = [Finding("state-dtype", f"Loading changes dtypes: {'; '.join(wrong)}.", trials[:1])] if wrong else []
    return outcome(check, f"The state of weights in {', '.join(tried)} was looked at, saved and loaded.", findings, notes)


def _stopped(trial: Trial, step: int, order: tuple[str, ...] | None = None) -> Trial:
    return replace(trial, resume=Resume(step, "load", order))


def _cut(step: int, *trials: Trial) -> tuple[Trial, ...]:
    """Trials up to this step."""
    return tuple(replace(trial, gradients=trial.gradients[: step + 1]) for trial in trials)


def _goes_on(subject: Subject, trial: Trial, came: Trajectory, stop: int, stopped: Trial | None = None) -> str | None:
    """What is wrong with a trial that is stopped, in words; None if nothing is."""
    try:
        again = subject.run(stopped or _stopped(trial, stop))
    except Refused as refused:
        return f"it fails: {refused}"
    where = difference(came.after, again.after)
    return str(where) if where else None


def _for_other_reasons(subject: Subject, trial: Trial, came: Trajectory, turned: Trial) -> str | None:
    """Why weights may differ after loading in another order though it follows the names; None if they may not."""
    if difference(came.after, subject.run(trial).after):
        return "The same steps come to other weights when they are taken again."
    if difference(came.after, subject.run(only(trial, *reversed(tuple(trial.weights)))).after):
        return "The order of parameters matters without loading, too."
    in_order = attempt(subject, replace(turned, resume=Resume(2)))
    if in_order is None or difference(came.after, in_order.after):
        return "Training does not go on in the same order either."
    return None


def _loads(subject: Subject, trial: Trial) -> bool:
    """Whether loading by itself is not refused, with no step after it."""
    assert trial.resume is not None  # noqa: S101  (for the type)
    return attempt(subject, replace(trial, gradients=trial.gradients[: trial.resume.step])) is not None


def _dtypes(came: Trajectory) -> dict[str, str]:
    """The dtype of each slot."""
    return {slot: x.dtype.name for slots in came.state.values() for slot, x in slots.items()}
