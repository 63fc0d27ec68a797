"""A report as text: one page for people."""

from collections.abc import Iterable, Iterator
from textwrap import indent, wrap

from polyak.check.finding import Finding, Outcome
from polyak.check.line import line, recurrence
from polyak.check.report import Report

# As wide as a terminal that is wider than the classic one; scripts and paths are not broken.
_WIDTH = 110
_LEFT = 16  # "not applicable" and two spaces


def page(report: Report) -> str:
    """All of it: what the optimizer is, each check, each finding with the script that shows it."""
    return "\n".join(
        [*_head(report), "", *(text for outcome in report.outcomes for text in _outcome(report, outcome)), _sum(report)]
    )


def findings(report: Report) -> str:
    """What the optimizer is and what is wrong with it."""
    return "\n".join(
        [*_head(report), "", *(text for finding in report.findings for text in _finding(report, finding)), _sum(report)]
    )


def location(identifier: str) -> str:
    """The page of a finding."""
    return f"docs/findings/{identifier}.md"


def _head(report: Report) -> Iterator[str]:
    yield f"{report.title}   {', '.join(f'{name} {version}' for name, version in report.versions.items())}"
    yield ""
    yield from wrap(line(report.identity), _WIDTH, break_long_words=False, break_on_hyphens=False)
    if written := recurrence(report.identity):
        yield ""
        yield from (f"    {text}" for text in written)
    if doubts := report.identity.doubts:
        yield ""
        yield from (text for doubt in doubts for text in _wrapped(doubt, "doubt: ", 0))


def _outcome(report: Report, outcome: Outcome) -> Iterator[str]:
    status = outcome.status.upper() if outcome.status == "fail" else outcome.status
    yield from _wrapped(f"{outcome.check}: {outcome.evidence}", status.ljust(_LEFT), 0)
    for note in outcome.notes:
        yield from _wrapped(note, "note: ", _LEFT)
    for finding in outcome.findings:
        yield from _finding(report, finding, _LEFT)


def _finding(report: Report, finding: Finding, left: int = 0) -> Iterator[str]:
    """A finding: its identifier, what is wrong, its page, and the script that shows it: at the left, since it is wide."""
    yield from _wrapped(f"{finding.identifier}: {finding.what}", "", left, 2)
    yield f"{' ' * left}  {location(finding.identifier)}"
    yield ""
    yield indent(finding.script(report.subject).rstrip(), "    ")
    yield ""


def _sum(report: Report) -> str:
    """The last line: how much was found, and what was left out."""
    found = report.findings
    applied = sum(outcome.status != "not applicable" for outcome in report.outcomes)
    said = f"{len(found) or 'no'} finding{'s' * (len(found) != 1)} in {applied} check{'s' * (applied != 1)}"
    if found:
        said += f": {_names(found)}"
    if report.ignored:
        said += f". Ignored: {_names(report.ignored)}"
    return f"{said}."


def _names(found: Iterable[Finding]) -> str:
    """The identifiers, each once."""
    return ", ".join(dict.fromkeys(finding.identifier for finding in found))


def _wrapped(text: str, first: str, left: int, more: int = 0) -> list[str]:
    """A text below itself, after a word before its first line; later lines begin so many more places to the right."""
    begin = " " * left + first
    later = " " * (len(begin) + more)
    return wrap(text, _WIDTH, initial_indent=begin, subsequent_indent=later, break_long_words=False, break_on_hyphens=False)
