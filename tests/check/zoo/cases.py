"""What the zoo's animals are called, how they are made, and what must be found in them."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from polyak.check import FINDINGS, check
from polyak.check.drivers.scripts import FEW

T = TypeVar("T")


@dataclass(frozen=True)
class Case:
    """An optimizer with something wrong.

    Attributes:
        what: A class or a function of a framework.
        options: What it is made with.
        found: The identifiers that must be found.
        also: Those that the same defect may well be found as, too. Any other is a false alarm.
    """

    what: Any
    options: Mapping[str, Any]
    found: frozenset[str]
    also: frozenset[str]

    def __str__(self) -> str:
        return str(self.what.__name__)

    @property
    def name(self) -> str:
        """As `polyak check` takes it."""
        return f"{self.what.__module__}:{self}"


def broken(cases: list[Case], *found: str, also: tuple[str, ...] = (), **options: Any) -> Callable[[T], T]:
    """A decorator: the optimizer is broken, and made with these options."""
    assert found
    assert {*found, *also} <= FINDINGS.keys(), (found, also)

    def add(what: T) -> T:
        cases.append(Case(what, options, frozenset(found), frozenset(also)))
        return what

    return add


def check_finds(case: Case) -> None:
    """Fail unless a check finds what is wrong, by its identifiers, and shows it in few lines."""
    assert _found(case, case.found) == case.found


def check_finds_nothing_else(case: Case, without: tuple[str, ...] = ()) -> None:
    """Fail unless a whole check finds what is wrong and nothing else.

    Args:
        case: The optimizer.
        without: The identifiers that are not looked for, unless they are this case's, since that takes long.
    """
    found = _found(case, FINDINGS.keys() - set(without) | case.found)
    assert case.found <= found
    assert found <= case.found | case.also


def _found(case: Case, wanted: Collection[str]) -> set[str]:
    report = check(case.name, select=wanted, **case.options)
    for finding in report.findings:
        script = finding.script(report.subject)
        assert finding.identifier not in case.found or len(script.splitlines()) <= FEW, script
    return {finding.identifier for finding in report.findings}
