"""compare.html: runs on one page."""

import os
from collections.abc import Iterator
from html import escape
from pathlib import Path

import numpy as np
import plotly.graph_objects as go

from polyak.compare.result import Comparison, curve, number
from polyak.report.charts import Chart, lay_out, style
from polyak.report.figures import is_share
from polyak.report.html import charts, document, facts, section, table
from polyak.report.measures import Series
from polyak.report.recorded import Recorded
from polyak.report.recursion import recursion


def page(found: Comparison, folder: Path) -> str:
    """The page as HTML.

    Args:
        found: What it shows.
        folder: Where it will be, for the links to the reports of the runs.
    """
    first = found.runs[0]
    title = f"{first.environment.get('task', 'runs')}: {', '.join(group.name for group in found.groups)}"
    about = "Means over the seeds, +- their standard deviation."
    if found.goal and found.goal.chosen:
        about += " The goal is the hardest that every run reached."
    said = "".join(f"<li>{escape(sentence)}</li>" for sentence in found.said) or "<li>One group: nothing to compare.</li>"
    rule = (
        "Each is compared with the one of the best mean, by the 95 % interval of Welch's t test for all differences together "
        "(Bonferroni). Which one is best was seen first, so a difference from it is likelier to be found than one that was "
        "expected. With few seeds the spread itself is hardly known, and the intervals are wide."
    )
    parts = [
        f"<header>\n<h1>{escape(title)}</h1>\n</header>",
        "<main>",
        section("Results", f"{table(*found.table())}\n<p>{escape(about)}</p>"),
        section("Differences", f"<ul>{said}</ul>\n<details><summary>How this is told</summary><p>{escape(rule)}</p></details>"),
        section("Curves", charts(_curves(found), "curve")),
        section("Optimizers", _optimizers(found)),
        section("Runs", _runs(found, folder)),
        "</main>",
    ]
    return document(title, "\n".join(parts))


def _curves(found: Comparison) -> Iterator[Chart]:
    """Training loss and the main metric on the validation data, over steps and over seconds."""
    first = found.runs[0]
    main = first.main
    for column in ("loss", f"val_{main}" if main else "val_loss"):
        if not any(len(run.epochs.get(column, ())) for run in found.runs):
            continue
        for axis in ("steps", "seconds"):
            yield _chart(found, column, axis)


def _chart(found: Comparison, column: str, axis: str) -> Chart:
    name = column.replace("val_", "validation ")
    figure = go.Figure()
    ends = []
    for i, group in enumerate(found.groups):
        steps, seconds, values = curve(group, column)
        x = steps if axis == "steps" else seconds
        known = np.isfinite(values).any(axis=0) & np.isfinite(x)
        if not known.any():
            continue
        x, values = x[known], values[:, known].astype(np.float32)
        low, high = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
        if len(group.runs) > 1:
            figure.add_trace(_band(i, x, low, high))
        mean = np.nanmean(values, axis=0)
        figure.add_trace(go.Scatter(x=x, y=mean, name=group.name, mode="lines+markers" if len(x) < 20 else "lines", **style(i)))
        ends.append(f"{group.name} ends at {number(found.runs[0], name.removeprefix('validation '))(mean[-1])}")
    lay_out(figure, axis, name, log=column.endswith("loss"))
    if is_share(found.runs[0], column.removeprefix("val_")):
        figure.update_yaxes(tickformat=".0%")
    caption = f"After each epoch, the mean over the seeds; the band goes from the smallest to the largest. {'; '.join(ends)}."
    return Chart(f"{name.capitalize()} against {axis}", caption, figure)


def _band(i: int, x: Series, low: Series, high: Series) -> go.Scatter:
    return go.Scatter(
        x=np.concatenate([x, x[::-1]]),
        y=np.concatenate([high, low[::-1]]),
        meta=style(i)["meta"],
        fill="toself",
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        showlegend=False,
    )


def _optimizers(found: Comparison) -> str:
    texts = [f"<h3>{escape(g.name)}</h3>\n<pre>{escape(chr(10).join(_recursion(g.runs[0])))}</pre>" for g in found.groups]
    return "\n".join(texts)


def _recursion(run: Recorded) -> list[str]:
    return recursion(run.environment["optimizer"])


def _runs(found: Comparison, folder: Path) -> str:
    """A line a run, with a link to its own page where it has one."""
    items = []
    for group in found.groups:
        for run in group.runs:
            text = escape(f"{group.name}, seed {run.options.get('seed', 0)}: {run.result.get('status', 'not ended')}")
            if (run.folder / "report.html").exists():
                link = os.path.relpath((run.folder / "report.html").resolve(), folder.resolve())
                text += f', <a href="{escape(Path(link).as_posix())}">report</a>'
            items.append(f"<li>{text}</li>")
    about = facts(
        [
            ("Backend", str(found.runs[0].environment.get("backend", ""))),
            ("Model", str(found.runs[0].environment.get("model", ""))),
        ]
    )
    return f"{about}\n<ul>{''.join(items)}</ul>"
