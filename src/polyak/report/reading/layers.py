"""Whether a layer stands still."""

import math

import numpy as np

from polyak.report.measures import relative_step
from polyak.report.reading.statement import Answer, median
from polyak.report.recorded import Recorded

# A float32 weight does not change by less than half of its last bit, 2^-25 to 2^-24 of its size.
LAST_BIT = 2.0**-25
# Relative steps of layers differ by a factor of 10 without harm: biases and scales move more than matrices.
FAR_BEHIND = 0.01

STALLED = (
    f"The median relative step |step| / |w| of each layer over the second half of the run: a layer stalled where it is below "
    f"{LAST_BIT:.1g}, half of the last bit of a float32, or below {FAR_BEHIND:.0%} of the median of the layers."
)


def stalled(run: Recorded) -> Answer:
    """Did a layer stall?"""
    names = run.layers.get("layer")
    if names is None or not len(names):
        return "can't tell", "No layers were recorded.", ()
    late = run.layers["step"] >= np.median(run.steps["step"])
    step = relative_step(run.layers)
    medians = {str(name): median(step[late & (names == name)]) for name in dict.fromkeys(names)}
    known = {name: x for name, x in medians.items() if math.isfinite(x)}
    if not known:
        return "can't tell", "No layer has weights other than 0.", ()
    typical = float(np.median([*known.values()]))
    slow = {name: x for name, x in known.items() if x < max(LAST_BIT, FAR_BEHIND * typical)}
    numbers = (("median relative step of the layers", f"{typical:.2g}"), *((name, f"{x:.2g}") for name, x in slow.items()))
    if not slow:
        slowest = min(known, key=known.__getitem__)
        numbers = (*numbers, (f"the slowest, {slowest}", f"{known[slowest]:.2g}"))
        return "no", f"All {len(known)} layers move, the slowest by {known[slowest]:.1g} of its size a step.", numbers
    if len(slow) == len(known):
        return "yes", "No layer moves any more: steps are smaller than the last bit of the weights.", numbers
    still = [name for name in slow if median(run.layers["gradient_norm"][late & (names == name)]) == 0]
    why = f" No gradient reaches {_listed(still)}." if still else ""
    return "yes", f"{_listed([*slow])} hardly {'moves' if len(slow) == 1 else 'move'} beside the others.{why}", numbers


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
