"""Do changes of the learning rate and the momentum between steps take effect?"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from polyak.check.checks.measures import (
    attempt,
    incomparable,
    is_more_than_rounding,
    not_applicable,
    number,
    outcome,
    small,
    usual,
    with_options,
)
from polyak.check.finding import Finding, Outcome
from polyak.check.identity import Identity
from polyak.check.trial import Refused, Subject, Trajectory, Trial

_STEPS, _LONG, _AT = 5, 14, 2
"""Of a short trial, of a long one, and the one before which something is changed."""

_RECOMPILED = 8
"""Steps that are taken, each with another learning rate, while the compilations are counted."""

_MOMENTA = ("momentum", "betas", "beta_1", "b1", "beta1")


def changes(subject: Subject, identity: Identity) -> Outcome:  # noqa: ARG001  (every check has both)
    """The learning rate and the momentum are changed between two steps, in every implementation: the next step must differ."""
    check = "changes between steps take effect"
    if why := incomparable(subject):
        return not_applicable(check, why)
    findings: list[Finding] = []
    notes: list[str] = []
    seen: list[str] = []
    every = subject.implementations or ("",)
    unchanged: dict[tuple[str, str], list[Trajectory]] = {}  # compiled steps take long, and options have these in common
    for option, setting, value in _changes(subject):
        ignoring: list[tuple[str, tuple[Trial, Trial]]] = []
        for implementation in every:
            where = f" in {implementation}" if implementation else ""
            plain = [with_options(each, setting) for each in _trials(subject)]
            pairs = [_pair(replace(each, implementation=implementation), option, value) for each in plain]
            try:
                late = _delay(subject, pairs, unchanged.setdefault((implementation, repr(setting)), []))
            except Refused as refused:
                notes.append(f"{option} cannot be changed in use{where}: {refused}")
                continue
            seen.append(f"{option}{where}")
            if late is None:
                ignoring.append((implementation, pairs[0]))
            elif late and option == subject.rate:  # a momentum need not turn every sign at once
                notes.append(f"A change of {option} takes effect {late} step{'s' if late > 1 else ''} late{where}.")
        if ignoring and all(_idle(subject, each, option, value) for each in plain):
            notes.append(f"{option} has no effect from the start either.")
        elif ignoring:
            where = "" if len(ignoring) == len(every) else f" in {', '.join(name for name, _ in ignoring)}"
            old = {**subject.defaults, **setting}[option]
            said = f"{option} changed from {old!r} to {value!r} before step {_AT} has no effect{where}."
            findings.append(Finding("change-ignored", said, ignoring[0][1], option))
    if not seen:
        return not_applicable(check, " ".join(notes) or "It has no option that is a learning rate or a momentum.")
    return outcome(check, f"Changed in use: {', '.join(seen)}.", findings, notes)


def schedules(subject: Subject, identity: Identity) -> Outcome:  # noqa: ARG001  (see above)
    """The framework's own scheduler changes the learning rate."""
    check = "schedulers reach the step"
    scheduled = subject.scheduler()
    rate = number(subject, subject.rate)
    if scheduled is None or not rate or subject.rate is None:
        return not_applicable(check, "There is no scheduler of the framework for it, or its learning rate is no number.")
    if why := incomparable(subject):
        return not_applicable(check, why)
    plain = _trials(subject)
    pairs = [_pair(each, subject.rate, rate / 10) for each in plain]
    notes = []
    try:
        late = _delay(scheduled, pairs)
    except Refused as refused:
        if not subject.double:
            return not_applicable(check, f"It does not work with a scheduler: {refused}")
        notes = [f"With float64 weights it does not work with a scheduler: {refused}"]
        pairs = [_in_float32(pair) for pair in pairs]
        try:
            late = _delay(scheduled, pairs)
        except Refused:
            return not_applicable(check, f"It does not work with a scheduler: {refused}")
    findings = []
    if late is None and not all(_idle(subject, each, subject.rate, rate / 10) for each in plain):
        said = f"A scheduler that changes {subject.rate} from {rate:.4g} to {rate / 10:.4g} before step {_AT} has no effect."
        findings.append(Finding("schedule-ignored", said, pairs[0], subject.rate))
    return outcome(check, f"{subject.rate} was changed by a scheduler in mid-run.", findings, notes)


