"""Whether the learning rate is as large as it can be: the fall of the loss beside what the gradients promised."""

import math

from polyak.report.measures import Fall, Series, fall, own_share
from polyak.report.reading.statement import Answer, Verdict, half, median
from polyak.report.recorded import Recorded

# On a quadratic, of the fall that the gradient promises of a step of descent, 1 - lr / lr_limit comes true: all of it at small
# learning rates, half at the best for that direction, nothing at the limit. Below a quarter, the limit is near.
NEAR_LIMIT = 0.25
# At the limit of heavy ball the weight along the largest curvature changes its sign at every step, and the cosine goes to -1.
# At -0.5 that direction has a quarter of the squared length.
TURNING = -0.5
# A promise of less than this part of the whole belongs to nobody: it is the rounding of the recorded numbers.
NOTHING = 0.01

LIMIT = (
    "The change of the loss beside what the gradients promised, which is -g . step summed over the steps, in each half of the "
    f"run. No where at least {NEAR_LIMIT:.0%} of the promise came true; yes where the loss rose by more than its noise, where "
    f"the median cosine of gradient and velocity is below {TURNING}, or where less came true, the rest being lost to "
    "curvature. With batches, each step counts its own batch's noise as a gain. Then little kept decides only against the "
    "promise without each step's own gradient, where that leads downhill by more than the noise."
)


def near_limit(run: Recorded) -> Answer:
    """Is the learning rate near its limit?"""
    verdicts: list[Verdict] = []
    answers, numbers = [], []
    for which, name in enumerate(("first", "second")):
        rows = half(run.steps, which)
        found = fall(rows, own_share(run.environment["optimizer"], rows["momentum"]))
        verdict, answer = _of_half(found, rows["cosine"], one_batch=run.environment.get("steps_per_epoch") == 1)
        verdicts.append(verdict)
        answers.append(answer)
        if math.isfinite(found.change):
            numbers.append((f"{name} half: change of the loss", f"{found.change:.3g} +- {found.error:.1g}"))
            numbers.append((f"{name} half: promised", f"{found.promised:.3g}"))
        if math.isfinite(found.carried):
            numbers.append((f"{name} half: promised without each step's own gradient", f"{found.carried:.3g}"))
    first, second = answers
    said = f"In both halves {first}." if first == second else f"In the first half {first}, in the second {second}."
    if "yes" in verdicts:
        said += " Try a smaller learning rate" + (", or one that falls." if verdicts == ["no", "yes"] else ".")
    return max(verdicts, key=("no", "can't tell", "yes").index), said, tuple(numbers)


def _of_half(found: Fall, cosine: Series, *, one_batch: bool) -> tuple[Verdict, str]:
    """The verdict on one half of a run."""
    if math.isnan(found.change):
        return "yes", "the loss or a gradient was not finite"
    if found.change > 2 * found.error:
        return "yes", "the loss rose"
    if median(cosine) < TURNING:
        return "yes", "the gradient turned against the velocity at nearly every step"
    kept = found.change / found.promised if found.promised < 0 else -math.inf
    if kept < NEAR_LIMIT and not one_batch:
        # The true promise is between the two, so what is little of the smaller one is less of it. NaN is no promise either.
        if not -found.carried > max(NOTHING * abs(found.promised), 2 * found.error):
            return "can't tell", "the noise of the batches hides what the steps gained"
        kept = found.change / found.carried
        if kept >= NEAR_LIMIT:
            return "can't tell", "the noise of the batches hides how much of the promised fall came true"
    if kept < NEAR_LIMIT:
        return "yes", f"{max(kept, 0):.0%} of the promised fall came true: steps overshoot"
    return "no", f"{kept:.0%} of the promised fall came true"
