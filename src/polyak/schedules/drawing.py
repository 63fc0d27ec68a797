"""Pictures of schedules."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from polyak.schedules.lines import OneCycle
from polyak.schedules.schedule import checked_steps

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Drawable = Callable[[int], Any] | OneCycle

# About as many points as the picture has columns.
_POINTS = 2000
# Of M. Okabe, K. Ito, "Color universal design", 2008: told apart with any kind of colour vision. The dashes differ too, for a
# picture printed in grey.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES = ("-", "--", "-.", ":")


def plot(*schedules: Drawable, steps: int, path: str | Path | None = None, **named: Drawable) -> "Figure":
    """Draw schedules over the steps.

    Args:
        *schedules: Schedules, any other functions of the step, or what `one_cycle` returns, whose momentum is drawn below.
        steps: The last step that is drawn; the first is 0.
        path: A file to write, such as a .png, .svg or .pdf. It takes the place of another when it is complete.
        **named: Schedules with names for the picture, which otherwise shows their `repr`.

    Returns:
        The matplotlib figure, which a notebook shows.

    Raises:
        ImportError: matplotlib is not installed.
        TypeError: No schedule, one that cannot be called, or steps that is no int.
        ValueError: steps out of range, or a path of a format that matplotlib does not write.

    Example:
        >>> from polyak.schedules import cosine, linear
        >>> figure = plot(cosine(0.1, 1000, warmup=100), line=linear(0.1, 0.0, 1000), steps=1100)
    """
    last = checked_steps("steps", steps)
    panels = _panels([(repr(each), each) for each in schedules] + list(named.items()))
    figure = empty(10, 1 + 3.5 * len(panels))
    at = np.unique(np.linspace(0, last, _POINTS).astype(int))
    for axes, (title, lines) in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels.items(), strict=True):
        for i, (label, schedule) in enumerate(lines):
            style = {"color": _COLOURS[i % len(_COLOURS)], "linestyle": _DASHES[i % len(_DASHES)]}
            axes.plot(at, [float(schedule(int(t))) for t in at], label=label, drawstyle="steps-post", **style)
        axes.set_xlabel("step")
        axes.set_ylabel(title)
        axes.set_ylim(0, 1.05 * axes.dataLim.y1 or 1)
        axes.grid(alpha=0.3)
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.15), frameon=False)  # below: labels are long, and lines anywhere
    if path is not None:
        save(figure, Path(path))
    return figure


def _panels(labelled: list[tuple[str, Drawable]]) -> dict[str, list[tuple[str, Callable[[int], Any]]]]:
    """Labels and functions by the axes that they share: learning rate and momentum of a cycle have another scale."""
    if not labelled:
        raise TypeError("plot needs at least one schedule, such as polyak.schedules.linear(0.1, 0.0, 1000).")
    panels: dict[str, list[tuple[str, Callable[[int], Any]]]] = {}
    for label, each in labelled:
        if isinstance(each, OneCycle):
            name = "one_cycle" if label == repr(each) else label
            panels.setdefault("value", []).append((f"{name}, learning rate", each.learning_rate))
            panels.setdefault("momentum", []).append((f"{name}, momentum", each.momentum))
        elif callable(each):
            panels.setdefault("value", []).append((label, each))
        else:
            raise TypeError(
                f"plot draws schedules, which are functions of the step; got {label} of type {type(each).__name__}."
            )
    return panels


def empty(width: float, height: float) -> "Figure":
    """A figure without axes, of a size in inches.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        logging.getLogger("matplotlib").setLevel(
            logging.ERROR
        )  # "building the font cache", where it is used for the first time
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plot draws with matplotlib, which is not installed: pip install 'polyak[train]'") from error
    # Without pyplot: no window system is looked for, and no state is left behind.
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: "Figure", path: Path) -> None:
    """Write a figure to a file, which takes the place of another when it is complete."""
    from polyak.state.writing import replaced

    with replaced(path) as file:
        figure.savefig(file, format=path.suffix.removeprefix(".") or "png")
