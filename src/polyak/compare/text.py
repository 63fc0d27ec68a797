"""A comparison as text: lines for people, and CSV."""

import io
import math
from collections.abc import Iterator
from csv import writer as writer_of

from polyak.compare.result import Comparison


def lines(found: Comparison) -> Iterator[str]:
    """The table, then what the differences say."""
    head, rows = found.table()
    width = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    for first, *rest in [head, *rows]:
        yield "  ".join([first.ljust(width[0]), *(cell.rjust(n) for cell, n in zip(rest, width[1:], strict=True))]).rstrip()
    yield from found.said


def csv(found: Comparison) -> str:
    """A row a run, with numbers as they are, for other programs."""
    text = io.StringIO()
    writer = writer_of(text, lineterminator="\n")
    goal = str(found.goal) if found.goal else ""
    writer.writerow(["group", "seed", "status", found.score or "score", "goal", "steps", "seconds", "run"])
    for group in found.groups:
        for i, run in enumerate(group.runs):
            numbers = [values.get(group.name) for values in (found.scores, found.steps, found.seconds)]
            score, steps, seconds = ("" if x is None or math.isnan(x[i]) else repr(float(x[i])) for x in numbers)
            status = run.result.get("status", "not ended")
            writer.writerow([group.name, run.options.get("seed", 0), status, score, goal, steps, seconds, run.folder])
    return text.getvalue()
