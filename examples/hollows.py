"""Does momentum keep a weight from getting stuck in the first hollow? On two landscapes, from descent to momentum 0.995.

Both are a wide bowl with hollows in it:

    f(w) = a |w|**2 / 2 - sum over hollows of depth * exp(-|w - centre|**2 / (2 width**2))

In one dimension there are three hollows, and the start is on the slope above the first of them. In two dimensions there are
six, and a thousand starts. In both, the hollow at 0 is the deepest. The learning rate is the same for every momentum.

    python examples/hollows.py               prints both tables; with a folder at its end, draws both pictures there too
"""

import sys
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

import polyak.numpy

Array = NDArray[np.float64]


class Landscape(NamedTuple):
    """A bowl with hollows. Points are the rows of an array."""

    bowl: float
    centres: Array
    depths: Array
    widths: Array

    def _hollows(self, w: Array) -> tuple[Array, Array]:
        apart = w[:, None] - self.centres
        return apart, self.depths * np.exp(-(apart**2).sum(-1) / (2 * self.widths**2))

    def loss(self, w: Array) -> Array:
        """One value a point."""
        return self.bowl * (w**2).sum(-1) / 2 - self._hollows(w)[1].sum(-1)

    def gradient(self, w: Array) -> Array:
        """One row a point."""
        apart, hollows = self._hollows(w)
        return self.bowl * w + (apart * (hollows / self.widths**2)[..., None]).sum(1)


LINE = Landscape(0.1, np.array([[-2.5], [0.0], [2.3]]), np.array([0.2, 0.45, 0.35]), np.array([0.4, 0.35, 0.5]))
LINE_START = np.array([[-4.0]])
PLANE = Landscape(
    0.1,
    np.array([[0.0, 0.0], [-2.4, 0.6], [1.2, 2.2], [2.4, -0.8], [-0.6, -2.4], [-1.6, 2.4]]),
    np.array([0.5, 0.25, 0.3, 0.35, 0.25, 0.2]),
    np.array([0.5, 0.45, 0.5, 0.5, 0.45, 0.4]),
)
PLANE_START = np.array([[-4.0, 1.2]])
LR = 0.05
STEPS = 4_000
MOMENTA = np.round(np.arange(0, 1, 0.005), 3)
SHOWN = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995)


def path(landscape: Landscape, start: Array, momentum: float, steps: int = STEPS) -> Array:
    """The points from each start, of shape (steps + 1, starts, dimensions)."""
    w = start.copy()
    optimizer = polyak.numpy.Momentum({"w": w}, LR, momentum)
    points = [start]
    for _ in range(steps):
        optimizer.step({"w": landscape.gradient(w)})
        points.append(w.copy())
    return np.array(points)


def end(landscape: Landscape, start: Array, momentum: float) -> Array:
    """The hollow in which each start comes to rest, by its number; -1 for one that still moves."""
    w = start.copy()
    optimizer = polyak.numpy.Momentum({"w": w}, LR, momentum)
    for _ in range(STEPS):
        optimizer.step({"w": landscape.gradient(w)})
    hollow = np.linalg.norm(w[:, None] - landscape.centres, axis=-1).argmin(-1)
    return np.where(np.linalg.norm(landscape.gradient(w), axis=-1) < 1e-3, hollow, -1)


def ranges(momenta: Array = MOMENTA) -> list[tuple[float, float, int]]:
    """On the line: from which momentum to which the weight ends in which hollow."""
    ends = [(float(m), int(end(LINE, LINE_START, m)[0])) for m in momenta]
    groups = [list(group) for _, group in groupby(ends, key=lambda pair: pair[1])]
    return [(group[0][0], group[-1][0], group[0][1]) for group in groups]


def shares(momenta: tuple[float, ...] = SHOWN, starts: int = 1_000) -> dict[float, float]:
    """On the plane: the share of starts from all over the square from -5 to 5 that end in the deepest hollow."""
    start = np.random.default_rng(0).uniform(-5, 5, (starts, 2))
    return {m: float((end(PLANE, start, m) == 0).mean()) for m in momenta}


