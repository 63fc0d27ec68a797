"""A reading of a run in plain language: what momentum did, each statement with the numbers and the rule that it rests on.

A statement says "can't tell" where the recorded numbers do not decide. None of them says what another optimizer would have
done: that takes another run, and `polyak compare`.
"""

from polyak.report.reading.layers import STALLED, stalled
from polyak.report.reading.limit import LIMIT, near_limit
from polyak.report.reading.momentum import HELPING, OSCILLATING, SATURATED, helping, oscillating, saturated
from polyak.report.reading.statement import FEWEST_FOR_A_MEDIAN, FEWEST_STEPS, Answer, Statement
from polyak.report.recorded import Recorded

__all__ = ["Statement", "reading"]

# A question, its answer, the rule, and from how many recorded steps on it is answered.
_QUESTIONS = (
    ("Is momentum helping?", helping, HELPING, FEWEST_STEPS),
    ("Is it oscillating?", oscillating, OSCILLATING, FEWEST_STEPS),
    ("Is the velocity saturated?", saturated, SATURATED, FEWEST_FOR_A_MEDIAN),
    ("Is the learning rate near its limit?", near_limit, LIMIT, FEWEST_STEPS),
    ("Did a layer stall?", stalled, STALLED, FEWEST_FOR_A_MEDIAN),
)


def reading(run: Recorded) -> list[Statement]:
    """The five statements of a run."""
    n = len(run.steps.get("step", ()))
    return [
        Statement(question, *(answer(run) if n >= fewest else _too_few(n, fewest)), rule)
        for question, answer, rule, fewest in _QUESTIONS
    ]


def _too_few(n: int, fewest: int) -> Answer:
    return (
        "can't tell",
        f"{n} recorded step{'s are' if n != 1 else ' is'} too few; {fewest} are needed. Train longer, or record more often "
        "(--record 1).",
        (("recorded steps", str(n)),),
    )
