"""A whole check: what an optimizer is, and what is wrong with it."""

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from polyak.check.checks import CHECKS
from polyak.check.drivers.loading import load, of
from polyak.check.finding import FINDINGS, Finding, Outcome
from polyak.check.identification import identify as identified
from polyak.check.identity import Identity
from polyak.check.trial import Refused, Subject
from polyak.train.words import choice


@dataclass(frozen=True)
class Report:
    """What came of a check. As text, `print(report)`, it is one page.

    Attributes:
        subject: The optimizer.
        identity: The recurrence that it follows.
        outcomes: What became of each check, in the order of the page, without the findings that are ignored.
        ignored: The findings that are.
    """

    subject: Subject
    identity: Identity
    outcomes: tuple[Outcome, ...]
    ignored: tuple[Finding, ...] = ()

    @property
    def title(self) -> str:
        """The optimizer with its options, as "torch.optim:SGD(lr=0.1, momentum=0.9)"."""
        return f"{self.subject.name}({', '.join(f'{name}={value!r}' for name, value in self.subject.options.items())})"

    @property
    def versions(self) -> Mapping[str, str]:
        """Those of Polyak, of the framework and what it computes with, and of the package of the optimizer, if it has one."""
        names = ["polyak", self.subject.framework]
        if self.subject.framework == "keras":
            names.append(sys.modules["keras"].backend.backend())
        names.append(self.subject.name.partition(":")[0].partition(".")[0])
        return {name: found for name in names if (found := _version(name))}

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What is wrong."""
        return tuple(finding for outcome in self.outcomes for finding in outcome.findings)

    @property
    def code(self) -> int:
        """The exit code: 0 without findings, 1 with some."""
        return 1 if self.findings else 0

    def __str__(self) -> str:
        from polyak.check.text import page

        return page(self)


def _version(module: str) -> str | None:
    """That of a module that is imported; None where it has none, as a file of one's own."""
    if found := getattr(sys.modules.get(module), "__version__", None):
        return str(found)
    try:
        return version(module)
    except PackageNotFoundError:
        return None


def check(optimizer: Any, /, *, select: Iterable[str] | None = None, ignore: Iterable[str] = (), **options: Any) -> Report:
    """Measure an optimizer, and say what it does and what is wrong with it.

    It is a black box that is given weights and gradients of a few elements; nothing is read of its code. docs/check.md
    says what is measured, how, and what cannot be told.

    Args:
        optimizer: "module:name" of a torch class, a Keras class or an optax function; or one that is at hand: a function of the
            parameters that returns a torch optimizer, a function of nothing that returns a Keras optimizer or an optax
            transformation, a transformation, a class that needs no options.
        select: The identifiers of the findings to look for, of `FINDINGS`. None for all.
        ignore: Those that are known and are no findings here. They are still listed in the report.
        **options: Of the constructor, where a name is given.

    Raises:
        ValueError: There is no such optimizer, the options do not fit it, it takes no step, or an identifier is not known.
        TypeError: What was given is no optimizer, or options came with one that is made already.

    Example:
        >>> report = check("torch.optim:SGD", lr=0.1, momentum=0.9, ignore=["state-by-position"])
        >>> report.code
        0
        >>> report.identity.kind
        'momentum'
    """
    wanted, unwanted = known("select", FINDINGS if select is None else select), known("ignore", ignore)
    subject = _subject(optimizer, options)
    identity = identified(subject)
    found = [_outcome(one, subject, identity) for one, identifiers in CHECKS.items() if wanted.intersection(identifiers)]
    ignored = wanted & unwanted
    outcomes = tuple(_without(outcome, wanted - ignored, ignored) for outcome in found)
    return Report(subject, identity, outcomes, tuple(x for each in found for x in each.findings if x.identifier in ignored))


def identify(optimizer: Any, /, **options: Any) -> Identity:
    """Measure what recurrence an optimizer follows, without looking for what is wrong with it.

    Args:
        optimizer: As in `check`.
        **options: As in `check`.

    Raises:
        ValueError, TypeError: As in `check`.

    Example:
        >>> identify("torch.optim:SGD", lr=0.1, momentum=0.9, weight_decay=5e-4).decay
        'coupled'
    """
    return identified(_subject(optimizer, options))


def known(what: str, identifiers: Iterable[str]) -> set[str]:
    """The identifiers of findings, each of which there is; or a ValueError with the closest."""
    names = [identifiers] if isinstance(identifiers, str) else identifiers
    return {choice(f"identifier in {what}:", name, FINDINGS) for name in names}


def _subject(optimizer: Any, options: Mapping[str, Any]) -> Subject:
    if isinstance(optimizer, str):
        return load(optimizer, options)
    if options:
        raise TypeError(
            f"options are given with a name, such as 'torch.optim:SGD'; got {', '.join(options)} with {optimizer!r}. "
            f"Write them into a function: lambda params: MySGD(params, lr=0.1)."
        )
    return optimizer if hasattr(optimizer, "together") else of(optimizer)  # a Subject stays what it is


def _outcome(one: Callable[[Subject, Identity], Outcome], subject: Subject, identity: Identity) -> Outcome:
    """What becomes of a check, also where the optimizer raises an error that the check did not count on."""
    try:
        return one(subject, identity)
    except Refused as refused:
        return Outcome(one.__name__.replace("_", " "), "not applicable", f"It could not be measured: {refused}")


def _without(outcome: Outcome, wanted: set[str], ignored: set[str]) -> Outcome:
    """An outcome with the findings that are wanted; those that are ignored are noted, others are not spoken of."""
    kept = tuple(finding for finding in outcome.findings if finding.identifier in wanted)
    notes = tuple(f"{x.identifier} is ignored: {x.what}" for x in outcome.findings if x.identifier in ignored)
    status = "pass" if outcome.findings and not kept else outcome.status
    return replace(outcome, findings=kept, notes=(*outcome.notes, *notes), status=status)
