"""Trials of a PyTorch optimizer as a program."""

from collections.abc import Sequence

from polyak.check.drivers.pairs import alike, is_stopped_alone
from polyak.check.drivers.scripts import imports, program_of
from polyak.check.drivers.torch.beside import Beside
from polyak.check.drivers.torch.body import TAKEN, Body
from polyak.check.drivers.torch.running import Way
from polyak.check.trial import Shown, Trial


def program(trials: Sequence[Trial], ways: Sequence[Way], shown: Shown) -> str:
    """Trials of an optimizer, each used in its way; see `polyak.check.trial.Subject.script`."""
    return program_of(lambda short: _lines(trials, ways, shown, short=short))


def _lines(trials: Sequence[Trial], ways: Sequence[Way], shown: Shown, *, short: bool) -> list[str]:
    source = ways[0].maker.source
    taken = (*TAKEN, source.partition(".")[0])
    resumes = [trial.resume for trial in trials if trial.resume]
    how = {"copy" if each.how == "load" else each.how for each in resumes if each.how != "load" or each.unharmed}
    lines = list(imports([*sorted(how), "torch"], source))
    if short and shown == "weights" and is_stopped_alone(trials) and (beside := Beside(trials[1], ways[1], taken)).is_short():
        return [*lines, *beside.lines()]
    together = alike(trials, ways[0].maker.defaults)
    bodies = [(trials, ways[0])] if together else [([trial], way) for trial, way in zip(trials, ways, strict=True)]
    for some, way in bodies:
        lines += Body(some, way, shown, taken, short=short).lines()
    return lines
