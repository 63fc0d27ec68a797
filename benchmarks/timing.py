"""How contenders are timed, alike in all benchmarks: they take turns, and a figure is a median."""

import random
import time
from collections.abc import Callable
from statistics import median
from typing import Any

Step = Callable[[], Any]


def race(steps: dict[str, Step], rounds: int, inner: int = 1) -> dict[str, float]:
    """The median time of one step of each, in seconds.

    Args:
        steps: What is timed, by name. Each is called twice before the first round.
        rounds: How often each has its turn, in an order that changes.
        inner: How many steps a turn has, for steps that are too short to be timed alone.
    """
    for step in steps.values():
        step()
        step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    order = list(steps)
    for _ in range(rounds):
        random.shuffle(order)
        for name in order:
            start = time.perf_counter()
            for _ in range(inner):
                steps[name]()
            times[name].append((time.perf_counter() - start) / inner)
    return {name: median(each) for name, each in times.items()}
