"""What all charts have in common: a Plotly figure with a title and a caption, without colours of its own.

A line says which of the page's colours it has by a number in `meta`; the page gives it the one for a light or a dark
background. Lines differ in their dashes as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import plotly.graph_objects as go

from polyak.report.measures import Series
from polyak.report.thinning import condensed, thinned

DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
MARKS = ("circle", "square", "diamond", "cross", "x")
FEW = 30
"""Fewer points than these are marked, since there may be a long way from one to the next."""
COLOURS = 5
"""Of lines, in page.js."""


def style(i: int) -> dict[str, Any]:
    """What tells line `i` from the others: a colour, dashes and marks. The first 25 differ."""
    look = (i + i // COLOURS) % len(DASHES)
    return {"meta": i % COLOURS, "line": {"dash": DASHES[look], "width": 2}, "marker": {"symbol": MARKS[look]}}


@dataclass(frozen=True)
class Chart:
    """A chart of a page.

    Attributes:
        title: Above it.
        caption: Below it: what it shows, in words and numbers, also for who cannot see it.
        figure: The chart.
        wide: Takes the width of the page.
    """

    title: str
    caption: str
    figure: go.Figure
    wide: bool = False


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Attributes:
        name: In the legend.
        x, y: Shape (n,). What is not finite is a gap.
        marks: Whether its points are marked, of which there may be many; `FEW` are in any case.
    """

    name: str
    x: Series
    y: Series
    marks: bool = False


def lines(
    title: str, about: str, drawn: Sequence[Line], y: str, *, x: str = "step", log: bool = False, percent: bool = False
) -> Chart:
    """A chart of lines.

    Args:
        title: Of the chart.
        about: The first sentence of its caption.
        drawn: Of each, no more points are drawn than `polyak.report.thinning.POINTS`.
        y: Title of its axis.
        x: Likewise.
        log: Whether y is logarithmic, if nothing is below 0 and it spans more than a factor of 5.
        percent: Whether y is a share.
    """
    figure = go.Figure()
    drawn = [replace(line, y=np.where(np.abs(line.y) < np.finfo(np.float32).max, line.y, np.nan)) for line in drawn]
    for i, line in enumerate(drawn):
        keep = thinned(line.y)
        figure.add_trace(
            go.Scatter(
                x=line.x[keep],
                y=line.y[keep].astype(np.float32),  # what was recorded is float32; half the bytes
                name=line.name,
                mode="lines+markers" if line.marks or len(keep) < FEW else "lines",
                **style(i),
            )
        )
    lay_out(figure, x, y, log=log)
    if percent:
        figure.update_yaxes(tickformat=".0%")
    said = "; ".join(f"{line.name} {_course(line, percent=percent)}" for line in drawn)
    return Chart(title, f"{about} {said[:1].upper()}{said[1:]}.", figure)


def lay_out(figure: go.Figure, x: str, y: str, *, log: bool = False) -> None:
    """Axes and margins, the same in all charts."""
    figure.update_layout(
        template="none",
        height=320,
        margin={"l": 8, "r": 8, "t": 8, "b": 8},
        hovermode="x unified",
        showlegend=True,
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    )
    figure.update_xaxes(title=x, automargin=True, zeroline=False)
    figure.update_yaxes(title=y, automargin=True, zeroline=False)
    if log and (decades := _decades(figure)) > 0.7:  # less than a factor of 5 is easier to read on a plain axis
        # Powers of ten where there are several, else 1, 2 and 5 of each.
        ticks = {"exponentformat": "power", "dtick": 1} if decades > 1.5 else {"tickformat": "~g", "dtick": "D2"}
        figure.update_yaxes(type="log", **ticks)


def _decades(figure: go.Figure) -> float:
    """How many powers of ten a figure spans; 0 where it has no place on a logarithmic axis."""
    values = np.concatenate([np.asarray(trace.y, float) for trace in figure.data])
    values = values[np.isfinite(values)]
    above = values[values > 0]
    return float(np.log10(above.max() / above.min())) if len(above) and values.min() >= 0 else 0.0


def heat(title: str, about: str, steps: Series, names: Sequence[str], values: Series, *, log: bool) -> Chart:
    """A heat map: a row for each layer, a column for each recorded step.

    Args:
        title: Of the chart.
        about: Its caption.
        steps: Shape (n,).
        names: Of the rows.
        values: Shape (rows, n). With `log` numbers above 0, drawn by their order of magnitude, else from -1 to 1.
        log: Whether the colours are of log10.
    """
    if log:
        with np.errstate(divide="ignore", invalid="ignore"):
            values = np.where(values > 0, np.log10(values), np.nan)
    at, values = condensed(values)
    # By place, not by name: shortened names may be equal. Their first row stands on top.
    rows = np.arange(len(names))
    figure = go.Figure(
        go.Heatmap(
            x=steps[at],
            y=rows,
            z=values.astype(np.float32),
            # Both scales can be read with any kind of colour vision: brightness goes one way, or two ways from the middle.
            colorscale="Cividis" if log else [[0, "#D55E00"], [0.5, "#F2F2F2"], [1, "#0072B2"]],
            zmin=None if log else -1,
            zmax=None if log else 1,
            hovertemplate="step %{x}, row %{y}: " + ("10^%{z:.2f}" if log else "%{z:.2f}") + "<extra></extra>",
            colorbar={
                "thickness": 12,
                "tickprefix": "10<sup>" if log else "",
                "ticksuffix": "</sup>" if log else "",
                "orientation": "h",
                "y": 1.0,
                "yanchor": "bottom",
            },
        )
    )
    lay_out(figure, "step", "")
    figure.update_layout(height=110 + max(160, min(900, 18 * len(names))), hovermode="closest")
    every = -(-len(names) // 50)  # labels that do not overlap
    figure.update_yaxes(
        autorange="reversed", tickmode="array", tickvals=rows[::every], ticktext=[*names][::every], tickfont={"size": 10}
    )
    return Chart(title, about, figure, wide=True)


def shortened(names: Sequence[str], longest: int = 24) -> list[str]:
    """Names of layers without what all of them begin with, and long ones without their middle."""
    parts = [name.split("/") for name in names]
    shared = 0
    while all(len(p) > shared + 1 for p in parts) and len({p[shared] for p in parts}) == 1:
        shared += 1
    short = ["/".join(p[shared:]) for p in parts]
    half = longest // 2 - 1
    return [name if len(name) <= longest else f"{name[:half]}...{name[-half:]}" for name in short]


def _course(line: Line, *, percent: bool) -> str:
    """A line in words."""
    known = np.flatnonzero(np.isfinite(line.y))
    if not len(known):
        return "has no numbers"
    first, last = line.y[known[0]], line.y[known[-1]]
    form = "{:.1%}" if percent else "{:.3g}"
    if first == last == line.y[known].min() == line.y[known].max():
        return f"is {form.format(first)} throughout"
    low, high = line.y[known].min(), line.y[known].max()
    return "goes from {} to {}, between {} and {}".format(*(form.format(v) for v in (first, last, low, high)))
