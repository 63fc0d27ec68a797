"""A report as data: JSON for other programs."""

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from polyak.check.line import line, recurrence
from polyak.check.report import Report
from polyak.check.text import location
from polyak.check.trial import Array

FORMAT = 1
"""Of the JSON. It grows when something that was there is another thing or is gone; what is new does not count."""


def written(report: Report) -> str:
    """A report in JSON.

    Numbers that are not finite are null, poles and residues pairs of real and imaginary part, options that JSON does not have
    their `repr`. Each finding has the script that shows it.
    """
    return json.dumps(data(report), indent=2, allow_nan=False)


def data(report: Report) -> dict[str, Any]:
    """What the JSON says."""
    return {
        "format": FORMAT,
        "versions": dict(report.versions),
        "optimizer": {
            "name": report.subject.name,
            "framework": report.subject.framework,
            "options": plain(report.subject.options),
            "defaults": plain(report.subject.defaults),
        },
        "line": line(report.identity),
        "recurrence": list(recurrence(report.identity)),
        "identity": plain(report.identity) | {name: _pairs(getattr(report.identity, name)) for name in ("poles", "residues")},
        "checks": [
            {
                "check": outcome.check,
                "status": outcome.status,
                "evidence": outcome.evidence,
                "notes": list(outcome.notes),
                "findings": [_finding(report, finding) for finding in outcome.findings],
            }
            for outcome in report.outcomes
        ],
        "ignored": [_finding(report, finding) for finding in report.ignored],
        "code": report.code,
    }


def _finding(report: Report, finding: Any) -> dict[str, Any]:
    return {
        "identifier": finding.identifier,
        "what": finding.what,
        "option": finding.option,
        "page": location(finding.identifier),
        "scripts": [finding.script(report.subject)],
    }


def _pairs(numbers: Array) -> list[Any]:
    """Complex numbers, also where all of them are real."""
    found: list[Any] = plain(numbers.astype(np.complex128))
    return found


def plain(x: Any) -> Any:
    """A value with nothing in it but what JSON has."""
    if is_dataclass(x) and not isinstance(x, type):
        return {field.name: plain(getattr(x, field.name)) for field in fields(x)}
    match x:
        case None | bool() | int() | str():
            return x
        case float():
            return x if math.isfinite(x) else None
        case complex():
            return [plain(x.real), plain(x.imag)]
        case np.ndarray() | np.generic():
            return plain(x.tolist())
        case list() | tuple():
            return [plain(each) for each in x]
        case Mapping():
            return {str(name): plain(each) for name, each in x.items()}
    return repr(x)
