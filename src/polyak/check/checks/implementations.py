"""Do all implementations of an optimizer come to the same weights?"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from polyak.check.checks.measures import attempt, incomparable, not_applicable, outcome, small, usual, with_options
from polyak.check.checks.values import is_number, variations
from polyak.check.finding import Finding, Outcome
from polyak.check.identity import Identity
from polyak.check.trial import Refused, Subject, Trajectory, Trial

_CHECK = "implementations agree"
_STEPS = 6

# How far two roundings of the same recurrence may lie apart, in parts of the largest step: a step is a sum of some terms, of
# which each is rounded to 6e-8, in float64 too where a learning rate is kept in float32; a quotient may lose three digits.
_OF_STEPS = {"float64": 1e-6, "float32": 1e-4}
# A compiled step may keep its number as a tensor of float32, in which 1 - 0.999, of a correction for the first steps, has lost
# three digits.
_COMPILED = 1e-4
# The same of a matrix that is made orthogonal by a polynomial of its own in lower precision.
_ORTHOGONALISED = 3e-2


def implementations(subject: Subject, identity: Identity) -> Outcome:
    """The same steps by each implementation, as given and with other values of the options.

    Weights may differ by rounding: of the weights, a unit in the last place of the largest each step.
    """
    if len(subject.implementations) < 2:
        return not_applicable(_CHECK, "There is one implementation.")
    if why := incomparable(subject):
        return not_applicable(_CHECK, why)
    trial, _ = usual(subject, _STEPS)
    findings: list[Finding] = []
    notes: list[str] = []
    reference, *rest = subject.implementations
    for options in _settings(subject):
        base = replace(with_options(trial, options), implementation=reference)
        expected = attempt(subject, base)
        if expected is None:
            continue
        for other in rest:
            if any(other in finding.what for finding in findings) or (options and other == "compiled"):
                continue
            changed = replace(base, implementation=other)
            try:
                came = subject.run(changed)
            except Refused as refused:
                if not options:
                    notes.append(f"{other} refuses: {refused}")
                continue
            if worst := _apart(expected, came, identity, least=_COMPILED if other == "compiled" else 0.0):
                step, name, by = worst
                with_them = f" with {_written(options)}" if options else ""
                said = (
                    f"{other} and {reference} come to other weights{with_them}: by {by:.2g} at step {step}, which is "
                    f"{by / _largest(expected, name):.2g} of the largest step."
                )
                shown = _shown(subject, identity, changed, base, step)
                findings.append(Finding("implementations-differ", said, shown))
    return outcome(_CHECK, f"Compared: {', '.join(subject.implementations)}.", findings, notes)


def _settings(subject: Subject) -> Iterator[Mapping[str, Any]]:
    """As given; and, for what the implementations write out one by one, every option once with another value.

    A compiler, PyTorch's too, is given one and the same function to compile, so that one setting that has all of them serves.
    """
    yield {}
    if subject.framework != "torch":
        return
    for name, value in subject.defaults.items():
        if value is not None and is_number(value):
            for _, values in variations(name, value):
                yield {name: values[0]}


def _shown(subject: Subject, identity: Identity, wrong: Trial, right: Trial, step: int) -> tuple[Trial, Trial]:
    """The two trials with two elements, where that is enough to see it; else up to the step where it shows."""
    few = small(subject, 3)
    two = [replace(each, weights=few.weights, gradients=few.gradients) for each in (wrong, right)]
    came = [attempt(subject, each) for each in two]
    if came[0] and came[1] and _apart(came[1], came[0], identity):
        return two[0], two[1]
    cut = [replace(each, gradients=each.gradients[: step + 1]) for each in (wrong, right)]
    return cut[0], cut[1]


def _apart(one: Trajectory, other: Trajectory, identity: Identity, *, least: float = 0.0) -> tuple[int, str, float] | None:
    """Where two trajectories first lie farther apart than rounding makes them, and by how much.

    Rounding is at least such a part of the largest step.
    """
    for name, weights in one.after.items():
        difference = np.abs(weights.astype(np.float64) - other.after[name].astype(np.float64))
        flat = difference.reshape(len(difference), -1).max(axis=1, initial=0)
        of_step = _ORTHOGONALISED if identity.kind == "orthogonalised" else max(_OF_STEPS[weights.dtype.name], least)
        ulps = np.finfo(weights.dtype).eps * np.abs(weights).max(initial=0) * np.arange(1, len(flat) + 1)
        allowed = of_step * _largest(one, name) + 2 * ulps
        if np.any(wrong := ~(flat <= allowed)) and not _both_nan(weights, other.after[name]):
            step = int(np.argmax(wrong))
            return step, name, float(flat[step])
    return None


def _both_nan(one: Any, other: Any) -> bool:
    return bool(np.array_equal(np.isnan(one), np.isnan(other)) and np.isnan(one).any())


def _largest(trajectory: Trajectory, name: str) -> float:
    return float(np.abs(trajectory.steps(name)).max(initial=0)) or 1.0


def _written(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in options.items())
