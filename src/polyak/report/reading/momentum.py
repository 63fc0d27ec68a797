"""What the velocity did: whether it led where the gradients pointed, swung, or was as long as it can get."""

import math

import numpy as np

from polyak.report.measures import fullness, fullness_of_noise, is_a_sum
from polyak.report.reading.statement import OPPOSED, Answer, Verdict, half, known, median
from polyak.report.recorded import Recorded

# The velocity counts as going with the gradients from 60 % of the steps on, as going against them below 40 %: two gradients
# without anything in common agree in half of all steps. With few steps the margin is two standard errors of a share.
LEAST_MARGIN = 0.1
# What swings goes against its velocity a quarter of the time on the way out and back, or more. A tenth is now and then.
SWINGING, STEADY = 0.25, 0.1
# What swings against its velocity most of the time does so even where the loss falls meanwhile.
MOSTLY = 0.5
# From four fifths of the longest step on, more momentum would change the direction little; it acts as a larger learning rate.
FULL = 0.8
# Up to half as long again as of independent gradients, a velocity is mostly their noise.
NOISE = 1.5

_ASK_COMPARE = " Whether it gets there sooner than descent takes a run without momentum: polyak compare."
_NO_VELOCITY: Answer = ("can't tell", "No velocity was recorded: this optimizer keeps none that has one direction.", ())

HELPING = (
    "The cosine of the new gradient and the velocity from before the step. Yes where it is above 0 in clearly more than half "
    "of the recorded steps, by 10 points or two standard errors; no where in clearly less, and the median is below "
    f"{OPPOSED}. Batches are noisy, so that it is small even where the velocity leads."
)


def helping(run: Recorded) -> Answer:
    """Is momentum helping?"""
    cosine = known(run.steps["cosine"])
    if not len(cosine):
        return _NO_VELOCITY
    agree = float((cosine > 0).mean())
    margin = max(LEAST_MARGIN, 1 / math.sqrt(len(cosine)))
    numbers = [
        ("steps with a positive cosine", f"{agree:.0%} of {len(cosine)}"),
        ("median cosine of gradient and velocity", f"{np.median(cosine):.2g}"),
    ]
    longer = ""
    if is_a_sum(run.environment["optimizer"]):
        # |step| / (lr |g|): 1 for descent, whatever the unit of the velocity once m is taken out of the effective rate.
        times = median(fullness(run.steps) / (1 - run.steps["momentum"]))
        persistent = median(1 / (1 - run.steps["momentum"]))
        numbers.append(("step against one along its gradient alone", f"{times:.3g} times"))
        numbers.append(("the same for a gradient that does not change", f"{persistent:.3g} times"))
        longer = f" A step is {times:.2g} times as long as one along its own gradient alone."
    verdict: Verdict = "can't tell"
    if agree >= 0.5 + margin:
        verdict, answer = "yes", "Past gradients point where new ones do, so the velocity builds up." + longer + _ASK_COMPARE
    elif agree > 0.5 - margin:
        answer = "New gradients agree with the velocity about as often as not: it averages their noise." + longer + _ASK_COMPARE
    elif np.median(cosine) >= OPPOSED:
        answer = (
            "New gradients lean a little against the velocity: along the steepest directions, steps go past the bottom, which "
            "is usual at a learning rate that is large and serves." + longer + _ASK_COMPARE
        )
    else:
        verdict, answer = (
            "no",
            "Momentum fights the gradient: the velocity mostly points uphill by the time that the next gradient is known. "
            "Try a lower momentum, or a smaller learning rate.",
        )
    return verdict, answer, tuple(numbers)


OSCILLATING = (
    f"Yes where gradient and velocity oppose each other (cosine below {OPPOSED}) in at least {SWINGING:.0%} of the recorded "
    f"steps and the loss rises from one to the next in as many, or where they oppose each other in at least {MOSTLY:.0%}; no "
    f"where they do in less than {STEADY:.0%} of the steps."
)


def oscillating(run: Recorded) -> Answer:
    """Is it oscillating?"""
    cosine = known(run.steps["cosine"])
    if not len(cosine):
        return _NO_VELOCITY
    opposed = float((cosine < OPPOSED).mean())
    rises = float((run.steps["loss"][1:] > run.steps["loss"][:-1]).mean())
    numbers = (
        (f"steps with a cosine below {OPPOSED}", f"{opposed:.0%} of {len(cosine)}"),
        ("recorded steps at which the loss rose", f"{rises:.0%}"),
    )
    if opposed < STEADY:
        return "no", "Gradient and velocity hardly ever oppose each other.", numbers
    if opposed >= MOSTLY or (opposed >= SWINGING and rises >= SWINGING):
        return (
            "yes",
            "The weights swing: they pass the bottom, and the gradient turns against the velocity, again and again. "
            "A lower momentum damps it, and so does a smaller learning rate.",
            numbers,
        )
    return "can't tell", "Gradient and velocity oppose each other now and then; the loss does not show a steady swing.", numbers


SATURATED = (
    f"|step| / (lr |g| / (1 - m)), the median over the second half of the run: yes from {FULL} on, where 1 is a gradient that "
    f"does not change; no below."
)


def saturated(run: Recorded) -> Answer:
    """Is the velocity saturated?"""
    config = run.environment["optimizer"]
    if not is_a_sum(config):
        return "can't tell", "The steps of this optimizer are no plain sum of the recorded gradients with one momentum.", ()
    second = half(run.steps, 1)
    if not np.all(second["momentum"] > 0):
        return _NO_VELOCITY
    full = median(fullness(second))
    noise = median(fullness_of_noise(second["momentum"], nesterov=config["nesterov"]))
    numbers = (("|step| / (lr |g| / (1 - m))", f"{full:.3g}"), ("the same of gradients that are noise", f"{noise:.3g}"))
    if full >= FULL:
        return (
            "yes",
            "The gradient hardly changes over the memory of the velocity, so steps are about as long as they can get, and "
            "momentum acts as a learning rate of lr / (1 - m). More momentum or a larger learning rate may go faster.",
            numbers,
        )
    if full <= NOISE * noise:
        return "no", "Steps are no longer than gradients without a common direction would make them, or hardly.", numbers
    return (
        "no",
        "Gradients share a direction in part: steps are longer than noise would give, and shorter than the longest.",
        numbers,
    )