def draw_line(picture: Path, found: list[tuple[float, float, int]]) -> None:
    """The landscape with three ways over it, and where each momentum ends."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 6), layout="constrained")
    above, below = figure.subplots(2, sharex=True, height_ratios=(2, 1))
    x = np.linspace(-4.3, 4, 500)
    above.plot(x, LINE.loss(x[:, None]), color="#777777")
    for i, (m, color, style) in enumerate(((0.0, "#000000", "o"), (0.9, "#0072B2", "s"), (0.965, "#D55E00", "D"))):
        ways = path(LINE, LINE_START, m)
        w = ways[:: 2 + 2 * i, 0][:120]
        lift = 0.03 * (i + 1)
        above.plot(
            w[:, 0], LINE.loss(w) + lift, color=color, marker=style, markersize=3, linewidth=0.5, label=f"momentum {m:g}"
        )
        above.plot(ways[-1, 0], LINE.loss(ways[-1]) + lift, color=color, marker=style, markersize=10)
    above.set_ylabel("loss (the ways are lifted a little)")
    above.legend()
    gap = 0.0025  # half the distance between two momenta
    for low, high, hollow in found:
        where = LINE.centres[hollow, 0]
        reach = [1 / (1 - max(0.0, low - gap)), 1 / (1 - high - gap)]
        color = "#0072B2" if hollow == 1 else "#D55E00"
        below.plot([where, where], reach, color=color, linewidth=8, solid_capstyle="butt")
    below.set(xlabel="w", ylabel="ends here for momentum", yscale="log")
    marks = (0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99)
    below.set_yticks([1 / (1 - m) for m in marks], [f"{m:g}" for m in marks], minor=False)
    below.minorticks_off()
    below.grid(alpha=0.3)
    figure.savefig(picture, dpi=110)


def draw_plane(picture: Path, share: dict[float, float]) -> None:
    """The landscape with three ways over it, and the share of starts that end in the deepest hollow."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.2, 1))
    x, y = np.meshgrid(np.linspace(-5, 5, 200), np.linspace(-4, 4, 160))
    loss = PLANE.loss(np.stack([x.ravel(), y.ravel()], 1)).reshape(x.shape)
    left.contourf(x, y, loss, 25, cmap="Greys_r")
    for m, color, style in ((0.0, "#E69F00", "o"), (0.9, "#56B4E9", "s"), (0.97, "#D55E00", "D")):
        w = path(PLANE, PLANE_START, m, 1_500)[:, 0]
        left.plot(w[:, 0], w[:, 1], color=color, linewidth=1.2, label=f"momentum {m:g}")
        left.plot(*w[-1], color=color, marker=style, markersize=9, markeredgecolor="black")
    left.plot(*PLANE_START[0], "k*", markersize=12, label="start")
    left.set(xlabel="w[0]", ylabel="w[1]", aspect="equal")
    left.legend(loc="upper right", fontsize="small")
    names = [f"{m:g}" for m in share]
    right.bar(names, list(share.values()), color="#0072B2")
    right.set(xlabel="momentum", ylabel="share of starts that end in the deepest hollow", ylim=(0, 1))
    right.grid(axis="y", alpha=0.3)
    figure.savefig(picture, dpi=110)


def main(arguments: list[str]) -> None:
    """Print both tables, and draw both pictures if a folder is given."""
    found, share = ranges(), shares()
    print("one dimension: from momentum, to, the weight ends at w =")
    for low, high, hollow in found:
        print(
            f"{low:>8.3f}{high:>8.3f}   {LINE.centres[hollow, 0] if hollow >= 0 else float('nan'):+.1f}"
            + "   the deepest" * (hollow == 1)
        )
    print("\ntwo dimensions: momentum, share of 1,000 starts that end in the deepest hollow")
    for m, part in share.items():
        print(f"{m:>8.3f}   {part:.1%}")
    if arguments:
        folder = Path(arguments[0])
        draw_line(folder / "hollows_line.png", found)
        draw_plane(folder / "hollows_plane.png", share)


if __name__ == "__main__":
    main(sys.argv[1:])
