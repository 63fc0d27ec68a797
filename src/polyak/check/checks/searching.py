"""Whether an option ever changes anything: trials in circumstances, and in settings of others, in which it may count."""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np

from polyak.check.checks import regimes
from polyak.check.checks.measures import attempt, is_more_than_rounding, same, with_options
from polyak.check.checks.values import drawn, few, off, opening, pairs, smaller, words
from polyak.check.trial import Array, Refused, Subject, Trajectory, Trial

Effect = Literal["weights", "average", "gradients", "rounding", "none", "refused"]
"""What an option changes; "rounding" if it is some last digits of the weights, "refused" if no other value was taken."""

_Setting = dict[str, Any]
_Planned = tuple[Subject, Trial, _Setting, Sequence[Any]]
"""A trial, a setting of other options, and the values that the option is given in it."""

_DRAWN = 40  # settings of all options at once
_BESIDE = 200  # letters of a documentation that are about an option


class Search:
    """Trials of the options of a subject, each run once.

    Args:
        subject: The optimizer.
        plain: The trial that the others are made of.
    """

    def __init__(self, subject: Subject, plain: Trial) -> None:
        self.subject = subject
        self.plain, self.uneven = plain, regimes.uneven(plain)
        self.tiny, self.steady = regimes.sized(plain, 1e-7), regimes.steady(plain)
        self._done: dict[tuple[int, int, str], Trajectory | None] = {}

    def effect(self, name: str, values: Sequence[Any]) -> Effect:
        """What an option changes."""
        taken = rounded = False
        for subject, trial, setting, tried in self._plan(name, values):
            of = {**self.subject.defaults, **setting}[name]
            for value in (value for value in tried if value != of):
                varied = self._run(subject, trial, {**setting, name: value})
                if varied is None and not self._is_taken({**setting, name: value}):
                    continue
                # Only now: where an option is refused, the steps of its settings are not worth their compilation.
                base = self._run(subject, trial, setting)
                if base is None or varied is None:
                    if base is not varied and self._is_taken(setting) and self._is_taken({**setting, name: value}):
                        return "weights"  # it decides whether these steps are taken or refused
                    continue
                taken = True
                times = _times(of, value)
                if any(is_more_than_rounding(base.after[name], w, times) for name, w in varied.after.items()):
                    return "weights"
                if not same(base, varied):
                    if not self.subject.double:  # of float32, an option of little effect has no other
                        return "weights"
                    rounded = True
                    continue
                if trial is self.uneven and _average_differs(base, varied):  # where gradients are not along the weights
                    return "average"
                if _left_differ(base, varied):
                    return "gradients"
        return "rounding" if rounded else "none" if taken else "refused"

    @cached_property
    def closed(self) -> list[str]:
        """The options that are words, of which no other word was found: so it is not known what they would open."""
        opened = {name for setting in self._switches for name, value in setting.items() if value is not None}
        return [name for name in words(self.subject.defaults) if name not in opened]

    def _is_taken(self, setting: _Setting) -> bool:
        """Whether a setting is not refused for itself, whatever the steps."""
        return self._run(self.subject, self.uneven, setting) is not None

    def _run(self, subject: Subject, trial: Trial, options: Mapping[str, Any]) -> Trajectory | None:
        key = (id(subject), id(trial), repr(sorted(options.items())))
        if key not in self._done:
            self._done[key] = attempt(subject, with_options(trial, options))
        return self._done[key]

    def _plan(self, name: str, values: Sequence[Any]) -> Iterator[_Planned]:
        """The likeliest to show an effect first; all values in the given setting alone."""
        one = self.subject
        yield one, self.uneven, {}, values[:3]
        for setting in opening(one.defaults):
            yield one, self.uneven, setting, values[:2]
        yield one, self.uneven, {}, values[3:]
        yield one, self.tiny, {}, values
        yield one, self.steady, {}, values[:3]
        for setting in smaller(one.defaults, name, one.rate):
            yield one, self.steady, setting, values[:2]
        for setting in few(one.defaults, name):
            yield one, self.uneven, setting, values[:2]
        for setting in (*off(one.defaults, name, one.rate), *pairs(one.defaults, name, one.rate)):
            yield one, self.uneven, setting, values[:2]
        yield from self._further(name, values)

    def _further(self, name: str, values: Sequence[Any]) -> Iterator[_Planned]:
        """What is needed for few options: circumstances that are rare, or several other options at once."""
        one, everything = self.subject, self._regimes[-1]
        settings = [{}, *few(one.defaults, name)[:2], *smaller(one.defaults, name, one.rate)]
        for trial in self._regimes:
            for setting in settings:
                yield one, trial, setting, values[:3]
        for switch in self._switches:
            for setting in settings if name not in switch else ():
                for trial in (self.uneven, everything):
                    yield one, trial, {**setting, **switch}, values[:3]
        if scheduled := self._scheduled:
            for setting in ({}, *pairs(one.defaults, name, one.rate, each=1)):
                yield scheduled, self._changing, setting, values[:2]
        if given := self._with_loss:
            for setting in ({}, *pairs(one.defaults, name, one.rate, each=1)):
                yield given, self.uneven, setting, values[:2]
        for setting in drawn(one.defaults, name, _DRAWN):
            yield one, everything, setting, values[:1]

    @cached_property
    def _regimes(self) -> list[Trial]:
        return list(regimes.regimes(self.subject, self.plain))

    @cached_property
    def _scheduled(self) -> Subject | None:
        """The same with a scheduler, which notes something for itself in the options."""
        return self.subject.scheduler()

    @cached_property
    def _changing(self) -> Trial:
        """With another learning rate from some steps on."""
        return regimes.changing(self.subject, self.uneven)

    @cached_property
    def _with_loss(self) -> Subject | None:
        """The same, given the loss at each step, if that changes anything."""
        way = self.subject.with_loss()
        if way is None or (given := self._run(way, self.uneven, {})) is None:
            return None
        base = self._run(self.subject, self.uneven, {})
        return None if base is None or same(base, given) else way

    @cached_property
    def _switches(self) -> list[_Setting]:
        """Other words for options that are words, and what the constructor does not name, as far as they are taken."""
        found: list[_Setting] = [{name: word} for name in words(self.subject.defaults) for word in self._choices(name)]
        found += [{name: True} for name in self.subject.unnamed]
        return [setting for setting in found if self._is_taken(setting)]

    def _choices(self, name: str) -> list[str | None]:
        """What an option that is a word may be: the words that refusals, and its documentation beside its name, quote."""
        said = "".join(re.findall(rf"\b{re.escape(name)}\b.{{,{_BESIDE}}}", self.subject.documentation, re.DOTALL))
        try:
            self.subject.run(with_options(self.uneven, {name: "?"}))
        except Refused as refused:
            said = f"{refused} {said}"
        quoted = dict.fromkeys(re.findall(r"['\"`]([A-Za-z][\w-]*)['\"`]", said))
        return [word for word in [*quoted, None] if word != self.subject.defaults[name]]


