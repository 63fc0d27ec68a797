"""What `polyak bits` prints of the results."""

from collections.abc import Iterator, Mapping
from itertools import groupby

from polyak.bits.cases import CASES, STEPS
from polyak.bits.compare import differing, error, first_difference
from polyak.bits.run import TITLES, Result


def table(results: Mapping[str, Result]) -> Iterator[str]:
    """A line for each rule and its runs by decay and schedule, every framework against the first of them."""
    (first, reference), *others = results.items()
    width = {name: max(len(TITLES[name]), len("99 differ")) for name, _ in others}
    wrong = {name: set(differing(reference, result)) for name, result in others}

    def line(*words: str, **cells: str) -> str:
        return "{:26}{:>5}{:>9}  ".format(*words) + "  ".join(f"{cells[name]:{width[name]}}" for name in width)

    yield f"{STEPS:,} steps a run: are weights and slots, after every step, bit for bit those of {TITLES[first]}?"
    yield line("", "runs", "float64", **TITLES).rstrip()
    for rule, group in groupby(range(len(CASES)), lambda i: CASES[i].variant):
        runs = list(group)
        count = {name: len(wrong[name].intersection(runs)) for name in width}
        distance = max(error(i, reference) for i in runs)
        cells = {name: f"{n} differ" if n else "equal" for name, n in count.items()}
        yield line(rule, str(len(runs)), f"{distance:.1e}", **cells).rstrip()
    yield f"float64: the relative error of the last state of {TITLES[first]}, the largest of the runs."


def differences(results: Mapping[str, Result]) -> Iterator[str]:
    """For each framework that parts from the first of them, where it first does; computed anew."""
    first, *others = results
    for name in others:
        if cases := differing(results[first], results[name]):
            found = first_difference(cases[0], (first, name), results)
            yield f"{TITLES[name]} and {TITLES[first]} differ in {len(cases)} of {len(CASES)} runs. {found}"
