"""Has every option an effect?"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from polyak.check.checks.measures import attempt, incomparable, not_applicable, outcome, same, short, small, usual, with_options
from polyak.check.checks.values import opening, pairs, variations
from polyak.check.finding import Finding, Outcome
from polyak.check.identity import Identity
from polyak.check.trial import Subject, Trajectory, Trial

_CHECK = "every option has an effect"
# Names that mean the same in many optimizers, so that the trials are such that they count.
_FAMILIAR = re.compile(
    "^(lr|learning_rate|momentum|momenta|betas?|beta_?[0-9]|b[0-9]|rho|nu|nesterov|dampening|maximize|centered|amsgrad|"
    "ams_bound|.*decay.*|.*decouple.*|eps.*|.*epsilon|.*clip.*|max_norm)$"
)

_STEPS = 12  # more than the number of steps after which something is done, as far as the values tried say it


def options(subject: Subject, identity: Identity) -> Outcome:
    """Each numeric or boolean option is varied, in the given setting and in others; one that never changes a weight is found.

    An option of how a step is computed is left out, and one that only takes what cannot be guessed. An option counts as having
    an effect if it has one in any setting: eps counts where gradients are tiny, amsgrad where they become smaller.

    Options whose names are not those of the literature may count only in circumstances that are not known here. Where there
    are several without effect, or the rule is none that is known, they are noted; so is any where a word chooses among rules.
    """
    if why := incomparable(subject):
        return not_applicable(_CHECK, why)
    search = _Search(subject, usual(subject, _STEPS)[0])
    if (came := search.run(search.uneven, {})) and not any(came.steps(name).any() for name in came.after):
        return not_applicable(_CHECK, "Weights do not move here, so that no option can change where they go.")
    without: list[Finding] = []
    notes, effective, refused = [], [], []
    for name, value in subject.defaults.items():
        for what, values in variations(name, value):
            match search.effect(name, values):
                case "none":
                    without.append(_finding(subject, name, what, values))
                case "average":
                    notes.append(f"{what} counts in an average of the weights that is kept, and in no weight.")
                case "refused":
                    refused.append(what)
                case _:
                    effective.append(what)
    unknown = identity.kind == "unknown"
    chosen = unknown and any(isinstance(value, str) for value in subject.defaults.values())  # one of several rules by a word
    strange = [finding for finding in without if chosen or not _FAMILIAR.search(finding.option or "")]
    if len(strange) > 2:  # here it is not what it is made for
        strange = without
    if len(strange) > 1 or unknown:
        notes += [f"{finding.option} changed nothing in these trials; it may count elsewhere." for finding in strange]
        without = [finding for finding in without if finding not in strange]
    evidence = f"Varied, and it changes the weights: {', '.join(effective) or 'none'}."
    if refused:
        evidence += f" Another value was refused: {', '.join(refused)}."
    return outcome(_CHECK, evidence, without, notes)


class _Search:
    """Trials of the options of a subject, each run once."""

    def __init__(self, subject: Subject, plain: Trial) -> None:
        self.subject = subject
        self.uneven, self.tiny = _uneven(plain), _scaled(plain, 1e-7)
        self.steady = replace(plain, gradients=[plain.gradients[0]] * (2 * _STEPS))
        self.done: dict[tuple[int, str], Trajectory | None] = {}

    def run(self, trial: Trial, options: Mapping[str, Any]) -> Trajectory | None:
        key = (id(trial), repr(sorted(options.items())))
        if key not in self.done:
            self.done[key] = attempt(self.subject, with_options(trial, options))
        return self.done[key]

    def effect(self, name: str, values: list[Any]) -> str:
        """What an option changes: "weights", an "average" of weights or "none"; "refused" if no other value was taken."""
        taken = False
        for trial, setting, few in self.plan(name, values):
            of = {**self.subject.defaults, **setting}[name]
            base = self.run(trial, setting)
            for value in (value for value in few if value != of):
                varied = self.run(trial, {**setting, name: value})
                if base is None or varied is None:
                    continue
                taken = True
                if not same(base, varied):
                    return "weights"
                if _average_differs(base, varied):
                    return "average"
        return "none" if taken else "refused"

    def plan(self, name: str, values: list[Any]) -> Iterator[tuple[Trial, dict[str, Any], list[Any]]]:
        """Trials, settings and values, the likeliest to show an effect first; all values in the given setting alone."""
        yield self.uneven, {}, values[:3]
        for setting in opening(self.subject.defaults):
            yield self.uneven, setting, values[:2]
        yield self.uneven, {}, values[3:]
        yield self.tiny, {}, values
        yield self.steady, {}, values[:3]
        for setting in pairs(self.subject.defaults, name, self.subject.rate):
            yield self.uneven, setting, values[:2]


def _uneven(trial: Trial) -> Trial:
    """The same with gradients that are large at first, elements whose gradients are huge, tiny and 0, and turning signs."""
    factors = np.array([1, 1e-9, 1e2, 0, 1e-4])

    def scaled(t: int, g: Any) -> Any:
        size = 10 if t < 3 else 0.3
        return (g * size * (factors if g.ndim == 1 else 1)).astype(g.dtype)

    gradients = [{name: scaled(t, g) for name, g in step.items()} for t, step in enumerate(trial.gradients)]
    return replace(trial, gradients=gradients)


def _scaled(trial: Trial, size: float) -> Trial:
    gradients = [{name: np.asarray(g * size, g.dtype) for name, g in step.items()} for step in trial.gradients]  # type: ignore[operator,union-attr]  # arrays, all of them
    return replace(trial, gradients=gradients)


def _average_differs(one: Trajectory, other: Trajectory) -> bool:
    """Whether only a slot differs that holds an average of the weights: it is never outside of where they were."""

    def holds_weights(trajectory: Trajectory, name: str, slot: str) -> bool:
        was = np.concatenate([trajectory.before[name][:1], trajectory.after[name]])
        kept = trajectory.state[name][slot]
        return kept.shape == was.shape[1:] and bool(np.all((kept >= was.min(0)) & (kept <= was.max(0))))

    return any(
        not np.array_equal(kept, other.state[name][slot], equal_nan=True)
        and holds_weights(one, name, slot)
        and holds_weights(other, name, slot)
        for name, slots in one.state.items()
        if name in one.before
        for slot, kept in slots.items()
        if slot in other.state.get(name, {})
    )


def _finding(subject: Subject, name: str, what: str, values: list[Any]) -> Finding:
    """With the same few steps with another value and in the given setting."""
    plain = small(subject, 3)
    taken = [value for value in values if attempt(subject, with_options(plain, {name: value})) is not None]
    other = taken[0] if taken else values[0]
    given = subject.defaults[name]
    return Finding(
        "option-without-effect",
        f"{what} changes nothing: with {name}={short(given)} and with {name}={short(other)} the weights are the same bits, "
        f"and so they are with the other values and in the other settings that were tried.",
        (with_options(plain, {name: other}), plain),
        name,
    )
