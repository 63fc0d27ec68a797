"""The picture of an identity: the steps after one gradient, and how much of each frequency gets through."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from polyak.check.identity import Identity
from polyak.check.response import impulse, is_known, measured, transfer, transform
from polyak.check.trial import Array
from polyak.schedules.drawing import empty, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from polyak.check.report import Report

# Blue and orange of M. Okabe, K. Ito, "Color universal design", 2008: told apart with any kind of colour vision. One is marks
# and one a line, for a picture printed in grey.
_MEASURED: dict[str, Any] = {"color": "#0072B2", "marker": "o", "markersize": 5, "fillstyle": "none", "linestyle": "none"}
_RECURRENCE: dict[str, Any] = {"color": "#D55E00", "linestyle": "-", "label": "recurrence"}

# Cycles a step. At the highest, gradients change their sign at each step; the lowest is beyond what a usual momentum remembers.
_LOWEST, _HIGHEST = 1e-3, 0.5
_MARKS = 50


def plot(report: "Report", path: str | Path | None = None) -> "Figure":
    """Draw the impulse response and the frequency response: what was measured, and the recurrence that was identified.

    On the left are the steps after one gradient of 1. On the right is the gain: how large the steps are for gradients that
    swing between 1 and -1 with a frequency. To the left it levels out at the effective learning rate, that of gradient descent
    with steps as long.

    Args:
        report: What `check` returned.
        path: A file to write, such as a .png, .svg or .pdf. It takes the place of another when it is complete.

    Returns:
        The matplotlib figure, which a notebook shows.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: There is no impulse response to draw, or the path is of a format that matplotlib does not write.
        Refused: The optimizer does not make as many steps as the picture needs.

    Example:
        >>> figure = plot(check("torch.optim:SGD", lr=0.1, momentum=0.9))
    """
    identity = report.identity
    if not len(identity.impulse):
        raise ValueError(f"there is no impulse response to draw: what was measured is {identity.kind}.")
    figure = empty(10, 4.5)
    left, right = figure.subplots(1, 2)
    found = measured(report.subject, identity)
    _impulse(left, identity, found)
    _gain(right, identity, found)
    figure.suptitle(report.title, wrap=True)
    if path is not None:
        save(figure, Path(path))
    return figure


def _impulse(axes: "Axes", identity: Identity, found: Array) -> None:
    steps = np.arange(len(found))
    axes.plot(steps, found, label="measured", markevery=math.ceil(len(steps) / _MARKS), **_MEASURED)
    if is_known(identity):
        axes.plot(steps, impulse(identity, len(steps)), **_RECURRENCE)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xlabel("steps since a gradient of 1")
    axes.set_ylabel("size of the step")
    axes.grid(alpha=0.3)
    axes.legend()


def _gain(axes: "Axes", identity: Identity, found: Array) -> None:
    axes.set_xlabel("frequency of the gradient, in cycles a step")
    axes.set_ylabel("gain: size of the step / size of the gradient")
    if not is_known(identity):
        axes.text(0.5, 0.5, f"no frequency response:\n{identity.kind}, not linear", ha="center", va="center")
        axes.set(xticks=[], yticks=[])
        return
    few, many = (np.geomspace(_LOWEST, _HIGHEST, points) for points in (_MARKS, 500))
    axes.plot(few, abs(transform(found, few)), label=f"measured, {len(found)} steps", **_MEASURED)
    axes.plot(many, abs(transfer(identity, many)), **_RECURRENCE)
    axes.set(xscale="log", yscale="log")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
