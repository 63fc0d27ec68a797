"""How many steps do gradient descent, momentum and Nesterov take on a quadratic, against what theory says of it?

The loss is f(w) = sum(c * w**2) / 2. The curvatures c go from 1 / kappa to 1, evenly in their logarithms; kappa is the
condition number. Each method has the learning rate and the momentum with which the slowest direction shrinks fastest: in the
long run by the rate r a step:

    descent     lr = 2 / (1 + 1/kappa)                                               r = (kappa - 1) / (kappa + 1)
    momentum    lr = (2 / (1 + sqrt(1/kappa)))**2   m = r**2                         r = (sqrt(kappa) - 1) / (sqrt(kappa) + 1)
    Nesterov    lr = 4 / (3 + 1/kappa)              m = (sqrt(3 kappa + 1) - 2) / (sqrt(3 kappa + 1) + 2)
                                                                                     r = 1 - 2 / sqrt(3 kappa + 1)

Sources: B. T. Polyak, "Some methods of speeding up the convergence of iteration methods", USSR Computational Mathematics and
Mathematical Physics 4(5), 1964; L. Lessard, B. Recht, A. Packard, "Analysis and design of optimization algorithms via integral
quadratic constraints", SIAM Journal on Optimization 26(1), 2016, Proposition 1, for all three.

    python examples/faster.py               prints the table; with a path at its end, draws the picture there too
"""

import sys
from collections.abc import Callable
from math import log, sqrt
from pathlib import Path
from typing import NamedTuple

import numpy as np

import polyak.numpy

TARGET = 1e-6  # of the distance to the minimum at the start
DIRECTIONS = 50
KAPPAS = (10, 100, 1_000, 10_000)


class Setting(NamedTuple):
    """The best numbers of a method for a condition number, and the rate at which it then converges."""

    lr: float
    momentum: float
    nesterov: bool
    rate: float


def descent(kappa: float) -> Setting:
    """Gradient descent."""
    return Setting(2 / (1 + 1 / kappa), 0.0, False, (kappa - 1) / (kappa + 1))


def momentum(kappa: float) -> Setting:
    """The heavy ball. Both poles meet, so that its error is as k r**k: it takes some steps more than predicted."""
    rate = (sqrt(kappa) - 1) / (sqrt(kappa) + 1)
    return Setting((2 / (1 + sqrt(1 / kappa))) ** 2, rate**2, False, rate)


def nesterov(kappa: float) -> Setting:
    """Nesterov's momentum."""
    root = sqrt(3 * kappa + 1)
    return Setting(4 / (3 + 1 / kappa), (root - 2) / (root + 2), True, 1 - 2 / root)


METHODS: dict[str, Callable[[float], Setting]] = {"descent": descent, "momentum": momentum, "nesterov": nesterov}


def predicted(setting: Setting) -> float:
    """The steps to the target at the rate."""
    return log(TARGET) / log(setting.rate)


def measured(setting: Setting, kappa: float) -> int:
    """The steps after which the distance to the minimum stays below the target."""
    curvature = np.geomspace(1 / kappa, 1, DIRECTIONS)
    w = np.ones(DIRECTIONS)
    optimizer = polyak.numpy.Momentum({"w": w}, setting.lr, setting.momentum, nesterov=setting.nesterov)
    enough = int(3 * predicted(setting)) + 100
    above = 0
    for step in range(1, enough + 1):
        optimizer.step({"w": curvature * w})
        if np.linalg.norm(w) > TARGET * sqrt(DIRECTIONS):
            above = step
    if above == enough:
        raise RuntimeError(f"{setting} did not reach {TARGET} on kappa {kappa} in {enough} steps.")
    return above + 1


def table() -> list[tuple[int, dict[str, tuple[int, float]]]]:
    """For each condition number and method the steps: measured, predicted."""
    return [
        (kappa, {name: (measured(best(kappa), kappa), predicted(best(kappa))) for name, best in METHODS.items()})
        for kappa in KAPPAS
    ]


def draw(rows: list[tuple[int, dict[str, tuple[int, float]]]], path: Path) -> None:
    """Points for what was measured, lines for theory."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    fine = np.geomspace(KAPPAS[0], KAPPAS[-1], 100)
    for (name, best), color, marker in zip(METHODS.items(), ("#000000", "#0072B2", "#D55E00"), "osD", strict=True):
        axes.plot(fine, [predicted(best(kappa)) for kappa in fine], color=color, label=f"{name}: theory")
        points = [steps[name][0] for _, steps in rows]
        axes.plot([kappa for kappa, _ in rows], points, color=color, marker=marker, linestyle="", label=f"{name}: measured")
    axes.set(xscale="log", yscale="log", xlabel="condition number", ylabel=f"steps to {TARGET:g} of the distance at the start")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110)


def main(arguments: list[str]) -> None:
    """Print the table, and draw it if a path is given."""
    rows = table()
    print(f"steps to {TARGET:g} of the distance at the start, measured (predicted)")
    print(f"{'kappa':>7}" + "".join(f"{name:>20}" for name in METHODS) + f"{'descent / momentum':>22}")
    for kappa, steps in rows:
        cells = "".join(f"{f'{n:,} ({p:,.0f})':>20}" for n, p in steps.values())
        print(f"{kappa:>7,}{cells}{steps['descent'][0] / steps['momentum'][0]:>22.1f}")
    if arguments:
        draw(rows, Path(arguments[0]))


if __name__ == "__main__":
    main(sys.argv[1:])