def compilations(subject: Subject, identity: Identity) -> Outcome:  # noqa: ARG001  (see above)
    """A learning rate that changes before each step must not be compiled into it."""
    check = "a step is compiled once"
    rate = number(subject, subject.rate)
    if not rate or subject.rate is None:
        return not_applicable(check, "It has no learning rate that is a number.")
    plain = small(subject, _RECOMPILED)
    findings, counts = [], []
    for implementation in subject.implementations or ("",):
        changing = {step: {subject.rate: rate / (step + 1)} for step in range(1, _RECOMPILED)}
        where = f" in {implementation}" if implementation else ""
        trial = replace(plain, implementation=implementation, changes=changing)
        came = attempt(subject, trial)
        if came is None or came.compilations is None:
            continue
        counts.append(f"{came.compilations}{where}")
        # The first steps may differ: state is made in them.
        if came.compilations > _RECOMPILED // 2:
            steady = replace(trial, changes={})
            still = attempt(subject, steady)
            anyway = still is not None and (still.compilations or 0) > _RECOMPILED // 2
            each = "" if anyway else f", each with another {subject.rate},"
            said = f"{_RECOMPILED} steps{each} were compiled {came.compilations} times{where}."
            findings.append(Finding("recompiles", said, (steady if anyway else trial,), None if anyway else subject.rate))
    if not counts:
        return not_applicable(check, "Nothing is compiled, or it is not known how often.")
    return outcome(check, f"Compilations in {_RECOMPILED} steps: {', '.join(counts)}.", findings)


def _changes(subject: Subject) -> Iterator[tuple[str, dict[str, Any], Any]]:
    """What is changed, the setting of the options in which it is, and the new value."""
    if subject.rate is not None and (rate := number(subject, subject.rate)):
        yield subject.rate, {}, rate / 10
    for option in _MOMENTA:
        value = subject.defaults.get(option)
        if isinstance(value, tuple | list) and value and isinstance(value[0], int | float):
            yield option, {}, type(value)((0.5 if value[0] != 0.5 else 0.8, *value[1:]))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield option, {} if value else {option: 0.9}, 0.5 if value != 0.5 else 0.8


def _trials(subject: Subject) -> tuple[Trial, Trial]:
    """A short one to be shown; and one for what has only signs, or waits for some steps before it begins."""
    return small(subject, _STEPS), usual(subject, _LONG)[0]


def _pair(trial: Trial, option: str, value: Any) -> tuple[Trial, Trial]:
    """The trial with a change, and without."""
    return replace(trial, changes={_AT: {option: value}}), trial


def _in_float32(pair: tuple[Trial, Trial]) -> tuple[Trial, Trial]:
    """The same with weights and gradients in float32."""

    def single(values: Mapping[str, Any]) -> dict[str, Any]:
        return {name: np.asarray(x, np.float32) for name, x in values.items()}

    one, other = (
        replace(each, weights=single(each.weights), gradients=[single(step) for step in each.gradients]) for each in pair
    )
    return one, other


def _delay(subject: Subject, pairs: Iterable[tuple[Trial, Trial]], unchanged: list[Trajectory] | None = None) -> int | None:
    """How many steps after a change the weights differ from those without; None where they don't in any of the trials.

    A few elements are enough to see most; what has only signs needs more. Rounding is no difference.
    What came of the trials without a change, as far as they were taken before, is in `unchanged`, and is added to it.
    """
    unchanged = [] if unchanged is None else unchanged
    for place, (changed, plain) in enumerate(pairs):
        one = subject.run(changed)
        if place == len(unchanged):
            unchanged.append(subject.run(plain))
        other = unchanged[place]
        for step in range(len(plain.gradients)):
            if any(is_more_than_rounding(one.after[n][step], other.after[n][step]) for n in one.after):
                return step - _AT
    return None


def _idle(subject: Subject, trial: Trial, option: str, value: Any) -> bool:
    """Whether an option has no effect where it has another value from the start."""
    plain, other = attempt(subject, trial), attempt(subject, with_options(trial, {option: value}))
    if plain is None or other is None:
        return False
    return not any(is_more_than_rounding(w, other.after[name]) for name, w in plain.after.items())
