"""What a check may find, and what it says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from polyak.check.trial import Shown, Subject, Trial

FINDINGS: Mapping[str, str] = {
    "option-without-effect": "An option changes nothing.",
    "option-effect": "An option has another effect than its name says.",
    "ascent": "Steps go up the gradient: a sign is flipped.",
    "learning-rate-differs": "The learning rate is not the one that was asked for.",
    "momentum-differs": "The momentum is not the one that was asked for.",
    "nesterov-differs": "Nesterov's momentum was asked for and is not there, or the other way round.",
    "dampening-differs": "The dampening is not the one that was asked for, or has another effect.",
    "decay-kind": "The weight decay is of another kind than its options or its documentation say.",
    "decay-amount": "The weight decay is not as large as was asked for.",
    "first-step-differs": "The first step follows another rule than the later ones.",
    "irregular-steps": "Some steps do not follow the rule of the others.",
    "implementations-differ": "Two implementations of the same optimizer come to other weights.",
    "parameters-mixed": "What happens to one parameter depends on another, or on its order or shape.",
    "groups-ignored": "Options of a parameter group have no effect, or reach other groups.",
    "resume-differs": "Training that was stopped, saved and loaded goes on otherwise.",
    "state-by-position": "State that is loaded into parameters in another order goes to the wrong ones.",
    "state-dtype": "The state has another dtype after it was loaded.",
    "change-ignored": "A learning rate or momentum that is changed in use has no effect.",
    "schedule-ignored": "A scheduler of the framework does not reach the step.",
    "recompiles": "A step is compiled again and again.",
    "shape-fails": "Tensors without dimensions, without elements or with one element are not served.",
    "layout-differs": "Tensors that are not contiguous come to other weights.",
    "sparse-differs": "A sparse gradient comes to other weights than the same gradient, dense.",
    "poison-spreads": "A NaN or infinite gradient of one element reaches others.",
    "gradient-written": "The gradient that was handed in is written to.",
    "gradient-kept": "The state is the caller's gradient itself, and changes with it.",
    "missing-gradient": "A parameter without a gradient is an error, or makes others go wrong.",
    "scale-fails": "Huge or tiny gradients overflow or vanish where they need not.",
    "instances-share-state": "Two instances change each other.",
    "copy-shares-state": "A deep copy or an unpickled instance is not independent, or goes on otherwise.",
}
"""The identifiers, which stay as they are, with what each is in a sentence. Each has a page in docs/findings/."""

# What is wrong is not in the weights.
_SHOWN: Mapping[str, Shown] = {
    "gradient-written": "gradients",
    "state-dtype": "state",
    "recompiles": "compilations",
    "instances-share-state": "turns",
}

Status = Literal["pass", "fail", "not applicable"]


@dataclass(frozen=True)
class Finding:
    """Something that is wrong.

    Attributes:
        identifier: One of `FINDINGS`.
        what: What is wrong with this optimizer, in a sentence with its numbers.
        trials: Those that show it, one or two of few steps.
        option: The option that it is about.
    """

    identifier: str
    what: str
    trials: Sequence[Trial]
    option: str | None = None

    def script(self, subject: Subject) -> str:
        """The program that shows it, of the optimizer in which it was found."""
        scheduled = subject.scheduler() if self.identifier == "schedule-ignored" else None
        return (scheduled or subject).script(*self.trials, shown=_SHOWN.get(self.identifier, "weights"))


@dataclass(frozen=True)
class Outcome:
    """What became of one check.

    Attributes:
        check: Its name, for people.
        status: "fail" if there are findings.
        evidence: What was measured, or why the check does not apply, in a sentence or two.
        findings: What is wrong.
        notes: What its user should know though it is not wrong: how long a NaN stays, say.
    """

    check: str
    status: Status
    evidence: str
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
