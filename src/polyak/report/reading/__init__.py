"""A reading of a run in plain language: what momentum did, each statement with the numbers and the rule that it rests on.

A statement says "can't tell" where the recorded numbers do not decide. None of them says what another optimizer would have
done: that takes another run, and `polyak compare`.
"""

from polyak.report.reading.layers import STALLED, stalled
from polyak.report.reading.limit import LIMIT, near_limit
from polyak.report.reading.momentum import HELPING, OSCILLATING, SATURATED, helping, oscillating, saturated
from polyak.report.reading.statement import FEWEST_STEPS, Answer, Statement
from polyak.report.recorded import Recorded

__all__ = ["Statement", "reading"]

_QUESTIONS = (
    ("Is momentum helping?", helping, HELPING),
    ("Is it oscillating?", oscillating, OSCILLATING),
    ("Is the velocity saturated?", saturated, SATURATED),
    ("Is the learning rate near its limit?", near_limit, LIMIT),
    ("Did a layer stall?", stalled, STALLED),
)


def reading(run: Recorded) -> list[Statement]:
    """The five statements of a run."""
    n = len(run.steps.get("step", ()))
    few: Answer = (
        "can't tell",
        f"{n} recorded steps are too few; {FEWEST_STEPS} are needed. Train longer, or record more often (--record 1).",
        (("recorded steps", str(n)),),
    )
    return [Statement(question, *(few if n < FEWEST_STEPS else answer(run)), rule) for question, answer, rule in _QUESTIONS]