def _times(one: Any, other: Any) -> float:
    """How many times as large as a number another one is: so many times as large is the rounding of what it multiplies."""
    plain = all(isinstance(x, int | float) for x in (one, other))
    return max(1.0, abs(other / one)) if plain and one else 1.0


def _average_differs(one: Trajectory, other: Trajectory) -> bool:
    """Whether a slot differs that holds an average of the weights: but for a factor, it is never outside of where they were."""

    def holds_weights(trajectory: Trajectory, name: str, slot: str) -> bool:
        was = np.concatenate([trajectory.before[name][:1], trajectory.after[name]])
        kept = trajectory.state[name][slot]
        if kept.shape != was.shape[1:]:
            return False
        kept, low, high = kept.reshape(-1), was.min(0).reshape(-1), was.max(0).reshape(-1)
        # Where weights went far anything is between: then it would be so too if each element were another's.
        return _between(kept, low, high) and not _between(np.roll(kept, 1), low, high)

    return any(
        not np.array_equal(kept, other.state[name][slot], equal_nan=True)
        and holds_weights(one, name, slot)
        and holds_weights(other, name, slot)
        for name, slots in one.state.items()
        if name in one.before
        for slot, kept in slots.items()
        if slot in other.state.get(name, {})
    )


def _between(kept: Array, low: Array, high: Array) -> bool:
    """Whether one factor brings all of it between two arrays: of those that do so for an element there is a common one."""
    sure = (low * high > 0) & (kept != 0)
    if sure.sum() < max(4, 0.75 * len(kept)):  # a few numbers may be so by chance
        return False
    factors = np.stack([low[sure] / kept[sure], high[sure] / kept[sure]])
    return bool(factors.min(0).max() <= factors.max(0).min())


def _left_differ(one: Trajectory, other: Trajectory) -> bool:
    """Whether the gradients differ that a step leaves, which whoever adds to them goes on with."""
    left = ((g, other.gradients.get(name)) for name, g in one.gradients.items())
    return any(
        isinstance(g, np.ndarray) and isinstance(h, np.ndarray) and not np.array_equal(g, h, equal_nan=True) for g, h in left
    )
